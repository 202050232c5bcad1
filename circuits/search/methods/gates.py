"""A differentiable run in which every edge has a gate: 1 carries what the writer now says, 0 what is outside the circuit."""

import dataclasses
import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import MemoryBudgetError
from circuits.models import Model
from circuits.models.memory import beside_budget
from circuits.patching.engine.base import plain_run
from circuits.patching.engine.reading import Reading, read_within
from circuits.patching.subgraphs.outside import Outside, OutsideKind, outside_of, prompts_outside
from circuits.patching.subgraphs.subgraph import first_column
from circuits.search.methods.gate_table import TOGETHER, final_stream
from circuits.search.methods.gated_run import GatedRun
from circuits.tasks import PromptPairs
from circuits.tasks.metric import Metric

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
    return Gated(tuple(rows), tuple(runs), metric, pairs, budget)


def bytes_a_token(model: Model) -> int:
    """What a gated run and its gradients hold at one token: two numbers a writer, and what one layer's readers compute with."""
    graph = model.graph()
    readers = graph.head_readers + graph.mlp_writers
    layer = ((2 * TOGETHER + 6) * readers + 3 * graph.n_heads) * model.d_model + 8 * model.d_mlp
    return (2 * graph.writer_count * model.d_model + layer) * torch.finfo(model.dtype).bits // 8


@dataclasses.dataclass(frozen=True, eq=False)
class Gated:
    """Gated runs of all prompts, some at a time, and the metric."""

    rows: tuple[slice, ...]
    runs: tuple[GatedRun, ...]
    metric: Metric
    pairs: PromptPairs
    budget: int

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the runs."""
        return self.runs[0].model.dtype

    def gates(self, values: Tensor) -> Float[Tensor, "one edge"]:
        """One number an edge, `[edge]`, as the gates that all prompts share."""
        return values[None].to(self.dtype).to(self.runs[0].model.device)

    def whole(self, values: Float[Tensor, "given edge"]) -> Float[Tensor, " prompt"]:
        """The metric of all prompts at once."""
        finals = [final_stream(run, run.gates(_of(values, rows))) for rows, run in zip(self.rows, self.runs, strict=True)]
        return read_within(self.budget, self.metric, self.pairs, self.runs[0].model.weights, torch.cat(finals)[None])[0]

    def scores(self, values: Float[Tensor, "given edge"]) -> Iterator[tuple[slice, Tensor]]:
        """The metric with gates of its own for every prompt, or with one row for all, part by part with the rows of the prompts
        it is of.

        Those are the part's own or, where the metric has to see all prompts, every time all of them: then the others stand
        still, so that the gradients of the parts' sums add up to what they would be without parts.
        """
        part = self.part(values)
        for place in range(len(self.rows)):
            yield part(place)

    def part(self, values: Float[Tensor, "given edge"]) -> Callable[[int], tuple[slice, Tensor]]:
        """What `scores` gives of each part, for those that want some of them."""
        if len(self.rows) == 1 or self.metric.by_prompt:

            def own(place: int) -> tuple[slice, Tensor]:
                """A part's own prompts."""
                rows, run = self.rows[place], self.runs[place]
                return rows, _read(run, Reading.of(self.metric.on(rows), self.pairs[rows]), _of(values, rows))

            return own
        whole, weights = Reading.of(self.metric, self.pairs), self.runs[0].model.weights
        with torch.no_grad():
            finals = [final_stream(run, run.gates(_of(values, rows))) for rows, run in zip(self.rows, self.runs, strict=True)]

        def among(place: int) -> tuple[slice, Tensor]:
            """A part's prompts among all."""
            rows, run = self.rows[place], self.runs[place]
            return slice(0, len(self.pairs)), _read(run, whole.among(rows, weights, torch.cat(finals)), _of(values, rows))

        return among


def _of(values: Float[Tensor, "given edge"], rows: slice) -> Tensor:
    """The gates of some prompts."""
    return values if len(values) == 1 else values[rows]


def _read(run: GatedRun, reading: Reading, values: Float[Tensor, "given edge"]) -> Float[Tensor, " scored"]:
    """What is read off a run by gates."""
    return reading.scores(run.model.weights, final_stream(run, run.gates(values))[None])[0]
