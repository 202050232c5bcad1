"""Circuits and the whole model without some nodes: the fast way against the definition, edge by edge."""

import dataclasses
import itertools
import random
from typing import Any

import pytest
import torch

from circuits import metrics
from circuits.errors import CircuitsError
from circuits.graph import Circuit, Node
from circuits.models import Model
from circuits.patching.subgraphs import circuit_pass
from circuits.patching.subgraphs.members import Members
from circuits.patching.subgraphs.outside import OutsideKind
from circuits.patching.subgraphs.sharing import Sharing
from circuits.search.judging import evaluate as evaluate_module, extent, removals as removals_module
from circuits.search.judging.evaluate import verdict_of
from circuits.search.judging.extent import ASKED, LOOK, MANY, NULL, JudgingRuns, JudgingTime, asked
from circuits.search.judging.judge import Judge
from circuits.search.judging.nulls import random_circuits, random_paths
from circuits.search.judging.removals import completeness, minimality
from circuits.search.judging.verdict import UNNEEDED
from circuits.tasks import PromptPairs, induction
from circuits.tasks.library.planted import planted_task
from tests.models import bundled
from tests.patching.test_subgraph import BEHIND, without_output_biases
from tests.patching.test_sweeps import random_case


def some_sets(rng: random.Random, model: Model) -> list[list[Node]]:
    nodes = [node for node in model.graph().nodes() if node.kind not in ("input", "logits")]
    return [rng.sample(nodes, rng.randint(1, len(nodes))) for _ in range(5)]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", ["corrupt", "mean", "zero"])
def test_the_model_without_nodes_is_its_graph_without_the_edges_that_leave_them(seed: int, kind: OutsideKind) -> None:
    rng, _, _, model, pairs = random_case(seed, plain=True)
    judge, sets = Judge(model, pairs, metrics.log_probability, outside=kind), some_sets(rng, model)
    slow = judge.without(Members.whole(model.graph()), sets, "")
    assert judge.model_without(sets, "") == pytest.approx(slow, rel=1e-9, abs=1e-9)
    few, rows = judge.first(len(pairs) - 1), list(range(len(pairs) - 1))
    if len(rows) > 1 and kind != "mean":  # the mean over all prompts stays outside
        alone = Judge(model, pairs[rows], metrics.log_probability, outside=kind)
        assert few.model_without(sets, "") == pytest.approx(alone.model_without(sets, ""), rel=1e-9, abs=1e-9)
    part = few.changes([members(rng, model)], "")
    assert part.shape == (1, len(rows)) and judge.model_without([], "") == []


def members(rng: random.Random, model: Model) -> Members:
    return random_paths(model.graph(), min(12, model.graph().edge_count), rng)


