"""The rule of the phase change on curves whose answer is known, and snapshots against loops over tokens."""

import dataclasses
import json
import math
import random
from pathlib import Path

import pytest
import torch

from circuits.errors import CircuitsError, FileFormatError, NonFiniteError, PromptError
from circuits.heads import Snapshot, TrainingCurves, find_phase_change, score_checkpoints, score_heads, steepest, take_snapshot
from circuits.heads.composition import composition_scores
from circuits.heads.dynamics import token_losses
from circuits.models import Model, TokenBatch
from circuits.models.planted import planted_induction
from circuits.tasks import repeated_tokens
from tests.models import checkpoints
from tests.models.native import native_bridge

STEPS = list(range(0, 1010, 10))


def random_model(seed: int = 0, **options) -> Model:
    return Model.from_bridge(native_bridge(seed, **{"d_vocab": 40, "n_ctx": 64, "n_heads": 4, **options}))


def text(seed: int = 0, rows: int = 3, width: int = 12) -> TokenBatch:
    return TokenBatch.unpadded(torch.randint(40, (rows, width), generator=torch.Generator().manual_seed(seed)))


def logistic(middle: float, width: float) -> list[float]:
    return [0.03 + 0.85 / (1 + math.exp(-(step - middle) / width)) for step in STEPS]


def test_a_jump_is_found_at_its_step():
    change = find_phase_change(STEPS, [0.05 if step < 400 else 0.9 for step in STEPS])
    assert change is not None and (change.start, change.end) == (390, 400)
    assert (change.before, change.after) == (0.05, 0.9) and change.share == pytest.approx(0.01)
    assert abs(change.step - 395) <= 25  # half of the stretch of 5 %


@pytest.mark.parametrize("middle", [200.0, 455.0, 700.0])
def test_the_steepest_stretch_of_a_logistic_rise_is_around_its_middle(middle: float):
    change = find_phase_change(STEPS, logistic(middle, 20.0))
    assert change is not None and change.step == pytest.approx(middle, abs=10)
    low = middle + 20 * math.log(0.07 / (0.85 - 0.07))  # where the curve is 0.1; likewise 0.6
    high = middle + 20 * math.log(0.57 / (0.85 - 0.57))
    assert low - 10 <= change.start <= low and high <= change.end <= high + 10


def test_a_last_outlier_is_no_change_and_the_step_lies_in_the_window():
    steps = list(range(0, 100, 10))
    assert find_phase_change(steps, [0.02] * 9 + [0.9]) is None
    twice = find_phase_change(steps, [0.02, 0.02, 0.5, 0.5, 0.08, 0.08, 0.3, 0.62, 0.7, 0.7])
    assert twice is not None and twice.start <= twice.step <= twice.end and (twice.start, twice.end) == (50, 70)


def test_noise_and_single_outliers_make_no_change():
    rng = random.Random(0)
    noisy = [value + rng.uniform(-0.02, 0.02) for value in logistic(500.0, 20.0)]
    noisy[10], noisy[80] = 0.95, 0.0
    change = find_phase_change(STEPS, noisy)
    assert change is not None and change.step == pytest.approx(500, abs=15) and change.before < 0.1
    flat = [0.05 + rng.uniform(-0.02, 0.02) for _ in STEPS]
    flat[50] = 1.0
    assert find_phase_change(STEPS, flat) is None


def test_a_slow_ramp_has_a_wide_window_and_what_never_rises_or_was_always_there_has_none():
    ramp = find_phase_change(STEPS, [step / 1000 for step in STEPS])
    assert ramp is not None and (ramp.start, ramp.end) == (90, 600) and ramp.share == pytest.approx(0.51)
    assert find_phase_change(STEPS, [0.59 * step / 1000 for step in STEPS]) is None
    assert find_phase_change(STEPS, [0.2 + 0.6 * step / 1000 for step in STEPS]) is None
    assert find_phase_change(STEPS, [1 - step / 1000 for step in STEPS]) is None


def test_an_earlier_hump_is_told_by_before():
    hump = [0.4 if 100 <= step < 200 else 0.05 if step < 500 else 0.8 for step in STEPS]
    change = find_phase_change(STEPS, hump)
    assert change is not None and (change.start, change.before) == (490, 0.4)


def test_steepest_takes_stretches_of_recorded_steps_and_the_first_of_equals():
    steps = [0, 1, 2, 4, 8, 16, 32]
    values = [0.0, 0.0, 1.0, 1.0, 3.0, 3.0, 3.0]
    assert steepest(steps, values) == (6.0, 2.0)
    assert steepest(steps, [-value for value in values], falling=True) == (6.0, -2.0)
    assert steepest(steps, values, span=0.5)[1] == 3.0
    assert steepest(steps, [0.0] * 7) == (0.5, 0.0)


