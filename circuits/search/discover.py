"""One call from prompts to a judged circuit."""

import dataclasses
import importlib
import random
from typing import TYPE_CHECKING, Literal, get_args

from circuits.attribution import EdgeScores, attribute_edges
from circuits.attribution.edges import KEPT
from circuits.errors import CircuitsError, PromptError
from circuits.graph import Circuit
from circuits.models import Model
from circuits.patching.engine.sweep import BUDGET
from circuits.progress import Progress
from circuits.search.acdc.descent import acdc_thresholds
from circuits.search.judging.curves import Curve, curve_of
from circuits.search.judging.evaluate import Judge, faithfulness, verdict_of
from circuits.search.judging.verdict import Verdict
from circuits.search.methods.pruning import prune_edges
from circuits.search.screening import Screening, screen_then_verify
from circuits.search.methods.shrinking import shrink
from circuits.tasks import PromptPairs
from circuits.tasks.metrics import AnyMetric, Metric, Relative, fitted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Method = Literal["eap", "eap-ig", "eap-ig-activations", "relp", "exact", "acdc", "prune", "shrink"]
THRESHOLDS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0001)
"""ACDC's thresholds that are tried where a number of edges is asked for."""


@dataclasses.dataclass(frozen=True, eq=False)
class Discovery:
    """A circuit and everything that was found out about it."""

    circuit: Circuit
    verdict: Verdict
    """On held-out prompts."""
    scores: EdgeScores | None = None
    """Of every edge (of neurons: of the strongest), where the method gives scores."""
    curve: Curve | None = None
    """Faithfulness over sizes on held-out prompts, where every edge has a score."""
    screening: Screening | None = None
    """Exact tests of the proposed edges, where they were asked for."""

    def plot(self) -> "Figure":
        """The circuit by layers."""
        return importlib.import_module("circuits.plots").circuit_figure(self.circuit)


def split(pairs: PromptPairs, seed: int = 0) -> tuple[PromptPairs, PromptPairs]:
    """Two halves of the pairs, drawn at random: one to search on, one to judge on; pairs with the same clean prompt stay
    together. Raises PromptError where all pairs have one clean prompt."""
    first, rest = _halves(pairs, seed)
    return pairs[first], pairs[rest]


