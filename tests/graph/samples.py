"""Random graphs and circuits for the tests of this room."""

import random

from circuits.graph import Circuit, Graph

ROLES = ["previous token", 'quote " backslash \\ <tag> & \n line', "\u2028 é ∅ \x07", "induction"]


def random_graph(rng: random.Random, *, neurons: bool | None = None) -> Graph:
    groups = rng.randint(1, 3)
    return Graph(
        n_layers=rng.randint(0, 3),
        n_heads=groups * rng.randint(1, 3),
        n_key_value_heads=groups,
        d_mlp=rng.choice([0, 1, 4]),
        parallel=rng.random() < 0.5,
        neurons=rng.random() < 0.5 if neurons is None else neurons,
    )


def random_circuit(rng: random.Random, graph: Graph | None = None, *, bare: bool = False, scored: bool = False) -> Circuit:
    """Draw a circuit; `bare` keeps to what every format can say, `scored` gives every edge a score with many ties."""
    graph = graph or random_graph(rng, neurons=False if bare else None)
    edges, nodes = list(graph.edges()), list(graph.nodes())
    few_edges = rng.sample(edges, rng.randint(0, min(12, len(edges))))
    few_nodes = rng.sample(nodes, rng.randint(0, min(3, len(nodes))))
    scores = [-1.0, 0.0, 1.0, 2] if scored else [None, 0.1 + 0.2, -1e-300, 3, rng.gauss(0, 1)]
    plain = Circuit(graph, {edge: rng.choice(scores) for edge in few_edges}, {node: rng.choice(scores) for node in few_nodes})
    if bare:
        return plain
    elements = [*plain.nodes, *plain.edges]
    return Circuit(
        graph,
        plain.edges,
        plain.nodes,
        positions={element: rng.sample([0, 3, -1, "subject", "last é"], rng.randint(1, 3)) for element in elements[::3]},
        evidence={
            element: {"effect": rng.gauss(0, 1), "interval": [0.0, {"deep": [None, True]}]} for element in elements[1::3]
        },
        roles={node: rng.choice(ROLES) for node in plain.nodes if rng.random() < 0.4},
        metadata={"model": "mini", "seed": rng.randint(-5, 5), "hashes": ["a", "b"], "nested": {"ü": 0.5}},
    )