def test_the_rule_refuses_what_is_no_curve():
    for steps, values in (([0, 1], [0.0, 1.0]), ([0, 1, 2], [0.0, 1.0]), ([], [])):
        with pytest.raises(CircuitsError, match="three at least"):
            find_phase_change(steps, values)
    with pytest.raises(CircuitsError, match="step 1 is recorded after step 1: steps must rise"):
        find_phase_change([0, 1, 1], [0.0, 0.5, 1.0])
    with pytest.raises(NonFiniteError, match="step 5 is nan"):
        steepest([0, 5, 9], [0.0, math.nan, 1.0])
    with pytest.raises(CircuitsError, match=r"low=0\.6 must be below high=0\.1"):
        find_phase_change([0, 1, 2], [0.0, 0.5, 1.0], low=0.6, high=0.1)


def test_a_snapshot_equals_loops_over_tokens():
    model, rows = random_model(), text()
    options = {"text": rows, "early": range(2, 4), "late": range(9, 12), "sequences": 3, "seed": 5}
    taken = take_snapshot(model, 7, **options)
    curves = score_checkpoints({7: model}, **options).curves
    assert {name: float(curves[name][0]) for name in taken.losses} == taken.losses
    scores = score_heads(model, sequences=3, seed=5, text=rows).scores
    assert taken.step == 7 and torch.equal(taken.k_composition, composition_scores(model).k)
    for name in ("prefix_matching", "previous_token"):
        assert torch.equal(getattr(taken, name), scores[name])

    def losses(ids: torch.Tensor) -> list[float]:
        logits = model.run(ids[None]).logits[0]
        return [float(-logits[place - 1].log_softmax(-1)[ids[place]]) for place in range(1, len(ids))]

    each = [losses(row) for row in rows.ids]
    late = [row[place - 1] for row in each for place in (9, 10, 11)]
    early = [row[place - 1] for row in each for place in (2, 3)]
    assert taken.losses["icl_score"] == pytest.approx(sum(late) / 9 - sum(early) / 6, abs=1e-9)
    assert taken.losses["loss"] == pytest.approx(sum(map(sum, each)) / 33, abs=1e-9)
    repeats, length = repeated_tokens(model, count=3, copies=2, seed=5)
    each = [losses(row) for row in repeats.ids]
    first = [value for row in each for value in row[: length - 1]]  # nothing tells the first token of all
    second = [value for row in each for value in row[length:]]
    assert len(row := each[0]) == 2 * length - 1 and len(second) == 3 * (length - 1) and row
    assert taken.losses["first_loss"] == pytest.approx(sum(first) / len(first), abs=1e-9)
    assert taken.losses["second_loss"] == pytest.approx(sum(second) / len(second), abs=1e-9)


def test_a_token_that_is_never_predicted_has_no_loss():
    with pytest.raises(PromptError, match="token 35 is never predicted: the model unembeds 30 tokens"):
        token_losses(random_model(d_vocab_out=30), TokenBatch.unpadded(torch.tensor([[1, 35]])))


@pytest.mark.parametrize("left", [False, True])
def test_pads_on_either_side_change_no_loss(left: bool):
    model, rows = random_model(), text(1, rows=4, width=9)
    pads = torch.zeros(4, 3, dtype=torch.long)
    ids = torch.cat([pads, rows.ids] if left else [rows.ids, pads], dim=1)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[:, slice(0, 3) if left else slice(9, 12)] = False
    about = {"early": range(1, 3), "late": range(6, 9), "sequences": 2}
    plain = take_snapshot(model, 0, text=rows, **about).losses
    padded = take_snapshot(model, 0, text=TokenBatch(ids, mask), **about, budget=1).losses  # a row at a time
    assert padded == pytest.approx(plain, abs=1e-10)
    assert token_losses(model, TokenBatch(ids, mask))[1].sum() == 4 * 8


