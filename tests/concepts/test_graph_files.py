"""Attribution graphs in the layout of circuit-tracer and Neuronpedia: as its schema says, and read back; of others too."""

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from circuits.concepts import AttributionGraph, attribution_graph, read_graph_file, save_graph_file
from circuits.concepts.feature_nodes.neuronpedia import from_graph_file, to_graph_file
from circuits.errors import FileFormatError, GraphError
from tests.concepts.test_feature_nodes import random_dictionary, random_model
from tests.damage import mutate
from tests.graph.test_neuronpedia import SCHEMA


@pytest.fixture(scope="module")
def graph() -> AttributionGraph:
    """Two dictionaries that are drawn at one layer, and one elsewhere."""
    model, pairs = random_model(3, causal=True)
    own = [random_dictionary(model, *place, seed) for seed, place in enumerate((("m1",), ("resid2",), ("m2",)))]
    prompt = dataclasses.replace(pairs[:1].clean, ids=pairs.clean.ids[:1, :3], mask=torch.ones(1, 3, dtype=torch.bool))
    return attribution_graph(model, own, prompt, nodes=0.95, links=0.95)


def test_a_graph_fits_the_schema_and_comes_back_whole(graph: AttributionGraph, tmp_path: Path) -> None:
    document = save_graph_file(graph, tmp_path / "g.neuronpedia.json", slug="a_graph.v-1", scan="tiny")
    SCHEMA.validate(document)
    assert json.loads((tmp_path / "g.neuronpedia.json").read_text()) == document
    back = read_graph_file(tmp_path / "g.neuronpedia.json")
    assert back.as_json() == graph.as_json()
    nodes = document["nodes"]
    for key in ("node_id", "jsNodeId"):
        assert len({node[key] for node in nodes}) == len(nodes), key
    assert len({(node["layer"], node["feature"], node["ctx_idx"]) for node in nodes}) == len(nodes), "the viewer's own key"
    kinds = {node["feature_type"] for node in nodes}
    assert {"embedding", "logit", "cross layer transcoder", "mlp reconstruction error"} <= kinds
    assert all("(p=" in node["clerp"] for node in nodes if node["feature_type"] == "logit")


def of_another_program(graph: AttributionGraph) -> dict[str, Any]:
    """The same file without this package's records."""
    document = to_graph_file(graph, slug="a", scan="gemma-2-2b")
    del document["metadata"]["circuit"]
    for node in document["nodes"]:
        del node["circuit"]
    return document


def test_a_graph_of_another_program_is_read_by_the_layout_alone(graph: AttributionGraph) -> None:
    back = from_graph_file(json.loads(json.dumps(of_another_program(graph))))
    assert [node.layer for node in back.nodes] == [node.layer for node in graph.nodes]
    assert back.model == "gemma-2-2b" and back.n_layers == graph.n_layers and back.tokens == graph.tokens
    assert [node.kind for node in back.nodes] == [node.kind for node in graph.nodes]
    assert [node.position for node in back.nodes] == [node.position for node in graph.nodes]
    torch.testing.assert_close(back.weights, graph.weights)
    for node, own in zip(back.nodes, graph.nodes, strict=True):
        if own.kind in ("embedding", "logit") or (own.kind == "feature" and own.place == "m2"):
            assert node.index == own.index and node.value == pytest.approx(own.value)


def test_damaged_graphs_are_refused_in_one_line(graph: AttributionGraph, tmp_path: Path) -> None:
    for change, words in (
        (lambda d: d["links"][0].update(source="nowhere"), "source is 'nowhere', which is no node"),
        (lambda d: d["nodes"][0].update(ctx_idx=99), "at token 99 of 3"),
        (lambda d: d["nodes"][1].update(node_id=d["nodes"][0]["node_id"]), "two nodes have one node_id"),
        (lambda d: d.pop("links"), "expected metadata, qParams, nodes and links"),
        (lambda d: d["nodes"][0].pop("layer"), "lacks 'layer'"),
        (lambda d: d["metadata"]["circuit"].update(format="transformer-circuits/neuronpedia"), "circuits info reads"),
    ):
        document = to_graph_file(graph, slug="a", scan="m")
        change(document)
        file = tmp_path / "broken.json"
        file.write_text(json.dumps(document))
        with pytest.raises(FileFormatError, match=words):
            read_graph_file(file)
    with pytest.raises(FileFormatError, match="No such file"):
        read_graph_file(tmp_path / "none.json")
    with pytest.raises(GraphError, match="the slug is 'a b'"):
        to_graph_file(graph, slug="a b", scan="m")
    draw = random.Random(0)
    content = json.dumps(to_graph_file(graph, slug="a", scan="m")).encode()
    for _ in range(100):
        file.write_bytes(mutate(content, draw))
        try:
            read_graph_file(file)
        except FileFormatError as error:
            assert "\n" not in str(error) and str(error).startswith(str(file))
