"""Pictures of effects: every number is in its place, and everything stands inside the picture."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from circuits.errors import CircuitsError, GraphError, NonFiniteError
from circuits.graph import Graph
from circuits.patching import Ablation, Effects, Knockout, SelfRepair
from circuits.plots import ablation_figure, effects_figure, knockout_figure, path_figure, self_repair_figure
from circuits.plots.graphs.paths import MOST_PATHS
from circuits.plots.patching.effects import MOST_BARS
from circuits.plots.style import NEGATIVE, POSITIVE

HEADS = [f"a{layer}.h{head}" for layer in range(3) for head in range(4)]
NODES = ["input", *(name for layer in range(3) for name in (*HEADS[4 * layer : 4 * layer + 4], f"m{layer}"))]
PATHS = ["a0.h1->a2.h3<k>->logits", "input->a0.h1<v>->m1->logits", "a0.h0->a1.h2<q>+a1.h2<k>+a1.h2<v>->logits"]
STRANGE = {"model": "a $x_1$ 中 \\ <b> name " * 12, "metric": "中_$a", "patched": "nodes"}


def effects_of(names: Sequence[str], prompts: int = 4, metadata: Mapping[str, Any] | None = None) -> Effects:
    """Random effects, a tenth of a gap of 2 each."""
    drawn = torch.randn(len(names), prompts, generator=torch.Generator().manual_seed(len(names)), dtype=torch.float64)
    ends = torch.ones(prompts, dtype=torch.float64)
    return Effects(tuple(names), 0.2 * drawn - ends, ends, -ends, "denoising", metadata=metadata or {"model": "m"})


def drawn(figure: Figure) -> Figure:
    """The figure, after everything in it was seen to stand inside it."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    edges = figure.bbox.padded(2)
    for part in (*figure.axes, *figure.texts, *figure.legends):
        extent = part.get_tightbbox(canvas.get_renderer())
        assert extent is None or (edges.x0 <= extent.x0 and extent.x1 <= edges.x1), part
        assert extent is None or (edges.y0 <= extent.y0 and extent.y1 <= edges.y1), part
    return figure


def heatmap(figure: Figure) -> tuple[np.ndarray, list[str], list[str]]:
    """The numbers, row names and column names of a figure's heatmap."""
    axes = drawn(figure).axes[0]
    rows, columns = ([label.get_text() for label in of()] for of in (axes.get_yticklabels, axes.get_xticklabels))
    return np.asarray(axes.images[0].get_array()), rows, columns


def test_heads_are_a_heatmap_of_layers_and_heads() -> None:
    effects = effects_of(HEADS)
    figure = effects_figure(effects)
    table, layers, heads = heatmap(figure)
    assert (layers, heads) == (["0", "1", "2"], ["0", "1", "2", "3"])
    assert np.allclose(table, effects.effect().reshape(3, 4).numpy())
    image = figure.axes[0].images[0]
    assert image.origin == "lower" and image.norm.vmin == -image.norm.vmax, "layer 0 is at the bottom, 0 is in the middle"
    assert to_hex(image.cmap(1.0)) == POSITIVE and to_hex(image.cmap(0.0)) == NEGATIVE
    written = {text.get_position(): float(text.get_text()) for text in figure.axes[0].texts}
    assert written[2, 1] == pytest.approx(effects.of("a1.h2").effect, abs=0.005)


def test_mlps_stand_beside_the_heads_and_the_input_above() -> None:
    effects = effects_of(NODES)
    figure = effects_figure(effects)
    table, _, columns = heatmap(figure)
    assert columns == ["0", "1", "2", "3", "MLP"]
    assert table[2, 4] == pytest.approx(effects.of("m2").effect) and table[2, 3] == pytest.approx(effects.of("a2.h3").effect)
    assert f"{effects.of('input').effect:+.2f}" in figure.axes[0].get_title()


def test_one_slot_of_every_second_head_is_a_heatmap_too() -> None:
    names = [f"a{layer}.h{head}<k>" for layer in range(3) for head in (0, 2)]
    figure = effects_figure(effects_of(names))
    assert heatmap(figure)[2] == ["0", "2"]
    assert figure.axes[0].get_xlabel() == "head (keys)"


def test_small_effects_stay_pale() -> None:
    effects = effects_of(HEADS)
    effects.scores.sub_(-1).mul_(1e-3).add_(-1)
    assert drawn(effects_figure(effects)).axes[0].images[0].norm.vmax == 0.05


