"""Circuits: what they refuse, the laws of their algebra, paths, rankings and other shapes."""

import copy
import dataclasses
import itertools
import math
import random

import networkx
import numpy as np
import pytest
import torch

from circuits.errors import GraphError, NonFiniteError
from circuits.graph import Circuit, Edge, Graph, Node
from tests.graph.samples import random_circuit, random_graph

SMALL = Graph(n_layers=3, n_heads=2, n_key_value_heads=2, d_mlp=4)
GROUPED = Graph(n_layers=3, n_heads=4, n_key_value_heads=2, d_mlp=0)


def names(items) -> list[str]:
    return [str(item) for item in items]


def test_names_scores_and_ends():
    circuit = Circuit(SMALL, {"a0.h1->a2.h0<k>": 0.5, "input->a0.h1<v>": None}, {"m1": 2}, roles={"a0.h1": "previous token"})
    assert names(circuit.edges) == ["input->a0.h1<v>", "a0.h1->a2.h0<k>"]
    assert names(circuit.nodes) == ["input", "a0.h1", "m1", "a2.h0"]
    assert circuit.edges[Edge.parse("a0.h1->a2.h0<k>")] == 0.5
    assert circuit.nodes[Node("mlp", 1)] == 2.0
    assert len(circuit) == 2
    assert "m1" in circuit
    assert "m2" not in circuit
    assert "a0.h1->a2.h0<k>" in circuit
    assert "a0.h1->a2.h0<q>" not in circuit
    assert "a0.h1<q>" not in circuit
    assert "nonsense" not in circuit
    assert repr(circuit) == "Circuit(4 nodes and 2 edges of 11 nodes and 100 edges)"
    assert circuit == Circuit(SMALL, circuit.edges, circuit.nodes, roles=circuit.roles)
    assert not Circuit(SMALL)


def test_shared_keys_choose_no_head():
    circuit = Circuit(GROUPED, ["a0.h0->a1.h1<k>", "a0.h0->a2.h1<q>"])
    assert names(circuit.nodes) == ["a0.h0", "a2.h1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"edges": ["a0.h1->a0.h0<q>"]}, "not computed after"),
        ({"edges": ["a0.h1->a9.h0<q>"]}, "no edge a0.h1->a9.h0<q>: no reader a9.h0<q>: the graph has 3 layers"),
        ({"edges": ["a0.h1->m1", Edge.parse("a0.h1->m1")]}, "a0.h1->m1 is given twice"),
        ({"edges": ["m1"]}, "m1 is a node"),
        ({"edges": "a0.h1->m1"}, "put it into a list"),
        ({"edges": {"a0.h1->m1": "0.5"}}, "score of a0.h1->m1 is a str"),
        ({"edges": {"a0.h1->m1": True}}, "score of a0.h1->m1 is a bool"),
        ({"edges": {"a0.h1->m1": torch.zeros(2)}}, "score of a0.h1->m1 does not fit one float"),
        ({"edges": {"a0.h1->m1": 10**400}}, "does not fit one float"),
        ({"nodes": ["a0.h1->m1"]}, "is an edge"),
        ({"nodes": ["m0.n1"]}, "neurons=True"),
        ({"roles": {"m1": "x"}}, "m1, which is not in the circuit"),
        ({"edges": ["m0->m1"], "roles": {"m0->m1": "x"}}, "only nodes have one"),
        ({"nodes": ["m1"], "roles": {"m1": 3}}, "role of m1 is a int"),
        ({"nodes": ["m1"], "roles": {"m1": "\ud800"}}, "lone surrogate"),
        ({"nodes": ["m1"], "positions": {"m1": []}}, "no position at all"),
        ({"nodes": ["m1"], "positions": {"m1": "last"}}, "expected a list"),
        ({"nodes": ["m1"], "positions": {"m1": [1.5]}}, "1.5 is no position"),
        ({"nodes": ["m1"], "positions": {"m1": [1], Node("mlp", 1): [2]}}, "given twice"),
        ({"nodes": ["m1"], "evidence": {"m1": {"x": torch.zeros(1)}}}, "evidence of m1 holds a Tensor"),
        ({"nodes": ["m1"], "evidence": {"m1": {1: 2}}}, "a key of the evidence of m1 is a int"),
        ({"metadata": {"x": 2**64}}, "beyond 64 bits"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict, message: str):
    with pytest.raises(GraphError) as error:
        Circuit(SMALL, **arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float32("nan"), torch.tensor(-math.inf)])
