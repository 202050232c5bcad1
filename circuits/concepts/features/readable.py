"""What is read of all of a dictionary's features: where they are active, what they write, and what the model loses without."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.concepts.features.dictionary import Dictionary
from circuits.concepts.features.reports import DictionaryReport
from circuits.concepts.features.standing import written_rows
from circuits.concepts.features.texts import FeaturesRead, end_words, features_read
from circuits.heads.text_loss import check_text, predicted
from circuits.lenses.neurons.highest import Highest
from circuits.lenses.neurons.triggers import counted_places
from circuits.models import Model, TokenBatch
from circuits.models.memory import BUDGET
from circuits.progress import Progress

_TINY = 1e-30
_WORDS = 5
"""Tokens of a list that each feature raises."""


def read_features(
    model: Model,
    dictionary: Dictionary,
    tokens: TokenBatch,
    *,
    at: str | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> DictionaryReport:
    """How well a dictionary stands for what it takes apart (an MLP's output, say, or a residual stream), and what each of its
    features does, over a text.

    The variance there that it explains; features that are active at a token (L0); dead ones; the loss of the next token with
    the dictionary's output in place of what stands there, beside the model's own and that with the mean over the text in its
    place. Each feature: how often it is active, where most, which tokens it raises, and by how much the loss would rise
    without it, to first order from one gradient for all of them: minus the sum of z_f W_dec[f] · dL/dy, a token of the text.
    Raises GraphError for a dictionary that does not fit the model, PromptError for prompts of one token.

    Args:
        model: the model.
        dictionary: of a place of the model.
        tokens: the text.
        at: the place, such as `m2` or `resid3` (default: the dictionary's own).
        budget: bytes of runs that are held at once.
        progress: hears how much of the text is read.
    """
    check_text(tokens)
    own, _ = dictionary.fitting(model, at)
    tally = _FeatureTally.empty(len(own), model)
    mean = _mean_standing(model, tokens, own.site, budget)
    for read in features_read(model, own, tokens, budget, progress):
        tally.add(model, own, read, mean)
    return tally.report(model, own, tokens)


def _mean_standing(model: Model, tokens: TokenBatch, place: str, budget: int) -> Float[Tensor, " width"]:
    """The mean of what stands at a place over the text."""
    from circuits.concepts.features.training import standing_at

    return standing_at(model, place, tokens, budget=budget).double().mean(dim=0).to(model.dtype)


@dataclasses.dataclass(eq=False)
class _FeatureTally:
    """Sums over the text so far."""

    places: int
    left: float
    """Squared errors of the dictionary."""
    size: float
    """Squares of what stands there about its mean."""
    losses: Float[Tensor, " 3"]
    """Summed: the model's own, with the dictionary's output, with the mean."""
    predicted: int
    active: Float[Tensor, " feature"]
    total: Float[Tensor, " feature"]
    effect: Float[Tensor, " feature"]
    highest: Highest

    @classmethod
    def empty(cls, features: int, model: Model) -> "_FeatureTally":
        """Nothing yet."""
        zeros = torch.zeros(features, dtype=torch.float64)
        highest = Highest(features, 1, dtype=torch.float64, device=torch.device("cpu"))
        return cls(0, 0.0, 0.0, torch.zeros(3, dtype=torch.float64), 0, zeros.clone(), zeros.clone(), zeros.clone(), highest)

    def add(self, model: Model, own: Dictionary, read: FeaturesRead, mean: Float[Tensor, " d_model"]) -> None:
        """Take in a batch."""
        given, there = read.made, read.there
        self.left += float((read.y - given)[there].double().square().sum())
        self.size += float((read.y - mean)[there].double().square().sum())
        gradient, whole = _gradient(model, read)
        kept = torch.where(there[..., None], given, read.y)
        removed = torch.where(there[..., None], mean, read.y)
        others = [read.losses(model.weights, y).double().sum().cpu() for y in (kept, removed)]
        self.losses += torch.stack([whole, *others])
        self.predicted += int(predicted(read.tokens).sum())
        z = read.z[there].double().cpu()
        along = (gradient @ own.W_dec.T)[there].double().cpu()
        self.effect -= (z * along).sum(dim=0)
        self.active += (z > 0).double().sum(dim=0)
        self.total += z.sum(dim=0)
        self.highest.add(z, torch.arange(self.places, self.places + len(z)))
        self.places += len(z)

    def report(self, model: Model, own: Dictionary, tokens: TokenBatch) -> DictionaryReport:
        """What the sums say."""
        flat = tokens.ids.cpu()[counted_places(model, tokens).cpu()]
        words = model.to_token_strings(flat[self.highest.places[:, 0].clamp(min=0)])
        raises = end_words(model, written_rows(model, own), _WORDS)[0]
        whole, kept, removed = (self.losses / max(1, self.predicted)).tolist()
        return DictionaryReport(
            model=model.name,
            weights_sha256=model.fingerprint,
            dictionary=own.name,
            made_by=own.made_by,
            site=own.site,
            kind=own.kind,
            places=self.places,
            at_once=float(self.active.sum()) / max(1, self.places),
            explained=1 - self.left / max(self.size, _TINY),
            loss=whole,
            loss_kept=kept,
            loss_removed=removed,
            active=self.active / max(1, self.places),
            mean=self.total / self.active.clamp(min=1),
            largest=self.highest.values[:, 0].clamp(min=0),
            effect=self.effect / max(1, self.predicted),
            triggers=tuple(
                word if float(value) > 0 else "" for word, value in zip(words, self.highest.values[:, 0], strict=True)
            ),
            raises=tuple(" ".join(repr(token) for token, _ in row) for row in raises),
        )


def _gradient(model: Model, read: FeaturesRead) -> tuple[Float[Tensor, "prompt position d_model"], Float[Tensor, ""]]:
    """The summed loss, and its gradient by what stands there."""
    with torch.enable_grad():
        y = read.y.detach().requires_grad_()
        loss = read.losses(model.weights, y).sum()
        (gradient,) = torch.autograd.grad(loss, y)
    return gradient, loss.detach().double().cpu()
