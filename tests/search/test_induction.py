"""The induction search: exact on models whose circuit was planted, honest where there is none."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from circuits.graph import Circuit, Edge, Node, Reader
from circuits.heads import HeadScores, composition_scores, score_heads
from circuits.models import Edit, Model
from circuits.models.planted import planted_induction
from circuits.search import find_induction_circuit
from circuits.search.mechanisms.induction import SEGMENT
from circuits.search.mechanisms.induction_edges import Feed
from circuits.search.mechanisms.induction_evidence import ABLATIONS, FEW, Asked, RepeatAblations, Repeats, doubling
from circuits.search.mechanisms.induction_worth import other_sets, set_evidence
from circuits.statistics import Effect
from circuits.tasks import induction, repeated_tokens
from circuits.tasks.metrics import logit_difference
from tests.models import bundled
from tests.models.native import native_bridge
from tests.models.one_head import one_head_model


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_planted_heads_and_edges_are_found_exactly(seed: int):
    planted = planted_induction(seed=seed)
    found = find_induction_circuit(planted.model, sequences=8, seed=seed, control_sets=20)
    assert found.metadata["verdict"] == "found"
    assert list(found.edges) == list(planted.circuit.edges)
    assert found.roles == planted.circuit.roles


def test_evidence_says_what_was_measured():
    planted = planted_induction(seed=3)
    steps: list[tuple[str, int, int]] = []
    found = find_induction_circuit(planted.model, sequences=8, control_sets=20, progress=lambda *step: steps.append(step))
    assert found.metadata["verdict"] == "found"
    whole = found.metadata["set"]["ablation"]
    assert all(whole[kind]["low"] <= whole[kind]["effect"] <= whole[kind]["high"] for kind in whole)
    assert whole["zero"]["effect"] > 1.0
    assert found.metadata["control"]["zero"]["p_value"] < 0.05
    assert found.metadata["weights_sha256"] == planted.model.fingerprint
    every = composition_scores(planted.model)
    for feed, about in ((one, about) for one, about in found.evidence.items() if isinstance(one, Edge) and one.slot == "k"):
        if "k_composition" in about:
            assert about["k_composition"] == pytest.approx(every.of("k", feed.writer, feed.reader), abs=1e-12)
            assert about["k_composition_random"] == every.random
    for node in found.roles:
        assert set(found.evidence[node]["ablation"]) == {"zero", "mean", "zero_frozen", "mean_frozen"}
    labels = {label for label, _, _ in steps}
    assert all((label, total, total) in steps for label, _, total in steps if label in labels)


@pytest.mark.parametrize("seed", range(5))
def test_one_layer_has_none(seed: int):
    """The planted model's first layer alone: its previous-token heads are there, and nothing reads them."""
    whole = planted_induction(seed=seed).model
    weights = dataclasses.replace(whole.weights, blocks=whole.weights.blocks[:1])
    found = find_induction_circuit(dataclasses.replace(whole, weights=weights), sequences=4)
    assert (len(found), found.metadata["verdict"]) == (0, "none")
    assert "No induction circuit" in str(found.metadata["summary"])


def test_without_enough_random_sets_nothing_counts_as_proven():
    planted = planted_induction(seed=3)
    for sets in (0, 5):
        found = find_induction_circuit(planted.model, sequences=4, control_sets=sets)
        assert found.metadata["verdict"] == "unproven"
        assert "too few to compare with" in str(found.metadata["summary"])


@pytest.mark.slow
def test_mini_is_what_its_card_promises():
    found = find_induction_circuit(bundled.mini(), sequences=8)
    loss = found.metadata["loss"]
    assert loss["first_copy"] - loss["second_copy"] >= 2
    about = [found.evidence[node] for node in found.roles]
    assert max(head["prefix_matching"] for head in about) >= 0.4
    assert max(head["previous_token"] for head in about) >= 0.5


def test_prefix_matching_without_feeders_is_not_called_a_circuit():
    planted = planted_induction(seed=1)
    found = find_induction_circuit(planted.model, sequences=4, min_previous_token=1.1)
    assert found.metadata["verdict"] == "none"
    assert "no previous-token head" in str(found.metadata["summary"])
    head, value = score_heads(planted.model).top("previous_token", 1)[0]
    reason = rejected(found)[str(head)]
    assert reason["test"] == "previous_token" and (reason["value"], reason["threshold"]) == (value, 1.1)
    assert f"{head} with {value:.2f}, and 1.10 is asked for" in str(found.metadata["summary"])


