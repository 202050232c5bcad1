"""Pictures of neurons as memories: what is written in them is what was found, and nothing touches or runs out."""

import itertools

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from circuits.errors import CircuitsError
from circuits.lenses import KeyValueAgreement, clamp, find_triggers, key_value_agreement, neuron, sub_updates
from circuits.lenses.neurons.clamping import Clamp
from circuits.lenses.neurons.contexts import Context
from circuits.models import Model, TokenBatch
from circuits.plots import agreement_figure, clamp_figure, neuron_figure, sub_updates_figure
from circuits.plots.lenses.memories import draw_contexts


@pytest.fixture(scope="module")
def corpus() -> TokenBatch:
    return TokenBatch.unpadded(torch.randint(1, 250, (6, 20), generator=torch.Generator().manual_seed(0)))


def drawn(figure: Figure) -> Figure:
    FigureCanvasAgg(figure).draw()
    return figure


def test_a_neuron_shows_its_triggers_and_tokens(tiny: Model, corpus: TokenBatch) -> None:
    report = neuron(tiny, "m1.n3", corpus, top=5, k=6)
    figure = drawn(neuron_figure(report))
    texts, raises, lowers = figure.axes
    words = [text.get_text() for text in texts.texts]
    assert all(f"{one.activation:.2f}" in words for one in report.triggers)
    marked = [box for box in texts.patches if box.get_linewidth() > 0]
    assert len(marked) == 5 and all(box.get_x() == 0 for box in marked), "places stand in one column"
    assert [bar.get_width() for bar in raises.patches] == pytest.approx([value for _, value in report.raises])
    assert [bar.get_width() for bar in lowers.patches] == pytest.approx([value for _, value in report.lowers])
    assert "m1.n3" in figure._suptitle.get_text()
    assert neuron_figure(report, title="Mine $x_")._suptitle.get_text() == "Mine $x_"


def test_contexts_of_any_text_fit_their_columns() -> None:
    long = Context(2.0, 0, 5, ("x" * 40, "\n", "$a$", " end", "\x1b[31m"), 2, (0.1, -0.5, 2.0, 0.0, 1.0), None)
    first = Context(1.0, 1, 0, ("<b>",), 0, (1.0,), None)
    figure = Figure(figsize=(6, 2))
    axes = figure.subplots()
    draw_contexts(axes, (long, first))
    drawn(figure)
    low, high = axes.get_xlim()
    for box in axes.patches:
        assert low <= box.get_x() and box.get_x() + box.get_width() <= high
    boxes = sorted((box.get_y(), box.get_x(), box.get_width()) for box in axes.patches)
    for one, other in itertools.pairwise(boxes):
        assert one[0] != other[0] or one[1] + one[2] <= other[1] + 1e-9, "tokens stand beside each other"
    with pytest.raises(CircuitsError, match="no triggers"):
        draw_contexts(axes, ())


def test_agreement_stands_beside_chance(tiny: Model, corpus: TokenBatch) -> None:
    triggers = find_triggers(tiny, corpus, top=3)
    found = key_value_agreement(tiny, triggers, corpus, permutations=20)
    figure = drawn(found.plot())
    first, within = figure.axes
    assert [bar.get_height() for bar in first.patches] == pytest.approx([*found.share, *found.chance])
    assert [bar.get_height() for bar in within.patches] == pytest.approx([*found.share_within, *found.chance_within])
    assert [label.get_text() for label in first.get_xticklabels()] == ["m0", "m1"]
    many = KeyValueAgreement("m", tuple(range(48)), (9,) * 48, *[(0.1,) * 48] * 8, k=5, permutations=2, seed=0)
    axes = drawn(agreement_figure(many)).axes[0]
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(not one.overlaps(other) for one, other in itertools.pairwise(boxes))
    panels = drawn(triggers.plot()).axes
    assert [len(axes.collections[0].get_offsets()) for axes in panels] == [tiny.d_mlp] * 2


def test_updates_and_clamps_are_bars_and_dots(tiny: Model) -> None:
    ids = torch.randint(1, 250, (6,), generator=torch.Generator().manual_seed(1))
    found = sub_updates(tiny, ids, top=5)
    left, right = drawn(found.plot()).axes
    assert [bar.get_width() for bar in left.patches] == pytest.approx([one.strength for one in found.updates])
    assert [bar.get_width() for bar in right.patches] == pytest.approx([one.logit for one in found.updates])
    assert left.get_yticklabels()[0].get_text().startswith(found.updates[0].neuron)
    held = clamp(tiny, ids, {"m1.n3": 30.0}, continuation=0)
    axes = drawn(held.plot()).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(names) > 2 and axes.get_xscale() == "log"
    nothing = Clamp("m", "p", {"m0.n0": 1.0}, {"m0.n0": 1.0}, (), (), (), (), 0.0, ("", ""))
    with pytest.raises(CircuitsError, match="change nothing"):
        clamp_figure(nothing)
    with pytest.raises(CircuitsError, match="no updates"):
        sub_updates_figure(type(found)("m", "p", 0, "a", "b", (), {}, {}))
