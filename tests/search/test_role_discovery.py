"""Circuits between roles of tokens: the planted ones come out exactly, and are judged, saved and drawn like any other."""

import random
from pathlib import Path

import pytest

import circuits
from circuits import Circuit, metrics
from circuits.errors import CircuitsError, PromptError
from circuits.graph.places import edge_at
from circuits.patching import run_circuits
from circuits.plots.graphs.circuit import circuit_figure
from circuits.search.acdc import acdc_between
from circuits.search.judging.nulls import random_paths
from circuits.tasks.library.planted import carrying_roles, planted_roles, planted_task


@pytest.mark.parametrize(("name", "seed"), [("induction", 0), ("recall", 1)])
def test_planted_edges_between_roles_come_out_exactly(name: str, seed: int) -> None:
    planted, pairs = planted_task(name, seed, count=18)
    pairs = planted_roles(name, pairs)
    truth = carrying_roles(planted, pairs)
    assert len(truth) >= 7
    scores = circuits.attribute_edges(planted.model, pairs, metrics.logit_difference, roles=True)
    assert set(scores.top(len(truth), connected=True).edges) == set(truth.edges)


def test_a_circuit_between_roles_is_judged_saved_and_drawn(tmp_path: Path) -> None:
    planted, pairs = planted_task("recall", 0, count=24)
    pairs = planted_roles("recall", pairs)
    how = {"method": "eap-ig", "roles": True, "edges": 12, "random_circuits": 20, "minimality": 4}
    found = circuits.discover(planted.model, pairs, metrics.logit_difference, **how)
    assert found.verdict.faithfulness.effect > 0.8 and found.verdict.p_value < 0.1
    assert found.circuit.graph.roles is not None and found.curve is None
    for suffix in (".json", ".graphml", ".dot"):
        found.circuit.save(tmp_path / f"circuit{suffix}")
    assert Circuit.load(tmp_path / "circuit.json") == found.circuit
    assert Circuit.from_networkx(found.circuit.to_networkx()) == found.circuit
    with pytest.raises(CircuitsError, match="the MIB format has no roles"):
        found.circuit.save(tmp_path / "circuit.mib.json")
    words = [text.get_text() for text in circuit_figure(found.circuit).axes[0].texts]
    assert {"subject", "subject_last", "end"} <= set(words) and not any("@" in word for word in words)
    again = circuits.evaluate(
        planted.model, found.circuit, pairs, metrics.logit_difference, random_circuits=0, minimality=False
    )
    assert again.faithfulness.effect > 0.8


def test_random_circuits_keep_to_roles() -> None:
    planted, pairs = planted_task("induction", 0, count=6)
    graph = planted.model.graph(roles=planted_roles("induction", pairs).roles.roles)
    drawn = random_paths(graph, 60, random.Random(0))
    edges = [edge_at(graph, *places) for places in zip(drawn.writers.tolist(), drawn.readers.tolist(), strict=True)]
    assert len({str(graph.edge(edge)) for edge in edges}) == 60, "all are edges of the graph"
    assert any(edge.writer.at != edge.reader.at for edge in edges)


def test_roles_that_prompts_lack_are_refused() -> None:
    planted, pairs = planted_task("recall", 0, count=6)
    with_roles = planted_roles("recall", pairs)
    circuit = circuits.attribute_edges(planted.model, with_roles, metrics.logit_difference, method="eap", roles=True).top(5)
    other = planted_roles("induction", planted_task("induction", 0, count=6)[1])
    with pytest.raises(PromptError, match="no prompt has the role subject"):
        circuits.evaluate(planted.model, circuit, other, metrics.logit_difference)
    for wrong in ({"method": "refine"}, {"method": "relp"}, {"neurons": True}, {"verify": True}):
        with pytest.raises(CircuitsError, match=r"roles|level"):
            circuits.discover(planted.model, with_roles, metrics.logit_difference, roles=True, **wrong)


def one_at_a_time(model, pairs, circuit: Circuit, threshold: float) -> set[str]:
    """ACDC by its definition: a run an edge, in the reverse of the order of computation."""
    graph, kept = circuit.graph, list(circuit.edges)

    def loss(edges: list) -> float:
        return float(run_circuits(model, pairs, metrics.kl_divergence, [Circuit(graph, edges)])[0].mean())

    now = loss(kept)
    places = {edge: (graph.reader_index(edge.target), graph.writer_index(edge.writer)) for edge in kept}
    for edge in sorted(kept, key=lambda edge: places[edge], reverse=True):
        rest = [other for other in kept if other != edge]
        read = edge.reader.kind == "logits" or any(other.writer in graph.targets(edge) for other in kept)
        after = loss(rest) if read else now
        if after - now < threshold:
            kept, now = rest, after
    return {str(edge) for edge in Circuit(graph, kept).connected().edges}


@pytest.mark.parametrize("seed", range(2))
def test_acdc_among_edges_between_roles_is_a_run_an_edge(seed: int) -> None:
    planted, pairs = planted_task("recall", seed, count=18)
    pairs = planted_roles("recall", pairs)
    truth = carrying_roles(planted, pairs)
    scores = circuits.attribute_edges(planted.model, pairs, metrics.logit_difference, roles=True)
    first = scores.top(3 * len(truth), connected=True)
    found = acdc_between(planted.model, pairs, first, threshold=0.05)
    assert {str(edge) for edge in found.edges} == one_at_a_time(planted.model, pairs, first, 0.05)
    assert set(truth.edges) <= set(first.edges) and set(found.edges) <= set(first.edges)
    assert set(found.edges) == set(truth.edges)
