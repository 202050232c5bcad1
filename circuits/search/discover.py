"""One call from prompts to a judged circuit."""

import dataclasses
from typing import Any

import pandas as pd

from circuits.attribution import EdgeScores
from circuits.errors import CircuitsError
from circuits.files.plain import thaw
from circuits.files.results import Result
from circuits.graph import Circuit
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.progress import Found, Progress, heard
from circuits.search.judging.curves import Curve, curve_of
from circuits.search.judging.evaluate import faithfulness, verdict_of
from circuits.search.judging.judge import Judge
from circuits.search.judging.verdict import Verdict
from circuits.search.methods.method import Method
from circuits.search.methods.table import DEFAULT, METHODS, check_fit, find_method
from circuits.search.screening import Screening, screen_then_verify
from circuits.tasks import PromptPairs
from circuits.tasks.metrics import AnyMetric, Metric, Relative, fitted
from circuits.tasks.sharing import halves


@dataclasses.dataclass(frozen=True, eq=False)
class Discovery(Result, format="circuits-discovery"):
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


def discover(
    model: Model,
    pairs: PromptPairs,
    metric: AnyMetric,
    *,
    method: str = DEFAULT,
    edges: int = 100,
    neurons: bool = False,
    held_out: PromptPairs | None = None,
    steps: int | None = None,
    threshold: float | None = None,
    verify: bool = False,
    random_circuits: int = 128,
    minimality: bool = True,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
    found: Found | None = None,
) -> Discovery:
    """Search for a circuit on some prompts and judge it on others.

    Of methods that score edges the strongest that lie on paths are kept. Raises CircuitsError for options that do not go
    together, PromptError where there are too few pairs.

    Args:
        model: the model that is searched.
        pairs: clean and corrupt prompts with their answers.
        metric: what is measured: a metric of `circuits.metrics`, or a function of one's own from logits and pairs.
        method: by name, one of `circuits.search.METHODS` or one's own (`circuits.search.register_method`).
        edges: how many edges the circuit may have.
        neurons: single neurons in place of MLPs, with methods that score them.
        held_out: pairs to judge on (default: half of `pairs`).
        steps: points between corrupt and clean, with methods that take them (default: the method's own).
        threshold: what an edge must cost to be kept, with methods that cut at one (default: the smallest of the method's
            own that leaves at most `edges`).
        verify: patch the strongest edges exactly (`screen_then_verify`); the confirmed ones are the circuit. With methods
            that estimate.
        random_circuits: how many random circuits of as many edges the null has at most.
        minimality: whether to ask of each node if it is needed, in circuits without single neurons; it costs a run a node.
        seed: that of halves, null and bootstrap, and of what a method draws.
        budget: bytes that a pass may take above the model and its base runs; a smaller one takes longer and changes nothing.
        progress: hears what is being done, how much of it is done, and how much there is.
        found: hears each part as soon as it is there: EdgeScores, Screening, Circuit, Verdict (without completeness and
            minimality, then with them), Curve, where there is such a part.
    """
    chosen, hear = find_method(method), heard(found)
    given: dict[str, int | float | None] = {"steps": steps, "threshold": threshold}
    check_fit(chosen, level="neurons" if neurons else "heads", verify=verify, given=given)
    judged_by = metric
    if held_out is None:
        rows, others = halves(pairs, seed)
        if not isinstance(metric, Relative):  # one that was made for these pairs is cut with them
            metric, judged_by = (Metric.of(metric).on(half) for half in (rows, others))
        pairs, held_out = pairs[rows], pairs[others]
    metric = fitted(metric, model, pairs, gradient=verify or chosen.gradient)
    judged_by = fitted(judged_by, model, held_out)
    options: dict[str, Any] = {name: given[name] if given[name] is not None else own for name, own in chosen.options.items()}
    options |= {"neurons": neurons} if "neurons" in chosen.levels else {}
    options |= {"edges": edges, "seed": seed, "budget": budget, "progress": progress}
    scores, circuit = _results(chosen, chosen.run(model, pairs, metric, **options), edges, prepend_bos=model.prepend_bos)
    if scores is not None:
        hear(scores)
    screening = None
    if verify and scores is not None:
        screening = screen_then_verify(model, pairs, metric, scores, edges=edges, seed=seed, budget=budget, progress=progress)
        circuit = screening.circuit
        hear(screening)
    if not len(circuit):
        lower = ", or a lower threshold" if "threshold" in chosen.options else ""
        raise CircuitsError(f"{method} kept no edge that lies on a path: ask for more edges{lower}")
    hear(circuit)
    seen = faithfulness(model, circuit, pairs, metric, seed=seed, budget=budget)
    judge = Judge(model, held_out, judged_by, neurons=neurons, budget=budget, progress=progress)
    counts = {"random_circuits": random_circuits, "minimality": minimality and not neurons}
    verdict, curve = verdict_of(judge, circuit, searched_on=seen, seed=seed, found=found, **counts), None
    hear(verdict)
    if scores is not None and scores.complete and not neurons:
        curve = curve_of(judge, scores, seed=seed)
        hear(curve)
    return Discovery(circuit, verdict, scores, curve, screening)


def _results(method: Method, found: object, edges: int, *, prepend_bos: bool | None) -> tuple[EdgeScores | None, Circuit]:
    """Scores, where a method gives them, and the circuit; both say which method they are by and what a sign of theirs means,
    also where the method itself does not. Raises CircuitsError for anything else that a method gave."""
    if not isinstance(found, EdgeScores | Circuit):
        raise CircuitsError(f"the method {method.name} gave a {type(found).__name__}: expected EdgeScores or a Circuit")
    own = {} if method.name in METHODS else {"supporting_sign": method.sign}  # another process may not know the method
    own |= {} if prepend_bos is None else {"prepend_bos": prepend_bos}
    details: Any = thaw(found.metadata)
    details = {**own, "method": method.label, **details}
    if isinstance(found, EdgeScores):
        scores = dataclasses.replace(found, metadata=details)
        return scores, scores.top(edges, connected=True)
    known = {"positions": found.positions, "evidence": found.evidence, "roles": found.roles}
    return None, Circuit(found.graph, found.edges, found.nodes, metadata=details, **known)