def test_non_finite_is_refused_by_name(value):
    with pytest.raises(NonFiniteError, match=r"a0\.h1->m1"):
        Circuit(SMALL, {"a0.h1->m1": value})
    with pytest.raises(NonFiniteError, match="metadata"):
        Circuit(SMALL, metadata={"deep": [float(value)]})


def test_numbers_of_other_libraries_become_floats():
    circuit = Circuit(SMALL, {"m0->m1": np.float32(0.5), "m0->m2": torch.tensor(0.25), "m1->m2": 3})
    assert list(circuit.edges.values()) == [0.5, 0.25, 3.0]
    assert {type(score) for score in circuit.edges.values()} == {float}


def test_circuit_cannot_change():
    given = {"seed": [1]}
    circuit = Circuit(SMALL, {"m0->m1": 1.0}, metadata=given, evidence={"m0": {"effect": [1.0]}})
    given["seed"].append(2)
    assert circuit.metadata["seed"] == (1,)
    with pytest.raises(TypeError):
        circuit.edges[Edge.parse("m0->m2")] = 1.0  # pyright: ignore
    with pytest.raises(TypeError):
        circuit.evidence[Node("mlp", 0)]["effect"] = 2  # pyright: ignore
    with pytest.raises(dataclasses.FrozenInstanceError):
        circuit.graph = SMALL  # pyright: ignore
    assert dataclasses.replace(circuit, roles={"m0": "x"}).roles == {Node("mlp", 0): "x"}


def elements(circuit: Circuit) -> tuple[set, set]:
    return set(circuit.edges), set(circuit.nodes)


@pytest.mark.parametrize("seed", range(30))
def test_set_algebra(seed: int):
    rng = random.Random(seed)
    graph = random_graph(rng)
    a, b, c = (random_circuit(rng, graph, bare=True) for _ in range(3))
    assert a | a == a & a == a
    assert not a - a
    assert elements(a | b) == elements(b | a) == (set(a.edges) | set(b.edges), set(a.nodes) | set(b.nodes))
    assert elements(a & b) == elements(b & a) == (set(a.edges) & set(b.edges), set(a.nodes) & set(b.nodes))
    assert set((a - b).edges) == set(a.edges) - set(b.edges)
    assert set(a.nodes) - set(b.nodes) <= set((a - b).nodes) <= set(a.nodes)
    assert (a | b) | c == a | (b | c)
    assert (a & b) & c == a & (b & c)
    assert elements(a & (b | c)) == elements((a & b) | (a & c))
    assert elements((a - b) | (a & b)) == elements(a)
    assert a | Circuit(graph) == a
    for edge, score in (a | b).edges.items():
        expected = a.edges.get(edge)
        assert score == (b.edges.get(edge) if expected is None else expected)


@pytest.mark.parametrize("seed", range(30))
def test_set_algebra_is_that_of_every_position(seed: int):
    """A circuit restricted to positions is a set of (element, position) pairs, and the operations are those of sets."""
    rng = random.Random(seed)
    places = [0, 1, "subject"]

    def draw() -> Circuit:
        plain = random_circuit(rng, SMALL, bare=True)
        every = [*plain.nodes, *plain.edges]
        return dataclasses.replace(plain, positions={item: rng.sample(places, rng.randint(1, 3)) for item in every})

    def pairs(circuit: Circuit, kind: type) -> set:
        every = [*circuit.nodes, *circuit.edges]
        return {(item, place) for item in every if isinstance(item, kind) for place in circuit.positions.get(item, places)}

    a, b = draw(), draw()
    assert pairs(a | b, Edge) == pairs(a, Edge) | pairs(b, Edge)
    assert pairs(a | b, Node) == pairs(a, Node) | pairs(b, Node)
    assert pairs(a & b, Node) == pairs(a, Node) & pairs(b, Node)
    assert pairs(a & b, Edge) <= pairs(a, Edge) & pairs(b, Edge)
    assert pairs(a - b, Edge) == pairs(a, Edge) - pairs(b, Edge)
    assert pairs((a - b) | (a & b), Node) >= pairs(a, Node) - pairs(b, Node)


