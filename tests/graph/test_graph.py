"""The graph against enumeration and against the definition written out a second time."""

import random
import time
import tracemalloc

import pytest

from circuits.errors import GraphError
from circuits.graph import Edge, Graph, Node, Reader
from tests.graph.samples import random_graph


def gpt2_small(**options: bool) -> Graph:
    return Graph(n_layers=12, n_heads=12, n_key_value_heads=12, d_mlp=3072, **options)


def brute_force_edges(graph: Graph) -> set[str]:
    """Walk a forward pass: each module reads everything that is in the residual stream when it runs."""
    stream, edges = ["input"], set()
    width = graph.d_mlp if graph.neurons else min(graph.d_mlp, 1)
    for layer in range(graph.n_layers):
        heads = [f"a{layer}.h{head}" for head in range(graph.n_heads)]
        mlps = [f"m{layer}.n{neuron}" if graph.neurons else f"m{layer}" for neuron in range(width)]
        groups = [f"a{layer}.h{group}" for group in range(graph.n_key_value_heads)]
        slots = [f"{head}<q>" for head in heads] + [f"{group}<{slot}>" for group in groups for slot in "kv"]
        edges |= {f"{writer}->{slot}" for writer in stream for slot in slots}
        edges |= {f"{writer}->{mlp}" for writer in stream + ([] if graph.parallel else heads) for mlp in mlps}
        stream += heads + mlps
    return edges | {f"{writer}->logits" for writer in stream}


@pytest.mark.parametrize("seed", range(30))
def test_counts_and_edges_follow_the_definition(seed: int):
    graph = random_graph(random.Random(seed))
    edges = list(graph.edges())
    nodes = list(graph.nodes())
    assert {str(edge) for edge in edges} == brute_force_edges(graph)
    assert graph.edge_count == len(edges) == len(set(edges))
    assert graph.node_count == len(nodes) == len(set(nodes))
    kinds = {(edge.writer.kind, edge.reader.kind) for edge in edges}
    assert kinds == set(graph.edge_counts())
    for writer, reader in kinds:
        count = sum((edge.writer.kind, edge.reader.kind) == (writer, reader) for edge in edges)
        assert graph.count(writer, reader) == count


@pytest.mark.parametrize("seed", range(20))
def test_order_of_computation(seed: int):
    graph = random_graph(random.Random(seed))
    edges, nodes = list(graph.edges()), list(graph.nodes())
    assert nodes == sorted(nodes)
    assert edges == sorted(edges)
    writers = nodes[:-1]
    readers = [slot for layer in range(graph.n_layers) for slot in graph.reader_slots(layer)] + [Reader(Node("logits"))]
    assert readers == sorted(readers) == sorted({edge.target for edge in edges})
    assert [graph.writer_index(node) for node in writers] == list(range(graph.writer_count))
    assert [graph.reader_index(reader) for reader in readers] == list(range(graph.reader_count))
    for reader in readers:
        read = [edge.writer for edge in edges if edge.target == reader]
        assert list(graph.writers(reader)) == read == writers[: graph.writers_before(reader)]
    for node in writers:
        assert list(graph.readers(node)) == [edge.target for edge in edges if edge.writer == node]


def test_every_pair_is_an_edge_or_is_not():
    for seed in range(12):
        graph = random_graph(random.Random(seed))
        edges = {str(edge) for edge in graph.edges()}
        candidates = {f"{writer}->{edge.split('->')[1]}" for writer in graph.nodes() for edge in edges}
        assert {name for name in candidates if graph.has_edge(name)} == edges
        assert {name for name in candidates if name in graph} == edges


def test_gpt2_small_counts():
    graph = gpt2_small()
    assert (graph.node_count, graph.edge_count) == (158, 32_491)
    assert sum(1 for _ in graph.edges()) == 32_491
    parallel = gpt2_small(parallel=True)
    assert parallel.edge_count == 32_491 - 12 * 12


def test_grouped_keys_are_numbered_by_group():
    graph = Graph(n_layers=3, n_heads=8, n_key_value_heads=2, d_mlp=16, parallel=False, neurons=False)
    assert "a0.h7->a2.h7<q>" in graph
    assert "a0.h7->a2.h1<k>" in graph
    assert "a0.h7->a2.h2<k>" not in graph
    assert [str(node) for node in graph.targets("a2.h1<v>")] == ["a2.h4", "a2.h5", "a2.h6", "a2.h7"]
    assert [str(node) for node in graph.targets("a0.h7->a2.h5<q>")] == ["a2.h5"]
    for node in graph.targets("a2.h1<k>"):
        assert str(graph.reader_of(node, "k")) == "a2.h1<k>"
    with pytest.raises(GraphError, match="numbered by group"):
        graph.writers("a2.h2<k>")


