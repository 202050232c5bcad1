"""One call from prompts to a judged circuit."""

import dataclasses
from typing import Any

import pandas as pd

from circuits.attribution import EdgeScores
from circuits.attribution.scores import By
from circuits.errors import CircuitsError
from circuits.files.results import Result
from circuits.graph import Circuit
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.progress import Found, Progress, heard
from circuits.search.judging.curves import Curve, curve_of
from circuits.search.judging.evaluate import Expected, faithfulness, verdict_of
from circuits.search.judging.extent import RANDOM, Minimality, asked as asked_of
from circuits.search.judging.judge import Judge
from circuits.search.judging.verdict import Verdict
from circuits.search.screening import Screening
from circuits.search.searching import Searching
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, Metric, Relative, fitted
from circuits.tasks.roles import required_roles
from circuits.tasks.sharing import halves


@dataclasses.dataclass(frozen=True, eq=False)
class Discovery(Result, format="circuits-discovery"):
    """A circuit and everything that was found out about it."""

    circuit: Circuit
    verdict: Verdict
    """On held-out prompts."""
    scores: EdgeScores | None = None
    """Of every edge (of neurons: of the strongest), where the method gives scores; of refining, those it began with."""
    curve: Curve | None = None
    """Faithfulness over sizes on held-out prompts, where every edge has a score."""
    screening: Screening | None = None
    """Exact tests of the proposed edges, where they were asked for."""

    @property
    def summary(self) -> str:
        """The verdict in a few sentences."""
        return self.verdict.summary

    def to_dataframe(self) -> pd.DataFrame:
        """The circuit: its nodes, then its edges."""
        return self.circuit.to_dataframe()


def split(pairs: PromptPairs, seed: int = 0) -> tuple[PromptPairs, PromptPairs]:
    """Two halves of the pairs, drawn at random: one to search on, one to judge on; pairs that share a prompt, clean or corrupt,
    stay together. Where all pairs hang together so, those with the same clean prompt do. Raises PromptError where all pairs
    have one clean prompt."""
    first, rest = halves(pairs, seed)
    return pairs[first], pairs[rest]


def with_roles_of(model: Model, pairs: PromptPairs, held_out: PromptPairs | None) -> tuple[PromptPairs, PromptPairs | None]:
    """Pairs to search on and to judge on, where these are others, with roles of tokens."""
    causal = model.weights.causal
    return required_roles(pairs, causal=causal), None if held_out is None else required_roles(held_out, causal=causal)


def discover(
    model: Model,
    pairs: PromptPairs,
    metric: AnyMetric,
    *,
    method: str | None = None,
    edges: int | None = None,
    by: By | None = None,
    neurons: bool = False,
    roles: bool = False,
    held_out: PromptPairs | None = None,
    steps: int | None = None,
    threshold: float | None = None,
    verify: bool = False,
    random_circuits: int = RANDOM,
    minimality: Minimality = True,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
    found: Found | None = None,
    expected: Expected | None = None,
) -> Discovery:
    """Search for a circuit on some prompts and judge it on others.

    Of methods that score edges the strongest that lie on paths are kept. Where no method is named, what EAP-IG proposes is
    refined; of neurons, where `steps`, `by` or `verify` is asked for, and where that does not fit the budget or gaps cancel,
    its strongest edges are kept as they are. Raises CircuitsError for options that do not go together, PromptError where there
    are too few pairs.

    Args:
        model: the model that is searched.
        pairs: clean and corrupt prompts with their answers.
        metric: what is measured: a metric of `circuits.metrics`, or a function of one's own from logits and pairs.
        method: by name, one of `circuits.search.METHODS` or one's own (`circuits.search.register_method`).
        edges: how many edges the circuit may have (default: `usual_size`).
        by: how edges are chosen by their scores, with methods that give some: the strongest by "size", which is what is done
            unless told, or those that most "support" the metric. Chosen so they do more than the model does, where it has
            edges against the metric.
        neurons: single neurons in place of MLPs, with methods that score them.
        roles: edges between roles of tokens, with methods that score them: the roles that the pairs have
            (`circuits.tasks.roles`), or else those of their named positions.
        held_out: pairs to judge on (default: half of `pairs`).
        steps: points between corrupt and clean, with methods that take them (default: the method's own).
        threshold: what an edge must cost to be kept, with methods that cut at one (default: the smallest of the method's
            own that leaves at most `edges`).
        verify: patch the strongest edges exactly (`screen_then_verify`); the confirmed ones are the circuit. With methods
            that estimate.
        random_circuits: how many random circuits of as many edges the null has at most.
        minimality: whether to ask of nodes if they are needed, in circuits without single neurons; it costs a run a node. Of 96
            nodes or more 60 are drawn; a number: of at most so many; "all": of every one.
        seed: that of halves, null and bootstrap, and of what a method draws.
        budget: bytes that a pass may take above the model and its base runs; a smaller one takes longer and changes nothing.
        progress: hears what is being done, how much of it is done, and how much there is.
        found: hears each part as soon as it is there: EdgeScores, Screening, Circuit (of refining, first that of the strongest
            edges), Verdict (without completeness and minimality, then with them), Curve, where there is such a part.
        expected: hears about how long judging will take, once the circuit itself was run.
    """
    asked_of(minimality, 0)
    if roles and neurons:
        raise CircuitsError("edges of single neurons have no roles of tokens: leave out neurons or roles")
    pairs, held_out = with_roles_of(model, pairs, held_out) if roles else (pairs, held_out)
    hear = heard(found)
    how: dict[str, Any] = {"edges": edges, "by": by, "neurons": neurons, "roles": roles}
    how |= {"steps": steps, "threshold": threshold}
    searching, judged_by = Searching(method=method, verify=verify, **how), metric
    if held_out is None:
        rows, others = halves(pairs, seed)
        if not isinstance(metric, Relative):  # one that was made for these pairs is cut with them
            metric, judged_by = (Metric.of(metric).on(half) for half in (rows, others))
        pairs, held_out = pairs[rows], pairs[others]
    judged_by = fitted(judged_by, model, held_out)
    metric = fitted(metric, model, pairs, gradient=verify or searching.chosen.gradient)
    searched = searching.run(model, pairs, metric, seed=seed, budget=budget, progress=progress, found=found)
    scores, circuit = searched.scores, searched.circuit
    seen = faithfulness(model, circuit, pairs, metric, seed=seed, budget=budget)
    judge = Judge(model, held_out, judged_by, neurons=neurons, budget=budget, progress=progress)
    # With roles all sizes would be those of a graph many times as large, run in full.
    sizes = scores if scores is not None and scores.complete and not neurons and not roles else None
    counts: dict[str, Any] = {"random_circuits": random_circuits, "minimality": False if neurons else minimality}
    hearing: dict[str, Any] = {"found": found, "expected": expected, "curve": sizes is not None}
    verdict, curve = verdict_of(judge, circuit, searched_on=seen, seed=seed, **counts, **hearing), None
    hear(verdict)
    if sizes is not None:
        curve = curve_of(judge, sizes, by=by or "size", seed=seed, beside=verdict)
        hear(curve)
    return Discovery(circuit, verdict, scores, curve, searched.screening)