EVERY_EDGE = [
    *(f"input->a0.h0<{slot}>" for slot in "qkv"),
    "input->a1.h0<q>",
    "a0.h0->a1.h0<k>",
    "input->a1.h0<v>",
    "a1.h0->logits",
]
"""The induction circuit of a model of two layers with one head each."""


@pytest.fixture(scope="module")
def one_head() -> Model:
    """Trained: vocabulary 26, 8 positions, no BOS, heads as wide as the residual stream."""
    return one_head_model()


def test_a_low_composition_in_wide_heads_does_not_veto_a_circuit(one_head: Model):
    assert (one_head.d_head, one_head.max_positions, one_head.d_vocab) == (one_head.d_model, 8, 26)
    found = find_induction_circuit(one_head, sequences=16)
    assert found.metadata["verdict"] == "found", found.metadata["summary"]
    assert sorted(map(str, found.edges)) == sorted(EVERY_EDGE)
    assert found.roles == {Node("head", 0, 0): "previous token", Node("head", 1, 0): "induction"}
    edge = cast("dict[str, Any]", found.evidence[Edge.parse("a0.h0->a1.h0<k>")])
    assert edge["k_composition"] < 0, "below random matrices, which is why it was rejected"
    assert edge["path_patching"]["effect"] > 0.7 and edge["path_patching"]["low"] > 0.5
    assert edge["prefix_matching_drop"]["low"] > 0.3
    assert not rejected(found) and "There are no other heads to compare with" in str(found.metadata["summary"])


def test_its_edge_effect_is_that_of_cutting_the_edge_by_hand(one_head: Model):
    """The edge's noising, computed with plain matrices: keys of layer 1 from the corrupt layer 0, everything else clean."""
    found = find_induction_circuit(one_head, sequences=8)
    pairs = induction(one_head, 8, 0, length=7, differ="prefix")
    weights, rows = one_head.weights, torch.arange(8)
    clean, corrupt = one_head.run(pairs.clean), one_head.run(pairs.corrupt)
    wrote = [run.z[0][:, :, 0] @ weights.blocks[0].attention.W_O for run in (clean, corrupt)]
    attention = weights.blocks[1].attention
    keys = (clean.residuals[1] - wrote[0] + wrote[1]) @ attention.W_K
    scores = torch.einsum("pqd,pkd->pqk", clean.q[1][:, :, 0], keys) * attention.scale
    pattern = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf).softmax(-1)
    written = pattern @ clean.v[1][:, :, 0] @ attention.W_O
    logits = (clean.residuals[1] + written) @ weights.W_U
    read = [part[rows, pairs.answer_columns] for part in (clean.logits, corrupt.logits, logits)]
    whole, none, cut = (float(logit_difference(part, pairs).mean()) for part in read)
    evidence = cast("dict[str, Any]", found.evidence[Edge.parse("a0.h0->a1.h0<k>")])
    assert evidence["path_patching"]["effect"] == pytest.approx((whole - cut) / (whole - none), abs=1e-9)


def test_reasons_are_what_was_measured():
    planted = planted_induction(seed=1)
    found = find_induction_circuit(planted.model, sequences=4, min_drop=1.5)
    assert (len(found), found.metadata["verdict"]) == (0, "none")
    (writer,) = (str(node) for node, role in planted.circuit.roles.items() if role == "previous token")
    inductors = [Node.parse(str(node)) for node, role in planted.circuit.roles.items() if role == "induction"]
    measured = RepeatAblations(planted.model, repeats(planted.model, 4))
    for head in inductors:
        clean = measured.prefix_matching([head])
        drop = float((clean - measured.prefix_matching([head], without=measured.above_mean(Node.parse(writer)))).mean())
        reason = rejected(found)[str(head)]
        assert reason["test"] == "prefix_matching_drop"
        assert reason["value"] == pytest.approx(drop, abs=1e-12)
        assert reason["threshold"] == pytest.approx(1.5 * float(clean.mean()), abs=1e-12)
        assert f"without {writer} in its keys, {head} matches prefixes less by {drop:.2f}" in reason["words"]
    assert "150% of its" in str(found.metadata["summary"])
    whole = find_induction_circuit(planted.model, sequences=4, control_sets=2)
    reasons = rejected(whole)
    assert not set(reasons) & set(map(str, whole.roles))
    unread = {name for name, reason in reasons.items() if reason["test"] == "prefix_matching_drop"}
    assert unread, "the planted previous-token head that nobody reads"
    assert all(reasons[name]["value"] < reasons[name]["threshold"] for name in unread)


