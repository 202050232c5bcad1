"""The picture of a training run: every curve is there, and the window is where the rule puts it."""

import dataclasses

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle

from circuits.errors import CircuitsError, NonFiniteError
from circuits.heads import TrainingCurves
from circuits.plots import phase_change_figure
from tests.plots.test_effect_figures import drawn

STEPS = tuple(range(0, 1010, 10))


def curves(middle: int | None, *, model: str = "m", layers: int = 2, steps: tuple[int, ...] = STEPS) -> TrainingCurves:
    rise = [0.0 if middle is None else float(step >= middle) for step in steps]
    names = ["previous_token", "icl_score", "first_loss", "second_loss", "loss", *(["k_composition"] if layers > 1 else [])]
    values = {"prefix_matching": [0.05 + 0.8 * value for value in rise]}
    values |= {name: [place + 0.1 * value for value in rise] for place, name in enumerate(names)}
    found = {name: torch.tensor(numbers, dtype=torch.float64) for name, numbers in values.items()}
    return TrainingCurves(model, steps, found, "a1.h0", "a0.h1")


def test_every_curve_has_its_line_and_every_change_its_window() -> None:
    groups = {"one-layer $x_1$": [curves(None, layers=1)] * 2, "two-layer": [curves(400), curves(600)]}
    figure = drawn(phase_change_figure(groups))
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert len(panels) == 6
    for title, lines in {"prefix matching, best head": 6, "K-composition of these two heads": 2, "held-out text": 4}.items():
        assert len(panels[title].get_lines()) == lines, title  # the two bounds are lines too
    for axes in panels.values():
        windows = [(patch.get_x(), patch.get_width()) for patch in axes.patches if isinstance(patch, Rectangle)]
        assert windows == [(390, 10), (590, 10)]
    line = panels["in-context learning: loss late − early"].get_lines()[2]
    assert np.allclose(line.get_ydata(), groups["two-layer"][0].curves["icl_score"])
    assert "smeared keys" in figure.get_supxlabel()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one-layer $x_1$ (2 runs)", "two-layer (2 runs)"]


def test_rare_checkpoints_stand_on_a_logarithmic_axis_and_a_run_draws_itself() -> None:
    rare = curves(64, steps=(0, 1, 2, 4, 8, 16, 32, 64, 128, 256), model="a 中 name " * 20)
    assert drawn(rare.plot()).axes[0].get_xscale() == "symlog"
    assert drawn(curves(400).plot()).axes[0].get_xscale() == "linear"
    lean = dataclasses.replace(rare, curves={name: rare.curves[name] for name in ("prefix_matching", "previous_token")})
    assert len([axes for axes in drawn(lean.plot()).axes if axes.axison]) == 2


def test_nothing_to_draw_is_refused() -> None:
    for groups in ({}, {"x": []}):
        with pytest.raises(CircuitsError, match="no training curves to draw"):
            phase_change_figure(groups)
    broken = curves(400)
    broken.curves["loss"][3] = float("nan")
    with pytest.raises(NonFiniteError, match="loss of m"):
        phase_change_figure({"x": [broken]})
