"""The experiments and the benchmark of attribution run, on small shapes."""

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

from circuits import tasks
from circuits.attribution import attribute_edges
from circuits.graph import Graph, Roles
from circuits.models import Model, load_model
from circuits.search.judging.evaluate import evaluate
from circuits.search.judging.verdict import Verdict
from circuits.tasks.metrics import logit_difference
from experiments import (
    attention_as_a_hint,
    attribution_agreement,
    attribution_convergence,
    average_tracing,
    choosing_edges,
    command_costs,
    discovery,
    greater_than,
    ground_truth,
    half_precision,
    ioi,
    judging_costs,
    loading_memory,
    planted_faults,
    real_model,
    role_circuits,
    scale,
    stability,
    two_devices,
)
from experiments.benchmarks import attribution, attribution_work, neuron_edges, probes, tracing
from experiments.benchmarks.patching_work import random_pairs
from tests.models import bundled
from tests.models.checkpoints import build
from tests.tasks.vocabularies import byte_pairs

MAINS = {
    "ground_truth": ground_truth,
    "ioi": ioi,
    "real_model": real_model,
    "greater_than": greater_than,
    "attribution": attribution,
    "attribution_agreement": attribution_agreement,
    "attribution_convergence": attribution_convergence,
    "half_precision": half_precision,
    "attention_as_a_hint": attention_as_a_hint,
    "average_tracing": average_tracing,
    "tracing": tracing,
    "probes": probes,
    "choosing_edges": choosing_edges,
    "command_costs": command_costs,
    "judging_costs": judging_costs,
    "loading_memory": loading_memory,
    "scale": scale,
    "stability": stability,
    "two_devices": two_devices,
}


def call(monkeypatch: pytest.MonkeyPatch, name: str, *options: str) -> int:
    """Run a script's main with a command line; its exit code."""
    monkeypatch.setattr(sys, "argv", [name, *options])
    try:
        MAINS[name].main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    return 0


def checkpoint(directory: Path, layers: int, heads: int, tokenizer: Any = None) -> Path:
    """A random model of GPT-2's kind whose tokenizer has names and years, or with that tokenizer."""
    tokenizer = tokenizer or byte_pairs()
    shape = {"n_embd": 2 * heads, "n_layer": layers, "n_head": heads, "n_positions": 64, "vocab_size": len(tokenizer)}
    build("GPT2", {**shape, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("name", MAINS)
def test_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert call(monkeypatch, name, "--help") == 0
    assert "--json" in capsys.readouterr().out


def test_averages_of_traces_go_on_where_they_were(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path) -> None:
    options = ("--out", str(tmp_path), "--draws", "1", "--json")
    assert call(monkeypatch, "average_tracing", *options, "--count", "2") == 0
    first = sorted(path.stat().st_mtime_ns for path in (tmp_path / "facts").iterdir())
    assert json.loads(capsys.readouterr().out)["facts"] == 2
    assert call(monkeypatch, "average_tracing", *options, "--count", "3") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["facts"] == 3 and found["early_site"]["layer"] < 3
    assert set(first) <= {path.stat().st_mtime_ns for path in (tmp_path / "facts").iterdir()}
    assert (tmp_path / "roles.png").stat().st_size > 0
    assert call(monkeypatch, "average_tracing", *options, "--seed", "1") != 0


def test_ground_truth_writes_what_it_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ("--seeds", "1", "--models", "gate,or", "--methods", "eap,eap-ig,acdc,screen", "--out", str(tmp_path))
    assert call(monkeypatch, "ground_truth", *options) == 0
    said = capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "ground_truth.csv").set_index(["model", "method"])
    assert len(rows) == 8 and bool((rows.loc["gate", "edge_auroc"] > 1 - 1e-9).all())
    assert rows.at[("or", "eap"), "edge_auroc"] < 0.6 < rows.at[("or", "acdc"), "edge_auroc"] < 0.8
    assert rows.at[("or", "screen"), "whole_recall"] == 1 and rows.at[("or", "eap-ig"), "edge_auroc"] > 1 - 1e-9
    summary = {
        (row["model"], row["method"]): row for row in json.loads((tmp_path / "ground_truth.json").read_text())["summary"]
    }
    for (model, method), row in summary.items():
        assert row["edge_median"] == rows.at[(model, method), "edge_auroc"]
        assert (f"{method} on {model}: {row['why']}." in said) == bool(row["why"]) == (row["edge_min"] < 1 - 1e-9)


def test_attribution_agrees_with_itself_and_not_with_its_reverse() -> None:
    exact = pd.Series([0.1, -0.2, 0.4, -0.8], index=list("abcd"))
    for row in attribution_agreement.agreement(exact, 2 * exact, 3):
        assert (row["signed"], row["sizes"], row["same_sign"]) == pytest.approx((1, 1, 1))
    for row in attribution_agreement.agreement(exact, -exact, 3):
        assert (row["signed"], row["sizes"], row["same_sign"]) == pytest.approx((-1, 1, 0))
    assert [row["count"] for row in attribution_agreement.agreement(exact, exact, 3)] == [4, 3, 3]


def test_attribution_agreement_of_a_small_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    directory = checkpoint(tmp_path / "model", 1, 2)
    options = ("--model", str(directory), "--tasks", "induction", "--methods", "eap", "--count", "2", "--top", "5", "--json")
    assert call(monkeypatch, "attribution_agreement", *options) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["count"] for row in rows] == [load_model(directory).graph().edge_count, 5, 5]
    assert call(monkeypatch, "attribution_agreement", "--tasks", "xor") == 2