def test_sites_at_positions_are_a_heatmap_with_their_tokens() -> None:
    sites, tokens = [f"resid{layer}" for layer in range(5)], ["<b>", " the", " $x$"]
    effects = effects_of([f"{site}@{place}" for site in sites for place in range(3)], metadata={"tokens": tokens})
    table, rows, columns = heatmap(effects_figure(effects))
    assert rows == sites and columns == ["<b> 0", "·the 1", "·$x$ 2"]
    assert np.allclose(table, effects.effect().reshape(5, 3).numpy())


def test_heads_at_one_position_are_a_heatmap_that_names_it() -> None:
    figure = effects_figure(effects_of([f"{head}@last" for head in HEADS]))
    assert heatmap(figure)[0].shape == (3, 4)
    assert "at last" in " ".join(figure.get_suptitle().split())


@pytest.mark.parametrize("count", [3, 21, 40])
def test_other_names_are_bars_of_the_largest(count: int) -> None:
    effects = effects_of([f"m0.n{neuron}" for neuron in range(count)])
    axes = drawn(effects_figure(effects)).axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert shown == [name for name, _ in effects.top(MOST_BARS)] and axes.yaxis_inverted(), "the largest is on top"
    bars = axes.patches
    assert [bar.get_width() for bar in bars] == pytest.approx([value for _, value in effects.top(MOST_BARS)])
    assert all(to_hex(bar.get_facecolor()) == (POSITIVE if bar.get_width() > 0 else NEGATIVE) for bar in bars)
    segments = axes.collections[0].get_segments()
    for name, ((low, _), (high, _)) in zip(shown, segments, strict=True):
        found = effects.of(name)
        assert (low, high) == pytest.approx((found.low, found.high))


def test_one_prompt_has_no_intervals() -> None:
    axes = drawn(effects_figure(effects_of(["m0.n1", "m0.n2"], prompts=1))).axes[0]
    assert not axes.collections and "no intervals" in axes.get_xlabel()


@pytest.mark.parametrize("names", [HEADS, NODES, ["m0.n1", "resid1"], [f"m{i}@{j}" for i in range(3) for j in range(90)]])
def test_strange_text_is_drawn_as_it_is(names: Sequence[str]) -> None:
    drawn(effects_figure(effects_of(names, metadata=STRANGE | {"tokens": ["中"] * 90})))
    drawn(ablation_figure(Ablation(("$x$ 中" * 30,), torch.ones(1, 3), torch.zeros(3), metadata=STRANGE)))


def test_what_cannot_be_drawn_is_refused() -> None:
    effects = effects_of(HEADS)
    effects.scores[3, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"a0\.h3"):
        effects_figure(effects)
    with pytest.raises(CircuitsError, match="no effects"):
        effects_figure(effects_of([]))
    with pytest.raises(GraphError, match="no paths"):
        path_figure(effects_of([]))
    with pytest.raises(GraphError, match="'m1' is no path"):
        path_figure(effects_of(["m1"]))
    with pytest.raises(CircuitsError, match="no ablation"):
        ablation_figure(Ablation((), torch.ones(0, 3), torch.zeros(3)))
    with pytest.raises(CircuitsError, match="no self-repair"):
        self_repair_figure()


