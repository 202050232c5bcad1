"""Pictures of causal tracing: the effects are in their cells, negative ones can be seen, and every part has its name."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from circuits.errors import CircuitsError
from circuits.patching import Trace, Traces
from circuits.plots import role_curves_figure, trace_figure

KINDS = ("states", "mlp", "attention", "states_severed_mlp", "states_severed_attention")


def trace_of(tokens: int = 7, layers: int = 4, kinds: tuple[str, ...] = KINDS[:3], seed: int = 0) -> Trace:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    return Trace(
        model="a model",
        weights_sha256="0",
        prompt="A $mall $ubject is",
        tokens=tuple(f" t{place}" for place in range(tokens)),
        subject=(2, 4),
        answer=" yes",
        clean=0.9,
        corrupted=drawn(5),
        restored={kind: drawn(tokens, layers, 5) for kind in kinds},
        noise=0.5,
        window=2,
        seed=0,
    )


def panels(figure: Figure) -> list[Axes]:
    FigureCanvasAgg(figure).draw()
    return [axes for axes in figure.axes if axes.get_title()]


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


@pytest.mark.parametrize("kinds", [KINDS[:1], KINDS[:3], KINDS])
def test_the_cell_of_a_token_and_layer_shows_its_effect(kinds: tuple[str, ...]) -> None:
    trace = trace_of(kinds=kinds)
    found = panels(trace_figure(trace))
    assert len(found) == len(kinds)
    for axes, kind in zip(found, kinds, strict=True):
        image = axes.images[0]
        assert np.allclose(image.get_array(), trace.effects(kind).numpy())
        assert image.origin == "upper", "the first token is at the top"
        window = kind in ("mlp", "attention")
        assert axes.get_xlabel() == ("centre of 2 restored layers" if window else "restored layer")
    labels = [label.get_text() for label in found[0].get_yticklabels()]
    assert labels == ["·t0", "·t1", "·t2*", "·t3*", "·t4*", "·t5", "·t6"]


def test_the_title_says_answer_and_probabilities() -> None:
    trace = trace_of()
    figure = trace_figure(trace)
    said = texts(figure)
    assert "A $mall $ubject is" in said, "dollar signs are no formula"
    assert f"p(yes): 90.0% clean, {float(trace.corrupted.mean()):.1%} corrupted" in said
    assert "a model; noise of sd 0.5 on *, 5 draws" in said
    assert "* replaced" in texts(trace_figure(dataclasses.replace(trace, noise=0.0)))


def test_negative_effects_are_neither_clipped_nor_hidden() -> None:
    trace = trace_of(kinds=("states",))
    values = trace.corrupted.mean() + torch.zeros(7, 4, 5, dtype=torch.float64)
    values[3, 1], values[5, 2] = values[3, 1] + 0.4, values[5, 2] - 0.1
    axes = panels(trace_figure(dataclasses.replace(trace, restored={"states": values})))[0]
    image = axes.images[0]
    assert (image.norm.vmin, image.norm.vmax) == (pytest.approx(-0.1), pytest.approx(0.4))
    assert [tuple(place) for place in axes.collections[0].get_offsets()] == [(2, 5)], "only the negative cell has a minus"
    colours = image.cmap(image.norm(image.get_array()))[..., :3]
    assert np.ptp(colours[5, 2]) < 1e-6 and colours[5, 2].max() < 0.95, "a fall is grey"
    assert np.ptp(colours[3, 1]) > 0.2 and colours[0, 0].min() > 0.9, "a rise is coloured, nothing is pale"


def test_the_colour_bar_marks_zero_and_the_largest() -> None:
    figure = trace_figure(trace_of(kinds=("states",)))
    FigureCanvasAgg(figure).draw()
    bar = next(axes for axes in figure.axes if axes.get_label() == "<colorbar>")
    labels = [label.get_text() for label in bar.get_yticklabels()]
    assert "0" in labels and any(label.startswith("-") for label in labels)
    assert bar.get_ylabel() == "indirect effect (probability)"


def test_effects_near_nothing_do_not_fill_the_scale() -> None:
    trace = trace_of(kinds=("mlp",))
    trace = dataclasses.replace(trace, corrupted=trace.corrupted * 0.1)
    flat = trace.corrupted.mean() + 1e-7 * trace.restored["mlp"]
    image = panels(trace_figure(dataclasses.replace(trace, restored={"mlp": flat})))[0].images[0]
    assert image.norm.vmax == pytest.approx(0.02 * trace.total_effect)


@pytest.mark.parametrize(("tokens", "layers"), [(5, 1), (30, 48), (120, 12)])
def test_labels_of_long_prompts_do_not_touch(tokens: int, layers: int) -> None:
    figure = trace_figure(trace_of(tokens, layers))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for axes in panels(figure):
        for labels in (axes.get_yticklabels(), axes.get_xticklabels()):
            boxes = [label.get_window_extent(canvas.get_renderer()) for label in labels if label.get_text()]
            assert all(not a.padded(-0.5).overlaps(b.padded(-0.5)) for a, b in itertools.pairwise(boxes))


def test_curves_show_averages_with_their_intervals() -> None:
    traces = Traces(tuple(trace_of(seed=seed) for seed in range(4)))
    figure = role_curves_figure(traces)
    found = panels(figure)
    assert len(found) == 3
    for axes, kind in zip(found, KINDS[:3], strict=True):
        averages = traces.average_by_role(kind)
        curves = {line.get_label(): line for line in axes.lines}
        for (role, (mean, half, count)), band in zip(averages.items(), axes.collections, strict=True):
            assert np.allclose(curves[f"{role} (n = {count})"].get_ydata(), mean.numpy())
            corners = band.get_paths()[0].vertices[:, 1]
            assert corners.max() == pytest.approx(float((mean + half).max()))
            assert corners.min() == pytest.approx(float((mean - half).min()))
    assert "4 facts: average total effect" in texts(figure)
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {f"{role} (n = 4)" for role in averages}


def test_one_fact_has_no_interval_and_none_no_picture() -> None:
    assert "one fact gives no interval" in texts(role_curves_figure(Traces((trace_of(),))))
    with pytest.raises(CircuitsError, match="no fact was traced"):
        role_curves_figure(Traces(()))


@pytest.mark.parametrize(("kinds", "words"), [((), "nothing"), (("states", "wisdom"), "'wisdom'")])
def test_kinds_that_cannot_be_drawn_are_refused(kinds: tuple[str, ...], words: str) -> None:
    for draw in (trace_figure, lambda trace: role_curves_figure(Traces((trace,)))):
        with pytest.raises(CircuitsError, match=f"a trace of {words}: expected some of states"):
            draw(trace_of(kinds=kinds))