def test_what_positions_cannot_say_is_refused():
    everywhere, somewhere = Circuit(SMALL, nodes=["m1"]), Circuit(SMALL, nodes=["m1"], positions={"m1": [0]})
    assert (everywhere | somewhere).positions == {}
    assert (everywhere & somewhere).positions == {Node("mlp", 1): (0,)}
    assert not somewhere - everywhere
    with pytest.raises(GraphError, match="m1 everywhere minus m1 at some positions"):
        everywhere - somewhere


def test_what_is_known_survives_the_algebra():
    a = Circuit(SMALL, ["m0->m1"], roles={"m0": "left"}, evidence={"m0->m1": {"x": 1}}, metadata={"model": "mini", "seed": 1})
    b = Circuit(SMALL, ["m0->m1", "m1->m2"], roles={"m0": "right", "m2": "end"}, metadata={"model": "mini", "seed": 2})
    both = a | b
    assert both.roles == {Node("mlp", 0): "left", Node("mlp", 2): "end"}
    assert both.metadata == {"model": "mini"}
    assert (a & b).evidence == a.evidence
    assert (b - a).metadata == b.metadata
    with pytest.raises(GraphError, match="different graphs"):
        a | Circuit(GROUPED)


def paths(graph: Graph, edges: list[Edge]) -> set[Edge]:
    """List the edges on a path from the input to the logits, by walking every path."""
    found: set[Edge] = set()

    def walk(node: Node, path: list[Edge]) -> None:
        if node.kind == "logits":
            found.update(path)
        for edge in edges:
            if edge.writer == node:
                for target in graph.targets(edge):
                    walk(target, [*path, edge])

    walk(Node("input"), [])
    return found


@pytest.mark.parametrize("seed", range(40))
def test_connected_keeps_what_lies_on_a_path(seed: int):
    rng = random.Random(seed)
    graph = rng.choice([SMALL, GROUPED, random_graph(rng)])
    every = list(graph.edges())
    circuit = Circuit(graph, rng.sample(every, min(len(every), rng.randint(1, 25))), ["input"])
    kept = circuit.connected()
    assert set(kept.edges) == paths(graph, list(circuit.edges))
    assert kept.connected() == kept
    network = kept.to_networkx()
    for node in kept.nodes:
        assert networkx.has_path(network, "input", str(node))
        assert networkx.has_path(network, str(node), "logits")


def test_the_whole_graph_is_connected():
    for graph in (SMALL, GROUPED):
        whole = Circuit(graph, graph.edges())
        assert whole.connected() == whole
        assert len(whole) == graph.edge_count
        assert len(whole.nodes) == graph.node_count


@pytest.mark.parametrize("seed", range(20))
def test_top_takes_the_largest_and_of_equal_ones_the_earlier(seed: int):
    rng = random.Random(seed)
    circuit = random_circuit(rng, scored=True, bare=True)
    shuffled = list(circuit.edges.items())
    rng.shuffle(shuffled)
    again = Circuit(circuit.graph, dict(shuffled))
    for k in range(len(circuit) + 2):
        wanted = sorted(circuit.edges, key=lambda edge: (-abs(circuit.edges[edge]), edge))[:k]
        assert set(circuit.top(k).edges) == set(again.top(k).edges) == set(wanted)


