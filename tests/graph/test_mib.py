"""MIB / EAP-IG files: our own, and files as EAP-IG writes them."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from circuits.errors import FileFormatError
from circuits.graph import Circuit, Graph, Node
from circuits.graph.storage import load
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


@pytest.mark.parametrize("seed", range(60))
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
        "a0.h3->a1.h2<k>": 0.5,
        "a0.h3->a1.h3<k>": 0.5,
    }
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


def test_heads_that_share_keys_must_agree(tmp_path: Path):
    path = tmp_path / "circuit.mib.json"
    graph = Graph(n_layers=2, n_heads=4, n_key_value_heads=2, d_mlp=0)
    Circuit(graph, {"a0.h3->a1.h1<k>": 0.5}).save(path)
    text = path.read_text()
    path.write_text(text.replace('"a0.h3->a1.h2<k>": {"score": 0.5', '"a0.h3->a1.h2<k>": {"score": 0.25'))
    with pytest.raises(FileFormatError, match=r"share the input a1\.h1<k> disagree about the score"):
        Circuit.load(path)
    path.write_text(
        text.replace(
            '"a0.h3->a1.h2<k>": {"score": 0.5, "in_graph": true}', '"a0.h3->a1.h2<k>": {"score": 0, "in_graph": false}'
        )
    )
    with pytest.raises(FileFormatError, match="only 1 of the heads"):
        Circuit.load(path)


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
