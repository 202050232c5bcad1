"""How far an ACDC descent has come, and what it decides about a reader's writers, many at a time."""

import dataclasses
import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import NonFiniteError
from circuits.graph.places import edge_at
from circuits.search.acdc.plan import Plan
from circuits.search.acdc.state import Ground, State
from circuits.search.acdc.variants import Variants

LEAST = 16
"""Variants that are run together however badly their guesses hold."""


@dataclasses.dataclass(frozen=True, eq=False)
class Descent:
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
    def begin(cls, ground: Ground, thresholds: list[float]) -> "Descent":
        """With nothing cut, at the last reader."""
        return cls(State.whole(ground), thresholds, ground.graph.reader_count - 1, 0, {}, 0, 0)

    @property
    def writers(self) -> list[int]:
        """The reader's writers, in the order in which they are decided."""
        return list(range(self.state.ground.before[self.place]))[::-1]

    def next_reader(self, state: State) -> "Descent":
        """Done with this reader."""
        left = len(self.writers) - self.decided
        return dataclasses.replace(self, state=state, place=self.place - 1, decided=0, seen=self.seen + left, guesses=())


def ones(state: State, count: int) -> Float[Tensor, "1 writer"]:
    """The cuts of one variant that cuts all of so many writers."""
    return torch.ones(1, count, dtype=state.ground.model.dtype, device=state.ground.model.device)


def decide(descent: Descent, reach: Plan, at_once: int) -> list[Descent]:
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
    descent: Descent, variants: Variants, ahead: list[int], guesses: list[bool], losses: list[float], costs: list[float]
) -> list[Descent]:
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


def decisions(start: Descent, end: Descent) -> dict[str, Any]:
    """What was decided about a reader since `start`, in plain values."""
    cut = start.state.kept[:, start.place] & ~end.state.kept[:, start.place]
    return {
        "cut": cut.nonzero()[:, 0].tolist(),
        "loss": end.state.loss,
        "costs": [[writer, cost] for (writer, place), cost in end.costs.items() if (writer, place) not in start.costs],
        "rest": {name: getattr(end, name) for name in ("thresholds", "decided", "evaluations", "seen", "guesses", "stride")},
    }


def after(start: Descent, reach: Plan, found: dict[str, Any]) -> Descent:
    """Where a descent stands after decisions about a reader. What the circuit then computes is computed by itself: decisions
    may come from an earlier run, and no sum may depend on where they come from."""
    state, cut = start.state, found["cut"]
    if cut:
        variant = Variants(state, reach, cut, ones(state, len(cut)))
        variant.run()
        state = dataclasses.replace(variant.commit(0, cut), loss=found["loss"])
    costs = start.costs | {(writer, start.place): cost for writer, cost in found["costs"]}
    return dataclasses.replace(start, state=state, costs=costs, **found["rest"])
