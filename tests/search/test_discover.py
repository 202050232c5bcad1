"""From prompts to a judged circuit."""

import dataclasses

import pytest
import torch

import circuits
from circuits import metrics
from circuits.errors import CircuitsError, MemoryBudgetError, PromptError
from circuits.graph import Graph
from circuits.search.discover import split
from circuits.search.methods import refining, table
from circuits.search.methods.method import Method
from circuits.search.methods.table import register_method
from circuits.search.searching import usual_size
from circuits.tasks import induction
from circuits.tasks.library.planted import planted_task
from tests.models import bundled

difference_of = metrics.logit_difference


@pytest.fixture(scope="module")
def chain():
    return planted_task("chain", 0, count=72)


def test_verification_and_neurons(chain) -> None:
    planted, pairs = chain
    parts, options = [], {"edges": 30, "verify": True, "held_out": pairs, "random_circuits": 0}
    found = circuits.discover(planted.model, pairs, difference_of, **options, found=parts.append)
    handed = [found.scores, found.screening, found.circuit, found.verdict, found.curve]
    assert [*map(id, parts[:3]), *map(id, parts[-2:])] == list(map(id, handed)), "each part as soon as it is there"
    assert {str(edge) for edge in found.circuit.edges} == {str(edge) for edge in planted.whole.edges}
    gate, gate_pairs = planted_task("gate", 1)
    single = circuits.discover(gate.model, gate_pairs, difference_of, edges=40, neurons=True, random_circuits=19)
    assert single.circuit.graph.neurons and single.verdict.faithfulness.effect > 0.9


def test_halves_share_no_pair_and_cover_all() -> None:
    model = bundled.mini()
    pairs = induction(model, 9)
    first, second = split(pairs, 3)
    assert len(first) == 5 and len(second) == 4
    rows = {tuple(row) for part in (first, second) for row in part.clean.ids.tolist()}
    assert rows == {tuple(row) for row in pairs.clean.ids.tolist()}
    assert torch.equal(split(pairs, 3)[0].clean.ids, first.clean.ids)
    with pytest.raises(PromptError, match="one pair"):
        split(pairs[:1])


def test_options_that_do_not_go_together(chain) -> None:
    planted, pairs = chain
    for options in (
        {"neurons": True, "method": "acdc"},
        {"neurons": True, "verify": True},
        {"verify": True, "method": "exact"},
        {"verify": True, "method": "prune"},
        {"edges": 0},
        {"found": 3},
        {"edges": 2.0},
        {"by": "support", "method": "refine"},
        {"by": "support", "method": "prune"},
        {"by": "support", "verify": True},
        {"by": "name"},
        {"method": "acdc", "edges": 1},
    ):
        with pytest.raises(CircuitsError):
            circuits.discover(planted.model, pairs, difference_of, random_circuits=0, **options)


@pytest.mark.parametrize("error", [MemoryBudgetError, PromptError])
def test_by_default_what_eap_ig_proposes_is_refined_and_heard_at_once(
    chain, monkeypatch: pytest.MonkeyPatch, error: type[CircuitsError]
) -> None:
    """Whoever stops it has scores and a circuit; where refining cannot be, that circuit is the result."""
    planted, pairs = chain
    pairs = pairs[:12]
    parts, options = [], {"edges": 12, "held_out": pairs, "random_circuits": 0}
    found = circuits.discover(planted.model, pairs, difference_of, **options, found=parts.append)
    proposed = circuits.attribute_edges(planted.model, pairs, difference_of)
    assert [type(part).__name__ for part in parts] == ["EdgeScores", "Circuit", "Circuit", "Verdict", "Verdict", "Curve"]
    assert torch.equal(parts[0].values, proposed.values) and parts[1].edges == proposed.top(12, connected=True).edges
    assert [part.metadata["method"] for part in parts[:3]] == ["eap-ig", "eap-ig", "refine"]
    assert found.scores is parts[0] and found.circuit is parts[2]

    def fails(*given: object) -> None:
        raise error("gates of all edges need more")

    monkeypatch.setattr(refining, "gated", fails)
    found = circuits.discover(planted.model, pairs, difference_of, **options)
    assert found.circuit.edges == parts[1].edges and found.circuit.metadata["method"] == "eap-ig"
    assert found.circuit.metadata["unrefined"] == "gates of all edges need more"
    with pytest.raises(error):
        circuits.discover(planted.model, pairs, difference_of, method="refine", **options)