@pytest.mark.parametrize("seed", BEHIND[:4])
def test_a_norm_behind_attention_is_no_reason_for_another_number(seed: int) -> None:
    """There a node's own value stays in the scale of its layer: setting its output is another thing."""
    rng, _, _, model, pairs = random_case(seed)
    model = without_output_biases(model)
    judge, sets = Judge(model, pairs, metrics.log_probability), some_sets(rng, model)
    slow = [
        judge.faithfulness([Members.whole(model.graph()).without(map(model.graph().writer_index, one))], "") for one in sets
    ]
    assert judge.model_without(sets, "") == pytest.approx([float(one[0]) for one in slow], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_circuits_run_together_are_what_they_are_alone(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Circuits with much in common: one, and the same without some nodes, without others as well. Their heads' products one by
    one or in a batch, as readings are large or small."""
    monkeypatch.setattr(circuit_pass, "_LARGE", 0 if seed % 2 else 2**30)
    rng, _, _, model, pairs = random_case(seed)
    graph = model.graph()
    judge, one = Judge(model, pairs, metrics.log_probability), random_paths(graph, min(30, graph.edge_count), rng)
    nodes = [node for node in graph.nodes() if node.kind not in ("input", "logits")]
    sets = [[], *([node] for node in nodes), *some_sets(rng, model)]
    found = judge.without(one, sets, "")
    for gone, value in zip(sets, found, strict=True):
        assert judge.without(one, [gone], "")[0] == pytest.approx(value, rel=1e-9, abs=1e-9)


def test_what_circuits_have_in_common_is_computed_once() -> None:
    planted, _ = planted_task("gate", 0)
    graph, blocks = planted.model.graph(), planted.model.weights.blocks
    whole = Members.of(planted.whole)

    def dense(*circuits: Members) -> int:
        sharing = Sharing(graph, blocks, input_moves=[True], resting=True)
        assert all(sharing.take(one) for one in circuits)
        return len(sharing.needed()[0])

    alone = dense(whole)
    assert 0 < alone <= len(planted.whole.nodes) and dense(whole, whole) == alone
    last = max(node for node in planted.whole.nodes if node.kind not in ("input", "logits"))
    assert dense(whole, whole.without([graph.writer_index(last)])) == alone, "all else is as it was"
    dead = Circuit(graph, [str(edge) for edge in planted.whole.edges if edge.reader.kind != "logits"])
    assert dense(Members.of(dead)) == 0, "what reaches no logits is not computed"
    still = Sharing(graph, blocks, input_moves=[False], resting=True)
    assert still.take(whole) and still.needed() == ([], []), "nothing moves"


def test_a_circuit_too_many_is_left_for_the_next_pass() -> None:
    planted, _ = planted_task("gate", 0)
    sharing = Sharing(planted.model.graph(), planted.model.weights.blocks, input_moves=[True], resting=True)
    draw, whole = random.Random(0), Members.of(planted.whole)
    assert sharing.take(whole, 1), "the first always fits"
    assert sharing.take(whole, len(planted.whole.nodes)), "another like it takes no room"
    assert not sharing.take(random_paths(planted.model.graph(), 40, draw), 3) and len(sharing.finals) == 2


def test_a_node_that_matters_alone_is_not_tried_again() -> None:
    planted, pairs = planted_task("or", 0)
    judge, circuit = Judge(planted.model, pairs, metrics.logit_difference), Members.of(planted.whole)
    nodes = [node for node in planted.whole.nodes if node.kind not in ("input", "logits")]
    removals = completeness(judge, circuit, nodes, 4, random.Random(0))
    needs = {need.node: need for need in minimality(judge, circuit, nodes, removals)}
    assert list(needs) == [str(node) for node in nodes]
    whole = judge.without(circuit, [[]], "")[0]
    for node, need in zip(nodes, needs.values(), strict=True):
        alone = judge.without(circuit, [[node]], "")[0] - whole
        assert need.without or need.change == pytest.approx(alone, abs=1e-9)
        assert not need.without or abs(alone) < UNNEEDED, "only what does not show alone is looked at again"
        assert abs(need.change) >= abs(alone) - 1e-12
    shown = [need for need in needs.values() if need.without and abs(need.change) >= UNNEEDED]
    assert shown, "the OR has a backup, which shows after another has gone"
    for removal in removals:
        gone = [planted.model.graph().node(name) for name in removal.nodes]
        assert removal.circuit == pytest.approx(judge.without(circuit, [gone], "")[0], abs=1e-9)


def test_of_many_nodes_some_are_tried_alone_and_on_few_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    planted, pairs = planted_task("or", 0)
    judge, nodes = Judge(planted.model, pairs, metrics.logit_difference), [*planted.whole.nodes][1:-1]
    few, circuit, told = judge.few(LOOK), Members.of(planted.whole), list[JudgingTime]()
    assert len(few.gap) == LOOK < 16 < len(pairs)
    for module, name, value in (
        *((module, "MANY", len(nodes)) for module in (removals_module, evaluate_module, extent)),
        (extent, "ASKED", 2),
    ):
        monkeypatch.setattr(module, name, value)
    found = verdict_of(judge, planted.whole, random_circuits=3, random_sets=2, expected=told.append)
    drawn = [*itertools.islice(random_circuits(circuit.graph, len(circuit), 0), 3)]
    assert found.null == pytest.approx(judge.first(NULL).faithfulness(drawn, "").tolist(), abs=1e-9)
    assert found.metadata["random_prompts"] == NULL
    whole, *alone = few.without(circuit, [[], *([node] for node in nodes)], "")
    changes = {str(node): value - whole for node, value in zip(nodes, alone, strict=True)}
    assert len(found.minimality) == 2 and found.drawn_from == len(nodes) > 2
    assert not any(need.without for need in found.minimality)
    assert [need.change for need in found.minimality] == pytest.approx([changes[need.node] for need in found.minimality])
    assert f" 2 nodes drawn at random from {len(nodes)} are" in found.summary
    assert "out of both on 16 of the prompts:" in found.summary
    some = judge.first(16)
    for one in found.completeness:
        gone = [planted.model.graph().node(name) for name in one.nodes]
        ours, model = some.without(circuit, [gone], ""), some.model_without([gone], "")
        assert [one.circuit, one.model] == pytest.approx([*ours, *model], abs=1e-9)
    assert list(told[0].seconds) == ["random circuits", "sets of nodes", "nodes one by one"] and told[0].total > 0
    every = verdict_of(judge, planted.whole, random_circuits=0, random_sets=0, minimality="all")
    assert {need.node: need.change for need in every.minimality} == pytest.approx(changes) and every.drawn_from is None


def test_how_many_nodes_are_asked_for() -> None:
    assert [asked(True, count) for count in (0, MANY - 1, MANY, 500)] == [0, MANY - 1, ASKED, ASKED]
    assert (asked(False, 9), asked("all", 500), asked(20, 500), asked(20, 9)) == (0, 500, 20, 9)
    for wrong in (-1, 1.5, "some", None):
        with pytest.raises(CircuitsError, match=r"minimality=.*expected True, False"):
            asked(wrong, 9)  # type: ignore[arg-type]


def test_more_of_anything_takes_longer() -> None:
    least: dict[str, Any] = {"prompts": 16, "nodes": 20, "random_circuits": 19, "asked": 10}
    runs = JudgingRuns.of(**least)
    more: dict[str, Any]
    for more in ({"prompts": 32}, {"random_circuits": 40}, {"asked": 20}, {"nodes": MANY - 1, "asked": MANY - 1}):
        assert JudgingRuns.of(**(least | more)).verdict > runs.verdict
    assert JudgingRuns.of(**least, sets=0).completeness == 0 and JudgingRuns.of(**least, curve=True).curve > 0 == runs.curve
    told = JudgingTime.of(runs, 1.0)
    assert told.total == pytest.approx(runs.verdict) and told.summary.startswith("judging takes roughly ")


def test_pairs_that_share_a_prompt_are_resampled_together() -> None:
    planted, pairs = planted_task("gate", 0)
    twice = dataclasses.replace(pairs[[*range(6), *range(6)]])
    once, doubled = (Judge(planted.model, some, metrics.logit_difference) for some in (pairs[list(range(6))], twice))
    circuit = random_paths(planted.model.graph(), 40, random.Random(1))
    single, double = (judge.effects(judge.changes([circuit], ""), seed=0)[0] for judge in (once, doubled))
    assert doubled.independent == once.independent <= 6
    assert (single.effect, single.low, single.high) == pytest.approx((double.effect, double.low, double.high), abs=1e-9)
    assert torch.equal(doubled.groups[:6], doubled.groups[6:])


def test_few_prompts_stand_for_all_only_where_their_gap_is_like_that_of_all() -> None:
    model = bundled.mini()
    pairs = induction(model, 6, 0)
    signs = torch.tensor([-1.0, -1.0, 1.0, 1.0, 1.0, 1.0])
    by_row = {tuple(ids): float(sign) for ids, sign in zip(pairs.clean.ids.tolist(), signs, strict=True)}

    def turned(logits: torch.Tensor, some: PromptPairs) -> torch.Tensor:
        rows = torch.tensor([by_row[tuple(ids)] for ids in some.clean.ids.tolist()])
        return rows * metrics.logit_difference(logits, some)

    judge = Judge(model, pairs, metrics.Metric("turned", turned, by_prompt=True))
    assert judge.few(2) is judge and judge.few(3) is judge, "their gap has the other sign"
    judge.gap = torch.tensor([-1.0, 1.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    assert len(judge.few(1).gap) == 4, "twice as many until their gap is like that of all"
    assert len(judge.few(5).gap) == 5
