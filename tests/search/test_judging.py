"""Verdicts, curves, ROC, comparisons and screening on models whose circuit is known."""

import itertools
import json
import random

import pytest
import torch

from circuits import metrics
from circuits.attribution import EdgeScores, attribute_edges
from circuits.errors import CircuitsError, FileFormatError, GraphError
from circuits.graph import Circuit, Graph
from circuits.graph.places import on_paths
from circuits.patching.subgraphs.members import Members
from circuits.search.judging.compare import compare
from circuits.search.judging.curves import MIB_SIZES, Curve, curve_of, faithfulness_curve
from circuits.search.judging.evaluate import evaluate
from circuits.search.judging.judge import Judge
from circuits.search.judging.nulls import random_circuits, random_edges, random_paths
from circuits.search.judging.roc import node_scores, roc
from circuits.search.judging.verdict import Verdict
from circuits.search.screening import screen_then_verify
from circuits.tasks.library.planted import carrying, planted_task

difference_of = metrics.logit_difference


@pytest.fixture(scope="module")
def gate():
    return planted_task("gate", 0)


@pytest.fixture(scope="module")
def scores(gate) -> EdgeScores:
    return attribute_edges(gate[0].model, gate[1], difference_of, method="eap-ig")


@pytest.fixture(scope="module")
def verdict(gate) -> Verdict:
    planted, pairs = gate
    return evaluate(planted.model, planted.whole, pairs, difference_of, searched_on=pairs, random_circuits=40)


@pytest.mark.parametrize("seed", range(25))
def test_auroc_counts_pairs(seed: int) -> None:
    draw = random.Random(seed)
    names = [f"a0.h{index}" for index in range(20)]
    scores = {name: draw.choice([-2.0, -1.0, 0.0, 0.0, 1.0, 2.0, 3.0]) for name in names}
    members = set(draw.sample(names, draw.randint(1, 19)))
    found = roc(scores, members)
    pairs = [(abs(scores[a]), abs(scores[b])) for a in members for b in names if b not in members]
    assert found.auroc == pytest.approx(sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs))
    assert float(found.true_positives[-1]) == 1.0 and float(found.false_positives[0]) == 0.0


def test_precision_at_the_true_size_and_what_is_left_out() -> None:
    scores = {"input->logits": 3.0, "a0.h0->logits": 2.0, "a0.h1->logits": -2.5, "input->m0": 0.1}
    found = roc(scores, ["input->logits", "a0.h0->logits"])
    assert found.precision == 0.5 and found.members == 2
    assert roc(scores, ["input->logits", "a0.h0->logits"], excluded=["a0.h1->logits"]).auroc == 1.0
    for truth in ([], list(scores), ["m9->logits"]):
        with pytest.raises(CircuitsError):
            roc(scores, truth)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["gate", "chain", "induction"])
@pytest.mark.parametrize("method", ["eap-ig", "exact"])
def test_planted_circuits_are_told_apart(name: str, seed: int, method) -> None:
    planted, pairs = planted_task(name, seed, count=12)
    truth = carrying(planted, pairs)
    silent = [str(edge) for edge in planted.whole.edges if edge not in truth.edges]
    found = attribute_edges(planted.model, pairs, difference_of, method=method)
    assert roc(found, truth, excluded=silent).auroc == 1.0
    nodes = [str(node) for node in truth.nodes]
    assert roc(node_scores(found), nodes).auroc == 1.0


def test_random_circuits_have_the_size_that_was_asked_for() -> None:
    graph = Graph(n_layers=3, n_heads=4, n_key_value_heads=2, d_mlp=8)
    draw = random.Random(0)
    for size in (1, 5, 40, 100, graph.edge_count):
        for members in (random_edges(graph, size, draw), random_paths(graph, size, draw)):
            assert len(members) == size == len(set(zip(members.writers.tolist(), members.readers.tolist(), strict=True)))
    neurons = Graph(n_layers=2, n_heads=2, n_key_value_heads=2, d_mlp=6, neurons=True)
    assert len(random_paths(neurons, 30, draw)) == 30
    one = random_paths(graph, 12, random.Random(5))
    assert torch.equal(one.writers, random_paths(graph, 12, random.Random(5)).writers)
    with pytest.raises(GraphError):
        random_paths(graph, graph.edge_count + 1, draw)
    again = [itertools.islice(random_circuits(graph, size, 3), 4) for size in (30, 30, 31)]
    drawn = [[tuple(zip(one.writers.tolist(), one.readers.tolist(), strict=True)) for one in some] for some in again]
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == 4 and not set(drawn[0]) & set(drawn[2])
    for one in drawn[0]:  # a quarter of all edges at most: all of it lies on paths, but the last
        writers, readers = zip(*sorted(one), strict=True)
        assert sum(on_paths(graph, writers, readers)) >= 30 - 6, "a whole path has at most seven edges here"