def test_what_is_known_can_be_asked_by_name():
    circuit = Circuit(SMALL, {"m0->m1": 0.5}, roles={"m0": "writer"})
    assert circuit.edges["m0->m1"] == 0.5
    assert circuit.roles["m0"] == "writer"
    assert "m0" in circuit.roles and "nonsense" not in circuit.roles
    with pytest.raises(KeyError):
        _ = circuit.roles["m1"]


def test_top_puts_unscored_edges_last_and_refuses_what_is_no_count():
    circuit = Circuit(SMALL, {"m0->m1": None, "input->m1": 0.0, "input->m0": -2.0})
    assert [str(edge) for edge in circuit.top(1).edges] == ["input->m0"]
    assert set(map(str, circuit.top(2).edges)) == {"input->m0", "input->m1"}
    for k in (-1, True):
        with pytest.raises(GraphError, match="whole number of edges"):
            Circuit(SMALL).top(k)


@pytest.mark.parametrize("seed", range(30))
def test_networkx_and_copies_give_the_circuit_back(seed: int):
    circuit = random_circuit(random.Random(seed))
    network = circuit.to_networkx()
    assert Circuit.from_networkx(network) == circuit
    assert (
        Circuit.from_networkx(networkx.node_link_graph(networkx.node_link_data(network, edges="edges"), edges="edges"))
        == circuit
    )
    assert copy.deepcopy(circuit) == circuit
    assert hash(copy.copy(circuit)) == hash(circuit)


def test_networkx_paths_go_through_shared_keys():
    circuit = Circuit(GROUPED, ["input->a0.h0<q>", "a0.h0->a1.h1<k>", "a1.h2->logits"])
    network = circuit.to_networkx()
    assert networkx.shortest_path(network, "input", "logits") == ["input", "a0.h0", "a1.h1<k>", "a1.h2", "logits"]
    assert len(circuit.connected()) == 3


def test_networkx_that_is_no_circuit_is_refused():
    circuit = Circuit(GROUPED, {"input->a0.h0<q>": 1.0, "a0.h0->a1.h1<k>": 2.0, "a1.h2->logits": 3.0})
    changes = [
        lambda network: network.remove_node("a1.h1<k>"),
        lambda network: network.add_edge("a1.h1<k>", "a1.h0", key="group"),
        lambda network: network.remove_edge("a1.h1<k>", "a1.h2", key="group"),
        lambda network: network.add_edge("a1.h2", "a0.h0", key="q"),
        lambda network: network.add_node("stranger"),
        lambda network: network.add_node(3),
        lambda network: network.nodes["a0.h0"].update(kind="mlp"),
        lambda network: network.nodes["a0.h0"].update(colour="red"),
        lambda network: network.graph["shape"].update(n_heads=1),
        lambda network: network.graph["counts"].update(edges=4),
        lambda network: network.graph.pop("shape"),
    ]
    for change in changes:
        network = circuit.to_networkx()
        change(network)
        with pytest.raises(GraphError):
            Circuit.from_networkx(network)


def test_dataframe():
    circuit = Circuit(SMALL, {"m0->m1": 0.5, "m0->a1.h0<q>": None}, roles={"m0": "start"}, positions={"m0->m1": [2, "last"]})
    table = circuit.to_dataframe()
    assert list(table.columns) == ["element", "name", "writer", "reader", "slot", "score", "role", "positions"]
    assert list(table["name"]) == ["m0", "a1.h0", "m1", "m0->a1.h0<q>", "m0->m1"]
    assert table.iloc[4]["score"] == 0.5
    assert table.iloc[4]["positions"] == (2, "last")
    assert math.isnan(table.iloc[3]["score"])
    assert len(Circuit(SMALL).to_dataframe()) == 0


def test_every_selection_is_of_edges_only():
    """Over all pairs of writer and reader: a circuit takes exactly the edges of its graph."""
    for graph in (SMALL, GROUPED):
        readers = {str(edge.target) for edge in graph.edges()}
        for writer, reader in itertools.product(graph.nodes(), readers):
            try:
                taken = len(Circuit(graph, [f"{writer}->{reader}"])) == 1
            except GraphError:
                taken = False
            assert taken == graph.has_edge(f"{writer}->{reader}")