def test_ablations_stand_in_their_order() -> None:
    scores = torch.tensor([[1.0, 2.0], [5.0, 6.0]], dtype=torch.float64)
    ablation = Ablation(("a0.h1+m2", "m1"), scores, torch.tensor([3.0, 3.0], dtype=torch.float64), metadata={"metric": "rank"})
    axes = drawn(ablation_figure(ablation)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a0.h1+m2", "m1"]
    assert [bar.get_width() for bar in axes.patches] == [-1.5, 2.5]
    assert "change of rank (whole model: 3)" in axes.get_xlabel()
    many = Ablation(tuple(map(str, range(50))), torch.arange(50.0)[:, None].expand(50, 2), torch.zeros(2))
    axes = drawn(ablation_figure(many)).axes[0]
    assert [bar.get_width() for bar in axes.patches] == list(range(49, 49 - MOST_BARS, -1))


def test_self_repair_shows_three_bars_a_layer() -> None:
    parts = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    figure = drawn(self_repair_figure(SelfRepair("attention", "zero", *parts), SelfRepair("mlp", "zero", *parts.flip(0))))
    assert [axes.get_title() for axes in figure.axes] == ["attention ablated (zero)", "MLP ablated (zero)"]
    heights = np.array([bar.get_height() for bar in figure.axes[1].patches]).reshape(3, 5)
    assert np.allclose(heights, parts.flip(0).mean(dim=2).numpy())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["direct", "total", "compensation"]


def test_knockout_shows_a_curve_a_source() -> None:
    blocked = {"subject": torch.tensor([0.1, 0.4, 0.8]), "last": torch.tensor([0.8, 0.8, 0.9])}
    knockout = Knockout("m", "The $x$ 中 is", ("The",), (0, 0), " 中", 0.8, blocked, 9)
    figure = drawn(knockout_figure(knockout))
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert np.allclose(lines["subject"], [-87.5, -50, 0]) and np.allclose(lines["last"], [0, 0, 12.5])
    assert figure.axes[0].get_xlabel() == "centre of 3 layers without this attention"


def shapes(figure: Figure) -> tuple[dict[str, FancyBboxPatch], dict[str, FancyArrowPatch]]:
    """The boxes and arrows of a path diagram, by name."""
    patches = drawn(figure).axes[0].patches
    boxes = {str(patch.get_gid()): patch for patch in patches if isinstance(patch, FancyBboxPatch)}
    return boxes, {str(patch.get_gid()): patch for patch in patches if isinstance(patch, FancyArrowPatch)}


def test_every_step_of_a_path_is_an_arrow_upwards() -> None:
    effects = effects_of(PATHS)
    boxes, arrows = shapes(path_figure(effects))
    assert set(boxes) == {"input", "a0.h0", "a0.h1", "a1.h2", "a2.h3", "m1", "logits"}
    expected = {"a0.h1->a2.h3<k>", "a2.h3->logits", "input->a0.h1<v>", "a0.h1->m1", "m1->logits", "a1.h2->logits"}
    assert set(arrows) == expected | {f"a0.h0->a1.h2<{slot}>" for slot in "qkv"}
    height = {name: box.get_y() for name, box in boxes.items()}
    assert all(height[name.split("->")[0]] < height[name.split("->")[1].partition("<")[0]] for name in arrows)
    value = effects.of(PATHS[0]).effect
    assert to_hex(arrows["a2.h3->logits"].get_edgecolor()) == (POSITIVE if value > 0 else NEGATIVE)


def test_a_larger_effect_is_a_wider_arrow_and_a_shared_one_is_the_largest() -> None:
    ends = torch.ones(1, dtype=torch.float64)
    names = ("m0->m1->logits", "m0->m1->m2", "m0->logits")
    scores = torch.tensor([[0.1], [-0.5], [0.8]], dtype=torch.float64)
    _, arrows = shapes(path_figure(Effects(names, scores, ends, 0 * ends, "denoising")))
    order = ["m1->logits", "m0->m1", "m0->logits"]
    assert all(arrows[a].get_linewidth() < arrows[b].get_linewidth() for a, b in itertools.pairwise(order))
    assert to_hex(arrows["m0->m1"].get_edgecolor()) == NEGATIVE
    assert arrows["m0->m1"].get_linewidth() == arrows["m1->m2"].get_linewidth()


def test_shared_keys_lead_to_every_head_of_their_group() -> None:
    shape = {"n_layers": 2, "n_heads": 4, "n_key_value_heads": 2, "d_mlp": 8, "parallel": False}
    figure = path_figure(effects_of(["a0.h0->a1.h1<k>->logits"], metadata={"graph": shape}))
    assert {"a1.h2->logits", "a1.h3->logits"} <= set(shapes(figure)[1])


def test_many_edges_are_cut_to_the_largest() -> None:
    graph = Graph(n_layers=4, n_heads=8, n_key_value_heads=8, d_mlp=1)
    effects = effects_of([str(edge) for edge in graph.edges()])
    figure = path_figure(effects)
    assert set(shapes(figure)[1]) == {name for name, _ in effects.top(MOST_PATHS)}
    assert f"{MOST_PATHS} of 1,519" in " ".join(text.get_text() for text in figure.texts)


def test_results_plot_themselves() -> None:
    assert heatmap(effects_of(HEADS).plot())[0].shape == (3, 4)
    assert drawn(Ablation(("m1",), torch.ones(1, 3), torch.zeros(3)).plot()).axes
    assert drawn(SelfRepair("mlp", "mean", *torch.ones(3, 2, 2)).plot()).axes
