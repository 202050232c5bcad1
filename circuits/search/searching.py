"""A search for a circuit, by whichever method, without a judge."""

import dataclasses
from typing import Any

from circuits.attribution import EdgeScores
from circuits.attribution.scores import By
from circuits.errors import CircuitsError, MemoryBudgetError, PromptError, shown
from circuits.files.plain import thaw
from circuits.graph import Circuit, Graph
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.progress import Found, Progress, heard
from circuits.search.methods.method import Method
from circuits.search.methods.table import METHODS, check_fit, method_for
from circuits.search.screening import Screening, screen_then_verify
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, Metric, fitted

EDGES, SHARE = 100, 0.02
"""How many edges a circuit may have unless told: so many, or where that is more this share of all."""


def usual_size(graph: Graph, *, verify: bool = False) -> int:
    """How many edges a circuit of this graph may have unless told: 100, or 2 % of all where that is more; 100 of edges between
    neurons or roles, and of those that are patched one by one."""
    few = graph.neurons or graph.roles is not None or verify
    return min(graph.edge_count, EDGES if few else max(EDGES, round(SHARE * graph.edge_count)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Searching:
    """How a circuit is searched for; the fields are options of `discover`."""

    method: str | None = None
    edges: int | None = None
    by: By | None = None
    neurons: bool = False
    roles: bool = False
    steps: int | None = None
    threshold: float | None = None
    verify: bool = False

    def __post_init__(self) -> None:
        if self.edges is not None and (isinstance(self.edges, bool) or not isinstance(self.edges, int) or self.edges < 1):
            raise CircuitsError(f"edges={shown(self.edges)}: expected how many edges the circuit may have, 1 or more")
        check_fit(self.chosen, **self._asked)

    @property
    def given(self) -> dict[str, int | float | None]:
        """What methods take, as far as it was said."""
        return {"steps": self.steps, "threshold": self.threshold}

    @property
    def _asked(self) -> dict[str, Any]:
        level = "neurons" if self.neurons else "roles" if self.roles else "heads"
        return {"level": level, "verify": self.verify, "by": self.by, "given": self.given}

    @property
    def chosen(self) -> Method:
        """The method itself. Raises CircuitsError for a name that none has."""
        return method_for(self.method, **self._asked)

    def size(self, graph: Graph) -> int:
        """How many edges the circuit may have."""
        return usual_size(graph, verify=self.verify) if self.edges is None else self.edges

    def run(
        self,
        model: Model,
        pairs: PromptPairs,
        metric: AnyMetric,
        *,
        seed: int = 0,
        budget: int = BUDGET,
        progress: Progress | None = None,
        found: Found | None = None,
    ) -> "SearchFound":
        """Search on these pairs. Raises CircuitsError where no edge is kept that lies on a path."""
        hear, chosen = heard(found), self.chosen
        edges = self.size(model.graph(neurons=self.neurons, roles=pairs.roles.roles if self.roles and pairs.roles else None))
        metric = fitted(metric, model, pairs, gradient=self.verify or chosen.gradient)
        options: dict[str, Any] = {
            name: self.given[name] if self.given[name] is not None else own for name, own in chosen.options.items()
        }
        options |= {name: getattr(self, name) for name in ("neurons", "roles") if name in chosen.levels}
        options |= {"edges": edges, "seed": seed, "budget": budget, "progress": progress}
        search = _Choosing(chosen, edges, self.by or "size", model.prepend_bos, hear)
        scores, circuit = search.run(model, pairs, metric, options, either=self.method is None)
        if scores is not None and scores is not search.proposed:
            hear(scores)
        screening = None
        if self.verify and scores is not None:
            how: dict[str, Any] = {"edges": edges, "seed": seed, "budget": budget, "progress": progress}
            screening = screen_then_verify(model, pairs, metric, scores, **how)
            circuit = screening.circuit
            hear(screening)
        if not len(circuit):
            lower = ", or a lower threshold" if "threshold" in chosen.options else ""
            raise CircuitsError(f"{chosen.name} kept no edge that lies on a path: ask for more edges{lower}")
        hear(circuit)
        return SearchFound(scores, circuit, screening)


@dataclasses.dataclass(frozen=True, eq=False)
class SearchFound:
    """What a search found."""

    scores: EdgeScores | None
    """Of every edge (of neurons: of the strongest), where the method gives scores; of refining, those it began with."""
    circuit: Circuit
    screening: Screening | None
    """Exact tests of the proposed edges, where they were asked for."""


@dataclasses.dataclass(eq=False)
class _Choosing:
    """What becomes of what a method gives."""

    method: Method
    edges: int
    by: By
    prepend_bos: bool | None
    hear: Found
    proposed: EdgeScores | None = None
    """The scores that the method began with, where it hands over some."""

    def run(
        self, model: Model, pairs: PromptPairs, metric: Metric, options: dict[str, Any], *, either: bool
    ) -> tuple[EdgeScores | None, Circuit]:
        """Scores, where there are some, and the circuit; with `either`, where a method cannot go on from what it began with
        (for want of memory, or since the gaps of pairs cancel), the circuit of that."""
        hearing = {"found": self._propose} if self.method.proposes else {}
        try:
            return self._results(self.method.run(model, pairs, metric, **options, **hearing))
        except (MemoryBudgetError, PromptError) as error:
            if not either or self.proposed is None:
                raise
            return self.proposed, self._first(self.proposed, unrefined=str(error))

    def _propose(self, scores: EdgeScores) -> None:
        """Whoever hears parts has scores and a first circuit, whatever comes later."""
        details: Any = thaw(scores.metadata)
        details = {**({} if self.prepend_bos is None else {"prepend_bos": self.prepend_bos}), **details}
        self.proposed = dataclasses.replace(scores, metadata=details)
        self.hear(self.proposed)
        first = self._first(self.proposed)
        if len(first):
            self.hear(first)

    def _first(self, scores: EdgeScores, **details: str) -> Circuit:
        """The circuit of the strongest edges, or of those that support the metric most."""
        # By support, what is most negative comes first.
        sign = -1 if self.by == "support" and self.method.sign > 0 else 1
        rows = dataclasses.replace(scores, by_label=sign * scores.by_label).rows(self.edges, by=self.by, connected=True)
        return dataclasses.replace(scores, metadata={**scores.metadata, **details}).circuit(rows)

    def _results(self, found: object) -> tuple[EdgeScores | None, Circuit]:
        """What a method gave: scores, where there are some, and the circuit. Both say which method they are by and what a sign
        of theirs means, also where the method itself does not. Raises CircuitsError for anything else."""
        name = self.method.name
        if not isinstance(found, EdgeScores | Circuit):
            raise CircuitsError(f"the method {name} gave a {type(found).__name__}: expected EdgeScores or a Circuit")
        own = {} if name in METHODS else {"supporting_sign": self.method.sign}  # another process may not know the method
        own |= {} if self.prepend_bos is None else {"prepend_bos": self.prepend_bos}
        details: Any = thaw(found.metadata)
        details = {**own, "method": self.method.label, **details}
        if isinstance(found, EdgeScores):
            scores = dataclasses.replace(found, metadata=details)
            return scores, self._first(scores)
        known = {"positions": found.positions, "evidence": found.evidence, "roles": found.roles}
        return self.proposed, Circuit(found.graph, found.edges, found.nodes, metadata=details, **known)
