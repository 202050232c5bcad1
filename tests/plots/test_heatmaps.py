"""Heatmaps of head scores and attention patterns: the numbers are in their places, and every axis has a name."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from circuits.errors import GraphError, NonFiniteError
from circuits.heads import HeadScores, score_heads
from circuits.models import Model, Run
from circuits.plots import head_scores_figure, patterns_figure
from circuits.plots.text import shown_token

NAMES = ("prefix_matching", "copying", "previous_token", "duplicate_token", "first_token")


def scores_of(layers: int, heads: int) -> HeadScores:
    generator = torch.Generator().manual_seed(layers * heads)
    values = {name: torch.rand(layers, heads, generator=generator, dtype=torch.float64) for name in NAMES}
    values["copying"] = 2 * values["copying"] - 1
    return HeadScores("a model", values, values, 10, 0)


def panels(figure: Figure) -> list:
    FigureCanvasAgg(figure).draw()
    return [axes for axes in figure.axes if axes.get_title()]


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (1, 30), (30, 1), (4, 8), (12, 12), (48, 25)])
def test_each_score_is_a_panel_with_named_axes_and_readable_ticks(layers: int, heads: int) -> None:
    found = panels(head_scores_figure(scores_of(layers, heads)))
    assert [axes.get_title() for axes in found] == [name.replace("_", " ") for name in NAMES]
    for axes in found:
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("head", "layer")
        assert 1 <= len(axes.get_xticks()) <= 16 and 1 <= len(axes.get_yticks()) <= 16
        assert len(axes.texts) == (layers * heads if max(layers, heads) <= 16 else 0)


def test_the_cell_of_a_head_shows_its_score() -> None:
    scores = scores_of(4, 8)
    axes = panels(head_scores_figure(scores, names=["copying"]))[0]
    image = axes.images[0]
    assert np.array_equal(image.get_array(), scores.scores["copying"].numpy())
    assert image.origin == "lower", "layer 0 is at the bottom"
    assert (image.norm.vmin, image.norm.vmax) == (-1, 1)
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert float(texts[5, 2]) == pytest.approx(float(scores.scores["copying"][2, 5]), abs=0.005)


def test_scores_that_are_missing_or_no_number_are_refused_by_name() -> None:
    scores = scores_of(2, 2)
    with pytest.raises(GraphError, match="no score 'loudness': there are prefix_matching"):
        head_scores_figure(scores, names=["loudness"])
    with pytest.raises(GraphError, match="no scores"):
        head_scores_figure(scores, names=[])
    scores.scores["copying"][1, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"copying of a1\.h0"):
        head_scores_figure(scores)


def test_scores_plot_themselves(tiny: Model) -> None:
    assert len(panels(score_heads(tiny, sequences=2).plot())) == 5


@pytest.fixture(scope="module")
def run(tiny: Model) -> Run:
    return tiny.run(torch.randint(1, 250, (2, 12), generator=torch.Generator().manual_seed(0)))


def test_a_panel_shows_the_pattern_of_its_head(run: Run) -> None:
    tokens = [f"t{place}" for place in range(12)]
    figure = patterns_figure(run, ["a1.h2", "a0.h3"], tokens, prompt=1, roles={"a1.h2": "induction"}, copies=[6])
    first, second = panels(figure)
    assert [first.get_title(), second.get_title()] == ["a1.h2 · induction", "a0.h3"]
    assert np.allclose(first.images[0].get_array(), run.pattern(1)[1, 2].numpy())
    assert [label.get_text() for label in first.get_xticklabels()] == tokens
    assert first.get_ylabel() == "query token (looks)" and first.get_xlabel() == "key token (looked at)"
    assert second.get_xlabel() == "key token (looked at)"
    assert sorted(line.get_xdata()[0] for line in first.lines) == [0, 5.5]


@pytest.mark.parametrize("count", [1, 4, 5, 8])
def test_every_column_and_row_of_panels_is_named(run: Run, count: int) -> None:
    heads = [f"a{layer}.h{head}" for layer in range(2) for head in range(4)][:count]
    found = panels(patterns_figure(run, heads, ["x"] * 12))
    assert len(found) == count
    assert sum(bool(axes.get_ylabel()) for axes in found) == -(-count // 4)
    assert sum(bool(axes.get_xlabel()) for axes in found) == min(count, 4)
    for axes in found:  # tokens are named where the axis is
        shown = [any(tick.label1.get_visible() for tick in axis.get_major_ticks()) for axis in (axes.yaxis, axes.xaxis)]
        assert shown == [bool(axes.get_ylabel()), bool(axes.get_xlabel())]


def test_labels_of_long_prompts_do_not_touch(tiny: Model) -> None:
    run = tiny.run(torch.randint(1, 250, (1, 64), generator=torch.Generator().manual_seed(0)))
    figure = patterns_figure(run, ["a0.h0"], [" $token$"] * 64)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    labels = [label.get_window_extent(canvas.get_renderer()) for label in figure.axes[0].get_yticklabels()]
    assert len(labels) > 10
    assert all(not a.padded(-0.5).overlaps(b.padded(-0.5)) for a, b in itertools.pairwise(labels))


def test_what_has_no_pattern_is_refused(run: Run) -> None:
    tokens = ["x"] * 12
    with pytest.raises(GraphError, match="11 token labels"):
        patterns_figure(run, ["a0.h0"], tokens[1:])
    with pytest.raises(GraphError, match="no heads"):
        patterns_figure(run, [], tokens)
    with pytest.raises(GraphError, match="m0 has no attention pattern"):
        patterns_figure(run, ["m0"], tokens)
    with pytest.raises(GraphError, match=r"no head a2\.h0"):
        patterns_figure(run, ["a2.h0"], tokens)
    broken = tuple(layer.clone() for layer in run.q)
    broken[0][0, 3, 1] = torch.nan
    with pytest.raises(NonFiniteError, match=r"a0\.h1"):
        patterns_figure(dataclasses.replace(run, q=broken), ["a0.h1"], tokens)


@pytest.mark.parametrize(
    ("token", "shown"),
    [(" the", "·the"), ("\n", "↵"), ("", "∅"), ("中", "�"), ("\x1b[31m", "�[31m"), ("internationally", "internati…")],
)
def test_tokens_are_shown_as_what_a_font_can_draw(token: str, shown: str) -> None:
    assert shown_token(token) == shown
