"""ACDC: edges are cut one after the other, from the logits backwards, wherever that costs less than a threshold."""

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from circuits.errors import CircuitsError, GraphError, NonFiniteError
from circuits.graph import Circuit
from circuits.graph.places import edge_at, target_places
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.patching.subgraphs.outside import OutsideKind
from circuits.progress import Progress, silent
from circuits.search.acdc.plan import Plan, plan
from circuits.search.acdc.state import Ground, State
from circuits.search.acdc.variants import Variants
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, fitted

LEAST = 16
"""Variants that are run together however badly their guesses hold."""


def acdc(
    model: Model,
    pairs: PromptPairs,
    metric: AnyMetric | None = None,
    *,
    threshold: float = 0.01,
    outside: OutsideKind = "corrupt",
    connected: bool = True,
    neurons: bool = False,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Circuit:
    """Automatic circuit discovery (Conmy et al. 2023): cut every edge whose loss costs less than `threshold`, one at a time.

    Readers are visited from the logits backwards, in the reverse of the order of computation (a layer's MLP, then values,
    keys and queries, each from the last head or group to the first), and for each its writers from the latest to the
    earliest. With KL to the clean run (no `metric`) an edge is cut where KL after - KL before < threshold; with another
    metric, where before - after < threshold (the other way round for one that says `lower_is_better`, as `kl_divergence`
    and `rank` do); means over prompts, in the metric's unit. What is cut stays cut. A node that nothing in the circuit
    reads is not visited: its own edges go.

    An edge's score is what cutting it would have cost when it was kept. Decisions are those of one run an edge, but for
    rounding. Raises NonFiniteError, CircuitsError for a threshold that is no number, GraphError for a graph of neurons.

    Args:
        model: the model that is searched.
        pairs: clean and corrupt prompts with their answers.
        metric: what an edge may cost: None is KL to the clean run, in nats; else as in `patch_nodes`.
        threshold: edges that cost less are cut, in the unit of the metric.
        outside: what cut edges carry, as in `run_circuits`.
        connected: leave out, at the end, what is on no path from the input to the logits.
        neurons: refused: a graph of neurons has too many edges for a run each (`attribute_edges` takes them).
        budget: bytes of variants that run together.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    return acdc_thresholds(
        model,
        pairs,
        [threshold],
        metric,
        outside=outside,
        connected=connected,
        neurons=neurons,
        budget=budget,
        progress=progress,
    )[0]


@torch.no_grad()
def acdc_thresholds(
    model: Model,
    pairs: PromptPairs,
    thresholds: Sequence[float],
    metric: AnyMetric | None = None,
    *,
    outside: OutsideKind = "corrupt",
    connected: bool = True,
    neurons: bool = False,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> list[Circuit]:
    """`acdc` for several thresholds, a circuit each in their order. They share a descent for as long as they decide alike.

    Args:
        model: the model that is searched.
        pairs: clean and corrupt prompts with their answers.
        thresholds: one a circuit, in any order; at least one.
        metric: as in `acdc`.
        outside: what cut edges carry, as in `run_circuits`.
        connected: leave out what is on no path from the input to the logits.
        neurons: refused, as in `acdc`.
        budget: bytes of variants that run together.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    wanted = [_checked(threshold) for threshold in thresholds]
    if not wanted:
        raise CircuitsError("acdc needs a threshold")
    if neurons:
        raise GraphError("ACDC cuts edges between heads and whole MLPs one by one; for neurons use attribute_edges")
    ground = Ground.of(model, pairs, None if metric is None else fitted(metric, model, pairs), outside)
    found: dict[float, _Descent] = {}
    waiting = [_Descent.begin(ground, sorted(set(wanted)))]
    total, report = ground.graph.edge_count * len(waiting[0].thresholds), progress or silent
    while waiting:
        descent = waiting.pop()
        while descent.place >= 0:
            seen = sum(len(one.thresholds) * one.seen for one in [*waiting, descent, *found.values()])
            report("cutting edges", seen, total)
            descent, *others = _visit(descent, budget)
            waiting += others
        found |= dict.fromkeys(descent.thresholds, descent)
    report("cutting edges", total, total)
    circuits = {threshold: _circuit(found[threshold], threshold, outside) for threshold in found}
    return [circuits[threshold].connected() if connected else circuits[threshold] for threshold in wanted]


def _checked(threshold: float) -> float:
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not math.isfinite(threshold):
        raise CircuitsError(f"a threshold is a finite number, got {threshold!r}")
    return float(threshold)


@dataclasses.dataclass(frozen=True, eq=False)
class _Descent:
    """How far thresholds that have decided alike have come: the next reader, and how many of its writers are decided."""

    state: State
    thresholds: list[float]
    place: int
    decided: int
    costs: dict[tuple[int, int], float]
    """What cutting the edges that were kept would have cost, by writer and reader."""
    evaluations: int
    seen: int
    guesses: tuple[bool, ...] = ()
    """For the writers that come next, whether they will be cut."""
    stride: int = 2**30
    """How many variants are worth running together, from how far the guesses have held."""

    @classmethod
    def begin(cls, ground: Ground, thresholds: list[float]) -> "_Descent":
        """With nothing cut, at the last reader."""
        return cls(State.whole(ground), thresholds, ground.graph.reader_count - 1, 0, {}, 0, 0)

    @property
    def writers(self) -> list[int]:
        """The reader's writers, in the order in which they are decided."""
        return list(range(self.state.ground.before[self.place]))[::-1]

    def next_reader(self, state: State) -> "_Descent":
        """Done with this reader."""
        left = len(self.writers) - self.decided
        return dataclasses.replace(self, state=state, place=self.place - 1, decided=0, seen=self.seen + left, guesses=())


def _visit(descent: _Descent, budget: int) -> list[_Descent]:
    """Decide about all writers of one reader. Several descents come back where thresholds disagree; the others are then
    where they part."""
    state, writers = descent.state, descent.writers
    if not _read_by_circuit(state, descent.place):
        forced = any(block.attention_post_norm is not None for block in state.ground.model.weights.blocks)
        if forced:  # what nothing reads still weighs in the scale that a layer's heads share
            every = Variants(state, plan(state, descent.place), writers, _ones(state, len(writers)))
            loss = float(every.run()[0])
            return [descent.next_reader(dataclasses.replace(every.commit(0, writers), loss=loss))]
        return [descent.next_reader(state.without(writers, descent.place))]
    reach = plan(state, descent.place)
    parted: list[_Descent] = []
    while descent.decided < len(writers):
        descent, *others = _decide(descent, reach, max(1, min(descent.stride, budget // reach.nbytes)))
        parted += others
    return [descent.next_reader(descent.state), *parted]


def _ones(state: State, count: int) -> Tensor:
    return torch.ones(1, count, dtype=state.ground.model.dtype, device=state.ground.model.device)


def _read_by_circuit(state: State, place: int) -> bool:
    """Whether something in the circuit reads one of the nodes that compute with a reader."""
    nodes, logits = target_places(state.ground.graph, place), len(state.kept)
    return logits in nodes or bool(state.kept[nodes.start : nodes.stop].any())


def _decide(descent: _Descent, reach: Plan, at_once: int) -> list[_Descent]:
    """Run the next variants of a reader together, as if the guesses about its writers were right, and keep the decisions up
    to the first wrong guess. A variant cuts its own writer and those before it that are guessed to be cut; so it is exactly
    what a run an edge would see next, for as long as the guesses hold."""
    state, place = descent.state, descent.place
    ahead = descent.writers[descent.decided :][:at_once]
    guesses = [*descent.guesses, *[True] * len(ahead)][: len(ahead)]
    cuts = torch.eye(len(ahead))
    for row, guess in enumerate(guesses):
        cuts[row + 1 :, row] = float(guess)
    model = state.ground.model
    variants = Variants(state, reach, ahead, cuts.to(model.device, model.dtype))
    losses = variants.run().tolist()
    _refuse_non_finite(state, losses, ahead, place)
    base, costs = -1, []
    for row, guess in enumerate(guesses):
        costs.append(losses[row] - (state.loss if base < 0 else losses[base]))
        base = row if guess else base
    return _parted(descent, variants, ahead, guesses, losses, costs)


def _refuse_non_finite(state: State, losses: list[float], writers: list[int], place: int) -> None:
    for writer, loss in zip(writers, losses, strict=True):
        if not math.isfinite(loss):
            edge = edge_at(state.ground.graph, writer, place)
            raise NonFiniteError(f"the {state.ground.metric} is {loss} when {edge} is cut")


def _parted(
    descent: _Descent, variants: Variants, ahead: list[int], guesses: list[bool], losses: list[float], costs: list[float]
) -> list[_Descent]:
    """Where the descent stands after the decisions that these costs allow."""
    thresholds, kept = descent.thresholds, dict(descent.costs)
    for row, (writer, cost) in enumerate(zip(ahead, costs, strict=True)):
        cutting = [threshold for threshold in thresholds if cost < threshold]
        keeping = [threshold for threshold in thresholds if cost >= threshold]
        as_guessed = not keeping if guesses[row] else not cutting
        if as_guessed and row < len(ahead) - 1:
            if keeping:
                kept[writer, descent.place] = cost
            continue
        found = []
        for those, cut in ((keeping, False), (cutting, True)):
            if those:
                rows = [earlier for earlier in range(row) if guesses[earlier]] + ([row] if cut else [])
                found.append(
                    dataclasses.replace(
                        descent,
                        state=_committed(descent.state, variants, ahead, rows, losses),
                        thresholds=those,
                        decided=descent.decided + row + 1,
                        costs=kept if cut else {**kept, (writer, descent.place): cost},
                        evaluations=descent.evaluations + len(ahead),
                        seen=descent.seen + row + 1,
                        guesses=tuple(later < those[0] for later in costs[row + 1 :]),
                        stride=min(2 * descent.stride, 2**30) if as_guessed else max(LEAST, 2 * row),
                    )
                )
        return found
    raise AssertionError("no writers to decide about")


def _committed(state: State, variants: Variants, ahead: list[int], rows: list[int], losses: list[float]) -> State:
    """The state in which these rows' writers are cut; the last row is the variant that did it."""
    if not rows:
        return state
    return dataclasses.replace(variants.commit(rows[-1], [ahead[row] for row in rows]), loss=losses[rows[-1]])


def _circuit(descent: _Descent, threshold: float, outside: OutsideKind) -> Circuit:
    ground = descent.state.ground
    graph, model = ground.graph, ground.model
    edges = {
        edge_at(graph, writer, reader): descent.costs[writer, reader]
        for writer, reader in descent.state.kept.nonzero().tolist()
    }
    details = {
        "model": model.name,
        "weights_sha256": model.fingerprint,
        "metric": ground.metric,
        "method": "acdc",
        "threshold": threshold,
        "outside": outside,
        "evaluations": descent.evaluations,
        "kept": len(edges),
        "total": graph.edge_count,
    }
    return Circuit(graph, edges, metadata=details)
