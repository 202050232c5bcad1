"""The experiment of the phase change runs, goes on where it was stopped, and learns what its rows ask for."""

import dataclasses
import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from circuits.errors import FileFormatError
from circuits.heads import TrainingCurves
from experiments import phase_change
from experiments.phase_change_training import Recipe, Run, draw_rows, train

SMALL = Recipe(2, 0, steps=7, record_every=3, vocabulary=16, d_model=8, heads=2, context=24, batch=2, lags=(4, 9))


def call(monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["phase_change", *options])
    try:
        phase_change.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_rows_repeat_at_lags_of_their_own() -> None:
    rows = draw_rows(Recipe(2, 0), 200, torch.Generator().manual_seed(1))
    assert bool((rows[:, 0] == 0).all()) and int(rows[:, 1:].min()) >= 1 and int(rows.max()) <= 127
    lags = []
    for row in rows[:, 1:].tolist():
        lags.append(next(lag for lag in range(1, 40) if all(a == b for a, b in zip(row, row[lag:], strict=False))))
    assert min(lags) == 8 and max(lags) == 30 and len(set(lags)) > 15
    assert not torch.equal(rows, draw_rows(Recipe(2, 0), 200, torch.Generator().manual_seed(2)))


def test_a_step_is_that_of_torch_s_own_layers() -> None:
    """One update against the same model written with torch.nn.functional alone."""
    recipe = dataclasses.replace(SMALL, seed=1)
    run = Run(recipe)
    copies = {name: tensor.detach().clone().requires_grad_() for name, tensor in run.trained.items()}
    rows = draw_rows(recipe, recipe.batch, torch.Generator().manual_seed(1_000_003))
    norm = torch.nn.functional.layer_norm
    x = copies["W_E"][rows]
    angle = torch.arange(24.0)[:, None] * torch.tensor([1.0, 0.01]).repeat(2)

    def turned(y: torch.Tensor) -> torch.Tensor:
        partner = torch.cat([-y[..., 2:], y[..., :2]], dim=-1)
        return y * angle.cos()[:, None] + partner * angle.sin()[:, None]

    for layer in range(2):
        part = {name.split(f"blocks.{layer}.")[1]: t for name, t in copies.items() if name.startswith(f"blocks.{layer}.")}
        y = norm(x, (8,), part["attention_norm.weight"], part["attention_norm.bias"], 1e-5)
        q, k, v = ((y @ part[f"attention.W_{slot}"]).unflatten(-1, (2, 4)) for slot in "QKV")
        scores = torch.einsum("bqhd,bkhd->bhqk", turned(q), turned(k)) / 2
        pattern = scores.masked_fill(torch.ones(24, 24).triu(1).bool(), -torch.inf).softmax(-1)
        x = x + torch.einsum("bhqk,bkhd->bqhd", pattern, v).flatten(-2) @ part["attention.W_O"]
    logits = norm(x, (8,), copies["final_norm.weight"], copies["final_norm.bias"], 1e-5) @ copies["W_U"] + copies["b_U"]
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten()).backward()
    run.learn()
    for name, tensor in run.trained.items():
        assert torch.allclose(tensor.grad, copies[name].grad, atol=1e-6), name  # type: ignore[arg-type]


def test_a_stopped_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole, _ = train(SMALL, tmp_path / "whole", lambda *_: None)
    assert whole.steps == (0, 3, 6, 7) and float(whole.curves["loss"][-1]) != float(whole.curves["loss"][0])

    for stop in (0, 3, 5, 7):

        def interrupt(what: str, done: int, total: int, stop: int = stop) -> None:
            if done == stop:
                raise KeyboardInterrupt

        folder = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            train(SMALL, folder, interrupt)
        again, _ = train(SMALL, folder, lambda *_: None)
        assert json.dumps(again.as_json()) == json.dumps(whole.as_json())
        assert [path.name for path in folder.iterdir()] == ["two-layer-seed0.safetensors"]


def test_a_state_of_another_recipe_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    train(SMALL, tmp_path, lambda *_: None)
    state = tmp_path / "two-layer-seed0.safetensors"
    with pytest.raises(FileFormatError, match="a run of another recipe; remove it, or name another folder"):
        train(Recipe(2, 0, steps=7), tmp_path, lambda *_: None)
    content = state.read_bytes()
    for damaged in (b"", content[:100], content[:-10], b"{}" + content):
        state.write_bytes(damaged)
        with pytest.raises(FileFormatError, match="no state of a run"):
            train(SMALL, tmp_path, lambda *_: None)


def test_the_command_writes_what_it_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call(monkeypatch, "--help") == 0 and "The rule:" in capsys.readouterr().out
    out = tmp_path / "out"
    assert call(monkeypatch, "--quick", "--seeds", "1", "--out", str(out), "--threads", "1", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    written = json.loads((out / "curves.json").read_text())
    assert written["summary"] == said["summary"] and written["targets"] == said["targets"]
    assert [line["met"] for line in said["targets"]] == [False, False, False, True]  # nothing is learned in 60 steps
    assert {path.name for path in out.iterdir()} == {"curves.json", "curves.csv", "phase_change.png", "runs"}
    table = pd.read_csv(out / "curves.csv")
    assert table.groupby("model")["step"].apply(list).to_dict() == {key: [0, 20, 40, 60] for key in phase_change.LAYERS}
    content = (out / "curves.json").read_bytes()
    assert call(monkeypatch, "--quick", "--seeds", "1", "--out", str(out), "--threads", "1") == 0
    assert "two-layer prefix matching after, > 0.6" in capsys.readouterr().out
    assert (out / "curves.json").read_bytes() == content


def test_the_command_says_in_one_line_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call(monkeypatch, "--models", "three-layer") == 2
    assert capsys.readouterr().err.startswith("phase-change: no model 'three-layer'; there are one-layer, two-layer")
    (tmp_path / "file").touch()
    assert call(monkeypatch, "--quick", "--out", str(tmp_path / "file"), "--threads", "1") == 2
    assert "name another folder with --out" in capsys.readouterr().err.splitlines()[-1]


def test_summary_names_the_steps_of_a_change() -> None:
    steps = tuple(range(0, 1010, 10))
    sudden = {"prefix_matching": 500, "icl_score": 520, "second_loss": 470, "k_composition": 500}
    values = {name: torch.tensor([float(step >= at) for step in steps]).double() for name, at in sudden.items()}
    values["icl_score"], values["second_loss"] = -values["icl_score"], 5 - values["second_loss"]
    row = phase_change.summary(Recipe(2, 1), TrainingCurves("m", steps, values, "a1.h2", "a0.h3"))
    assert (row["start"], row["end"], row["share"], row["heads"]) == (490, 500, pytest.approx(0.01), "a0.h3 -> a1.h2")
    assert row["step_icl"] - row["step"] == 20 and row["step_loss"] - row["step"] == -30 and row["apart"] == 50
    assert [line["met"] for line in phase_change.targets([row])] == [True, True, True]
