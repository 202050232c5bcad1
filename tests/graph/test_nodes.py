"""Names: what parses, what is refused, and the order of computation."""

import dataclasses
import random

import pytest

from circuits.errors import GraphError
from circuits.graph import Edge, Node, Reader
from tests.graph.samples import random_graph

NOT_NODES = [
    "a01.h1",
    "a1.h01",
    "A0.h1",
    "a0.h",
    "a.h0",
    "a0h1",
    "a0.h1<q>",
    " a0.h1",
    "a0.h1 ",
    "a0.h1\n",
    "a-1.h0",
    "a+1.h0",
    "a1_0.h0",
    "a٣.h1",
    "m²",
    "m",
    "m3.",
    "m3.n",
    "m3.n01",
    "m3.h1",
    "a0.n1",
    "inputs",
    "Input",
    "logit",
    "",
    "a0.h1->m3",
    "m9999999999",
    "m1e3",
    "ｍ3",
    "a0.h1.q",
    "m3\x00",
]
NOT_EDGES = [
    "a0.h1",
    "a0.h1->",
    "->m3",
    "a0.h1->a2.h0",
    "a0.h1->m3<q>",
    "a0.h1->a2.h0<z>",
    "a0.h1->a2.h0<q><q>",
    "a0.h1->m3->logits",
    "a0.h1 ->m3",
    "a0.h1->input",
    "logits->m3",
    "m1->m1",
    "m1->m0",
    "m1->a1.h0<q>",
    "a1.h0->a1.h1<k>",
    "m1.n0->m1.n1",
    "a0.h1-->m3",
    "m2->logits<v>",
]


@pytest.mark.parametrize("text", NOT_NODES)
def test_malformed_node_is_refused_by_name(text: str):
    with pytest.raises(GraphError, match="not a node") as error:
        Node.parse(text)
    assert repr(text) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", NOT_EDGES)
def test_malformed_edge_is_refused_by_name(text: str):
    with pytest.raises(GraphError) as error:
        Edge.parse(text)
    assert repr(text) in str(error.value)


def test_names_read_back():
    rng = random.Random(0)
    for _ in range(50):
        graph = random_graph(rng)
        assert all(Node.parse(str(node)) == node for node in graph.nodes())
        assert all(Edge.parse(str(edge)) == edge for edge in graph.edges())
        assert all(Reader.parse(str(edge.target)) == edge.target for edge in graph.edges())


def test_known_names():
    assert Node.parse("m3.n1207") == Node("neuron", 3, 1207)
    assert Edge.parse("a0.h1->a2.h0<k>") == Edge(Node("head", 0, 1), Node("head", 2, 0), "k")
    names = ["input", "a0.h0", "a0.h11", "m0", "m0.n0", "m0.n5", "a1.h2", "a10.h0", "m10", "logits"]
    shuffled = random.Random(1).sample(names, len(names))
    assert [str(node) for node in sorted(map(Node.parse, shuffled))] == names


def test_impossible_parts_are_refused():
    impossible = [
        ("input", 0, None),
        ("head", 1, None),
        ("mlp", None, None),
        ("mlp", 1, 2),
        ("neuron", 0, -1),
        ("head", True, 0),
    ]
    for kind, layer, index in impossible:
        with pytest.raises(GraphError):
            Node(kind, layer, index)
    with pytest.raises(GraphError, match=r"three slots: name one, a2\.h0<q>, a2\.h0<k> or a2\.h0<v>"):
        Edge(Node("input"), Node("head", 2, 0))


def test_nodes_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Node("input").kind = "logits"  # pyright: ignore