def test_an_edge_is_rejected_by_patching_where_weights_do_not_speak_for_it():
    lowering = {"writer": Node("head", 0, 0), "head": Node("head", 1, 0), "reader": Reader(Node("head", 1, 0), "k")}
    lowering |= {"matching": 0.8, "drop": Effect(0.4, 0.3, 0.5), "composition_random": 0.1}
    nothing, some = Effect(0.01, -0.02, 0.04), Effect(0.5, 0.4, 0.6)
    held = [
        Feed(**lowering, composition=0.05, patched=nothing),
        Feed(**lowering, composition=-0.05, patched=some, confirmed=True),
    ]
    assert [feed.fault(0.1) for feed in held] == [None, None]
    reason = Feed(**lowering, composition=-0.05, patched=nothing).fault(0.1)
    assert reason is not None and (reason.test, reason.value, reason.threshold) == ("path_patching_low", -0.02, 0.0)
    assert "0.01 (-0.02 to 0.04)" in reason.words and "0.050 below the 0.100 of random matrices" in reason.words


def test_where_few_other_sets_of_heads_exist_all_are_tried_once():
    heads = [Node("head", 0, index) for index in range(4)]
    assert sorted(map(tuple, other_sets(heads, 2, 20, 0))) == sorted(itertools.combinations(heads, 2))
    assert len(other_sets(heads, 2, 5, 0)) == 5 and other_sets(heads, 0, 20, 0) == []


def test_parts_are_told_as_soon_as_they_are_there(tmp_path: Path):
    parts: list[Any] = []
    found = find_induction_circuit(planted_induction(seed=3).model, sequences=4, control_sets=2, found=parts.append)
    scores, unjudged, judged = parts
    assert judged is found and isinstance(scores, HeadScores)
    assert unjudged.metadata["verdict"] == "unjudged" and "not ablated yet" in str(unjudged.metadata["summary"])
    assert list(unjudged.edges) == list(found.edges) and unjudged.roles == found.roles
    unjudged.save(tmp_path / "circuit.json")
    assert Circuit.load(tmp_path / "circuit.json") == unjudged
    find_induction_circuit(planted_induction(seed=3).model, sequences=4, min_prefix_matching=1.1, found=parts.append)
    assert [type(part) for part in parts[3:]] == [HeadScores, Circuit] and parts[-1].metadata["verdict"] == "none"


def test_the_same_seed_gives_the_same_circuit():
    model = planted_induction(seed=5).model
    once, again = (find_induction_circuit(model, sequences=4, control_sets=2) for _ in range(2))
    assert once == again
    assert once.evidence == again.evidence
    assert once.metadata == again.metadata


def rejected(found: Circuit) -> dict[str, Any]:
    return cast("dict[str, Any]", found.metadata["rejected"])


def repeats(model: Model, count: int) -> Repeats:
    """The segments that the search itself takes."""
    tokens, length = repeated_tokens(model, count=count, length=SEGMENT, copies=2, seed=0)
    return Repeats(tokens, tokens.ids.shape[1] - 2 * length, length)


def ablations(model: Model, count: int = 5) -> RepeatAblations:
    tokens, length = repeated_tokens(model, count=count, length=6, copies=2, seed=0)
    return RepeatAblations(model, Repeats(tokens, tokens.ids.shape[1] - 2 * length, length))


def loss(logits: torch.Tensor, ids: torch.Tensor, measured: RepeatAblations) -> float:
    """Mean cross-entropy of one prompt's second copy, token by token."""
    columns = range(measured.repeats.start + 6, measured.repeats.start + 11)
    return -sum(float(logits[column].log_softmax(-1)[ids[column + 1]]) for column in columns) / 5


