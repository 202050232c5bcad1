"""MIB / EAP-IG files: our own, and files as EAP-IG writes them."""

import json
import math
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from circuits.errors import FileFormatError
from circuits.graph import Circuit, Graph, Node
from circuits.graph.per_head import PerHead, separate
from circuits.graph.storage import load, load_counted
from tests.damage import mutate
from tests.graph.samples import random_circuit


def as_eap_ig(circuit: Circuit, *, d_model: int = 16, flagged: bool = True) -> dict:
    """Write a circuit the way `Graph.to_json` of EAP-IG does: every node and edge, with flags; logits always in."""
    graph = circuit.graph
    cfg = {
        "n_layers": graph.n_layers,
        "n_heads": graph.n_heads,
        "parallel_attn_mlp": graph.parallel,
        "d_model": d_model,
    }
    nodes = {str(node): {"in_graph": node in circuit.nodes or node.kind == "logits"} for node in graph.nodes()}
    edges = {}
    for edge in graph.edges():
        edges[str(edge)] = {"score": circuit.edges.get(edge) or 0.0, "in_graph": flagged and edge in circuit.edges}
    return {"cfg": cfg, "nodes": nodes, "edges": edges}


HAND_WRITTEN = """{"cfg": {"n_layers": 1, "n_heads": 1, "parallel_attn_mlp": false, "d_model": 4},
"nodes": {"input": {"in_graph": true}, "a0.h0": {"in_graph": true, "score": 0.25}, "m0": {"in_graph": false},
          "logits": {"in_graph": true}},
"edges": {"input->a0.h0<q>": {"score": 0.0, "in_graph": false}, "input->a0.h0<k>": {"score": -1.5, "in_graph": false},
          "input->a0.h0<v>": {"score": 2.0, "in_graph": true}, "input->m0": {"score": 0.125, "in_graph": false},
          "a0.h0->m0": {"score": 0.0, "in_graph": false}, "input->logits": {"score": 0.0, "in_graph": false},
          "a0.h0->logits": {"score": 1.0, "in_graph": true}, "m0->logits": {"score": 0.0, "in_graph": false}}}"""


def test_file_of_eap_ig_written_by_hand(tmp_path: Path):
    path = tmp_path / "circuit.json"  # EAP-IG's own files end in plain .json
    path.write_text(HAND_WRITTEN)
    circuit = Circuit.load(path)
    graph = Graph(n_layers=1, n_heads=1, n_key_value_heads=1, d_mlp=16)
    edges = {"input->a0.h0<v>": 2.0, "a0.h0->logits": 1.0}
    assert circuit == Circuit(graph, edges, {"a0.h0": 0.25}, metadata={"d_model": 4})
    everything = load(path, every_edge=True)
    assert len(everything) == 8
    assert [str(edge) for edge in everything.top(2).edges] == ["input->a0.h0<k>", "input->a0.h0<v>"]


@pytest.mark.parametrize("seed", range(30))
def test_full_lists_of_eap_ig_are_read(tmp_path: Path, seed: int):
    rng = random.Random(seed)
    heads = rng.randint(1, 3)
    graph = Graph(n_layers=rng.randint(1, 3), n_heads=heads, n_key_value_heads=heads, d_mlp=8, parallel=rng.random() < 0.5)
    drawn = random_circuit(rng, graph, bare=True)
    scores = {edge: score or 0.0 for edge, score in drawn.edges.items()}
    circuit = Circuit(graph, scores, {*drawn.nodes, Node("logits")})
    path = tmp_path / "circuit.mib.json"
    document = as_eap_ig(circuit)
    path.write_text(json.dumps(document))
    found = Circuit.load(path)
    assert found == Circuit(graph, circuit.edges, circuit.nodes, metadata={"d_model": 16})
    document["nodes"] = {name: info["in_graph"] for name, info in document["nodes"].items()}  # the older form
    path.write_text(json.dumps(document))
    assert Circuit.load(path) == found
    path.write_text(json.dumps(as_eap_ig(circuit, flagged=False)))
    assert len(load(path, every_edge=True)) == graph.edge_count


def test_300_circuits_come_back_exactly(tmp_path: Path):
    path = tmp_path / "circuit.mib.json"
    for seed in range(300):
        circuit = random_circuit(random.Random(seed), bare=True)
        circuit.save(path)
        again = Circuit.load(path)
        assert again == circuit
        assert again.graph.d_mlp == circuit.graph.d_mlp


