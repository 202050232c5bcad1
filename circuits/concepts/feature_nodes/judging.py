"""How a circuit of features is judged: alone, with and without what dictionaries leave over, and beside random features."""

import dataclasses
import random
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.concepts.feature_nodes.running import FeatureRuns, FeatureSet
from circuits.concepts.feature_nodes.taps import ERROR
from circuits.errors import PromptError
from circuits.progress import Progress
from circuits.runs import shards
from circuits.statistics import Effect, ratio_intervals, sequential_p_value

_LEVEL, _BATCH = 0.05, 10

Node = tuple[int, int | str]
"""Which tap, and its feature or what is none."""


@dataclasses.dataclass(frozen=True)
class FeatureVerdict:
    """What a circuit's nodes keep; of which each field stands in `FeatureCircuit`."""

    faithfulness: Effect
    without: Effect
    null: tuple[float, ...]
    p_value: float | None
    errors_out: Effect
    null_out: tuple[float, ...]
    p_out: float | None
    errors_in: Effect
    errors_alone: Effect


@dataclasses.dataclass(frozen=True)
class OverSizes:
    """The same over numbers of nodes."""

    sizes: tuple[int, ...]
    curve: tuple[Effect, ...]
    curve_without: tuple[Effect, ...]
    curve_out: tuple[Effect, ...]
    random: Float[Tensor, "draw size"]


class FeatureJudge:
    """Runs on some prompts, and the gap that faithfulness is a share of. Raises PromptError where there is none."""

    def __init__(self, runs: FeatureRuns) -> None:
        nothing = FeatureSet.of(runs.taps, [])
        self.runs, self._start = runs, runs.only(nothing)
        self.gap = runs.clean() - self._start
        if float(self.gap.mean().abs()) <= 1e-6 * max(1e-30, float(self.gap.abs().mean())) or not bool(self.gap.any()):
            raise PromptError(
                "taking the dictionaries' places from the corrupt prompts changes nothing: there is no gap to share"
            )
        self.errors: list[Node] = [(row, ERROR) for row in range(len(runs.taps))]

    def change(self, nodes: Sequence[Node], *, without: bool = False) -> Float[Tensor, " prompt"]:
        """How far the metric comes from that of no node."""
        chosen = FeatureSet.of(self.runs.taps, nodes)
        return (self.runs.without(chosen) if without else self.runs.only(chosen)) - self._start

    def share(self, nodes: Sequence[Node]) -> float:
        """The faithfulness of some nodes alone."""
        return float(self.change(nodes).mean() / self.gap.mean())

    def effects(self, changes: Float[Tensor, "circuit prompt"], seed: int) -> list[Effect]:
        """Each circuit's faithfulness with its 95 % interval over prompts."""
        return ratio_intervals(changes, self.gap, seed=seed)

    def verdict(self, nodes: Sequence[Node], every: Sequence[Node], random_sets: int, seed: int) -> FeatureVerdict:
        """What some nodes keep, as they are, with errors outside and with all errors inside, beside random features of `every`
        and the same errors, or none."""
        out = without_errors(nodes)
        changes = [self.change(nodes), self.change(nodes, without=True)]
        changes += [self.change(some) for some in (out, [*out, *self.errors], self.errors)]
        whole, left, alone, full, errors = self.effects(torch.stack(changes), seed)
        null, p_value = self._chance(whole, nodes, every, random_sets, seed)
        null_out, p_out = (null, p_value) if len(out) == len(nodes) else self._chance(alone, out, every, random_sets, seed)
        return FeatureVerdict(whole, left, null, p_value, alone, null_out, p_out, full, errors)

    def over_sizes(self, nodes: Sequence[Node], sizes: Sequence[int], draws: int, seed: int, report: Progress) -> OverSizes:
        """The first so many nodes: alone, the model without them, with errors outside; and random ones."""

        def run(place: int) -> tuple[Tensor, Tensor, Tensor]:
            """One size."""
            some = nodes[: sizes[place]]
            out = without_errors(some)
            alone = self.change(some)
            return alone, self.change(some, without=True), alone if len(out) == len(some) else self.change(out)

        found = []
        for place, one in enumerate(shards("running circuits of all sizes", len(sizes), run)):
            found.append(one)
            report("running circuits of all sizes", place + 1, len(sizes))
        curve, without, out = (tuple(self.effects(torch.stack(changes), seed)) for changes in zip(*found, strict=True))
        draw = random.Random(f"{seed} features by size")
        shares = [self.share(random_nodes(nodes[:size], nodes, draw)) for size in sizes for _ in range(draws)]
        drawn = torch.tensor(shares, dtype=torch.float64).reshape(len(sizes), -1).T.contiguous()
        return OverSizes(tuple(sizes), curve, without, out, drawn)

    def _chance(
        self, effect: Effect, nodes: Sequence[Node], every: Sequence[Node], most: int, seed: int
    ) -> tuple[tuple[float, ...], float | None]:
        """What random sets keep, and how often as much as an effect."""
        if not most:
            return (), None
        chance = sequential_p_value(effect.effect, self._null(nodes, every, most, seed), most=most, level=_LEVEL)
        return tuple(chance.null), chance.p_value

    def _null(self, nodes: Sequence[Node], every: Sequence[Node], most: int, seed: int) -> Iterator[list[float]]:
        """The faithfulness of random sets, some at a time."""
        draw = random.Random(f"{seed} features")
        for start in range(0, most, _BATCH):
            yield [self.share(random_nodes(nodes, every, draw)) for _ in range(min(_BATCH, most - start))]


def without_errors(nodes: Sequence[Node]) -> list[Node]:
    """The nodes that dictionaries explain."""
    return [node for node in nodes if node[1] != ERROR]


def random_nodes(nodes: Sequence[Node], every: Sequence[Node], draw: random.Random) -> list[Node]:
    """Of each dictionary as many features as some nodes have, drawn from all that there are, beside what of them is none: a
    dictionary has one error, so that as many errors of it are the same."""
    found = [node for node in nodes if isinstance(node[1], str)]
    for row in sorted({row for row, _ in nodes}):
        pool = [node for node in every if node[0] == row and not isinstance(node[1], str)]
        found += draw.sample(pool, sum(one == row and not isinstance(feature, str) for one, feature in nodes))
    return found