def test_ways_to_choose_edges_are_held_side_by_side(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    directory = checkpoint(tmp_path / "model", 1, 2)
    options = ("--model", str(directory), "--count", "6", "--shares", "0.5,1", "--steps", "2", "--json")
    assert call(monkeypatch, "choosing_edges", *options, "--methods", "eap-ig,shrink,refine") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["chosen by"] for row in rows[::2]] == ["eap-ig, size", "eap-ig, support", "shrink", "refine"]
    assert all(row["edges"] <= row["asked for"] for row in rows)
    assert [row["keeps"] for row in rows[1::2]] == pytest.approx([1.0] * 4), "all edges are the model"
    assert call(monkeypatch, "choosing_edges", *options, "--methods", "nothing") == 2


def test_circuits_of_other_prompts_are_held_against_each_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    directory = checkpoint(tmp_path / "model", 1, 2)
    options = ("--model", str(directory), "--task", "induction", "--count", "8", "--methods", "eap,relp", "--json")
    assert call(monkeypatch, "stability", *options, "--seeds", "3", "--edges", "4", "--out", str(tmp_path / "out")) == 0
    first = json.loads(capsys.readouterr().out)["rows"]
    assert [row["method"] for row in first] == ["eap", "relp"] and all(row["circuits"] == 6 for row in first)
    assert call(monkeypatch, "stability", *options, "--seeds", "3", "--edges", "4", "--out", str(tmp_path / "out")) == 0
    again = json.loads(capsys.readouterr().out)["rows"]
    assert again == [{**row, "seconds": None} for row in first], "read, not searched for again"
    assert call(monkeypatch, "stability", *options, "--seeds", "1") == 2


def test_plain_edges_count_between_roles_as_the_graph_with_roles_has_them() -> None:
    roles = Roles(("start", "name", "end"), ((0,), (0, 1), (0, 1, 2)))
    graph = Graph(n_layers=2, n_heads=2, n_key_value_heads=1, d_mlp=8)
    edges = list(graph.edges())
    assert sum(role_circuits.between_roles(edge, roles) for edge in edges) == dataclasses.replace(graph, roles=roles).edge_count
    assert sum(role_circuits.between_roles(edge, None) for edge in edges) == graph.edge_count


def test_points_and_types_of_a_small_model_are_held_side_by_side(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    directory = checkpoint(tmp_path / "model", 1, 2)
    options = ("--model", str(directory), "--count", "3", "--edges", "5", "--json")
    asked = ("--points", "1,4", "--activation-points", "", "--methods", "eap,relp")
    assert call(monkeypatch, "attribution_convergence", *options, *asked) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(row["method"], row["points"]) for row in said["convergence"]] == [("eap", 1), ("eap-ig", 1), ("eap-ig", 4)]
    most = said["convergence"][-1]
    assert most["rank, all"] == pytest.approx(1) and most["shared"] == 1 and most["error"] < 0.1
    assert [(row["method"], row["edges"]) for row in said["patching"]] == [("eap", 5), ("relp", 5)]
    names = ["eap", "relp", "noising itself", "denoising itself"]
    assert [(row["method"], row["nodes"]) for row in said["nodes"]] == [(name, 4) for name in names]
    assert said["nodes"][2]["noising"] == pytest.approx(1) and said["nodes"][2]["strongest 20, noising"] == 1
    assert all(abs(row[way]) <= 1 for row in said["nodes"] for way in ("noising", "denoising"))
    assert call(monkeypatch, "half_precision", *options, "--pairs", "4") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["prompts"] == 3 and 0 < said["largest change of the right answer's log-probability"] < 0.1