def test_the_planted_circuit_is_faithful_complete_and_minimal(gate, verdict: Verdict) -> None:
    planted, _ = gate
    assert verdict.faithfulness.effect == pytest.approx(1.0, abs=1e-6)
    assert verdict.p_value == pytest.approx(1 / 41) and max(verdict.null) < 0.9
    assert verdict.incompleteness is not None and verdict.incompleteness < 1e-6
    assert verdict.unneeded() == () and len(verdict.minimality) == len(planted.whole.nodes) - 2
    assert verdict.searched_on is not None
    assert "All" in verdict.summary and "40 random circuits" in verdict.summary
    assert set(verdict.to_dataframe()["measure"]) >= {"faithfulness", "random circuit", "incompleteness"}


def test_what_is_missing_or_too_much_is_said(gate) -> None:
    planted, pairs = gate
    edges = [str(edge) for edge in planted.whole.edges]
    others = (str(edge) for edge in planted.model.graph().edges() if str(edge) not in edges)
    spare = next(name for name in others if name.startswith("a") and name.endswith("logits"))
    padded = evaluate(planted.model, Circuit(planted.whole.graph, [*edges, spare]), pairs, difference_of, random_circuits=0)
    assert padded.p_value is None and padded.unneeded() == (spare.split("->")[0],)
    cut = [edge for edge in edges if not edge.endswith("logits")]
    broken = evaluate(planted.model, Circuit(planted.whole.graph, cut), pairs, difference_of, random_circuits=19)
    assert broken.faithfulness.effect == pytest.approx(0.0, abs=1e-9) and broken.incompleteness > 0.5


def test_an_or_is_incomplete_without_its_backups() -> None:
    planted, pairs = planted_task("or", 0)
    operands = [node for node, role in planted.whole.roles.items() if role == "operand"]
    left_out = operands[0]
    kept = [edge for edge in planted.whole.edges if edge.writer != left_out and edge.reader != left_out]
    found = evaluate(planted.model, Circuit(planted.whole.graph, map(str, kept)), pairs, difference_of, random_circuits=0)
    whole = evaluate(planted.model, planted.whole, pairs, difference_of, random_circuits=0)
    assert found.faithfulness.effect == pytest.approx(1.0, abs=1e-6), "one operand suffices"
    assert whole.incompleteness < 1e-6 < 0.1 < found.incompleteness


def test_refusals(gate) -> None:
    planted, pairs = gate
    with pytest.raises(GraphError, match="no edges"):
        evaluate(planted.model, Circuit(planted.whole.graph), pairs, difference_of)
    other = Circuit(Graph(n_layers=9, n_heads=2, n_key_value_heads=2, d_mlp=4), ["input->logits"])
    with pytest.raises(GraphError, match="another graph"):
        evaluate(planted.model, other, pairs, difference_of)


def test_a_curve_is_the_circuits_of_each_size(gate, scores: EdgeScores, tmp_path) -> None:
    planted, pairs = gate
    curve = faithfulness_curve(planted.model, scores, pairs, difference_of, random_orders=3)
    assert curve.shares == MIB_SIZES and curve.edges[-1] == len(scores)
    assert curve.faithfulness[-1].effect == pytest.approx(1.0, abs=1e-9) and curve.null.shape == (3, 10)
    for edges, point in zip(curve.edges, curve.faithfulness, strict=True):
        alone = evaluate(
            planted.model, scores.top(edges), pairs, difference_of, random_circuits=0, random_sets=0, minimality=False
        )
        assert alone.faithfulness.effect == pytest.approx(point.effect, abs=1e-9)
    beside = evaluate(planted.model, scores.top(curve.edges[5]), pairs, difference_of, random_circuits=8, minimality=False)
    known = curve_of(Judge(planted.model, pairs, difference_of), scores, random_orders=3, beside=beside)
    for one in (curve, known):
        assert one.null[:, 5].tolist() == pytest.approx(list(beside.null[:3]), abs=1e-9), "the verdict's own random circuits"
    assert torch.allclose(known.null, curve.null)
    heights = [point.effect for point in curve.faithfulness]
    area = sum((b - a) * (y + z) / 2 for a, b, y, z in zip(MIB_SIZES, MIB_SIZES[1:], heights, heights[1:], strict=False))
    assert curve.cpr == pytest.approx(area)
    curve.save(tmp_path / "curve.json")
    again = Curve.load(tmp_path / "curve.json")
    assert again.faithfulness == curve.faithfulness and torch.equal(again.null, curve.null)
    assert len(curve.to_dataframe()) == 10
    with pytest.raises(CircuitsError):
        faithfulness_curve(planted.model, scores, pairs, difference_of, shares=[0.0])