def _halves(pairs: PromptPairs, seed: int) -> tuple[list[int], list[int]]:
    """The rows of the two halves."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, ids in enumerate(pairs.clean.ids.tolist()):
        groups.setdefault(tuple(ids), []).append(row)
    if len(groups) < 2:
        raise PromptError("one pair cannot be split: give at least two clean prompts, or held-out pairs of your own")
    drawn = list(groups.values())
    random.Random(seed).shuffle(drawn)
    first, rest = drawn[0].copy(), drawn[1:]
    while len(rest) > 1 and len(first) < (len(pairs) + 1) // 2:
        first += rest.pop(0)
    return sorted(first), sorted(row for group in rest for row in group)


def discover(
    model: Model,
    pairs: PromptPairs,
    metric: AnyMetric,
    *,
    method: Method = "eap-ig",
    edges: int = 100,
    neurons: bool = False,
    held_out: PromptPairs | None = None,
    steps: int = 5,
    threshold: float | None = None,
    verify: bool = False,
    random_circuits: int = 128,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Discovery:
    """Search for a circuit on some prompts and judge it on others.

    Of methods that score edges the strongest that lie on paths are kept; "acdc" takes `threshold`, or the smallest of
    `THRESHOLDS` that leaves at most `edges`. Raises CircuitsError for options that do not go together, PromptError where
    there are too few pairs.

    Args:
        model: the model that is searched.
        pairs: clean and corrupt prompts with their answers.
        metric: what is measured: a metric of `circuits.metrics`, or a function of one's own from logits and pairs.
        method: "eap", "eap-ig", "eap-ig-activations", "relp", "exact" (`attribute_edges`), "acdc" (`acdc`), "prune"
            (`prune_edges`), or "shrink" (`shrink`).
        edges: how many edges the circuit may have.
        neurons: single neurons in place of MLPs (attribution alone).
        held_out: pairs to judge on (default: half of `pairs`).
        steps: as in `attribute_edges` and `prune_edges`.
        threshold: that of "acdc".
        verify: patch the strongest edges exactly (`screen_then_verify`); the confirmed ones are the circuit.
        random_circuits: how many random circuits of as many edges the null has.
        seed: that of halves, null and bootstrap.
        budget: bytes that a pass may take above the model and its base runs; a smaller one takes longer and changes nothing.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if method not in get_args(Method):
        raise CircuitsError(f"unknown method {method!r}: there are {', '.join(get_args(Method))}")
    if neurons and (verify or method not in ("eap", "eap-ig")):
        raise CircuitsError("edges of single neurons are scored by eap and eap-ig, without exact verification")
    if verify and method in ("acdc", "exact", "prune", "shrink"):
        raise CircuitsError(f"{method} does not estimate single edges: verify goes with the methods that do")
    judged_by = metric
    if held_out is None:
        rows, others = _halves(pairs, seed)
        if not isinstance(metric, Relative):  # one that was made for these pairs is cut with them
            metric, judged_by = (Metric.of(metric).on(half) for half in (rows, others))
        pairs, held_out = pairs[rows], pairs[others]
    metric = fitted(metric, model, pairs, gradient=verify or method not in ("acdc", "exact", "prune"))
    judged_by = fitted(judged_by, model, held_out)
    scores, screening = None, None
    if method == "acdc":
        circuit = _acdc(model, pairs, threshold, edges, budget, progress)
    else:
        scores = _scores(model, pairs, metric, method, edges, neurons, steps, seed, budget, progress)
        circuit = scores.top(edges, connected=True)
    if verify and scores is not None:
        screening = screen_then_verify(model, pairs, metric, scores, edges=edges, seed=seed, budget=budget, progress=progress)
        circuit = screening.circuit
    if not len(circuit):
        raise CircuitsError(f"{method} kept no edge that lies on a path: ask for more edges, or a lower threshold")
    seen = faithfulness(model, circuit, pairs, metric, seed=seed, budget=budget)
    judge = Judge(model, held_out, judged_by, neurons=neurons, budget=budget, progress=progress)
    counts = {"random_circuits": random_circuits, "minimality": not neurons}
    verdict, curve = verdict_of(judge, circuit, searched_on=seen, seed=seed, **counts), None
    if scores is not None and scores.complete and not neurons:
        curve = curve_of(judge, scores, seed=seed)
    return Discovery(circuit, verdict, scores, curve, screening)


def _scores(
    model: Model,
    pairs: PromptPairs,
    metric: Metric,
    method: Method,
    edges: int,
    neurons: bool,
    steps: int,
    seed: int,
    budget: int,
    progress: Progress | None,
) -> EdgeScores:
    if method == "prune":
        return prune_edges(model, pairs, edges=edges, seed=seed, budget=budget, progress=progress)
    if method == "shrink":
        return shrink(model, pairs, metric, edges=edges, budget=budget, progress=progress)
    assert method != "acdc"
    options = {"keep": max(KEPT, 2 * edges), "budget": budget, "progress": progress}  # some will lie on no path
    return attribute_edges(model, pairs, metric, method=method, steps=steps, neurons=neurons, **options)


def _acdc(
    model: Model, pairs: PromptPairs, threshold: float | None, edges: int, budget: int, progress: Progress | None
) -> Circuit:
    """ACDC at a threshold, or at the smallest one that leaves at most so many edges."""
    thresholds = THRESHOLDS if threshold is None else (threshold,)
    found = acdc_thresholds(model, pairs, thresholds, budget=budget, progress=progress)
    fitting = [circuit for circuit in found if threshold is not None or 0 < len(circuit) <= edges]
    if not fitting:
        sizes = ", ".join(f"{len(circuit)} at {limit:g}" for limit, circuit in zip(thresholds, found, strict=True))
        raise CircuitsError(f"no threshold leaves 1 to {edges} edges ({sizes}): give a threshold or another number")
    return max(fitting, key=len)
