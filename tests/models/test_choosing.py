"""One way to name heads, neurons, parts of layers and columns, wherever they are chosen."""

from collections.abc import Callable
from typing import Any

import pytest

from circuits.errors import GraphError
from circuits.graph import Node
from circuits.graph.named import node_of, parsed
from circuits.lenses.rows import parse_rows
from circuits.models import Edit, Model, from_bridge
from circuits.models.choosing import chosen_neurons, head_of, layer_part, parse_neuron
from circuits.models.edits import compile_edits
from circuits.patching.engine.sites import find_sites

from .native import native_bridge


@pytest.fixture(scope="module")
def model() -> Model:
    return from_bridge(native_bridge())


@pytest.fixture(scope="module")
def attention_only() -> Model:
    return from_bridge(native_bridge(attn_only=True))


def test_a_name_and_its_node_mean_the_same(model: Model) -> None:
    graph = model.graph()
    for name in ("input", "a1.h1", "m0", "m1.n5", "logits"):
        node = Node.parse(name)
        assert parsed(name) == parsed(node) == node_of(graph, name) == node_of(graph, node) == node
    assert head_of(model, "a1.h0") == head_of(model, Node("head", 1, 0)) == (1, 0)
    assert parse_neuron(model, "m1.n5") == parse_neuron(model, Node("neuron", 1, 5)) == Node("neuron", 1, 5)


@pytest.mark.parametrize("neurons", [False, True])
def test_neurons_and_their_mlps_are_both_nodes_whatever_the_graph_counts(model: Model, neurons: bool) -> None:
    graph = model.graph(neurons=neurons)
    assert [str(node_of(graph, name)) for name in ("m0", "m0.n3")] == ["m0", "m0.n3"]
    for name in ("m2", "m0.n6", "a0.h2", "a2.h0"):
        with pytest.raises(GraphError, match=f"no node {name}"):
            node_of(graph, name)


def test_an_mlp_is_no_node_of_a_model_without(attention_only: Model) -> None:
    for name in ("m0", "m0.n0"):
        with pytest.raises(GraphError, match=f"no node {name}"):
            node_of(attention_only.graph(), name)


def test_neurons_are_chosen_by_name_by_layer_and_all_together(model: Model) -> None:
    every = list(range(6))
    assert chosen_neurons(model, None) == {0: every, 1: every}
    assert chosen_neurons(model, "m1") == chosen_neurons(model, Node("mlp", 1)) == {1: every}
    assert chosen_neurons(model, ["m1.n3", "m0.n2", Node("neuron", 1, 0), "m1.n3"]) == {0: [2], 1: [0, 3]}
    assert chosen_neurons(model, iter(["m0.n1", "m0"])) == {0: every}
    with pytest.raises(GraphError, match="no neurons are named"):
        chosen_neurons(model, [])


@pytest.mark.parametrize("name", ["resid0", "resid2", "mid1", "attn1", "m1"])
def test_parts_of_layers_have_one_reading_in_patching_and_lenses(model: Model, name: str) -> None:
    part = layer_part(model, name)
    site = find_sites(model, name)[0]
    assert part == (site.kind, site.layer) and site.name == name
    if part is not None and part[0] in ("residual", "middle"):
        row = parse_rows(model, name, None)[0]
        assert (row.kind, row.layer, row.name) == (*part, name)
    else:
        with pytest.raises(GraphError, match="no residual stream"):
            parse_rows(model, name, None)


@pytest.mark.parametrize("name", ["resid", "resid01", "mid-1", "m1.n3", "a0.h1", "logits", "", "resid1 ", "m٣"])
def test_other_names_are_no_part_of_a_layer(model: Model, name: str) -> None:
    assert layer_part(model, name) is None


@pytest.mark.parametrize("name", ["resid3", "mid2", "attn2", "m2"])
def test_a_layer_that_the_model_lacks_is_refused_by_name(model: Model, name: str) -> None:
    for ask in (layer_part, find_sites, lambda model, name: parse_rows(model, name, None)):
        with pytest.raises(GraphError, match=f"has no {name}"):
            ask(model, name)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda model: head_of(model, "m0"), "m0 is no head"),
        (lambda model: head_of(model, "m0.n1"), "m0.n1 is no head"),
        (lambda model: head_of(model, "a0.h2"), "no node a0.h2"),
        (lambda model: parse_neuron(model, "m0"), "m0 is no neuron"),
        (lambda model: parse_neuron(model, "m0.n6"), "no node m0.n6"),
        (lambda model: chosen_neurons(model, "a0.h0"), "a0.h0 is no neuron"),
        (lambda model: chosen_neurons(model, "m2"), "no node m2"),
        (lambda model: compile_edits([Edit("m0.n6", 0.0)], model.graph()), "no node m0.n6"),
        (lambda model: head_of(model, "h0"), "h0"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(model: Model, ask: Callable[[Model], Any], words: str) -> None:
    with pytest.raises(GraphError, match=words):
        ask(model)
