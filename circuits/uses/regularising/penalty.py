"""Explanation regularisation: training that is also held to what people say of words."""

import dataclasses
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import PromptError
from circuits.models import Model, TokenBatch
from circuits.models.weights import Weights
from circuits.progress import Progress
from circuits.uses.classifying.classifier import LONGEST, Classifier
from circuits.uses.classifying.examples import Examples
from circuits.uses.classifying.training import Recipe, Trained, checked_start, train_all
from circuits.uses.regularising.distances import DISTANCES, distance_of
from circuits.uses.regularising.guidance import Guidance, Wishes
from circuits.uses.regularising.rationales import RATIONALES, REMOVAL, STREAMS, RationaleHead, removal_effects, token_shares

STRENGTH, STRENGTH_OF_SHARES = 1.0, 10.0
"""Of removal, in nats² of the margin, and of rationales that are shares; tried on planted texts of another seed than those of
`experiments/shortcuts.py`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regularisation:
    """What is added to the loss: `strength` times the `distance` of a machine `rationale` from the human one; with the
    rationale "removal" times the mean square (nats²) of what all unwanted words together do to the margin. A gradient says
    this to first order alone: trainings that satisfy its penalty can lean on a word as before. A learned rationale is a small
    head on the last stream that is trained to say what people say: nothing ties it to the prediction, it reaches the weights
    through what tokens mean alone, and it is not kept. Raises PromptError for what does not exist."""

    rationale: str = REMOVAL
    distance: str = "mse"
    strength: float = STRENGTH

    def __post_init__(self) -> None:
        for name, known in (("rationale", (*RATIONALES, REMOVAL)), ("distance", tuple(DISTANCES))):
            if getattr(self, name) not in known:
                raise PromptError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(known)}")
        if self.rationale == REMOVAL and self.distance != "mse":
            raise PromptError(f"distance {self.distance!r} of removal: expected mse, in nats²")
        if not 0 <= self.strength < float("inf"):
            raise PromptError(f"strength={self.strength}: expected a number from 0 on")

    @classmethod
    def usual(cls, rationale: str = REMOVAL, distance: str = "mse", strength: float | None = None) -> "Regularisation":
        """One whose strength, unless it is given, is the rationale's usual one."""
        own = STRENGTH if rationale == REMOVAL else STRENGTH_OF_SHARES
        return cls(rationale=rationale, distance=distance, strength=own if strength is None else strength)

    def check_reach(self, only: Trained) -> None:
        """Raise PromptError where the penalty has no gradient by what is trained: patterns and streams do not hang on a head,
        so that training a head alone would be plain training."""
        if only == "head" and self.rationale in STREAMS:
            raise PromptError(
                f"the rationale {self.rationale!r} does not hang on the head: train all weights, or take gradient or removal"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class RationalePenalty:
    """The penalty of a batch, as `train_all` takes it: differentiable by every weight that the rationale hangs on."""

    guidance: Guidance
    how: Regularisation
    scorer: RationaleHead | None = None

    def __call__(
        self, weights: Weights, tokens: TokenBatch, labels: Int[Tensor, " text"], places: Int[Tensor, " text"]
    ) -> Float[Tensor, ""]:
        target = self.guidance.target(places, tokens.ids.shape[1])
        if not bool(target.any.any()):
            return weights.W_E.new_zeros(())
        if self.how.rationale == REMOVAL:
            fall = removal_effects(weights, tokens, labels, target.judged & ~target.wanted)
            return self.how.strength * (fall.square() * target.any).sum() / target.any.sum()
        how: Any = self.how.rationale
        shares = token_shares(weights, tokens, labels, target.words, how, self.scorer)
        return self.how.strength * distance_of(shares, target, self.how.distance)


def train_regularised(
    base: Model,
    examples: Examples,
    wishes: Wishes,
    *,
    how: Regularisation | None = None,
    recipe: Recipe | None = None,
    only: Trained = "all",
    longest: int = LONGEST,
    progress: Progress | None = None,
) -> Classifier:
    """Train on the mean cross-entropy plus a penalty for going by other words than people want (Joshi et al. 2022).

    Raises PromptError where nothing is said of any word, for removal where none is unwanted, for a head with a rationale that
    it does not change (attention, learned), and what `train_all` raises.

    Args:
        base: the language model.
        examples: labelled texts.
        wishes: of each text, words that should matter and words that should not (`wishes_of` reads rationales).
        how: the rationale, the distance and the strength.
        recipe: steps, rates and seed.
        only: "all" weights, or the "head" alone.
        longest: tokens that are read of a text, at most.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    how = how or Regularisation()
    how.check_reach(only)
    start = checked_start(base, examples, longest)
    scorer = RationaleHead.of(base.weights) if how.rationale == "learned" else None
    guidance = Guidance.of(start, examples.texts, wishes)
    if how.rationale == REMOVAL and not bool((guidance.judged & ~guidance.wanted).any()):
        raise PromptError(
            "no word that the classifier reads is unwanted: removal has nothing to hold it to; say which should not matter, or "
            "take the rationale gradient"
        )
    penalty = RationalePenalty(guidance, how, scorer)
    said = dataclasses.asdict(how)
    options = {"recipe": recipe, "only": only, "longest": longest, "progress": progress}
    return train_all(base, examples, penalty=penalty, penalised=said, **options)