def test_verdicts_survive_files_and_refuse_mutations(verdict: Verdict, tmp_path) -> None:
    path = tmp_path / "verdict.json"
    verdict.save(path)
    again = Verdict.load(path)
    assert again.faithfulness == verdict.faithfulness and again.completeness == verdict.completeness
    assert again.independent == verdict.independent is not None
    data, draw = json.loads(path.read_text()), random.Random(0)
    for _ in range(60):
        broken = {**data, draw.choice(list(data)): draw.choice([None, "x", [], {}, [1], [[]], -1, {"effect": "x"}])}
        path.write_text(json.dumps(broken))
        try:
            Verdict.load(path)
        except FileFormatError:
            continue


def test_a_comparison_says_what_is_shared(scores: EdgeScores) -> None:
    first, second = scores.top(20), scores.top(30)
    found = compare(first, second)
    assert len(found.shared_edges) == 20 and not found.only_first and len(found.only_second) == 10
    assert found.edge_overlap == pytest.approx(2 / 3) and found.rank_correlation == pytest.approx(1.0)
    turned = {str(edge): -(score or 0.0) for edge, score in first.edges.items()}
    assert compare(first, Circuit(first.graph, turned)).opposite == (), "without a method the sign is not known"
    flipped = Circuit(first.graph, turned, metadata=dict(first.metadata))
    assert len(compare(first, flipped).opposite) == sum(score != 0 for score in first.edges.values())
    assert set(found.to_dataframe()["where"]) == {"both", "second"}
    with pytest.raises(GraphError):
        compare(first, Circuit(Graph(n_layers=1, n_heads=1, n_key_value_heads=1, d_mlp=0)))


@pytest.mark.parametrize("seed", range(3))
def test_screening_finds_an_or_with_its_sleeping_backup(seed: int) -> None:
    planted, pairs = planted_task("or", seed)
    found = screen_then_verify(
        planted.model, pairs, difference_of, attribute_edges(planted.model, pairs, difference_of), edges=30
    )
    true = {str(edge) for edge in planted.whole.edges}
    assert {str(edge) for edge in found.circuit.edges} == true
    heads = {str(node) for node, role in planted.whole.roles.items() if role in ("operand", "backup")}
    assert set(found.redundant[0]) == heads
    silent = [one for one in found.tested if str(one.edge) in true and abs(one.alone.effect) < 1e-9]
    assert len(silent) > 8 and all(one.context and one.confirmed for one in silent)
    assert len(found.to_dataframe()) == len(found.tested)


@pytest.mark.parametrize("name", ["gate", "chain"])
def test_screening_rejects_what_does_not_matter(name: str) -> None:
    planted, pairs = planted_task(name, 1)
    proposed = attribute_edges(planted.model, pairs, difference_of)
    found = screen_then_verify(planted.model, pairs, difference_of, proposed, edges=40)
    assert {str(edge) for edge in found.circuit.edges} == {str(edge) for edge in planted.whole.edges}
    # Of edges that carry nothing, rounding says which come first, and one of them may bring two onto paths: 40 or just below.
    asked = proposed.top(40, connected=True).edges
    assert {one.edge for one in found.tested} == set(asked) and len(planted.whole.edges) < len(asked) <= 40
    assert found.redundant == ()


def test_members_without_nodes() -> None:
    graph = Graph(n_layers=2, n_heads=2, n_key_value_heads=2, d_mlp=4)
    whole = Members.whole(graph)
    assert len(whole) == graph.edge_count
    left = whole.without([graph.writer_index("a0.h1")])
    assert len(whole) - len(left) == len(graph.readers("a0.h1"))


def test_random_circuits_end_where_the_answer_is_known(gate) -> None:
    """A circuit that keeps nothing is reached by the first few: p is a share of those that were drawn."""
    planted, pairs = gate
    cut = Circuit(planted.whole.graph, [str(edge) for edge in planted.whole.edges if edge.reader.kind != "logits"])
    found = evaluate(planted.model, cut, pairs, difference_of, random_circuits=40, random_sets=0, minimality=False)
    reached = [value for value in found.null if value >= 0.0]
    assert len(found.null) < 40 and len(reached) == 3 == found.metadata["random_reached"]
    assert found.p_value == pytest.approx(3 / len(found.null)) and "so no more were drawn" in found.summary
    assert found.standing == "unproven" and found.metadata["random_prompts"] == 8 < found.prompts
