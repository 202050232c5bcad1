"""Training that holds the importance of a word and of what replaces it together (FLAT, Chen & Ji 2022)."""

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import PromptError
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.memory import BUDGET
from circuits.models.weights import Weights
from circuits.progress import Progress
from circuits.uses.attributing.gradients import input_gradients
from circuits.uses.attributing.replacing import MOST_WORDS, attacked
from circuits.uses.attributing.synonyms import Synonyms
from circuits.uses.classifying.classifier import Classifier
from circuits.uses.classifying.examples import Examples
from circuits.uses.classifying.training import Recipe, train_all
from circuits.uses.classifying.words import SpeltText, spelt_texts, word_sums

STRENGTH = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class FlatPenalty:
    """What FLAT adds to a batch's loss: cross-entropy (nats) on the texts with replaced words, and `strength` times the mean
    over these words of |importance of the word - importance of its replacement|, for the texts' own classes. Importance is
    input times gradient, summed over a word's tokens; its gradient reaches all weights.

    In the paper importance is a learnt mask of the word, shared by all texts; here it is that of the word in its text, which
    needs no second network.
    """

    pairs: tuple[tuple[SpeltText, SpeltText], ...]
    """Of each example the text and the one with replaced words: as many words in both."""
    strength: float = STRENGTH

    def __call__(
        self, weights: Weights, tokens: TokenBatch, labels: Int[Tensor, " text"], places: Int[Tensor, " text"]
    ) -> Float[Tensor, ""]:
        """The penalty of a batch; 0 where none of its texts has a replaced word."""
        chosen = [self.pairs[place] for place in places.tolist()]
        rows = [row for row, (one, other) in enumerate(chosen) if one.words != other.words]
        if not rows:
            return weights.W_E.new_zeros(())
        ours, theirs = ([chosen[row][side] for row in rows] for side in (0, 1))
        some = TokenBatch.from_rows([list(one.ids) for one in theirs]).to(tokens.ids.device)
        logits = forward(weights, some, keep="logits", columns=some.last).logits[:, 0]
        loss = F.cross_entropy(logits, labels[rows])
        if not self.strength:
            return loss
        own = word_sums(input_gradients(weights, tokens[rows], labels[rows], baseline="mean", graph=True), ours)
        new = word_sums(input_gradients(weights, some, labels[rows], baseline="mean", graph=True), theirs)
        replaced = torch.zeros(own.shape, dtype=torch.bool, device=own.device)
        for row, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            for place, pair in enumerate(zip(one.words, other.words, strict=True)):
                replaced[row, place] = pair[0] != pair[1]
        return loss + self.strength * (own - new)[replaced].abs().mean()


def flat_penalty(reader: Classifier, texts: Sequence[str], others: Sequence[str], *, strength: float = STRENGTH) -> FlatPenalty:
    """The penalty of training texts and what replaced words make of them. Raises PromptError where a pair differs in its number
    of words.

    Args:
        reader: a classifier that reads texts as the one that is trained.
        texts: the training texts.
        others: each with some words replaced, or as it is.
        strength: of the importances beside the cross-entropy.
    """
    if len(texts) != len(others) or not 0 <= strength < float("inf"):
        raise PromptError(f"{len(texts)} texts, {len(others)} others, strength {strength}: expected as many, and 0 or more")
    pairs = tuple(zip(spelt_texts(reader, texts), spelt_texts(reader, others), strict=True))
    odd = next((place for place, (one, other) in enumerate(pairs) if len(one.words) != len(other.words)), None)
    if odd is not None:
        raise PromptError(f"text {odd} has {len(pairs[odd][0].words)} words, its other one {len(pairs[odd][1].words)}")
    return FlatPenalty(pairs, strength)


def attacked_texts(
    plain: Classifier,
    texts: Sequence[str],
    synonyms: Synonyms,
    *,
    most: int = MOST_WORDS,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """What a search for another answer makes of each text; a text as it is where no synonym lowers its class.

    Args:
        plain: the classifier that is attacked.
        texts: to begin with.
        synonyms: what may stand for a word.
        most: words of a text that are replaced, at most.
        budget: bytes that a pass may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    found = attacked(plain, texts, synonyms, most=most, budget=budget, progress=progress)
    made = {pair.text: pair.other for pair in found}
    return tuple(made.get(" ".join(text.split()), text) for text in texts)


def train_flat(
    base: Model,
    plain: Classifier,
    examples: Examples,
    synonyms: Synonyms,
    *,
    strength: float = STRENGTH,
    most: int = MOST_WORDS,
    others: Sequence[str] = (),
    recipe: Recipe | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Classifier:
    """All weights, trained on texts and on what a search for another answer of the plain classifier made of them, with the
    importances held together. With strength 0 nothing holds them: adversarial training alone, beside which the penalty stands.

    Args:
        base: the language model.
        plain: a classifier on it, trained without, which the search attacks.
        examples: labelled texts.
        synonyms: what may stand for a word.
        strength: of the importances beside the cross-entropy.
        most: words of a text that are replaced, at most.
        others: what the search made of each text, where that is known (`attacked_texts`).
        recipe: steps, rates and seed.
        budget: bytes that a pass of the search may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    options = {"most": most, "budget": budget, "progress": progress}
    others = others or attacked_texts(plain, examples.texts, synonyms, **options)
    penalty = flat_penalty(plain, examples.texts, others, strength=strength)
    replaced = sum(a != b for one, other in penalty.pairs for a, b in zip(one.words, other.words, strict=True))
    said = {"method": "flat", "strength": strength, "replaced": replaced}
    about = {"penalty": penalty, "penalised": said, "longest": plain.longest, "progress": progress}
    return train_all(base, examples, recipe=recipe, **about)
