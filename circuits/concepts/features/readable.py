"""What is read of a dictionary's features: where they are active, what they write, and what the model loses without them."""

import dataclasses
from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.concepts.features.dictionary import Dictionary
from circuits.concepts.features.places import FeaturePlace
from circuits.concepts.features.reports import DictionaryReport, FeatureReport
from circuits.concepts.features.standing import onward, standing, written_rows
from circuits.errors import GraphError, PromptError
from circuits.heads.text_loss import check_text, next_token_losses, predicted, text_batches
from circuits.lenses.neurons.contexts import Context
from circuits.lenses.neurons.highest import Highest
from circuits.lenses.neurons.triggers import counted_places
from circuits.lenses.readout import ends_of_tokens
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.memory import BUDGET
from circuits.models.run import Run
from circuits.models.weights import Weights
from circuits.progress import Progress, silent
from circuits.statistics import t_interval

_TINY = 1e-30
_WORDS = 5
"""Tokens of a list that each feature raises."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Read:
    """One batch of the text, as far as the dictionary, and how it goes on from what stands there."""

    tokens: TokenBatch
    run: Run
    place: FeaturePlace
    y: Float[Tensor, "prompt position width"]
    """What the dictionary takes apart."""
    z: Float[Tensor, "prompt position feature"]
    made: Float[Tensor, "prompt position width"]
    """What it makes of that."""
    there: Bool[Tensor, "prompt position"]
    """Places that count: no pads, no opening BOS."""

    def losses(self, weights: Weights, y: Float[Tensor, "prompt position width"]) -> Float[Tensor, "prompt before"]:
        """The loss of each next token with this in place of what stands there."""
        return next_token_losses(weights, onward(weights, self.run, self.place, y), self.tokens)


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
    for read in _batches(model, own, tokens, budget, progress):
        tally.add(model, own, read, mean)
    return tally.report(model, own, tokens)


def read_feature(
    model: Model,
    dictionary: Dictionary,
    feature: int,
    tokens: TokenBatch,
    *,
    at: str | None = None,
    top: int = 10,
    k: int = 10,
    before: int = 10,
    after: int = 4,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> FeatureReport:
    """One feature, read like a neuron: its triggers in a text, the tokens that it raises and lowers, and what the model loses
    when the feature's part z_f W_dec[f] is taken off what stands there, everywhere (all else stays, also what the dictionary
    does not explain). Raises GraphError for a feature or place that there is not, PromptError for numbers below 1.

    Args:
        model: the model.
        dictionary: of a place of the model.
        feature: its number.
        tokens: the text.
        at: the place, such as `m2` or `resid3` (default: the dictionary's own).
        top: triggers.
        k: tokens each way.
        before: tokens shown before a trigger.
        after: tokens shown after it.
        budget: bytes of runs that are held at once.
        progress: hears how much of the text is read.
    """
    check_text(tokens)
    own, _ = dictionary.fitting(model, at)
    if not 0 <= feature < len(own):
        raise GraphError(f"{own.name} has no feature {feature}: expected 0 to {len(own) - 1}")
    if min(top, k) < 1:
        raise PromptError(f"top={top}, k={k}: expected numbers of at least 1")
    z, change, places, here = _without(model, own, feature, _batches(model, own, tokens, budget, progress))
    by_prompt = [row[mask].mean() for row, mask in zip(change, here, strict=True) if bool(mask.any())]
    costs = torch.stack(by_prompt) if by_prompt else change.new_zeros(0)
    interval = t_interval(costs) if len(costs) > 1 else None
    everywhere = tokens.mask & counted_places(model, tokens)
    raises, lowers = (ends[0] for ends in _words(model, written_rows(model, own, [feature]), k))
    order = z.flatten().argsort(descending=True, stable=True)[:top].tolist()
    chosen = [divmod(place, z.shape[1]) for place in order if float(z.flatten()[place]) > 0]
    return FeatureReport(
        model=model.name,
        weights_sha256=model.fingerprint,
        dictionary=own.name,
        site=own.site,
        feature=feature,
        triggers=tuple(_context(model, tokens, z, prompt, position, before, after) for prompt, position in chosen),
        places=int(everywhere.sum()),
        active=float((z > 0).sum()) / max(1, int(everywhere.sum())),
        mean=float(z.sum() / (z > 0).sum().clamp(min=1)),
        norm=float(own.W_dec[feature].norm()),
        raises=raises,
        lowers=lowers,
        cost=float(costs.mean()) if len(costs) else 0.0,
        cost_low=interval.low if interval else float("nan"),
        cost_high=interval.high if interval else float("nan"),
        whole=float(change[places].mean()) if bool(places.any()) else 0.0,
        prompts=len(costs),
    )


Losses = tuple[
    Float[Tensor, "prompt position"],
    Float[Tensor, "prompt before"],
    Bool[Tensor, "prompt before"],
    Bool[Tensor, "prompt before"],
]


def _without(model: Model, own: Dictionary, feature: int, text: Iterable[_Read]) -> Losses:
    """A feature's activations, by how much each next token's loss rises without its part, which of these count, and at which of
    them the feature is active."""
    values, losses, counted, active = [], [], [], []
    for read in text:
        z = read.z[..., feature]
        without = read.losses(model.weights, read.y - z[..., None] * own.W_dec[feature])
        change = without - read.losses(model.weights, read.y)
        values.append((z * read.there).double().cpu())
        losses.append(change.double().cpu())
        counted.append((predicted(read.tokens) & read.there[:, :-1]).cpu())
        active.append(((z > 0) & read.there)[:, :-1].cpu())
    z, change, places, fires = (torch.cat(parts) for parts in (values, losses, counted, active))
    return z, change, places, fires & places


@torch.no_grad()
def _batches(model: Model, own: Dictionary, tokens: TokenBatch, budget: int, progress: Progress | None) -> Iterator[_Read]:
    batch, report, done = model.prepare(tokens), progress or silent, 0
    place, reads = FeaturePlace.parse(own.site), FeaturePlace.parse(own.reads or own.site)
    report("reading the text", 0, len(batch))
    for some in text_batches(model.weights, batch, budget=budget // 2):
        run = forward(model.weights, some, logits=False)
        y, r = standing(run, place), standing(run, reads)
        z = own.encode(r)
        yield _Read(some, run, place, y, z, own.decode(z) + own.skipped(r), counted_places(model, some))
        done += len(some)
        report("reading the text", done, len(batch))


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

    def add(self, model: Model, own: Dictionary, read: _Read, mean: Float[Tensor, " d_model"]) -> None:
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
        raises = _words(model, written_rows(model, own), _WORDS)[0]
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


def _gradient(model: Model, read: _Read) -> tuple[Float[Tensor, "prompt position d_model"], Float[Tensor, ""]]:
    """The summed loss, and its gradient by what stands there."""
    with torch.enable_grad():
        y = read.y.detach().requires_grad_()
        loss = read.losses(model.weights, y).sum()
        (gradient,) = torch.autograd.grad(loss, y)
    return gradient, loss.detach().double().cpu()


def _words(
    model: Model, rows: Float[Tensor, "feature d_model"], k: int
) -> tuple[list[tuple[tuple[str, float], ...]], list[tuple[tuple[str, float], ...]]]:
    """The tokens that each row raises and lowers most, in logits before the final norm's scale."""
    found = []
    for amounts, ids in ends_of_tokens(model, rows, k):
        words = [model.to_token_strings(row) for row in ids]
        found.append([tuple(zip(texts, row.tolist(), strict=True)) for texts, row in zip(words, amounts, strict=True)])
    return found[0], found[1]


def _context(
    model: Model,
    tokens: TokenBatch,
    z: Float[Tensor, "prompt position"],
    prompt: int,
    position: int,
    before: int,
    after: int,
) -> Context:
    """A place with the tokens around it."""
    mask = tokens.mask[prompt].cpu()
    columns = [c for c in range(position - before, position + after + 1) if 0 <= c < len(mask) and mask[c]]
    words = tuple(model.to_token_strings(tokens.ids[prompt, columns]))
    follows = position + 1 < len(mask) and bool(mask[position + 1])
    following = model.to_token_strings(tokens.ids[prompt, [position + 1]])[0] if follows else None
    values = tuple(z[prompt, columns].tolist())
    return Context(float(z[prompt, position]), prompt, position, words, columns.index(position), values, following)
