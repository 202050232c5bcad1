"""Circuit files as circuits of a given graph: those that count keys and values by query head, put together by group."""

from pathlib import Path

from circuits.graph import Circuit, Graph
from circuits.graph.per_head import PerHead, separate
from circuits.graph.storage import load_counted


def fitted(file: Path, found: tuple[Circuit, PerHead | None], graph: Graph) -> tuple[Circuit, PerHead | None]:
    """What was loaded from a file; where the file does not say how many key-value heads there are, read again with those of
    `graph`, if it is otherwise a circuit of that graph."""
    circuit, counts = found
    if counts is None or not counts.unsaid:
        return found
    if not graph.grouped or circuit.graph != separate(graph):
        return circuit, None
    return load_counted(file, n_key_value_heads=graph.n_key_value_heads)
