"""Circuits that papers found by hand, to hold found ones against."""

import dataclasses
import functools
import importlib.resources
import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from circuits.errors import PromptError, shown
from circuits.graph import Graph, Node


@dataclasses.dataclass(frozen=True)
class KnownCircuit:
    """The nodes that a paper (`reference`: authors and year) found to do `task` in `model`, by their names."""

    task: str
    model: str
    reference: str
    heads: Mapping[str, tuple[str, ...]]
    """Heads by class, such as "name_mover"."""
    mlps: tuple[str, ...]
    n_layers: int
    n_heads: int
    has_mlps: bool
    """Whether the model has MLPs at all; the circuit may do without them."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """All heads and MLPs, in the order of computation."""
        names = {name for names in self.heads.values() for name in names}
        return tuple(str(node) for node in sorted(map(Node.parse, names | set(self.mlps))))

    def fits(self, graph: Graph) -> bool:
        """Whether a graph has the shape of the model that the circuit is one of (its weights may still be others)."""
        shape = (graph.n_layers, graph.n_heads, graph.n_key_value_heads, bool(graph.d_mlp))
        parallel = graph.parallel and self.has_mlps
        return shape == (self.n_layers, self.n_heads, self.n_heads, self.has_mlps) and not parallel


def known_circuit(task: str) -> KnownCircuit:
    """The known circuit of a task, with whatever corrupt prompts (ioi:swap). Raises PromptError, with the tasks that have one,
    for another."""
    known, kind = _known(), task.partition(":")[0]
    if kind not in known:
        raise PromptError(f"no known circuit for {shown(task)}; there is one for {', '.join(known)}")
    return known[kind]


def known_for(task: str, graph: Graph) -> bool:
    """Whether a circuit is known for a task in models of a graph's shape."""
    return task.partition(":")[0] in _known() and known_circuit(task).fits(graph)


def precision_recall(found_nodes: Iterable[str | Node], known: KnownCircuit) -> tuple[float, float]:
    """Share of the found heads that are known, and share of the known heads that were found, each from 0 to 1.

    Nodes other than heads are passed over; where no head was found both are 0. Raises GraphError for a malformed name.
    """
    nodes = {Node.parse(node) if isinstance(node, str) else node for node in found_nodes}
    found = {str(node) for node in nodes if node.kind == "head"}
    heads = {name for names in known.heads.values() for name in names}
    both = len(found & heads)
    return both / max(len(found), 1), both / len(heads)


@functools.cache
def _known() -> Mapping[str, KnownCircuit]:
    text = (importlib.resources.files("circuits.tasks") / "data" / "known_circuits.json").read_text(encoding="utf-8")
    found = {}
    for row in json.loads(text)["circuits"]:
        found[row["task"]] = KnownCircuit(
            task=row["task"],
            model=row["model"],
            reference=row["reference"],
            heads=MappingProxyType({kind: tuple(names) for kind, names in row["heads"].items()}),
            mlps=tuple(row["mlps"]),
            n_layers=row["shape"]["n_layers"],
            n_heads=row["shape"]["n_heads"],
            has_mlps=row["shape"]["mlps"],
        )
    return MappingProxyType(found)