def test_written_file_has_what_eap_ig_asks_for(tmp_path: Path):
    """EAP-IG reads the four cfg keys, in_graph of each node, and score and in_graph of each edge, one edge a head."""
    graph = Graph(n_layers=2, n_heads=4, n_key_value_heads=2, d_mlp=8)
    circuit = Circuit(graph, {"a0.h3->a1.h1<k>": 0.5, "a0.h3->m1": None}, metadata={"d_model": 32, "model": "mini"})
    circuit.save(tmp_path / "circuit.mib.json")
    document = json.loads((tmp_path / "circuit.mib.json").read_text())
    assert {"n_layers": 2, "n_heads": 4, "parallel_attn_mlp": False, "d_model": 32}.items() <= document["cfg"].items()
    assert set(document["nodes"]) == {str(node) for node in graph.nodes()}
    assert [name for name, info in document["nodes"].items() if info["in_graph"]] == ["a0.h3", "m1"]
    assert {name: info["score"] for name, info in document["edges"].items()} == {
        "a0.h3->m1": 0.0,
        "a0.h3->a1.h2<k>": 0.25,
        "a0.h3->a1.h3<k>": 0.25,
    }
    assert document["cfg"]["n_key_value_heads"] == 2 and "query head" in document["cfg"]["key_value_scores"]
    assert all(info["in_graph"] is True for info in document["edges"].values())
    assert Circuit.load(tmp_path / "circuit.mib.json").edges == circuit.edges


def test_what_the_format_cannot_say_is_refused(tmp_path: Path):
    path = tmp_path / "circuit.mib.json"
    neurons = Graph(n_layers=1, n_heads=1, n_key_value_heads=1, d_mlp=4, neurons=True)
    with pytest.raises(FileFormatError, match=r"circuit.mib.json: the MIB format has whole MLPs only"):
        Circuit(neurons).save(path)
    whole = Graph(n_layers=1, n_heads=1, n_key_value_heads=1, d_mlp=4)
    with pytest.raises(FileFormatError, match="no positions"):
        Circuit(whole, nodes=["m0"], positions={"m0": [1]}).save(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"n_layers": 1', '"n_layers": true', "cfg has n_layers True; expected a whole number"),
        ('"n_layers": 1', '"n_layers": "1"', "expected a whole number"),
        ('"n_heads": 1, ', "", "'cfg' lacks the key 'n_heads'"),
        ('"parallel_attn_mlp": false', '"parallel_attn_mlp": 0', "expected true or false"),
        ('"m0": {"in_graph": false}', '"m1": {"in_graph": false}', "no node m1: the graph has 1 layers"),
        ('"m0": {"in_graph": false}', '"m0": {"in_graph": 1}', "m0 has in_graph 1"),
        (
            '"m0": {"in_graph": false}',
            '"m0": {"in_graph": true, "neurons": [true, false]}',
            "cut down to some dimensions",
        ),
        ('"input->m0": {', '"m0->m0": {', "m0 is not computed after m0"),
        ('"input->m0": {"score": 0.125, ', '"input->m0": {', "'input->m0' lacks the key 'score'"),
        ('"score": 0.125', '"score": NaN', "holds NaN"),
        ('"score": 0.125', '"score": null', "score null"),
        ('"score": 0.125', '"score": "high"', "score of input->m0 is a str"),
    ],
)
def test_damaged_file_is_refused(tmp_path: Path, before: str, after: str, message: str):
    path = tmp_path / "circuit.json"
    assert before in HAND_WRITTEN
    path.write_text(HAND_WRITTEN.replace(before, after, 1))
    with pytest.raises(FileFormatError) as error:
        Circuit.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def by_query_head(graph: Graph, rng: random.Random, *, flagged: float = 0.5) -> dict:
    """A file as EAP-IG writes it for a model of shared keys: a k and a v edge a query head, each with a float32's score."""
    document = as_eap_ig(Circuit(separate(graph)))
    for value in document["edges"].values():
        value["score"] = struct.unpack("f", struct.pack("f", rng.gauss(0, 1) * 10 ** rng.randint(-6, 2)))[0]
        value["in_graph"] = rng.random() < flagged
    return document


def slow_sums(graph: Graph, document: dict) -> dict[str, tuple[float, bool]]:
    """Every edge's score and whether it is in, by names alone: a group's index is its heads' divided by the group's size."""
    size, found = graph.n_heads // graph.n_key_value_heads, {}
    for name, value in document["edges"].items():
        if name.endswith(("<k>", "<v>")):
            start, head, slot = name[:-3].rpartition("h")[0], int(name[:-3].rpartition("h")[2]), name[-3:]
            name = f"{start}h{head // size}{slot}"
        score, inside = found.get(name, (0.0, False))
        found[name] = (score + value["score"], inside or value["in_graph"])
    return found


