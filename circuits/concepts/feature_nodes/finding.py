"""Finding a circuit of features by attribution, and judging it as other circuits are."""

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.concepts.feature_nodes.attributing import attribute_features
from circuits.concepts.feature_nodes.circuit import FeatureCircuit
from circuits.concepts.feature_nodes.running import FeatureOutside, FeatureRuns, FeatureSet
from circuits.concepts.feature_nodes.taps import Tap, parsed_node, taps_of
from circuits.concepts.features.dictionary import Dictionary
from circuits.errors import CircuitsError, PromptError
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.patching.nodes import about
from circuits.progress import Progress, silent
from circuits.runs import shards
from circuits.statistics import Effect, ratio_intervals, sequential_p_value
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, fitted

KEEP, MOST, RANDOM, DRAWS = 0.8, 1000, 100, 3
"""The faithfulness that is asked for, nodes at most, random sets beside the circuit, and beside each size of the curve."""
_STEPS = (1, 2, 5)
_LEVEL, _BATCH = 0.05, 10

Node = tuple[int, int | str]


def find_feature_circuit(
    model: Model,
    dictionaries: Dictionary | Sequence[Dictionary],
    pairs: PromptPairs,
    metric: AnyMetric,
    *,
    held_out: PromptPairs,
    size: int | None = None,
    faithfulness: float = KEEP,
    errors: bool = True,
    outside: FeatureOutside = "corrupt",
    method: str = "eap-ig",
    steps: int = 10,
    random_sets: int = RANDOM,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> FeatureCircuit:
    """The features that do a task (Marks et al. 2024): nodes by the size of their attribution on `pairs`, as many as it takes
    to keep a share of the behaviour there, run by themselves and judged on prompts that they were not chosen on.

    Everything at the dictionaries' places that is not in the circuit has the value of the corrupt prompts (or their mean); what
    is in it comes out live. Beside it: the model without the circuit, as many random features (of those that differ, beside
    the same errors), and faithfulness over sizes. Raises GraphError for dictionaries that do not fit, PromptError where their
    places make no difference, CircuitsError for options that do not exist.

    Args:
        model: the model.
        dictionaries: one or several, of different places.
        pairs: prompts to choose on.
        metric: what is measured.
        held_out: prompts to judge on.
        size: nodes of the circuit (default: as few as keep `faithfulness`).
        faithfulness: the share of the behaviour to be kept on the prompts that it is chosen on.
        errors: whether what dictionaries leave over may be in it; else it is outside, in every circuit.
        outside: what nodes outside have: values of the corrupt prompts, or their mean.
        method: how features are attributed to (`attribute_features`).
        steps: points of the mean gradient.
        random_sets: random sets that it is held against at most.
        seed: that of all that is drawn.
        budget: bytes that are held above the model and its base runs.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if outside not in ("corrupt", "mean") or (size is not None and size < 1) or not 0 < faithfulness <= 1 or random_sets < 0:
        raise CircuitsError(
            f"outside={outside!r}, size={size}, faithfulness={faithfulness}: expected corrupt or mean, 1 or more, above 0 to 1"
        )
    taps, report = taps_of(model, dictionaries), progress or silent
    how: dict[str, Any] = {"method": method, "steps": steps, "seed": seed, "budget": budget, "progress": progress}
    scores = attribute_features(model, dictionaries, pairs, metric, keep=max(MOST, size or 0), exact=0, **how)
    order = [(scores.names[row], float(scores.scores[row].mean())) for row in scores.order()]
    order = [(name, score) for name, score in order if errors or ".f" in name]
    nodes = [parsed_node(taps, name) for name, _ in order]
    sizes = _sizes(len(nodes))
    if size is None:
        size = _enough(_judge(model, taps, pairs, metric, outside, budget), nodes, sizes, faithfulness)
    count = min(size, len(nodes))
    judge = _judge(model, taps, held_out, metric, outside, budget)
    sizes = sorted({*sizes, count})
    every = [FeatureSet.of(taps, nodes[:one]) for one in sizes]
    draw = random.Random(f"{seed} features")
    pool = [node for node in nodes if not isinstance(node[1], str)]
    drawn = [_random(taps, pool, nodes[:one], draw) for one in sizes for _ in range(DRAWS if random_sets else 0)]

    def run(place: int) -> tuple[Tensor, Tensor]:
        """One size: the nodes alone, and the model without them."""
        return judge.change(every[place]), judge.change(every[place], without=True)

    curve = []
    for place, found in enumerate(shards("running circuits of all sizes", len(sizes), run)):
        curve.append(found)
        report("running circuits of all sizes", place + 1, len(sizes))
    alone, left = (torch.stack([one[side] for one in curve]) for side in (0, 1))
    others = [float(judge.change(one).mean() / judge.gap.mean()) for one in drawn]
    effects, without = judge.effects(alone, seed), judge.effects(left, seed)
    own = sizes.index(count)
    null, p_value = (), None
    if random_sets:
        chance = sequential_p_value(
            effects[own].effect, _null(judge, taps, pool, nodes[:count], draw, random_sets), most=random_sets, level=_LEVEL
        )
        null, p_value = tuple(chance.null), chance.p_value
    details = {"method": method, "outside": outside, "errors": errors, "searched_on": len(pairs), "seed": seed}
    details |= {"random_sets": random_sets, "pool": len(pool), "dictionaries": [tap.dictionary.name for tap in taps]}
    return FeatureCircuit(
        nodes=tuple(name for name, _ in order[:count]),
        scores=tuple(score for _, score in order[:count]),
        prompts=len(held_out),
        faithfulness=effects[own],
        without=without[own],
        null=null,
        p_value=p_value,
        sizes=tuple(sizes),
        curve=tuple(effects),
        curve_without=tuple(without),
        random=torch.tensor(others, dtype=torch.float64).reshape(len(sizes), -1).T.contiguous(),
        metadata=about(model, fitted(metric, model, held_out), **details),
    )


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

    def change(self, chosen: FeatureSet, *, without: bool = False) -> Float[Tensor, " prompt"]:
        """How far the metric comes from that of no node."""
        return (self.runs.without(chosen) if without else self.runs.only(chosen)) - self._start

    def effects(self, changes: Float[Tensor, "circuit prompt"], seed: int) -> list[Effect]:
        """Each circuit's faithfulness with its 95 % interval over prompts."""
        return ratio_intervals(changes, self.gap, seed=seed)


def _judge(
    model: Model, taps: tuple[Tap, ...], pairs: PromptPairs, metric: AnyMetric, outside: FeatureOutside, budget: int
) -> FeatureJudge:
    return FeatureJudge(FeatureRuns.on(model, taps, pairs, fitted(metric, model, pairs), outside, budget))


def _sizes(nodes: int) -> list[int]:
    """1, 2, 5, 10, … up to all."""
    every = (step * 10**power for power in itertools.count() for step in _STEPS)
    return [*itertools.takewhile(lambda one: one < nodes, every), nodes]


def _enough(judge: FeatureJudge, nodes: list[Node], sizes: list[int], wanted: float) -> int:
    """How many nodes, the strongest first, keep enough: of the sizes the first that does, then as few as halving finds."""

    def kept(count: int) -> float:
        """The faithfulness of so many."""
        return float(judge.change(FeatureSet.of(judge.runs.taps, nodes[:count])).mean() / judge.gap.mean())

    low = 0
    for high in sizes:
        if kept(high) >= wanted:
            break
        low = high
    else:
        return sizes[-1]
    while high - low > max(1, high // 20):
        middle = (low + high) // 2
        low, high = (low, middle) if kept(middle) >= wanted else (middle, high)
    return high


def _random(taps: tuple[Tap, ...], pool: list[Node], nodes: list[Node], draw: random.Random) -> FeatureSet:
    """As many features as some nodes have, drawn from all that differ, beside what of them is no feature."""
    rests = [node for node in nodes if isinstance(node[1], str)]
    return FeatureSet.of(taps, [*draw.sample(pool, len(nodes) - len(rests)), *rests])


def _null(
    judge: FeatureJudge, taps: tuple[Tap, ...], pool: list[Node], nodes: list[Node], draw: random.Random, most: int
) -> Iterator[list[float]]:
    """The faithfulness of random sets, some at a time."""
    for start in range(0, most, _BATCH):
        some = [_random(taps, pool, nodes, draw) for _ in range(min(_BATCH, most - start))]
        yield [float(judge.change(one).mean() / judge.gap.mean()) for one in some]
