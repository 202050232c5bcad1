"""A differentiable run in which every edge has a gate: 1 carries what the writer now says, 0 what is outside the circuit."""

import dataclasses
import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import MemoryBudgetError
from circuits.graph import Graph
from circuits.models import Model, Run
from circuits.models.folding import through_norm
from circuits.models.layers import Geometry, mlp_output, neuron_activations, normalise
from circuits.models.memory import beside_budget
from circuits.patching.engine.base import plain_run
from circuits.patching.engine.reading import Reading
from circuits.patching.subgraphs.members import is_edge
from circuits.patching.subgraphs.outside import LayerOutside, Outside, OutsideKind, outside_of, prompts_outside, scaled_heads
from circuits.patching.subgraphs.subgraph import first_column
from circuits.search.acdc.slots import Slots
from circuits.tasks import PromptPairs
from circuits.tasks.metrics import Metric

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
"""Temperature and stretch of a hard-concrete gate (Louizos et al. 2018)."""


def sampled(log_alpha: Float[Tensor, " edge"], count: int, generator: torch.Generator) -> Float[Tensor, "draw edge"]:
    """Hard-concrete gates in [0, 1], many of them exactly 0 or 1, drawn `count` times; differentiable by `log_alpha`."""
    # Drawn in float64 on the CPU: one seed means the same gates for every type and device. The clamp keeps the logit finite.
    noise = torch.rand(count, len(log_alpha), generator=generator, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
    noise = noise.logit().to(log_alpha.device, log_alpha.dtype)
    return (torch.sigmoid((log_alpha + noise) / BETA) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def open_probability(log_alpha: Tensor) -> Tensor:
    """The probability that a gate is not 0."""
    # In closed form, so that the number of open gates has a gradient although the gates themselves are mostly flat at 0 or 1.
    return torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))


