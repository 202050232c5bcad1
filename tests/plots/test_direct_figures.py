"""Pictures of contributions to a logit and of behaviour scores: numbers in their places, marked and named."""

import dataclasses

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from circuits.errors import CircuitsError, NonFiniteError
from circuits.lenses import DirectLogits, logits
from circuits.models import Model
from circuits.plots import behaviour_figure, direct_logits_figure
from circuits.tasks import BehaviourScores


def panels(figure: Figure) -> dict[str, object]:
    FigureCanvasAgg(figure).draw()
    return {axes.get_title().split(":")[0]: axes for axes in figure.axes if axes.get_title()}


@pytest.fixture(scope="module")
def found(tiny: Model) -> DirectLogits:
    return logits(tiny, ["The cost is $5 and $6", "one two"], answers="x", distractors="y", neurons=2, positions=True)


def test_cells_bars_and_sources_show_their_rows(found: DirectLogits) -> None:
    drawn = panels(direct_logits_figure(found))
    assert set(drawn) == {"by layer", "rows", "strongest heads by source"}
    table = drawn["by layer"].images[0].get_array()
    mean = dict(zip(found.rows, found.mean.tolist(), strict=True))
    assert table[1, 2] == pytest.approx(mean["a1.h2"])
    assert table[0, -1] == pytest.approx(sum(value for row, value in mean.items() if row.startswith("m0.")))
    labels = [label.get_text() for label in drawn["rows"].get_yticklabels()]
    assert labels == [row for row, _ in found.top(16)]
    widths = [bar.get_width() for bar in drawn["rows"].patches]
    assert widths == pytest.approx([value for _, value in found.top(16)])
    sources = drawn["strongest heads by source"]
    head = sources.get_yticklabels()[0].get_text()
    assert np.allclose(sources.images[0].get_array()[0], found.by_source(head)[0].numpy())
    assert [label.get_text() for label in sources.get_xticklabels()][-2:] == ["$", "6"]
    assert not any(label.get_parse_math() for label in sources.get_xticklabels())


def test_one_prompt_and_models_without_mlps(found: DirectLogits) -> None:
    one = panels(direct_logits_figure(found, prompt=1))
    shown = [label.get_text() for label in one["strongest heads by source"].get_xticklabels()]
    assert shown == ["o", "n", "e", "·", "t", "w", "o"], "pads are left out"
    kept = [index for index, row in enumerate(found.rows) if not row.startswith("m")]
    rows = tuple(found.rows[index] for index in kept)
    bare = dataclasses.replace(found, rows=rows, values=found.values[kept], sources=None)
    drawn = panels(direct_logits_figure(bare, title="$own$ title"))
    assert drawn["by layer"].images[0].get_array().shape == (2, 4) and set(drawn) == {"by layer", "rows"}
    values = found.values.clone()
    values[3, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"a0\.h"):
        direct_logits_figure(dataclasses.replace(found, values=values))


def scores(kind: str, columns: tuple[str, ...], groups: tuple[str, ...]) -> BehaviourScores:
    generator = torch.Generator().manual_seed(0)
    values = {name: torch.rand(len(groups), generator=generator, dtype=torch.float64).round() for name in columns}
    return BehaviourScores("m", kind, groups, groups, values, dict.fromkeys(columns, "x"))


def test_behaviour_bars_have_baselines_beside_them() -> None:
    groups = ("$a$", "b", "b", "b", "$a$")
    of = scores("minimal pairs", ("accuracy", "bigram", "length"), groups)
    figure = behaviour_figure(of)
    axes = figure.axes[0]
    FigureCanvasAgg(figure).draw()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["$a$ (2)", "b (3)", "all (5)"]
    expected = [of.mean("accuracy", name) for name in ("$a$", "b", "all")]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(expected)
    marks = {mark.get_label(): mark.get_offsets()[:, 0].tolist() for mark in axes.collections if "_" not in mark.get_label()}
    assert marks["bigram"] == pytest.approx([of.mean("bigram", name) for name in ("$a$", "b", "all")]) and "length" in marks
    facts = behaviour_figure(scores("facts", ("top1", "bigram_top1", "majority_top1"), ("r",)))
    assert [label.get_text() for label in facts.axes[0].get_yticklabels()] == ["all (1)"]
    assert len(behaviour_figure(scores("facts", ("top1",), tuple(map(str, range(60))))).axes[0].get_yticks()) == 41
    with pytest.raises(CircuitsError, match="no column top1"):
        behaviour_figure(scores("facts", ("accuracy",), ("r",)))
