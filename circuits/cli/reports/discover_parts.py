"""The parts of a discovery, written and printed as they come."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from circuits.attribution import EdgeScores
from circuits.cli.prompts import Behaviour
from circuits.cli.questions.discover import Search
from circuits.cli.report import Table, records
from circuits.cli.reports.verdict import asks, standing, summed
from circuits.cli.settings import Work
from circuits.cli.text import one_line
from circuits.files.plain import thaw
from circuits.files.words import counted
from circuits.graph import Circuit
from circuits.search.judging.curves import Curve
from circuits.search.judging.verdict import Verdict
from circuits.search.methods.table import METHODS, OTHERWISE
from circuits.search.screening import Screening

CURVE = ("curve.json", "curve.csv", "curve.png")
"""Files about all sizes."""
_MOST_ROWS = 15
_VERIFIED = (
    "effect: share of the clean-corrupt gap that is lost when the edge carries its corrupt value, patched exactly, alone\n"
    "or without the nodes named; positive = the edge supports the metric"
)


def noted(
    one: Circuit,
    verdict: Verdict | None,
    search: Search,
    asked: Behaviour,
    tokens: Mapping[str, str] | None = None,
) -> Circuit:
    """The circuit, which also says what it is one of and what was made of it, if it was judged yet; `tokens`: with roles, those
    of each in one of the prompts."""
    details: Any = thaw(one.metadata)
    details |= {
        "task": asked.prompts.name,
        "source": asked.prompts.describe(),
        **({"question": question} if (question := asked.prompts.question) else {}),
        "search": search.describe(one),
        "seed": asked.prompts.seed,
        **({} if tokens is None else {"role_tokens": dict(tokens)}),
    }
    unjudged = f"{counted(len(one), 'edge')} between {counted(len(one.nodes), 'node')}; not judged yet."
    details["verdict"] = "unjudged" if verdict is None else verdict.standing
    details["summary"] = unjudged if verdict is None else verdict.summary
    known = {"positions": dict(one.positions), "evidence": {name: thaw(value) for name, value in one.evidence.items()}}
    return Circuit(one.graph, dict(one.edges), dict(one.nodes), roles=dict(one.roles), metadata=details, **known)


def edge_table(circuit: Circuit, scores: EdgeScores | None, screening: Screening | None) -> pd.DataFrame:
    """The circuit's edges, strongest first, with what is known of each."""
    rows = [
        {"edge": str(edge), "writer": str(edge.writer), "reader": str(edge.target), "score": score}
        for edge, score in circuit.edges.items()
    ]
    edges = pd.DataFrame(rows).sort_values("score", key=lambda scores: -scores.abs(), kind="stable")
    if screening is not None:
        return edges.merge(screening.to_dataframe().drop(columns="confirmed"), on="edge", how="left")
    same = scores is not None and scores.metadata.get("method") == circuit.metadata.get("method")
    if scores is not None and same and not scores.errors.isnan().all():
        return edges.merge(scores.to_dataframe()[["edge", "error"]], on="edge", how="left")
    return edges