@pytest.mark.parametrize("seed", range(12))
def test_scores_by_query_head_sum_to_the_groups(tmp_path: Path, seed: int):
    """Read, written and read again: every edge to 1e-6, every head's own score exactly, and both graphs are counted."""
    rng = random.Random(seed)
    groups, size = rng.randint(1, 3), rng.randint(2, 4)
    graph = Graph(n_layers=rng.randint(2, 3), n_heads=groups * size, n_key_value_heads=groups, d_mlp=1)
    document, path, again = by_query_head(graph, rng), tmp_path / "theirs.json", tmp_path / "ours.mib.json"
    path.write_text(json.dumps(document))
    wrong, counts = load_counted(path)
    assert wrong.graph == separate(graph) and counts is not None and counts.unsaid, "the file cannot say it"
    expected = slow_sums(graph, document)
    assert len(expected) == graph.edge_count
    everything = load(path, every_edge=True, n_key_value_heads=groups)
    assert {str(edge): score for edge, score in everything.edges.items()} == pytest.approx(
        {name: score for name, (score, _) in expected.items()}, abs=1e-6
    )
    circuit, counts = load_counted(path, n_key_value_heads=groups)
    assert {str(edge) for edge in circuit.edges} == {name for name, (_, inside) in expected.items() if inside}
    assert counts is not None and counts.graph_edges == separate(graph).edge_count == len(document["edges"])
    assert counts.edges == sum(value["in_graph"] for value in document["edges"].values())
    for one in (circuit, everything):
        one.save(again)
        back, said = load_counted(again)
        assert back == one and said is not None and said.graph_edges == counts.graph_edges
        assert {str(edge): score for edge, score in back.edges.items()} == {str(e): s for e, s in one.edges.items()}
        for name, value in json.loads(again.read_text())["edges"].items():
            assert value["score"] == document["edges"][name]["score"], "each query head keeps the score that it had"
    assert said.edges == len(document["edges"])


@pytest.mark.parametrize("seed", range(20))
def test_a_groups_score_is_split_over_its_heads(tmp_path: Path, seed: int):
    """Without this, k and v weigh as many times more than q as a group has heads, for every tool that sums or ranks."""
    rng = random.Random(seed)
    graph = Graph(n_layers=2, n_heads=rng.choice([3, 6]), n_key_value_heads=rng.choice([1, 3]), d_mlp=1)
    circuit = Circuit(graph, {edge: rng.gauss(0, 1) for edge in graph.edges()})
    circuit.save(tmp_path / "all.mib.json")
    document = json.loads((tmp_path / "all.mib.json").read_text())
    assert len(document["edges"]) == separate(graph).edge_count
    total = math.fsum(value["score"] for value in document["edges"].values())
    assert total == pytest.approx(math.fsum(score or 0.0 for score in circuit.edges.values()), abs=1e-12)
    size = graph.n_heads // graph.n_key_value_heads
    for edge, score in circuit.edges.items():
        for head in graph.targets(edge):
            name = f"{edge.writer}->{head}" + ("" if edge.slot is None else f"<{edge.slot}>")
            parts = size if edge.slot in ("k", "v") else 1
            assert document["edges"][name]["score"] == pytest.approx((score or 0.0) / parts, rel=1e-12)
    assert load(tmp_path / "all.mib.json") == circuit


def test_scores_that_changed_are_split_anew(tmp_path: Path):
    graph = Graph(n_layers=2, n_heads=2, n_key_value_heads=1, d_mlp=0)
    document = by_query_head(graph, random.Random(0), flagged=1)
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(document))
    circuit = load(path, n_key_value_heads=1)
    edge = graph.edge("input->a1.h0<k>")
    Circuit(graph, {edge: 3.0}, evidence={edge: circuit.evidence[edge]}).save(tmp_path / "anew.mib.json")
    said = json.loads((tmp_path / "anew.mib.json").read_text())["edges"]
    assert [value["score"] for value in said.values()] == [1.5, 1.5]


def test_a_group_is_in_the_circuit_where_any_of_its_heads_is(tmp_path: Path):
    graph = Graph(n_layers=1, n_heads=4, n_key_value_heads=2, d_mlp=0)
    document = as_eap_ig(Circuit(separate(graph)))
    document["edges"]["input->a0.h3<v>"] = {"score": 2.0, "in_graph": True}
    document["edges"]["input->a0.h2<v>"] = {"score": -0.5, "in_graph": False}
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(document))
    circuit, counts = load_counted(path, n_key_value_heads=2)
    assert dict(circuit.edges) == {graph.edge("input->a0.h1<v>"): 1.5}
    assert counts == PerHead(edges=1, graph_edges=17, divided=1)
    assert "1 of 17 edges" in PerHead(1, 17, 1).describe() and "some heads of the group only" in PerHead(1, 17, 1).describe()
    circuit.save(tmp_path / "again.mib.json")
    assert load_counted(tmp_path / "again.mib.json") == (circuit, counts)


