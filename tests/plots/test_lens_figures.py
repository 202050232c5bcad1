"""The lens's table, its curves and the comparison: what is drawn where, and labels that stay what they are."""

import dataclasses
import itertools

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from circuits.errors import CircuitsError
from circuits.lenses import Lens, LensComparison, TunedLens, logit_lens
from circuits.models import Model
from circuits.plots import lens_comparison_figure, lens_curves_figure, lens_figure
from circuits.plots.lenses.lens import COLOURS


@pytest.fixture(scope="module")
def lens(tiny: Model) -> Lens:
    """Two prompts of unequal length with nodes."""
    return logit_lens(tiny, ["Once upon $a$ time", "The cat"], nodes=["a0.h1", "m1"])


def drawn(figure: Figure) -> Figure:
    FigureCanvasAgg(figure).draw()
    return figure


def test_each_cell_names_the_top_token_and_shows_its_probability(lens: Lens) -> None:
    axes = drawn(lens.plot()).axes[0]
    columns = lens.columns(0)[-16:]
    values = axes.images[0].get_array()
    assert values.shape == (len(lens.rows), len(columns))
    for row in range(len(lens.rows)):
        for place, column in enumerate(columns):
            assert float(values[row, place]) == pytest.approx(float(lens.top_probabilities[row, 0, column, 0]))
            text = axes.texts[row * len(columns) + place]
            assert text.get_position() == (place, row) and not text.get_parse_math()
    assert [label.get_text() for label in axes.get_yticklabels()] == list(lens.rows)
    assert "".join(label.get_text() for label in axes.get_xticklabels()).endswith("pon·$a$·time")


def test_colours_and_prompts_can_be_chosen(lens: Lens) -> None:
    for colour, (_, said) in COLOURS.items():
        figure = drawn(lens_figure(lens, prompt=1, colour=colour))
        assert figure.axes[1].get_ylabel() == said
        assert figure.axes[0].images[0].get_array().shape[1] == len(lens.columns(1))
    entropy = lens_figure(lens, prompt=1, colour="entropy", positions=[2, 4]).axes[0].images[0].get_array()
    assert entropy.tolist() == pytest.approx(lens.entropy[:, 1, [2, 4]].numpy())
    for options, words in (
        ({"colour": "mood"}, "mood"),
        ({"prompt": 2}, "no prompt 2"),
        ({"positions": [99]}, "positions 0 to"),
    ):
        with pytest.raises(CircuitsError, match=words):
            lens_figure(lens, **options)


def test_a_line_stands_where_the_prediction_settles(lens: Lens) -> None:
    axes = lens_figure(lens, prompt=1).axes[0]
    lines = [line for line in axes.lines if line.get_color() == "#d55e00"]
    for line, column in zip(lines, lens.columns(1), strict=True):
        assert line.get_ydata()[0] == pytest.approx(lens.row(f"resid{int(lens.depths[1, column])}") - 0.46)


def test_labels_do_not_touch(tiny: Model) -> None:
    figure = lens_figure(logit_lens(tiny, "a long prompt of many tokens that runs on and on", nodes=["m0"]))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    labels = [label.get_window_extent(canvas.get_renderer()) for label in figure.axes[0].get_yticklabels()]
    assert all(not a.overlaps(b) for a, b in itertools.pairwise(labels))
    assert figure.bbox.height >= max(label.y1 for label in labels)


def test_curves_are_the_means_of_each_row(tiny: Model, lens: Lens) -> None:
    tuned = logit_lens(tiny, "The cat", tuned=TunedLens.identity(tiny))
    plain = logit_lens(tiny, "The cat", sites="residual")
    figure = drawn(lens_curves_figure(plain, tuned))
    assert len(figure.axes) == 3 and [len(axes.lines) for axes in figure.axes] == [2, 2, 2]
    assert figure.axes[1].lines[0].get_ydata().tolist() == pytest.approx(plain.mean("divergence").tolist())
    assert len(lens_curves_figure(lens).axes[0].lines[0].get_ydata()) == 5, "nodes are no layers"
    for wrong in ((), (logit_lens(tiny, "The cat", sites=[], nodes=["m0"]),)):
        with pytest.raises(CircuitsError):
            lens_curves_figure(*wrong)
    with pytest.raises(CircuitsError, match="mood"):
        plain.mean("mood")


def test_the_comparison_shows_both_lenses_with_their_errors() -> None:
    noise = torch.Generator().manual_seed(0)
    values = torch.rand(2, 6, 9, generator=noise, dtype=torch.float64) + 0.1
    found = LensComparison("a model", values[0], values[1], 700)
    axes = drawn(found.plot()).axes[0]
    assert axes.get_yscale() == "log" and "bits" in axes.get_ylabel()
    assert axes.lines[0].get_ydata().tolist() == pytest.approx(values[0].mean(dim=1).tolist())
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["logit lens", "tuned lens"]
    assert "9 prompts" in lens_comparison_figure(found).get_suptitle()
    with pytest.raises(CircuitsError, match="'mood'"):
        found.by_layer("mood")
    with pytest.raises(CircuitsError, match="two prompts"):
        dataclasses.replace(found, logit=values[0, :, :1], tuned=values[1, :, :1])