@dataclasses.dataclass(eq=False)
class DiscoveryParts:
    """Writes and prints each part of a discovery as it comes: scores, exact tests, circuit, verdict, curve."""

    work: Work
    search: Search
    asked: Behaviour
    measured: Mapping[str, Any]
    """The model's name, the metric's, and the numbers of prompts."""
    tokens: Mapping[str, str] | None = None
    """With roles, the tokens of each in one of the prompts."""
    scores: EdgeScores | None = None
    screening: Screening | None = None
    circuit: Circuit | None = None
    verdict: Verdict | None = None

    def add(self, part: Any) -> None:
        """One part."""
        folder, work = self.work.staging, self.work
        if isinstance(part, EdgeScores):
            self.scores = part
            if not part.graph.neurons:
                part.save(folder / "scores.json")
        elif isinstance(part, Screening):
            self.screening = part
            part.to_dataframe().to_csv(folder / "tested.csv", index=False)
        elif isinstance(part, Circuit):
            self._add_circuit(part)
        elif isinstance(part, Verdict):
            self._add_verdict(part)
        elif isinstance(part, Curve):
            part.save(folder / "curve.json")
            part.to_dataframe().to_csv(folder / "curve.csv", index=False)
        work.publish()

    def _noted(self, circuit: Circuit, verdict: Verdict | None) -> Circuit:
        return noted(circuit, verdict, self.search, self.asked, self.tokens)

    def _add_verdict(self, verdict: Verdict) -> None:
        """The verdict comes before completeness and minimality are known, and again with them."""
        first, self.verdict = self.verdict is None, verdict
        verdict.save(self.work.staging / "verdict.json")
        if self.circuit is not None:
            self._noted(self.circuit, verdict).save(self.work.staging / "circuit.json")
        self.work.publish(lacking="completeness, minimality" if first else "")
        self.work.say(standing(verdict), *([] if first else [summed(verdict)]))

    def _add_circuit(self, circuit: Circuit) -> None:
        first, edges = self.circuit is None, edge_table(circuit, self.scores, self.screening)
        self._noted(circuit, None).save(self.work.staging / "circuit.json")
        edges.to_csv(self.work.staging / "edges.csv", index=False)
        if self.scores is None:
            self.work.files.drop("scores.json")
        if self.scores is None or not self.scores.complete:
            self.work.files.drop(*CURVE)
        self.circuit = circuit
        if first and began(circuit, self.search):
            self.work.publish(lacking="refining")
            self.work.say(f"First circuit: {len(circuit):,} edges by {self.search.describe(circuit)}; now it is refined")
            return
        self.work.publish()
        told = heading(circuit, self.search, self.asked, self.measured)
        self.work.say(told, strongest(records(edges), self.search, circuit))


def began(circuit: Circuit, search: Search) -> bool:
    """Whether a circuit is by the method that the search only begins with."""
    return search.method.proposes and circuit.metadata.get("method") != search.method.label


def heading(circuit: Circuit, search: Search, asked: Behaviour, measured: Mapping[str, Any]) -> str:
    """What was found, and by which search."""
    what = "heads and neurons" if search.neurons else "heads and MLPs"
    what += f" at {len(circuit.graph.roles)} roles of tokens" if circuit.graph.roles else ""
    halves = f"{measured['prompts_searched']} prompts searched on, {measured['prompts_held_out']} held out"
    return (
        f"{one_line(measured['model'])}: {len(circuit):,} edges between {what} for {one_line(asked.prompts.describe())}\n"
        f"by {one_line(search.describe(circuit))}; {halves}; metric: {measured['metric']}{asks(asked)}"
    )


def strongest(edges: Sequence[dict[str, Any]], search: Search, circuit: Circuit) -> Table:
    """The strongest edges as a table."""
    method = METHODS[OTHERWISE] if began(circuit, search) else search.method
    sign = _VERIFIED if search.verify else method.score
    if search.verify:
        header = ("strongest edges", "estimate", "exact alone", "exact effect [95 % interval]", "without")
        rows = [
            (row["edge"], _signed(row["estimate"]), _signed(row["alone"]), _with_interval(row), row["without"] or "-")
            for row in edges[:_MOST_ROWS]
        ]
    else:
        error = any(row.get("error") is not None for row in edges)
        header = ("strongest edges", "score", *(["standard error"] if error else []))
        rows = [(row["edge"], _signed(row["score"]), *([f"{row['error']:.2g}"] if error else [])) for row in edges[:_MOST_ROWS]]
    more = [f"... and {len(edges) - len(rows):,} more in edges.csv"] if len(edges) > len(rows) else []
    return Table(header, rows, below="\n".join([*more, sign]))


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4g}"


def _with_interval(row: dict[str, Any]) -> str:
    return f"{row['effect']:+z.3f} [{row['low']:z.3f}, {row['high']:z.3f}]"
