"""Attribution graphs in Neuronpedia's layout: as its schema says, as its viewer needs them, and read back."""

import json
import math
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from circuits.errors import FileFormatError, GraphError
from circuits.graph import Circuit, Graph
from circuits.graph.neuronpedia import ShownPrompt, hints, save, to_neuronpedia, to_text
from tests.damage import mutate
from tests.graph.samples import random_circuit

SCHEMA = jsonschema.Draft7Validator(json.loads(Path(__file__).with_name("neuronpedia_schema.json").read_text()))
PROMPT = ShownPrompt("The cat sat", ("<bos>", "The", " cat", " sat", " (p="), " (p=", 4, 0.25, {"subject": 2, "last é": -1})


def written(circuit: Circuit) -> dict[str, Any]:
    return to_neuronpedia(circuit, PROMPT, slug="a_graph.v-1", scan="gpt2-small")


@pytest.mark.parametrize("seed", range(20))
def test_circuits_of_any_shape_fit_the_schema_and_come_back_whole(tmp_path: Path, seed: int) -> None:
    circuit = random_circuit(random.Random(seed))
    document = save(circuit, tmp_path / "graph.json", PROMPT, slug="a", scan="m")
    SCHEMA.validate(document)
    back = Circuit.load(tmp_path / "graph.json")
    assert back == circuit and (back.positions, back.evidence, back.roles) == (
        circuit.positions,
        circuit.evidence,
        circuit.roles,
    )
    nodes = document["nodes"]
    for key in ("node_id", "jsNodeId"):
        assert len({node[key] for node in nodes}) == len(nodes)
    assert len({(node["layer"], node["feature"], node["ctx_idx"]) for node in nodes}) == len(nodes), "the viewer's own key"
    ends = [(link["source"], link["target"]) for link in document["links"]]
    assert len(set(ends)) == len(ends), "the viewer tells links apart by their ends"
    assert {end for pair in ends for end in pair} <= {node["node_id"] for node in nodes}
    scores = [score or 0.0 for score in circuit.edges.values()]
    direct = [link["weight"] for link in document["links"] if all(one["key"] != "group" for one in link["circuit"])]
    assert math.isclose(math.fsum(direct), math.fsum(scores), abs_tol=1e-12), "no score is counted twice or lost"


def test_nodes_stand_where_the_circuit_says_and_else_at_the_last_token() -> None:
    graph = Graph(n_layers=2, n_heads=2, n_key_value_heads=2, d_mlp=8)
    places = {"a0.h0": [1, 3], "a0.h1": ["subject"], "m0": [-2], "a1.h0": ["nowhere"]}
    circuit = Circuit(graph, {"a0.h0->logits": 1.0}, list(places), positions=places)
    document = written(circuit)
    at = {node["circuit"]["id"]: node["ctx_idx"] for node in document["nodes"]}
    assert at == {"a0.h0": 3, "a0.h1": 2, "m0": 3, "a1.h0": 4, "logits": 4}
    assert "2 of 5 nodes are not restricted to a position" in document["metadata"]["info"]["description"]
    with pytest.raises(GraphError, match=r"a0\.h0 is at position 9, outside the prompt's 5 tokens"):
        written(Circuit(graph, (), ["a0.h0"], positions={"a0.h0": [9]}))


def test_links_sum_the_slots_and_shared_keys_are_nodes() -> None:
    own = Graph(n_layers=2, n_heads=2, n_key_value_heads=2, d_mlp=0)
    edges = {"a0.h0->a1.h1<q>": 0.5, "a0.h0->a1.h1<k>": -2.0, "a0.h0->a1.h1<v>": None}
    (link,) = written(Circuit(own, edges))["links"]
    assert link["weight"] == -1.5 and len(link["circuit"]) == 3
    shared = Graph(n_layers=2, n_heads=2, n_key_value_heads=1, d_mlp=0)
    evidence = {"a0.h0->a1.h0<k>": {"by_query_head": {"a1.h0": 1.0, "a1.h1": 3.0}}}
    document = written(Circuit(shared, {"a0.h0->a1.h0<k>": 4.0, "a0.h1->a1.h0<k>": 1.0}, ["a1.h1"], evidence=evidence))
    names = {node["node_id"]: node["circuit"]["id"] for node in document["nodes"]}
    weights = {(names[link["source"]], names[link["target"]]): link["weight"] for link in document["links"]}
    assert weights == {("a0.h0", "a1.h0<k>"): 4.0, ("a0.h1", "a1.h0<k>"): 1.0, ("a1.h0<k>", "a1.h1"): 3.5}


def test_the_logits_are_the_answer_and_the_viewer_is_told_nothing_false() -> None:
    graph = Graph(n_layers=2, n_heads=1, n_key_value_heads=1, d_mlp=8)
    document = written(Circuit(graph, {"input->m1": 1.0, "m1->logits": None}, metadata={"model": "m", "seed": 3, "more": [1]}))
    node = {one["circuit"]["id"]: one for one in document["nodes"]}
    assert (node["logits"]["layer"], node["logits"]["feature"], node["logits"]["token_prob"]) == ("3", 4, 0.25)
    assert node["logits"]["clerp"].split("(p=")[1] == "0.250)", "where the viewer looks for the probability"
    assert node["input"]["layer"] == "E" and node["input"]["feature_type"] != "embedding", "it is no single token's"
    assert not {one["feature_type"] for one in document["nodes"]} & {"cross layer transcoder", "lorsa"}
    assert document["metadata"]["generation_settings"] == {"model": "m", "seed": 3}
    assert "1 of 2 edges have no score and weigh 0" in hints(document)[0] and len(hints(document)) == 1
    flat = written(Circuit(graph, {"a0.h0->logits": 1.0}))
    assert "highest layer below the logits is 0" in hints(flat)[1]
    assert json.loads(to_text(document)) == document and "\n  {" in to_text(document)


def test_what_cannot_be_written_or_read_is_said_in_a_line(tmp_path: Path) -> None:
    circuit = Circuit(Graph(n_layers=1, n_heads=1, n_key_value_heads=1, d_mlp=0), {"a0.h0->logits": 1.0})
    for slug in ("", "a b", "ü", "a/b"):
        with pytest.raises(GraphError, match="slug"):
            to_neuronpedia(circuit, PROMPT, slug=slug, scan="m")
    with pytest.raises(FileFormatError, match="--prompt"):
        circuit.save(tmp_path / "graph.neuronpedia.json")
    foreign = {"metadata": {"slug": "s"}, "qParams": {}, "nodes": [], "links": []}
    (tmp_path / "other.json").write_text(json.dumps(foreign))
    with pytest.raises(FileFormatError, match="an attribution graph of features"):
        Circuit.load(tmp_path / "other.json")
    changed = written(circuit)
    changed["links"][0]["weight"] = 2.0
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    with pytest.raises(FileFormatError, match=r"weighs 2\.0; its edges score 1"):
        Circuit.load(tmp_path / "changed.json")


def test_damaged_files_are_refused_and_nothing_else(tmp_path: Path) -> None:
    rng = random.Random(0)
    path = tmp_path / "graph.json"
    content = to_text(written(random_circuit(rng))).encode()
    for _ in range(150):
        path.write_bytes(mutate(content, rng))
        try:
            assert isinstance(Circuit.load(path), Circuit)
        except FileFormatError as error:
            assert str(path) in str(error)