@pytest.mark.parametrize("groups", [None, 2])
def test_ablations_together_equal_one_run_each(groups: int | None, monkeypatch: pytest.MonkeyPatch):
    """More sequences than a run has room for, sets that begin in several layers, every kind: beside a run a sequence."""
    monkeypatch.setattr("circuits.search.mechanisms.induction_evidence.prompts_at_once", lambda weights, width: 5)
    model = Model.from_bridge(native_bridge(2, n_heads=4, n_layers=3, d_vocab=40, n_ctx=32, n_key_value_heads=groups))
    measured = ablations(model, FEW + 2)
    assert [len(run.tokens) for run in measured.runs] == [FEW, 2]
    sets = [(Node("head", 1, 2),), (Node("head", 0, 1), Node("head", 0, 3), Node("head", 2, 0))]
    asked: list[Asked] = [(heads, kind) for heads in sets for kind in ABLATIONS]
    runs = [model.run(ids[None], keep="patterns") for ids in measured.repeats.tokens.ids]
    for (heads, kind), rises in zip(asked, measured.rises(asked), strict=True):
        for place, (run, ids) in enumerate(zip(runs, measured.repeats.tokens.ids, strict=True)):
            others = [other for other in runs if other is not run]
            edits = []
            for head in heads:
                mean = torch.stack([other.z[head.layer or 0][0, :, head.index] for other in others]).mean(dim=0)
                edits.append(Edit(head, 0.0 if kind.startswith("zero") else mean))
            changed = model.run(ids[None], edits=edits, patterns=run.patterns if kind.endswith("_frozen") else None)
            rise = loss(changed.logits[0], ids, measured) - loss(run.logits[0], ids, measured)
            assert float(rises[place]) == pytest.approx(rise, abs=1e-9), (heads, kind)


def test_more_sequences_are_used_until_they_are_enough():
    model = Model.from_bridge(native_bridge(2, n_heads=4, d_vocab=40, n_ctx=32))
    measured, steps = ablations(model, 11), []
    asked: list[Asked] = [((Node("head", layer, 2),), "zero") for layer in range(2)]
    every = measured.rises(asked)
    report = lambda *step: steps.append(step)  # noqa: E731
    few = measured.rises(asked, first=2, enough=lambda one, rises: one == asked[0] and len(rises) >= 4, report=report)
    assert [len(rises) for rises in few] == [4, 11]
    assert all(torch.allclose(some, whole[: len(some)], rtol=0, atol=1e-12) for some, whole in zip(few, every, strict=True))
    assert steps[-1][1:] == (22, 22) and [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)
    assert doubling(4, 30) == [slice(0, 4), slice(4, 8), slice(8, 16), slice(16, 30)] and doubling(4, 3) == [slice(0, 3)]


def test_random_sets_are_tried_until_nothing_can_be_proven():
    """Heads of an untrained model cost what others cost."""
    model = Model.from_bridge(native_bridge(0, n_heads=4, n_layers=3, d_vocab=40, n_ctx=32))
    measured = ablations(model, 6)
    cheapest = min(range(4), key=lambda head: float(measured.rises([((Node("head", 2, head),), "zero")])[0].mean()))
    whole, control = set_evidence(model, measured, (Node("head", 2, cheapest),), 200, 0, lambda *_: None)
    assert control["all"] and control["sets"] == 11, "all other heads are tried where there are no more than are asked for"
    assert "stopped" not in control and control["tried"] == 11
    _, control = set_evidence(model, measured, (Node("head", 0, 0), Node("head", 2, cheapest)), 40, 0, lambda *_: None)
    assert control["tried"] < control["sets"] == 40 and control["zero"]["p_value"] > 0.05
    assert "nothing can be proven" in control["stopped"]
    assert all(one["sequences"] == 6 for one in whole["ablation"].values())


def test_frozen_patterns_stay():
    model = Model.from_bridge(native_bridge(4, n_heads=4, n_layers=3, d_vocab=40, n_ctx=32))
    measured = ablations(model)
    early = tuple(Node("head", 0, head) for head in range(4))
    last = (Node("head", 2, 1),)
    free, frozen, same, still = measured.rises([(heads, kind) for heads in (early, last) for kind in ("zero", "zero_frozen")])
    assert not torch.allclose(free, frozen) and torch.allclose(same, still, atol=1e-10)


def test_taking_a_writer_out_of_keys_equals_editing_the_weights_that_read():
    model = Model.from_bridge(native_bridge(1, n_heads=2, d_vocab=40, n_ctx=32, normalization_type=None))
    measured = ablations(model, count=1)
    writer, head = Node("head", 0, 1), Node("head", 1, 0)
    run = measured.runs[0]
    written = run.z[0][0, :, 1] @ model.weights.blocks[0].attention.per_head("W_O")[1]
    attention = model.weights.blocks[1].attention
    residual = run.residuals[1][0] - written + written.mean(dim=0)
    keys = residual @ attention.per_head("W_K")[0] + attention.b_K[: model.d_head]
    scores = run.q[1][0, :, 0] @ keys.T * attention.scale
    pattern = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf).softmax(-1)
    expected = sum(float(pattern[q, q - 5]) for q in measured.repeats.second.tolist()) / 5
    assert float(measured.prefix_matching([head], without=measured.above_mean(writer))) == pytest.approx(expected, abs=1e-10)
