"""Which places of a text each neuron answers to most: the keys of key-value memories (Geva et al. 2021)."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import MemoryBudgetError, NonFiniteError, PromptError
from circuits.graph import Node
from circuits.lenses.neurons.activations import neuron_layers
from circuits.lenses.neurons.highest import Highest
from circuits.lenses.neurons.places import Places, Triggers
from circuits.models import Model, TokenBatch
from circuits.models.choosing import Neurons, chosen_neurons
from circuits.models.memory import BUDGET
from circuits.progress import Progress, silent
from circuits.runs import shards
from circuits.tasks.sources.corpus import text_rows

_CHUNK = 2**26
"""Bytes of a batch, where the budget allows more: one layer's activations are gone through several times (sums, signs, the
largest), which is faster while they are near the processor (`mini`: four times as much takes a third more time)."""
_PROMPT = 2**32
"""A place is `prompt * _PROMPT + position`, so that places sort as they stand in the text."""


_PARTS, _BATCHES, _KEPT = 32, 8, 2**28
"""Parts of a text that are read apart, at most; batches of one, at least; bytes that are kept of all."""


@dataclasses.dataclass
class _Layer:
    """What one layer's chosen neurons have shown so far."""

    layer: int
    columns: Int[Tensor, " neuron"]
    whole: bool
    """Whether these are all neurons of the layer."""
    highest: Highest
    lowest: Highest | None
    total: Float[Tensor, " neuron"]
    active: Int[Tensor, " neuron"]

    def add(self, block: Float[Tensor, "place d_mlp"], places: Int[Tensor, " place"]) -> None:
        """Take in the activations at further places."""
        block = block if self.whole else block[:, self.columns]
        ones = block.new_ones(len(block))
        total = ones @ block
        if not bool(total.isfinite().all()):
            self._refuse(block, places)
        self.total += total.double()
        self.active += (ones @ block.sign().clamp_(min=0)).round().long()
        self.highest.add(block, places)
        if self.lowest is not None:
            self.lowest.add(-block, places)

    @property
    def nbytes(self) -> int:
        """Bytes of what it has shown."""
        kept = [one for one in (self.highest, self.lowest) if one is not None]
        return sum(one.values.nbytes + one.places.nbytes for one in kept) + self.total.nbytes + self.active.nbytes

    def shown(self) -> dict[str, Any]:
        """What the neurons have shown, as tensors."""
        kept = [one for one in (self.highest, self.lowest) if one is not None]
        return {"total": self.total, "active": self.active, "kept": [[one.values, one.places] for one in kept]}

    def join(self, shown: dict[str, Any]) -> None:
        """Take in what they have shown at further places."""
        self.total += shown["total"].to(self.total)
        self.active += shown["active"].to(self.active)
        for one, (values, places) in zip([self.highest, self.lowest], shown["kept"], strict=False):
            if one is not None:
                one.join(values, places)

    def _refuse(self, block: Tensor, places: Tensor) -> None:
        bad = (~block.isfinite()).nonzero()
        if not len(bad):  # finite values whose sum is not
            return
        row, column = bad[0].tolist()
        prompt, position = divmod(int(places[row]), _PROMPT)
        name, value = Node("neuron", self.layer, int(self.columns[column])), float(block[row, column])
        raise NonFiniteError(f"the activation of {name} is {value} at position {position} of prompt {prompt}")