def gated(model: Model, pairs: PromptPairs, metric: Metric, outside: OutsideKind, budget: int) -> "Gated":
    """Gated runs of so many prompts each that one and what its gradients need fit the budget. Raises MemoryBudgetError where
    not even one prompt does, NonFiniteError."""
    width = pairs.clean.ids.shape[1] - first_column(model, pairs, outside)
    one = width * bytes_a_token(model)
    if one > budget:
        raise MemoryBudgetError(
            f"gates of all edges on one prompt need {beside_budget(one, budget)}: give shorter prompts or a larger budget"
        )
    size = max(1, budget // one)
    rows = [slice(start, min(start + size, len(pairs))) for start in range(0, len(pairs), size)]
    rest: list[Outside | None] = [None] * len(rows)
    if outside == "mean" and len(rows) > 1:  # one mean over all prompts, in however many parts they run
        every = outside_of(outside, plain_run(model, pairs.corrupt))
        rest = [prompts_outside(every, row) for row in rows]
    runs = [GatedRun.of(model, pairs[row], outside, part) for row, part in zip(rows, rest, strict=True)]
    return Gated(tuple(rows), tuple(runs), metric, pairs)


def bytes_a_token(model: Model) -> int:
    """What a gated run and its gradients hold at one token: every layer the writers so far, three times what its readers read,
    and its neurons."""
    graph, writers, numbers = model.graph(), 1, 0
    for _ in range(graph.n_layers):
        writers += graph.n_heads + graph.mlp_writers
        numbers += (2 * writers + 3 * (graph.head_readers + graph.mlp_writers)) * model.d_model + 6 * model.d_mlp
    return numbers * torch.finfo(model.dtype).bits // 8


@dataclasses.dataclass(frozen=True, eq=False)
class Gated:
    """Gated runs of all prompts, some at a time, and the metric."""

    rows: tuple[slice, ...]
    runs: tuple["GatedRun", ...]
    metric: Metric
    pairs: PromptPairs

    def scores(self, values: Float[Tensor, "prompt edge"]) -> Iterator[tuple[slice, Tensor]]:
        """The metric with gates of its own for every prompt, part by part with the rows of the prompts it is of.

        Those are the part's own or, where the metric has to see all prompts, every time all of them: then the others stand
        still, so that the gradients of the parts' sums add up to what they would be without parts.
        """
        if len(self.rows) == 1 or self.metric.by_prompt:
            for rows, run in zip(self.rows, self.runs, strict=True):
                yield rows, run.read(Reading.of(self.metric.on(rows), self.pairs[rows]), values[rows])
            return
        whole, weights = Reading.of(self.metric, self.pairs), self.runs[0].model.weights
        with torch.no_grad():
            finals = [run.final(run.gates(values[rows])) for rows, run in zip(self.rows, self.runs, strict=True)]
        for rows, run in zip(self.rows, self.runs, strict=True):
            yield slice(0, len(self.pairs)), run.read(whole.among(rows, weights, torch.cat(finals)), values[rows])


@dataclasses.dataclass(frozen=True, eq=False)
class GatedRun:
    """A graph of heads and MLPs whose readers read what is outside, plus each writer's move from that times the edge's gate:
    `read = rest + sum over writers of gate * (now - outside)`. The last layer's queries and MLP run at the answer columns
    alone."""

    model: Model
    graph: Graph
    own: Run
    rest: Outside
    slots: Slots

    @classmethod
    def of(cls, model: Model, pairs: PromptPairs, outside: OutsideKind, rest: Outside | None = None) -> "GatedRun":
        """Both runs; `rest`: what is outside, where that is known. Raises NonFiniteError, with the first site, where one of
        them is not finite."""
        own = plain_run(model, pairs.clean)
        rest = outside_of(outside, plain_run(model, pairs.corrupt)) if rest is None else rest
        geometry, start = Geometry(model.weights, own.tokens, model.dtype), first_column(model, pairs, outside)
        slots = Slots(model.weights, geometry, pairs.answer_columns[:, None].to(model.device), start)
        return cls(model, model.graph(), own, rest, slots)

    def read(self, reading: Reading, values: Float[Tensor, "prompt edge"]) -> Float[Tensor, " scored"]:
        """The metric with gates of its own for every prompt."""
        return reading.scores(self.model.weights, self.final(self.gates(values))[None])[0]

    def gates(self, values: Float[Tensor, "prompt edge"]) -> Float[Tensor, "prompt writer reader"]:
        """Matrices of gates from one number an edge, by writer and then by reader; 0 where there is no edge."""
        there = is_edge(self.graph)
        gates = values.new_zeros(len(values), *there.shape)
        # One scatter, differentiable by the values; where there is no edge the gate stays 0 and its writer is not read.
        return gates.masked_scatter(there.to(values.device), values)

    def final(self, gates: Float[Tensor, "prompt writer reader"]) -> Float[Tensor, "prompt 1 d_model"]:
        """The final residual stream at the answer columns, with gates of its own for every prompt."""
        moves, place = (self.own.residuals[0] - self.rest.input)[None, :, self.slots.start :], 0
        for layer, rest in enumerate(self.rest.layers):
            last, inputs = layer == self.graph.n_layers - 1, self.graph.head_readers
            heads = self._attention(layer, rest, gates[:, :, place : place + inputs], moves)
            # From the last layer's heads on only the answer columns are read: what all writers before moved is cut to these,
            # too.
            moves = torch.cat([self.slots.pick(moves) if last else moves, heads])
            place += inputs
            if rest.mlp is not None:
                moves = torch.cat([moves, self._mlp(layer, rest, gates[:, :, place, None], moves, last)])
                place += 1
        moves = moves if self.graph.n_layers else self.slots.pick(moves)
        return self._read(self.slots.pick(self.rest.final[:, self.slots.start :]), gates[:, :, place:], moves)[0]

    def _read(self, rest: Tensor, gates: Tensor, moves: Tensor) -> Float[Tensor, "reader prompt position d_model"]:
        return torch.einsum("pwr,wpcd->rpcd", gates[:, : len(moves)], moves) + rest

    def _attention(
        self, layer: int, rest: LayerOutside, gates: Float[Tensor, "prompt writer reader"], moves: Tensor
    ) -> Float[Tensor, "head prompt position d_model"]:
        """How far a layer's heads move."""
        graph, slots, block = self.graph, self.slots, self.model.weights.blocks[layer]
        last, size = layer == graph.n_layers - 1, graph.n_heads // graph.n_key_value_heads
        reads, still = rest.attention_reads[:, slots.start :], rest.heads[:, slots.start :]
        picked = (slots.pick(reads), slots.pick(moves)) if last else (reads, moves)
        every = torch.arange(graph.head_readers)
        q = self._slots(layer, every[: graph.n_heads], *picked, gates, last)["q"][1]
        found = self._slots(layer, every[graph.n_heads :], reads, moves, gates, False)
        k, v = (self._whole(rest, slot, found[slot][1]).repeat_interleave(size, dim=0) for slot in ("k", "v"))
        z = slots.attend(layer, torch.arange(graph.n_heads), q, k, v, thin=last)[:, 0].movedim(0, 2)
        still = slots.pick(still.flatten(2)).unflatten(2, still.shape[2:]) if last else still
        W = through_norm(block.attention.W_O, block.attention_post_norm).unflatten(0, (graph.n_heads, -1))
        return torch.einsum("pchd,hdm->hpcm", scaled_heads(z, block) - still, W)

    def _slots(self, layer: int, indices: Tensor, rest: Tensor, moves: Tensor, gates: Tensor, thin: bool) -> dict:
        reads = self._read(rest, gates[:, :, indices], moves)
        return self.slots.project(layer, indices, reads[:, None], thin=thin)

    def _whole(self, rest: LayerOutside, slot: str, value: Tensor) -> Float[Tensor, "group 1 prompt position d_head"]:
        """Keys or values at all columns: those before the first that counts are as outside."""
        before = rest.slots[slot][:, : self.slots.start].movedim(2, 0)[:, None]
        return torch.cat([before, value], dim=3)

    def _mlp(self, layer: int, rest: LayerOutside, gates: Tensor, moves: Tensor, thin: bool) -> Tensor:
        """How far a layer's MLP moves, as the only row."""
        block = self.model.weights.blocks[layer]
        assert block.mlp is not None and rest.mlp_reads is not None and rest.mlp is not None
        reads, written = rest.mlp_reads[:, self.slots.start :], rest.mlp[:, self.slots.start :]
        reads, written = (self.slots.pick(reads), self.slots.pick(written)) if thin else (reads, written)
        neurons = neuron_activations(normalise(self._read(reads, gates, moves), block.mlp_norm), block.mlp)
        return mlp_output(neurons, block.mlp, block.mlp_post_norm) - written
