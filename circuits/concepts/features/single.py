"""One feature of a dictionary, read like a neuron: its triggers, what it raises, and what the model loses without it."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.concepts.features.dictionary import Dictionary
from circuits.concepts.features.reports import FeatureReport
from circuits.concepts.features.standing import written_rows
from circuits.concepts.features.texts import FeaturesRead, end_words, features_read
from circuits.errors import GraphError, PromptError
from circuits.heads.text_loss import check_text, predicted
from circuits.lenses.neurons.contexts import Context
from circuits.lenses.neurons.triggers import counted_places
from circuits.models import Model, TokenBatch
from circuits.models.memory import BUDGET
from circuits.progress import Progress
from circuits.statistics import t_interval


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
    z, change, places, here = _without(model, own, feature, features_read(model, own, tokens, budget, progress))
    by_prompt = [row[mask].mean() for row, mask in zip(change, here, strict=True) if bool(mask.any())]
    costs = torch.stack(by_prompt) if by_prompt else change.new_zeros(0)
    interval = t_interval(costs) if len(costs) > 1 else None
    everywhere = tokens.mask & counted_places(model, tokens)
    raises, lowers = (ends[0] for ends in end_words(model, written_rows(model, own, [feature]), k))
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


def _without(model: Model, own: Dictionary, feature: int, text: Iterable[FeaturesRead]) -> Losses:
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