def find_triggers(
    model: Model,
    tokens: str | TokenBatch | Iterable[TokenBatch],
    *,
    neurons: Neurons = None,
    top: int = 10,
    lowest: bool = False,
    count_bos: bool = False,
    batch: int | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Triggers:
    """For every neuron, the `top` places of a text where its activation is largest; of equal ones the earlier.

    Pads never count, nor does the BOS that opens a prompt unless `count_bos` (it is the same everywhere). The result does not
    depend on `batch`, but for the rounding of matrix products. One layer's activations are held at a time, and no logits are
    made, so that all neurons take less time than the model's own forward. Raises PromptError for attention-only models and
    empty texts, GraphError for names that the model lacks, MemoryBudgetError where one prompt does not fit, NonFiniteError
    for NaN or infinity.

    Args:
        model: the model whose neurons are read.
        tokens: a text, prompts, or batches of them one after another (`text_rows` and `written_text` make such).
        neurons: names (`m3.n7`) or layers (`m3`); default all.
        top: places a neuron.
        lowest: keep the smallest activations too.
        count_bos: count the BOS that opens a prompt.
        batch: prompts that run together (default: what fits into `budget`, but no more than is fast).
        budget: bytes of activations that are held at once.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if top < 1 or (batch is not None and batch < 1):
        raise PromptError(f"top={top}, batch={batch}: expected numbers of at least 1")
    report = progress or silent
    chosen = chosen_neurons(model, neurons)
    tokens = text_rows(model, tokens) if isinstance(tokens, str) else tokens

    def started() -> dict[int, _Layer]:
        """Layers that have shown nothing yet."""
        return {layer: _started(model, layer, columns, top, lowest) for layer, columns in chosen.items()}

    layers = started()
    counted, done, total = 0, 0, len(tokens) if isinstance(tokens, TokenBatch) else None
    report("reading the text", 0, total or 1)
    if isinstance(tokens, TokenBatch):
        text, parts = tokens, _parts(model, tokens, batch, budget, sum(one.nbytes for one in layers.values()))

        def read(part: int) -> dict[str, Any]:
            """What the neurons show in one part of the text."""
            own, seen = started(), 0
            for some in parts[part]:
                seen += _read(model, model.prepare(text[some]), own, some.start, count_bos)
                report("reading the text", min(some.stop, len(text)), len(text))
            return {"counted": seen, "layers": [layer.shown() for layer in own.values()]}

        for found in shards("reading the text", len(parts), read):
            counted += found["counted"]
            for layer, shown in zip(layers.values(), found["layers"], strict=True):
                layer.join(shown)
        done = len(text)
    else:
        for prompts in _batches(model, tokens, batch, budget):
            counted += _read(model, prompts, layers, done, count_bos)
            done += len(prompts)
            report("reading the text", done, done + 1)
    if not counted:
        raise PromptError("the text has no place to count: give prompts of more than BOS")
    report("reading the text", done, done)
    return _collected(model, list(layers.values()), counted, min(top, counted))


@torch.no_grad()
def _read(model: Model, prompts: TokenBatch, layers: dict[int, _Layer], before: int, count_bos: bool) -> int:
    """Take in prompts, `before` of which were read; says how many places of them count."""
    rows = counted_places(model, prompts, count_bos).flatten().nonzero()[:, 0]
    width = prompts.ids.shape[1]
    places = (rows.div(width, rounding_mode="floor") + before) * _PROMPT + rows % width
    for layer, values in neuron_layers(model.weights, prompts, last=max(layers)):
        if layer in layers:
            layers[layer].add(_selected(values, rows), places)
    return len(rows)


def _parts(model: Model, text: TokenBatch, batch: int | None, budget: int, size: int) -> list[list[slice]]:
    """The batches of a text in parts that are read apart, `size` bytes being kept of each: a part's first batches cost more
    than those that follow, for the largest values so far sift what comes."""
    step = batch or prompts_within(model, text.ids.shape[1], budget)
    batches = [slice(start, start + step) for start in range(0, len(text), step)]
    count = max(1, min(_PARTS, len(batches) // _BATCHES, _KEPT // max(size, 1)))
    edges = [len(batches) * part // count for part in range(count + 1)]
    return [batches[first:last] for first, last in itertools.pairwise(edges)]


def _selected(values: Float[Tensor, "prompt position d_mlp"], rows: Int[Tensor, " place"]) -> Float[Tensor, "place d_mlp"]:
    """The activations at the counted places, in at least float32."""
    flat = values.flatten(0, 1)
    flat = flat if len(rows) == len(flat) else flat[rows]
    return flat.float() if flat.dtype in (torch.bfloat16, torch.float16) else flat


def _started(model: Model, layer: int, columns: list[int], top: int, lowest: bool) -> _Layer:
    dtype = torch.float64 if model.dtype == torch.float64 else torch.float32
    made = [Highest(len(columns), top, dtype=dtype, device=model.device) for _ in range(1 + lowest)]
    zeros = torch.zeros(len(columns), dtype=torch.float64, device=model.device)
    indices = torch.tensor(columns, device=model.device)
    whole = len(columns) == model.d_mlp
    return _Layer(layer, indices, whole, made[0], made[1] if lowest else None, zeros, zeros.long())


def counted_places(model: Model, prompts: TokenBatch, count_bos: bool = False) -> Bool[Tensor, "prompt position"]:
    """Where neurons are looked at: not at pads, nor at the BOS that opens a prompt."""
    bos = model.bos_id
    if count_bos or bos is None:
        return prompts.mask
    return prompts.mask & ~((prompts.ids == bos) & (prompts.positions == 0))


def _batches(model: Model, tokens: TokenBatch | Iterable[TokenBatch], batch: int | None, budget: int) -> Iterator[TokenBatch]:
    """The prompts, as many together as are asked for or fit."""
    for given in [tokens] if isinstance(tokens, TokenBatch) else tokens:
        size = batch or prompts_within(model, given.ids.shape[1], budget)
        for start in range(0, len(given), size):
            yield model.prepare(given[start : start + size])


def prompts_within(model: Model, width: int, budget: int) -> int:
    """How many prompts of `width` tokens run together within `budget`. Raises MemoryBudgetError where not one does."""
    block = model.weights.blocks[0]
    neurons = (5 if block.mlp is not None and block.mlp.W_gate is not None else 4) * model.d_mlp
    heads = 8 * model.n_heads * model.d_head
    scores = 0 if block.attention.soft_cap is None else 3 * model.n_heads * width
    size = torch.empty(0, dtype=model.dtype).element_size()
    prompt = width * (neurons + heads + scores + 6 * model.d_model) * max(size, 4)
    if prompt > budget:
        raise MemoryBudgetError(
            f"one prompt of {width} tokens takes {prompt:,} bytes of {budget:,}: give budget={prompt} or shorter prompts"
        )
    return max(1, min(budget, _CHUNK) // prompt)


def _collected(model: Model, layers: list[_Layer], counted: int, top: int) -> Triggers:
    def places(found: list[Highest], sign: float) -> Places:
        """The kept places of all layers; `sign` turns smallest values back."""
        values = torch.cat([one.values[:, :top] for one in found]).double().cpu() * sign
        codes = torch.cat([one.places[:, :top] for one in found]).cpu()
        return Places(values, codes.div(_PROMPT, rounding_mode="floor").int(), (codes % _PROMPT).int())

    lowest = [one.lowest for one in layers if one.lowest is not None]
    return Triggers(
        model=model.name,
        weights_sha256=model.fingerprint,
        layers=torch.tensor(list(itertools.chain(*([one.layer] * len(one.columns) for one in layers)))),
        indices=torch.cat([one.columns for one in layers]).cpu(),
        highest=places([one.highest for one in layers], 1.0),
        lowest=places(lowest, -1.0) if lowest else None,
        count=counted,
        mean=torch.cat([one.total for one in layers]).cpu() / counted,
        active=torch.cat([one.active for one in layers]).double().cpu() / counted,
    )