@pytest.mark.slow
def test_what_a_command_costs_is_measured_as_a_user_runs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    directory = checkpoint(tmp_path / "model", 1, 2)
    folder = ("--model", str(directory), "--folder", str(tmp_path / "costs"))
    assert call(monkeypatch, "command_costs", *folder, "--commands", "lens", "--threads", "1", "--json") == 0
    (cost,) = json.loads(capsys.readouterr().out)
    assert cost["status"] == 0 and cost["line"].startswith("circuits lens 'The capital of France is'")
    assert cost["weights"] == load_model(directory).weights.nbytes < cost["before"] < cost["peak"]
    assert 0 < cost["first"] <= cost["seconds"] and cost["forwards"] == cost["seconds"] / cost["forward"] > 0
    assert call(monkeypatch, "command_costs", *folder, "--commands", "", "--markdown") == 0
    said = capsys.readouterr().out
    assert said.startswith("| command | its own tokens |") and "| `circuits lens 'The capital" in said
    assert call(monkeypatch, "command_costs", *folder, "--commands", "nothing") == 2


@pytest.mark.slow
@pytest.mark.parametrize("job", ["evaluate", "discover"])
def test_what_judging_costs_is_told_by_stage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, job: str
) -> None:
    directory = checkpoint(tmp_path / "model", 2, 2)
    options = (
        "--model",
        str(directory),
        "--job",
        job,
        "--count",
        "8",
        "--share",
        "0.5",
        "--random-circuits",
        "2",
        "--threads",
        "1",
    )
    assert call(monkeypatch, "judging_costs", *options, "--method", "eap", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert {"running random circuits", "testing completeness", "testing minimality"} <= said["stages"].keys()
    assert 0 < sum(said["stages"].values()) <= 1.01 * said["cpu_forwards"] and said["nodes"] > 2
    assert list(said["expected"])[:3] == ["random circuits", "sets of nodes", "nodes one by one"]


def test_attention_is_compared_over_facts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    directory = checkpoint(tmp_path / "model", 1, 2)
    assert call(monkeypatch, "attention_as_a_hint", "--model", str(directory), "--count", "3", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["facts"] == 3 and {row["tracing"] for row in found["rows"]} == {"lat", "rollout", "flow", "norm"}
    assert call(monkeypatch, "attention_as_a_hint", "--facts", str(tmp_path / "none.json")) == 2


@pytest.mark.parametrize(("name", "billions"), [("GPT-2 XL", 1.557), ("Llama 3.1 70B", 70.554)])
def test_shapes_on_paper_have_the_public_sizes(name: str, billions: float) -> None:
    """Without biases and learned positions; a forward multiplies each matrix once a token, the unembedding at one alone."""
    shape = scale.SHAPES[name]
    weights = scale.weights_of(shape)
    assert scale.parameters(shape, weights) / 1e9 == pytest.approx(billions, rel=2e-3)
    inside = sum(one.numel() for part, one in weights.tensors() if part.startswith("blocks.") and one.ndim == 2)
    scores = 4 * shape.layers * 8 * 8 * shape.d_model
    expected = 2 * (8 * inside + shape.d_model * shape.d_vocab) + scores
    assert scale.of_forward(weights, 8) == pytest.approx(expected, rel=1e-3)


def test_ground_truth_names_what_it_does_not_know(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "ground_truth", "--models", "xor") == 2
    assert capsys.readouterr().err.startswith("ground_truth: no model 'xor'; there are induction, recall")


def test_ioi_of_a_small_model_says_that_it_cannot_do_the_task(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    directory = str(checkpoint(tmp_path / "model", 1, 2))
    options = ("--count", "6", "--edges", "12", "--random-circuits", "9", "--method", "eap")
    assert call(monkeypatch, "ioi", "--model", directory, *options) == 0
    said = capsys.readouterr().out
    assert "THIS MODEL DOES NOT DO THE TASK" in said and "its heads cannot be compared" in said
    assert "3.56" in said and "random edges" in said


def test_greater_than_asks_a_tokenizer_that_splits_years_for_a_digit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    directory = str(checkpoint(tmp_path / "small", 1, 2, bundled.mini().tokenizer))
    options = ("--model", directory, "--count", "4", "--edges", "12", "--random-circuits", "3", "--out", str(tmp_path / "out"))
    assert call(monkeypatch, "greater_than", *options) == 0
    assert capsys.readouterr().out.startswith("greater-than in small\n")
    model = load_model(directory)
    asked = model.to_token_strings(tasks.greater_than(model, 4).answers)
    assert all(len(one) == 1 and one.isdigit() for one in asked)


@pytest.mark.parametrize("name", ["ioi", "greater_than"])
def test_any_model_whose_tokenizer_has_the_words_is_searched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    options = ("--model", str(checkpoint(tmp_path / "model", 2, 4)), "--count", "4", "--edges", "12", "--random-circuits", "3")
    assert call(monkeypatch, name, *options, "--out", str(tmp_path / "out"), "--json") == 0
    said, task = json.loads(capsys.readouterr().out), name.replace("_", "-")
    assert said["edges"] <= 12 and "cpr" in said and "known" not in said
    names = {f"{task}.{part}.json" for part in ("circuit", "verdict", "curve", "report")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert json.loads((tmp_path / "out" / f"{task}.report.json").read_text()) == said
    assert Verdict.load(tmp_path / "out" / f"{task}.verdict.json").edges == said["edges"]


@pytest.mark.slow
def test_heads_of_a_model_of_gpt2_s_shape_are_held_against_the_paper(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = load_model(checkpoint(tmp_path / "model", 12, 12))
    pairs = tasks.ioi(model, 2, 0)
    scores = attribute_edges(model, pairs, logit_difference, method="eap")
    circuit = scores.top(60)
    verdict = evaluate(model, circuit, pairs, logit_difference, random_circuits=0, random_sets=0, minimality=False)
    found = discovery.Found(model, "ioi", discovery.Discovery(circuit, verdict, scores), 1.0, 0.0, 1.0)
    figures = discovery.as_json(found, ioi.PUBLISHED)
    known = figures["known"]
    names = {str(node) for node in circuit.nodes if node.kind == "head"}
    paper = {name for row in known["classes"] for name in row["heads"]}
    assert len(paper) == 26
    assert known["recall"] == len(names & paper) / 26 and known["precision"] == len(names & paper) / len(names)
    assert sum(len(row["found"]) for row in known["classes"]) == len(names & paper)
    discovery.show(found, figures, ioi.PUBLISHED, ioi.NOTES)
    said = capsys.readouterr().out
    assert f"precision {known['precision']:.2f}, recall {known['recall']:.2f}, AUROC" in said and "of 8:" in said


def test_the_benchmark_of_attribution_agrees_with_transformer_lens() -> None:
    shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0}
    original = build("GPT2", shape)
    model = Model.from_bridge(build_bridge_from_module(original, "GPT2LMHeadModel", hf_config=original.config, model_name="x"))
    pairs = random_pairs(model, 3, 5, 0)
    rows = attribution.score_rows(model, pairs, {"eap", "eap_ig", "circuit_sizes"}, more=True)
    assert [row.name for row in rows] == ["eap", "eap_ig", "circuit_sizes", "circuit_sizes, 2 forwards"]
    assert all(row.ratio > 0 for row in rows)
    rows, lines = attribution_work.lens_rows(model, pairs)
    assert len(rows) == 2 and float(re.search(r"edges (\S+) of the largest", lines[0])[1]) < 1e-4  # type: ignore[index]
    ours, theirs = re.findall(r"-?\d+\.\d+", lines[1])
    assert float(ours) == pytest.approx(float(theirs), abs=1e-4)


def test_the_benchmark_of_neuron_edges_runs() -> None:
    shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0}
    original = build("GPT2", shape)
    model = Model.from_bridge(build_bridge_from_module(original, "GPT2LMHeadModel", hf_config=original.config, model_name="x"))
    rows, _ = neuron_edges.measure(model, random_pairs(model, 3, 5, 0), 1)
    assert [row.name for row in rows] == ["neurons", "edges", "eap", "eap-ig"] and all(row.ratio > 0 for row in rows)


def test_faults_that_are_planted_fit_the_source(capsys: pytest.CaptureFixture[str]) -> None:
    """Whether each turns its test red takes minutes; that each still has its place is told here."""
    assert planted_faults.main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 40
