"""Finding a circuit of features by attribution, and judging it as other circuits are."""

import itertools
from collections.abc import Sequence
from typing import Any

from circuits.concepts.feature_nodes.attributing import attribute_features
from circuits.concepts.feature_nodes.circuit import FeatureCircuit
from circuits.concepts.feature_nodes.judging import FeatureJudge, Node
from circuits.concepts.feature_nodes.running import FeatureOutside, FeatureRuns
from circuits.concepts.feature_nodes.taps import ERROR, Tap, parsed_node, taps_of
from circuits.concepts.features.dictionary import Dictionary
from circuits.errors import CircuitsError
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.patching.nodes import about
from circuits.progress import Progress, silent
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, fitted

KEEP, MOST, RANDOM, DRAWS = 0.8, 1000, 100, 3
"""The faithfulness that is asked for, nodes at most, random sets beside the circuit, and beside each size of the curve."""
_STEPS = (1, 2, 5)


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
    is in it comes out live. Errors are nodes like others, which the order takes or leaves; what the same features keep with
    every error outside, with every error inside, and what errors keep alone stands beside it, since an error is a whole
    vector. Beside it also: the model without the circuit, as many random features of each dictionary with the same errors,
    and with none (of the 1,000 nodes of largest attribution, so that it is no test against features that do nothing), and
    faithfulness over sizes. Raises GraphError for dictionaries that do not fit, PromptError where their places make no
    difference, CircuitsError for options that do not exist.

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
    order = [(name, score) for name, score in order if errors or not name.endswith(f".{ERROR}")]
    nodes = [parsed_node(taps, name) for name, _ in order]
    sizes = _sizes(len(nodes))
    if size is None:
        size = _enough(_judge(model, taps, pairs, metric, outside, budget), nodes, sizes, faithfulness)
    count = min(size, len(nodes))
    judge = _judge(model, taps, held_out, metric, outside, budget)
    verdict = judge.verdict(nodes[:count], nodes, random_sets, seed)
    curve = judge.over_sizes(nodes, sorted({*sizes, count}), DRAWS if random_sets else 0, seed, report)
    details = {"method": method, "outside": outside, "errors": errors, "searched_on": len(pairs), "seed": seed}
    details |= {"random_sets": random_sets, "dictionaries": [tap.dictionary.name for tap in taps]}
    details["pool"] = sum(not isinstance(node[1], str) for node in nodes)
    return FeatureCircuit(
        nodes=tuple(name for name, _ in order[:count]),
        scores=tuple(score for _, score in order[:count]),
        prompts=len(held_out),
        **vars(verdict),
        **vars(curve),
        metadata=about(model, fitted(metric, model, held_out), **details),
    )


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

    low = 0
    for high in sizes:
        if judge.share(nodes[:high]) >= wanted:
            break
        low = high
    else:
        return sizes[-1]
    while high - low > max(1, high // 20):
        middle = (low + high) // 2
        low, high = (low, middle) if judge.share(nodes[:middle]) >= wanted else (middle, high)
    return high
