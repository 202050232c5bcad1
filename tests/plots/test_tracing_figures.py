"""Figures of attention tracing and of head labels: the numbers are in their places, and all can be read."""

import dataclasses

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from circuits.errors import CircuitsError
from circuits.heads import HeadLabels
from circuits.heads.attention.tracing import TRACINGS
from circuits.patching import AttentionTrace
from circuits.plots import attention_figure, disagreement_figure, head_labels_figure


def trace_of(*lengths: int) -> AttentionTrace:
    generator, width = torch.Generator().manual_seed(0), max(lengths)
    names = ("embedding", "knockout", "embedding_logit", "knockout_logit")
    tables = {name: torch.randn(len(lengths), width, generator=generator).double() for name in (*TRACINGS, *names)}
    return AttentionTrace(
        model="a model",
        weights_sha256="",
        tokens=tuple(tuple(f" $t_{n}" for n in range(length)) for length in lengths),
        opening=(True,) * len(lengths),
        causal=True,
        positions=tuple(length - 1 for length in lengths),
        answers=(" $x",) * len(lengths),
        log_probabilities=torch.full((len(lengths),), -0.5, dtype=torch.float64),
        logits=torch.zeros(len(lengths), dtype=torch.float64),
        tracings={name: tables[name].abs() for name in TRACINGS},
        effects={name: tables[name] for name in names},
        kind="mean",
        seed=0,
    )


def labels_of(rows: int, layers: int, heads: int) -> HeadLabels:
    generator = torch.Generator().manual_seed(rows)
    tables = {name: torch.rand(rows, layers, heads, generator=generator).double() for name in ("accuracy", "p_values")}
    errors = {name: torch.full((rows, layers, heads), 0.02).double() for name in ("errors", "gain_errors")}
    base = {name: torch.rand(rows, generator=generator).double() / 2 for name in ("baseline", "baseline_errors")}
    ones = {"counts": torch.full((rows,), 60), "offsets": torch.full((rows,), -1)}
    names = tuple((f"relation{row}", "head") for row in range(rows))
    return HeadLabels("a model", "", names, **ones, **base, **tables, **errors, sentences=9, left_out={"words": 0}, seed=0)


def drawn(figure: Figure) -> Figure:
    FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize("length", [2, 7, 60])
def test_each_measure_is_a_panel_with_a_bar_a_token(length: int) -> None:
    trace = trace_of(length, 3)
    panels = drawn(attention_figure(trace)).axes
    assert len(panels) == 6
    for axes, name in zip(panels, (*TRACINGS, "embedding", "knockout"), strict=True):
        values = (trace.tracings | trace.effects)[name][0, :length]
        assert [bar.get_width() for bar in axes.patches] == pytest.approx(values.tolist())
        assert axes.get_xlabel() == ("share" if name in TRACINGS else "nats") and axes.get_title()
    labels = [text.get_text() for text in panels[0].get_yticklabels()]
    assert labels[0] == "·$t_0" and (length > 20 or labels[-1].endswith("*"))
    assert panels[0].yaxis_inverted()


def test_prompts_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(CircuitsError, match="no prompt 2: the trace holds 2"):
        attention_figure(trace_of(4, 3), prompt=2)
    with pytest.raises(CircuitsError, match="161 tokens is too long to draw"):
        attention_figure(trace_of(161))
    with pytest.raises(CircuitsError, match="nothing to rank"):
        disagreement_figure(trace_of(2))


def test_the_disagreement_is_drawn_with_its_intervals() -> None:
    trace = trace_of(7, 6, 5)
    axes = drawn(disagreement_figure(trace)).axes[0]
    found = {(row.tracing, row.effect): row.spearman.effect for row in trace.disagreement()}
    heights = sorted(bar.get_height() for bar in axes.patches)
    assert heights == pytest.approx(sorted(found.values())) and len(heights) == 8
    assert axes.get_ylim() == (-1, 1) and axes.get_ylabel()


@pytest.mark.parametrize(("rows", "layers", "heads"), [(1, 1, 1), (12, 4, 8), (60, 12, 12)])
def test_head_labels_show_the_best_heads_and_every_gain(rows: int, layers: int, heads: int) -> None:
    labels = labels_of(rows, layers, heads)
    left, right = drawn(head_labels_figure(labels)).axes[:2]
    best, shown = labels.best(), min(rows, 40)
    row = labels.rows.index((best["relation"][0], "head"))
    gain = np.asarray(right.images[0].get_array())
    assert gain.shape == (shown, layers * heads)
    assert gain[0].tolist() == pytest.approx((labels.accuracy[row] - labels.baseline[row]).flatten().tolist())
    names = [text.get_text() for text in left.get_yticklabels()]
    assert len(names) == shown and names[0] == f"{best['relation'][0]} → head"
    assert [text.get_text().rstrip("*") for text in left.texts] == best["head"].head(40).tolist()
    assert len(right.get_xticks()) == layers


def test_results_draw_themselves() -> None:
    assert isinstance(trace_of(4).plot(), Figure) and isinstance(labels_of(2, 2, 2).plot(), Figure)
    assert isinstance(dataclasses.replace(trace_of(4), causal=False).plot(prompt=0), Figure)