def test_checkpoints_show_how_a_planted_circuit_appears():
    planted = planted_induction(seed=0).model
    weights = planted.weights

    def faded(share: float) -> Model:
        """The planted model with its matrices that read keys weaker."""
        blocks = [
            dataclasses.replace(block, attention=dataclasses.replace(block.attention, W_K=share * block.attention.W_K))
            for block in weights.blocks
        ]
        return dataclasses.replace(planted, weights=dataclasses.replace(weights, blocks=tuple(blocks)))

    seen: list[tuple[int, int]] = []
    checkpoints_by_step: dict[int, Model] = {100: planted, 0: faded(0.0), 60: planted, 30: faded(0.01), 80: planted}
    curves = score_checkpoints(
        checkpoints_by_step, sequences=2, name="faded", progress=lambda _, done, total: seen.append((done, total))
    )
    assert curves.steps == (0, 30, 60, 80, 100) and seen[-1] == (5, 5) and curves.model == "faded"
    change = curves.phase_change()
    assert change is not None and (change.start, change.end) == (30, 60)
    scores = score_heads(planted, sequences=2)
    assert curves.induction_head == str(scores.top("prefix_matching", 1)[0][0])
    assert float(curves.curves["prefix_matching"][-1]) == pytest.approx(scores.top("prefix_matching", 1)[0][1])
    assert int(curves.previous_token_head[1]) < int(curves.induction_head[1])
    assert float(curves.curves["second_loss"][-1]) < float(curves.curves["second_loss"][0]) - 1
    assert set(curves.curves) == {"prefix_matching", "previous_token", "k_composition", "first_loss", "second_loss"}


def test_checkpoints_are_loaded_one_by_one_from_directories(tmp_path: Path):
    torch.manual_seed(0)
    for step in (1, 2, 3):
        model = checkpoints.build(*checkpoints.RECIPES["gpt2"])
        checkpoints.save(model, tmp_path / str(step))
    curves = score_checkpoints({step: tmp_path / str(step) for step in (1, 2, 3)}, sequences=2)
    assert curves.steps == (1, 2, 3) and curves.phase_change() is None
    with pytest.raises(CircuitsError, match="nowhere"):
        score_checkpoints({1: str(tmp_path / "nowhere")})


def test_one_layer_has_no_composition_curve():
    models = {step: random_model(step, n_layers=1, attn_only=True) for step in (0, 1, 2)}
    curves = score_checkpoints(models, sequences=2)
    assert "k_composition" not in curves.curves and curves.previous_token_head.startswith("a0.h")


def test_composition_is_that_of_the_last_step_s_heads_the_writer_in_an_earlier_layer():
    prefix, previous = torch.zeros(3, 2).double(), torch.zeros(3, 2).double()
    prefix[1, 1], previous[0, 1], previous[2, 0] = 0.9, 0.5, 0.8
    composed = torch.arange(36.0).double().reshape(3, 2, 3, 2)
    early = Snapshot(0, prefix.flip(0, 1), previous.flip(0, 1), composed + 100, {})
    curves = TrainingCurves.of("m", [Snapshot(5, prefix, previous, composed, {}), early])
    assert (curves.steps, curves.induction_head, curves.previous_token_head) == ((0, 5), "a1.h1", "a0.h1")
    assert curves.curves["k_composition"].tolist() == [100 + 9.0, 9.0]
    assert curves.curves["previous_token"].tolist() == [0.8, 0.8]


def test_what_is_no_run_of_one_model_is_refused():
    small, large = take_snapshot(random_model(), 0, sequences=2), take_snapshot(random_model(n_layers=3), 1, sequences=2)
    for snapshots in ([], [small, small], [small, large]):
        with pytest.raises(CircuitsError, match="no snapshots of one model at different steps"):
            TrainingCurves.of("m", snapshots)
    with pytest.raises(PromptError, match=r"no token of the text stands at late=range\(500, 501\); its longest row has 60"):
        take_snapshot(random_model(), 0, text=text(width=60))
    model = random_model()
    model.weights.blocks[1].attention.W_Q[0, 0] = math.nan
    with pytest.raises(NonFiniteError, match=r"at step 3: the weight blocks\.1\.attention\.W_Q of \w+ holds NaN"):
        take_snapshot(model, 3, sequences=2)
    model = random_model(n_layers=1, attn_only=True)
    model.weights.W_U[0, 0] = math.inf
    with pytest.raises(NonFiniteError, match=r"at step 4: the weight W_U"):
        take_snapshot(model, 4, sequences=2)


def test_curves_come_back_from_their_file_and_nothing_else_does(tmp_path: Path):
    curves = TrainingCurves.of(
        "m", [take_snapshot(random_model(s), s, text=text(), early=range(2, 4), late=range(9, 12)) for s in (0, 4)]
    )
    path = tmp_path / "curves.json"
    curves.save(path)
    again = TrainingCurves.load(path)
    assert again.as_json() == curves.as_json()
    table = again.to_dataframe()
    assert table["step"].tolist() == [0, 4] and table["icl_score"].tolist() == curves.curves["icl_score"].tolist()
    document = json.loads(path.read_text())
    broken = [
        {"steps": [0]},
        {"curves": {}},
        {"curves": 3},
        {"induction_head": "x"},
        {"format": "other"},
        {"steps": ["a", "b"]},
    ]
    for change in broken:
        path.write_text(json.dumps({**document, **change}))
        with pytest.raises(FileFormatError, match=r"curves\.json"):
            TrainingCurves.load(path)
