"""Edge pruning: a gate an edge, trained so that few edges keep what the model does."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from circuits.attribution import EdgeScores
from circuits.errors import CircuitsError, NonFiniteError
from circuits.graph import Graph
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.patching.engine.base import plain_run
from circuits.patching.engine.reading import Reading
from circuits.patching.nodes import about
from circuits.patching.subgraphs.members import is_edge
from circuits.patching.subgraphs.outside import OutsideKind
from circuits.progress import Progress, silent
from circuits.runs import Course, steps as run_steps
from circuits.search.methods.gates import Gated, gated, open_probability, sampled
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, Metric, fitted
from circuits.tasks.metrics import kl_divergence

START = 1.0
"""Every gate's first log alpha: not closed 93 times in 100."""
ANNEALED = 0.6
"""Share of the steps over which the wanted number of edges comes down from all."""
_WHAT = "training gates"


def prune_edges(
    model: Model,
    pairs: PromptPairs,
    metric: AnyMetric | None = None,
    *,
    edges: int | None = None,
    share: float | None = None,
    steps: int = 200,
    learning_rate: float = 0.2,
    seed: int = 0,
    outside: OutsideKind = "corrupt",
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> EdgeScores:
    """Edge pruning (Bhaskar et al. 2024): one hard-concrete gate an edge (Louizos et al. 2018), all trained together.

    Adam minimises the mean over prompts of KL to the clean run (or of |metric - its clean value|) plus a Lagrangian of how
    far the expected number of open gates is from the wanted one, which comes down to what is asked for. Every prompt draws
    gates of its own, so that a step sees as many draws as there are prompts. An edge's score is the probability that its gate
    is open at the end, 0 to 1, larger = kept: `.top(edges)` is the circuit. Raises CircuitsError for options that do not fit,
    NonFiniteError, MemoryBudgetError.

    Args:
        model: the model whose edges are pruned.
        pairs: clean and corrupt prompts with their answers.
        metric: what is kept as it was: None is KL to the clean run; else as in `patch_nodes`.
        edges: how many edges to come down to.
        share: the same as a share of all edges.
        steps: steps of Adam.
        learning_rate: that of Adam.
        seed: that of the gates: the same seed gives the same scores.
        outside: what closed edges carry, as in `run_circuits`.
        budget: bytes of a run and its gradients.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    wanted = _wanted(model.graph(), edges, share)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1 or not learning_rate > 0:
        raise CircuitsError(
            f"edge pruning takes steps from 1 on and a positive learning rate, got {steps!r} and {learning_rate!r}"
        )
    metric = fitted(kl_divergence if metric is None else metric, model, pairs, gradient=True)
    gates = _Gates.begin(model, pairs, metric, outside, wanted, learning_rate, budget)
    training = _GatesCourse(gates, steps, torch.Generator().manual_seed(seed), progress or silent)
    run_steps(_WHAT, steps, training)
    graph = model.graph()
    values = open_probability(gates.log_alpha.detach().double().cpu())
    details = about(model, gates.metric, method="edge-pruning", outside=outside, steps=steps, learning_rate=learning_rate)
    details |= {"seed": seed, "target": wanted, "expected_edges": float(values.sum()), "loss": training.loss}
    writers, readers = is_edge(graph).nonzero(as_tuple=True)
    return EdgeScores(graph, writers, readers, values[None], torch.full_like(values, float("nan"))[None], metadata=details)


def _wanted(graph: Graph, edges: int | None, share: float | None) -> int:
    """How many edges are to stay."""
    if (edges is None) == (share is None):
        raise CircuitsError("say either how many edges or which share of them should stay: edges=200, or share=0.01")
    if share is not None:
        if not 0 < share <= 1:
            raise CircuitsError(f"a share of edges lies above 0 and up to 1, got {share!r}")
        return max(1, round(share * graph.edge_count))
    if isinstance(edges, bool) or not isinstance(edges, int) or not 1 <= edges <= graph.edge_count:
        raise CircuitsError(f"edges is a whole number from 1 to {graph.edge_count:,}, got {edges!r}")
    return edges


@dataclasses.dataclass(frozen=True, eq=False)
class _Gates:
    """Gates, multipliers and what they are trained on."""

    runs: Gated
    metric: Metric
    clean: Tensor
    wanted: int
    log_alpha: Tensor
    multipliers: Tensor
    down: torch.optim.Optimizer
    up: torch.optim.Optimizer

    @classmethod
    def begin(
        cls,
        model: Model,
        pairs: PromptPairs,
        metric: Metric,
        outside: OutsideKind,
        wanted: int,
        learning_rate: float,
        budget: int,
    ) -> "_Gates":
        """All gates alike, and the clean runs."""
        final = plain_run(model, pairs.clean).residuals[-1]
        with torch.no_grad():
            reading = Reading.of(metric, pairs)
            clean = reading.scores(model.weights, reading.at_columns(final)[None])[0]
        runs = gated(model, pairs, metric, outside, budget)
        options = {"dtype": model.dtype, "device": model.device}
        log_alpha = torch.full((model.graph().edge_count,), START, requires_grad=True, **options)
        multipliers = torch.zeros(2, requires_grad=True, **options)
        down = torch.optim.Adam([log_alpha], lr=learning_rate)
        up = torch.optim.Adam([multipliers], lr=learning_rate, maximize=True)
        return cls(runs, metric, clean, wanted, log_alpha, multipliers, down, up)

    def state(self, generator: torch.Generator) -> dict[str, Any]:
        """All that a step changes, as it is now."""
        moments = [
            {name: value.clone() for name, value in optimizer.state[values].items()}
            for optimizer, values in ((self.down, self.log_alpha), (self.up, self.multipliers))
        ]
        values = [one.detach().clone() for one in (self.log_alpha, self.multipliers)]
        return {"values": values, "moments": moments, "generator": generator.get_state()}

    @torch.no_grad()
    def take(self, state: dict[str, Any], generator: torch.Generator) -> None:
        """Go on from what `state` gave."""
        generator.set_state(state["generator"])
        both = ((self.down, self.log_alpha), (self.up, self.multipliers))
        for (optimizer, values), own, moments in zip(both, state["values"], state["moments"], strict=True):
            values.copy_(own)
            # Adam counts its steps on the CPU.
            placed = {name: value.clone() if name == "step" else value.clone().to(values) for name, value in moments.items()}
            optimizer.state[values].clear()
            optimizer.state[values].update(placed)

    def step(self, done: float, generator: torch.Generator) -> float:
        """One step, `done` of the way to the wanted number of edges; gives the loss without the Lagrangian."""
        drawn = sampled(self.log_alpha, len(self.clean), generator)
        values, apart = drawn.detach().requires_grad_(True), torch.zeros_like(self.clean)
        for rows, scores in self.runs.scores(values):
            own = (scores - self.clean[rows]).abs()
            (own.sum() / len(self.clean)).backward()
            apart[rows] = own.detach()
        loss = float(apart.sum() / len(self.clean))
        if not math.isfinite(loss):
            raise NonFiniteError(f"the loss is {loss} while gates are trained")
        total = len(self.log_alpha)
        target = done * self.wanted + (1 - done) * total
        excess = (open_probability(self.log_alpha).sum() - target) / total
        lagrangian = self.multipliers[0] * excess + self.multipliers[1] * excess.square()
        self.down.zero_grad()
        self.up.zero_grad()
        torch.autograd.backward((drawn, lagrangian), (values.grad, None))
        self.down.step()
        self.up.step()
        return loss


@dataclasses.dataclass(eq=False)
class _GatesCourse(Course):
    """The course of a training: its gates, what they are drawn with, and the last loss."""

    gates: _Gates
    steps: int
    generator: torch.Generator
    report: Progress
    loss: float = 0.0

    def step(self, number: int) -> None:
        """One step of gates and multipliers."""
        self.report(_WHAT, number, self.steps)
        self.loss = self.gates.step(min(1.0, (number + 1) / (ANNEALED * self.steps)), self.generator)
        self.report(_WHAT, number + 1, self.steps)

    def state(self) -> dict[str, Any]:
        """The loss, and all that a step changes."""
        return {"loss": self.loss, **self.gates.state(self.generator)}

    def take(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.loss = state["loss"]
        self.gates.take(state, self.generator)
