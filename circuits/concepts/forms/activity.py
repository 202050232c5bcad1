"""Where neurons are active: their activations at the words of a text, made into masks."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.concepts.forms.units import Units
from circuits.errors import CircuitsError, MemoryBudgetError, NonFiniteError
from circuits.graph import Node
from circuits.lenses.neurons.activations import neuron_layers
from circuits.models import Model, TokenBatch
from circuits.models.memory import BUDGET
from circuits.progress import Progress, silent

SHARE = 0.005
"""The share of words at which a neuron counts as active, those of its largest activations (Bau et al. 2017)."""
_LARGEST = 2**31
"""Bytes of activations, at most: they are held until the largest are known."""


@dataclasses.dataclass(frozen=True, eq=False)
class Activity:
    """Neurons in the order of computation, and the words at which each is active."""

    neurons: tuple[Node, ...]
    masks: Bool[Tensor, "neuron unit"]
    mean: Float[Tensor, " neuron"]
    """The mean activation over the words."""
    silent: tuple[str, ...]
    """Neurons that are active at none of the words, or at all, which are left out."""
    rule: str
    """Where a neuron counts as active, in words."""


@torch.no_grad()
def read_activity(
    model: Model,
    units: Units,
    chosen: Mapping[int, Sequence[int]],
    *,
    share: float = SHARE,
    above: float | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Activity:
    """Where the chosen neurons (layer → indices) are active: `above` a number, or at the `share` of words with the largest
    activations; of words that share the last of these, none. Raises MemoryBudgetError for more activations than 2 GiB,
    NonFiniteError for one that is no number, CircuitsError where no neuron is ever active."""
    count, report = sum(map(len, chosen.values())), progress or silent
    if 4 * count * len(units) > _LARGEST:
        raise MemoryBudgetError(
            f"{count:,} neurons at {len(units):,} words are more than {_LARGEST // 2**30} GiB: ask for fewer, or less text"
        )
    kind = torch.float64 if model.dtype == torch.float64 else torch.float32
    found = {layer: torch.zeros(len(units), len(indices), dtype=kind) for layer, indices in chosen.items()}
    done = 0
    for rows in _batches(units, budget // (8 * (model.d_mlp + 4 * model.d_model) * model.weights.W_E.element_size())):
        tokens = model.prepare(TokenBatch.from_rows([list(units.rows[row]) for row in rows]))
        place = torch.full((len(units.rows),), -1)
        place[rows] = torch.arange(len(rows))
        there = (place[units.row] >= 0).nonzero()[:, 0]
        at = (place[units.row[there]], units.column[there])
        for layer, values in neuron_layers(model.weights, tokens, last=max(chosen)):
            if layer in chosen:
                found[layer][there] = values[at][:, list(chosen[layer])].to("cpu", kind)
        done += len(rows)
        report("reading the text", done, len(units.rows))
    nodes = [Node("neuron", layer, index) for layer, indices in chosen.items() for index in indices]
    for layer, values in found.items():
        if not bool(values.isfinite().all()):
            raise NonFiniteError(f"the activations of m{layer} hold NaN or infinity: try --dtype float32")
    masks = torch.cat([active(values, share=share, above=above) for values in found.values()])
    means, told = torch.cat([values.double().mean(dim=0) for values in found.values()]), masks.any(dim=1) & ~masks.all(dim=1)
    if not bool(told.any()):
        named = f"{nodes[0]} is" if len(nodes) == 1 else f"all of {len(nodes):,} neurons are"
        raise CircuitsError(f"{named} active at none of {len(units):,} {units.kind}, or at all of them: no form to search for")
    kept = tuple(node for node, there in zip(nodes, told.tolist(), strict=True) if there)
    unmoved = tuple(str(node) for node, there in zip(nodes, told.tolist(), strict=True) if not there)
    rule = f"the top {share:.3g} of {units.kind}" if above is None else f"activations above {above:g}"
    return Activity(kept, masks[told], means[told], unmoved, rule)


def active(values: Float[Tensor, "unit neuron"], *, share: float, above: float | None) -> Bool[Tensor, "neuron unit"]:
    """Activations as masks; see `read_activity`. Raises CircuitsError for a share that is none."""
    if above is not None:
        return (values > above).T.contiguous()
    count = math.ceil(share * len(values))
    if not 0 < share < 1 or count >= len(values):
        raise CircuitsError(f"a share of {share} of {len(values):,} words: expected one between 0 and 1")
    # Strictly above the next smaller one: where many words share it, as with the 0 of ReLU, none of them is active.
    return (values > values.topk(count + 1, dim=0).values[-1]).T.contiguous()


def _batches(units: Units, most: int) -> list[list[int]]:
    """Rows of similar length, together up to `most` tokens with their pads."""
    order = sorted(range(len(units.rows)), key=lambda row: (len(units.rows[row]), row))
    found: list[list[int]] = [[]]
    for row in order:
        if found[-1] and (len(found[-1]) + 1) * len(units.rows[row]) > most:
            found.append([])
        found[-1].append(row)
    return found