def test_files_by_group_and_files_of_before_are_told_apart(tmp_path: Path):
    """A full list by group has as many edges as the graph; a file of this package from before it split scores has the whole
    score on every head, and heads that disagree."""
    graph, path = Graph(n_layers=2, n_heads=4, n_key_value_heads=2, d_mlp=1), tmp_path / "circuit.mib.json"
    circuit = Circuit(graph, dict.fromkeys(graph.edges(), 0.5))
    document = as_eap_ig(circuit)
    document["cfg"]["n_key_value_heads"] = 2
    path.write_text(json.dumps(document))
    assert dict(load(path).edges) == dict(circuit.edges)
    circuit.save(path)
    document = json.loads(path.read_text())
    del document["cfg"]["key_value_scores"]
    for value in document["edges"].values():
        value["score"] = 0.5
    path.write_text(json.dumps(document))
    assert load(path) == circuit
    text = path.read_text()
    path.write_text(text.replace('"a0.h3->a1.h2<k>": {"score": 0.5', '"a0.h3->a1.h2<k>": {"score": 0.25'))
    with pytest.raises(FileFormatError, match=r"share the input a1\.h1<k> disagree about the score"):
        load(path)
    path.write_text(
        text.replace(
            '"a0.h3->a1.h2<k>": {"score": 0.5, "in_graph": true}', '"a0.h3->a1.h2<k>": {"score": 0, "in_graph": false}'
        )
    )
    with pytest.raises(FileFormatError, match="only 1 of the heads"):
        load(path)


@pytest.mark.parametrize(
    ("n_key_value_heads", "change", "message"),
    [
        (3, {}, "4 heads cannot share 3 key-value heads"),
        (2, {"n_key_value_heads": 1}, "cfg has n_key_value_heads 1, not 2"),
        (None, {"key_value_scores": "repeated"}, "key_value_scores 'repeated'"),
    ],
)
def test_key_value_heads_that_do_not_fit_are_refused(tmp_path: Path, n_key_value_heads: int | None, change: dict, message: str):
    document = as_eap_ig(Circuit(Graph(n_layers=1, n_heads=4, n_key_value_heads=4, d_mlp=0)))
    document["cfg"] |= change
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(document))
    with pytest.raises(FileFormatError, match=message):
        Circuit.load(path, n_key_value_heads=n_key_value_heads)


def test_300_damaged_files_of_shared_keys_are_read_or_refused_in_one_line(tmp_path: Path):
    rng, path = random.Random(11), tmp_path / "theirs.json"
    document = by_query_head(Graph(n_layers=1, n_heads=2, n_key_value_heads=1, d_mlp=1), rng)
    document["cfg"]["n_key_value_heads"] = 1
    content, outcomes = json.dumps(document).encode(), {"read": 0, "refused": 0}
    for _ in range(300):
        path.write_bytes(mutate(content, rng))
        try:
            load(path)
            outcomes["read"] += 1
        except FileFormatError as error:
            outcomes["refused"] += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert min(outcomes.values()) > 0, outcomes


READ = """
import sys, time, tracemalloc
sys.path.insert(0, {root!r})
from circuits.graph import Circuit
start = time.perf_counter()
circuit = Circuit.load({path!r})
seconds = time.perf_counter() - start
tracemalloc.start()
Circuit.load({path!r})
print(*circuit.edges, seconds, tracemalloc.get_traced_memory()[1])
"""


def test_file_of_gpt2_small_is_read_quickly(tmp_path: Path):
    """In a process of its own, without run-time type checks: about 0.4 s and 25 MB for the 32,491 listed edges."""
    graph = Graph(n_layers=12, n_heads=12, n_key_value_heads=12, d_mlp=3072)
    path, root = tmp_path / "circuit.json", str(Path(__file__).parents[2])
    path.write_text(json.dumps(as_eap_ig(Circuit(graph, ["a5.h5->logits"]), d_model=768)))
    script = READ.format(root=root, path=str(path))
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=root)
    edge, seconds, peak = run.stdout.split()
    assert edge == "a5.h5->logits"
    assert float(seconds) < 3  # room for a busy machine
    assert int(peak) < 64e6
