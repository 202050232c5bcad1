"""Pictures of weight tables, ranks, orders of terms and removed layers show what their results hold."""

import dataclasses

import matplotlib.figure
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

import circuits
from circuits.errors import CircuitsError
from circuits.heads import compress_heads
from circuits.models import Model
from circuits.models.planted import planted_tables
from circuits.patching import order_of_terms, remove_layers
from circuits.plots import compression_figure, layer_removal_figure, tables_figure, terms_figure

IDS = torch.randint(64, (3, 8), generator=torch.Generator().manual_seed(0))


def bars_of(axes: Axes) -> list[Rectangle]:
    return [bar for bar in axes.patches if isinstance(bar, Rectangle)]


def texts(figure: matplotlib.figure.Figure) -> list[str]:
    figure.draw_without_rendering()
    found = [axes.get_title() for axes in figure.axes]
    return found + [label.get_text() for axes in figure.axes for label in (*axes.get_yticklabels(), *axes.get_xticklabels())]


def test_tables_show_their_strongest_entries_best_on_top(tiny: Model) -> None:
    planted = planted_tables(seed=0)
    found = circuits.tables(planted.model, top=6, per_source=None)
    figure = found.plot()
    assert "part of" not in figure.get_suptitle()
    bars = bars_of(figure.axes[1])
    assert [bar.get_width() for bar in bars] == [one.score for one in found.skip_trigrams[:15]]
    best = found.skip_trigrams[0]
    assert f"{best.source} … {best.destination} → {best.output}  {best.head}" in texts(figure)
    assert bars[0].get_y() > bars[1].get_y()
    mini = circuits.tables(tiny, top=4)
    assert "a part of what the model does" in tables_figure(mini).get_suptitle()
    strange = dataclasses.replace(mini, words=dict.fromkeys(mini.words, "$x_1$\n"), model="a$b$")
    texts(tables_figure(strange, title="$"))
    with pytest.raises(CircuitsError, match="no table to draw"):
        tables_figure(dataclasses.replace(mini, bigrams=(), skip_trigrams=()))


def test_ranks_stand_in_their_cells(tiny: Model) -> None:
    found = compress_heads(tiny, IDS, heads=["a0.h1", "a1.h3"], tolerance=0.01)
    figure = compression_figure(found)
    written = {text.get_text() for axes in figure.axes[:2] for text in axes.texts}
    assert written == {str(part.rank) for part in found.parts}
    with pytest.raises(CircuitsError, match="nothing to draw"):
        compression_figure(dataclasses.replace(found, parts=()))


@pytest.mark.parametrize("heads", [0, 1, 2])
def test_orders_are_bars_and_heads_a_panel_each(tiny: Model, heads: int) -> None:
    found = order_of_terms(tiny, IDS, heads=heads)
    figure = terms_figure(found)
    assert [bar.get_height() for bar in bars_of(figure.axes[0])] == [found.loss(order) for order in range(3)]
    assert sum("order-" in title for title in texts(figure)) == heads
    assert "MLPs as the run wrote them" in " ".join(figure.get_suptitle().split())


def test_removed_layers_have_a_column_a_part(tiny: Model) -> None:
    found = remove_layers(tiny, IDS)
    figure = layer_removal_figure(found)
    assert len(figure.axes) == 6 and "MLP removed" in texts(figure)
    heights = [bar.get_height() for bar in bars_of(figure.axes[1])]
    assert heights == found.mean("loss")[1].tolist()
    alone = remove_layers(planted_tables(seed=1).model, IDS, kind="mean").plot()
    assert len(alone.axes) == 2 and "its mean" in alone.get_suptitle()