def test_neuron_graph_is_described_fast_and_small():
    tracemalloc.start()
    start = time.perf_counter()
    graph = gpt2_small(neurons=True)
    text = graph.describe()
    assert graph.count("neuron", "neuron") == 622_854_144
    assert graph.node_count == 36_864 + 144 + 2
    assert "m11.n3071->logits" in graph
    assert "m0.n5->m1.n9" in graph
    assert "m1.n5->m1.n9" not in graph
    assert graph.writers_before("logits") == 36_864 + 144 + 1
    first = next(graph.edges())
    seconds = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(first) == "input->a0.h0<q>"
    assert "622,854,144" in text
    assert seconds < 1
    assert peak < 50e6


def test_equal_graphs_have_equal_edges():
    whole = {width: Graph(n_layers=2, n_heads=2, n_key_value_heads=2, d_mlp=width) for width in (None, 0, 1, 7)}
    assert whole[1] == whole[7]
    assert hash(whole[1]) == hash(whole[7])
    assert whole[None] == whole[0] != whole[1]
    assert Graph(n_layers=2, n_heads=2, n_key_value_heads=2, d_mlp=0, parallel=True, neurons=True) == whole[0]
    for seed in range(200):
        rng = random.Random(seed)
        one, other = random_graph(rng), random_graph(rng)
        assert (one == other) == (list(one.edges()) == list(other.edges()))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"n_layers": -1}, "n_layers is a whole number from 0"),
        ({"n_heads": 0, "n_key_value_heads": 1}, "n_heads is a whole number from 1"),
        ({"n_heads": 12, "n_key_value_heads": 5}, "12 heads cannot share 5"),
        ({"n_layers": True}, "got True"),
        ({"d_mlp": 10**12}, "d_mlp"),
    ],
)
def test_impossible_shapes_are_refused(shape: dict, message: str):
    with pytest.raises(GraphError, match=message):
        Graph(**{"n_layers": 2, "n_heads": 4, "n_key_value_heads": 4, "d_mlp": 8, **shape})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a0.h4", "no node a0.h4: layer 0 has 4 of them"),
        ("a2.h0", "no node a2.h0: the graph has 2 layers"),
        ("m0.n3", "whole MLPs; use m0, or a graph with neurons=True"),
        ("m0.h3", "'m0.h3' is not a node"),
    ],
)
def test_strangers_are_refused_with_the_reason(name: str, message: str):
    graph = Graph(n_layers=2, n_heads=4, n_key_value_heads=4, d_mlp=8)
    assert name not in graph
    with pytest.raises(GraphError, match=message):
        graph.readers(name)


def test_wrong_ends_are_refused_with_the_reason():
    graph = Graph(n_layers=2, n_heads=4, n_key_value_heads=4, d_mlp=8, parallel=True)
    with pytest.raises(GraphError, match="parallel blocks"):
        graph.edge("a1.h0->m1")
    with pytest.raises(GraphError, match="logits write nothing"):
        graph.readers("logits")
    with pytest.raises(GraphError, match="input reads nothing"):
        graph.writers("input")
    with pytest.raises(GraphError, match=r"name one, a1\.h0<q>"):
        graph.writers("a1.h0")
    assert Edge.parse("a1.h0->m1") not in graph
    assert Reader.parse("a1.h3<v>") in graph
    assert 3 not in graph


def test_places_are_names_both_ways_and_paths_are_those_of_circuits() -> None:
    from circuits.graph import Circuit
    from circuits.graph.places import edge_at, on_paths, places, reader_at, reads_from, target_places, writer_at

    draw = random.Random(0)
    for _ in range(60):
        heads = draw.choice([1, 2, 4])
        graph = Graph(
            n_layers=draw.randint(0, 3),
            n_heads=heads,
            n_key_value_heads=draw.choice([g for g in (1, 2, 4) if heads % g == 0 and g <= heads]),
            d_mlp=draw.choice([0, 3]),
            parallel=draw.random() < 0.3,
            neurons=draw.random() < 0.5,
        )
        nodes = [node for node in graph.nodes() if node.kind != "logits"]
        assert [writer_at(graph, place) for place in range(graph.writer_count)] == nodes
        readers = [reader_at(graph, place) for place in range(graph.reader_count)]
        assert [graph.reader_index(reader) for reader in readers] == list(range(graph.reader_count))
        assert list(reads_from(graph)) == [graph.writers_before(reader) for reader in readers]
        for place, reader in enumerate(readers[:-1]):
            assert [nodes[target] for target in target_places(graph, place)] == list(graph.targets(reader))
        edges = sorted(draw.sample(list(graph.edges()), draw.randint(0, graph.edge_count)))
        found = places(graph, edges)
        assert [edge_at(graph, *pair) for pair in zip(*found, strict=True)] == edges
        kept = [edge for edge, on in zip(edges, on_paths(graph, *found), strict=True) if on]
        assert kept == list(Circuit(graph, edges).connected().edges)