@pytest.mark.parametrize("sign", [-1, 1])
def test_edges_by_support_are_those_that_the_method_s_sign_says(chain, monkeypatch: pytest.MonkeyPatch, sign: int) -> None:
    planted, pairs = chain
    scores = circuits.attribute_edges(planted.model, pairs, difference_of, method="eap")

    def run(*given: object, **options: object) -> circuits.EdgeScores:
        return dataclasses.replace(scores, by_label=-sign * scores.by_label, metadata={})

    monkeypatch.setattr(table, "REGISTERED", {})
    register_method(Method(name="mine", summary="by hand", run=run, score="score", sign=sign))  # type: ignore[arg-type]
    options = {"edges": 12, "by": "support", "held_out": pairs, "random_circuits": 0}
    found = circuits.discover(planted.model, pairs, difference_of, method="mine", **options)
    assert found.circuit.edges.keys() == scores.top(12, by="support", connected=True).edges.keys()


def test_how_many_edges_a_circuit_has_unless_told() -> None:
    shape = {"n_layers": 30, "n_heads": 9, "n_key_value_heads": 3, "d_mlp": 1536}
    large, small = Graph(**shape), Graph(n_layers=1, n_heads=1, n_key_value_heads=1, d_mlp=4)
    assert (large.edge_count, usual_size(large), usual_size(large, verify=True)) == (70_651, 1413, 100)
    assert usual_size(Graph(**shape, neurons=True)) == 100 == usual_size(bundled.mini().graph())
    assert usual_size(small) == small.edge_count < 100


def test_shrinking_beats_one_look_where_edges_depend_on_each_other() -> None:
    """On the OR the last route left is worth everything: a shrunk circuit of one route keeps the behaviour."""
    planted, pairs = planted_task("or", 0)
    scores = circuits.shrink(planted.model, pairs, difference_of, edges=8)
    circuit = scores.top(8)
    verdict = circuits.evaluate(planted.model, circuit, pairs, difference_of, random_circuits=0, random_sets=0)
    assert verdict.faithfulness.effect > 0.9
    assert float(scores.values.min()) >= 0 and len(circuit) == 8
    again = circuits.shrink(planted.model, pairs, difference_of, edges=8)
    assert torch.equal(again.values, scores.values)
    with pytest.raises(CircuitsError):
        circuits.shrink(planted.model, pairs, difference_of, edges=0)


def test_refining_comes_nearer_to_the_model_than_the_edges_it_begins_with() -> None:
    """The strongest by themselves may do too much or too little: nobody asked what they do together."""
    model, edges = bundled.mini(), 50
    pairs = induction(model, 16, 0)
    found = circuits.refine(model, pairs, difference_of, edges=edges)
    assert 0 < len(found) <= edges and len(found.connected()) == len(found)
    proposed = circuits.attribute_edges(model, pairs, difference_of).top(edges, by="support")
    kept = [circuits.search.faithfulness(model, one, pairs, difference_of).effect for one in (found, proposed)]
    assert abs(1 - kept[0]) < 0.9 * abs(1 - kept[1]), kept
    assert found.metadata["searched_faithfulness"] == pytest.approx(kept[0], abs=1e-4) and found.metadata["apart"] >= 0
    judged = circuits.discover(model, pairs, difference_of, method="refine", edges=edges, held_out=pairs, random_circuits=0)
    assert judged.circuit.edges == found.edges and judged.verdict.faithfulness.effect == pytest.approx(kept[0], abs=1e-6)


def test_what_refining_refuses_and_takes() -> None:
    model = bundled.mini()
    pairs = induction(model, 4, 0)
    for options in ({"edges": 0}, {"edges": 10**6}, {"edges": 3, "rounds": 0}, {"edges": 3, "rate": 0.0}):
        with pytest.raises(CircuitsError, match="refining takes"):
            circuits.refine(model, pairs, difference_of, **options)  # type: ignore[arg-type]
    turned = metrics.Metric.of(lambda logits, pairs: difference_of(logits, pairs) * torch.tensor([1.0, -1.0, 1.0, -1.0]))
    with pytest.raises(PromptError, match="gaps of 4 pairs cancel"):
        circuits.refine(model, pairs[[0, 0, 0, 0]], turned, edges=10)
    assert circuits.refine(model, pairs, difference_of, edges=20, rounds=1).metadata["rounds"] == 1
    half = circuits.load_model("mini", dtype=torch.bfloat16)
    assert len(circuits.refine(half, pairs, difference_of, edges=20, rounds=2)) > 0


def test_pairs_with_one_clean_prompt_stay_in_one_half() -> None:
    model = bundled.mini()
    pairs = circuits.tasks.gendered_pronouns(model, 64, 0)
    first, second = ({tuple(row) for row in part.clean.ids.tolist()} for part in split(pairs, 0))
    assert first and second and not first & second
    with pytest.raises(PromptError, match="clean prompts"):
        split(pairs[[0, 0, 0]])
