"""Pictures of verdicts, curves and ROC: every number is in its place, and everything stands inside the picture."""

import dataclasses

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from circuits.errors import CircuitsError
from circuits.graph import Circuit, Graph
from circuits.plots import circuit_figure, curve_figure, roc_figure, verdict_figure
from circuits.plots.patching.effects import MOST_BARS
from circuits.plots.style import NEGATIVE, POSITIVE
from circuits.search.judging.curves import Curve
from circuits.search.judging.roc import roc
from circuits.search.judging.verdict import Need, Removal, Verdict
from circuits.statistics import Effect
from tests.plots.test_effect_figures import drawn

SHARES, EDGES = (0.001, 0.01, 0.1, 1.0), (1, 10, 100, 1000)
STRANGE = "a $x_1$ 中 \\ <b> name " * 12


def curve(*heights: float, draws: int = 3, model: str = "m") -> Curve:
    points = tuple(Effect(float(height), height - 0.1, height + 0.05) for height in heights)
    null = torch.arange(draws * 4, dtype=torch.float64).reshape(draws, 4) / 40
    return Curve(SHARES, EDGES, points, null, {"model": model, "prompts": 7, "null": "random paths"})


def verdict(nodes: int = 5, removals: int = 3) -> Verdict:
    needs = tuple(Need(f"a{i}.h0", 0.35 - 0.1 * i if i else 0.001) for i in range(nodes))
    kinds = ("random", "greedy")
    sets = tuple(Removal((f"m{i}",), kinds[i % 2], 0.2 * i, 0.3 * i) for i in range(removals))
    null, seen = tuple(0.01 * i for i in range(9)), Effect(0.9, 0.85, 0.95)
    return Verdict(12, 6, 0.012, 8, Effect(0.8, 0.7, 0.95), null, 0.1, sets, needs, searched_on=seen, metadata={"model": "m"})


def words(figure: Figure) -> list[str]:
    """What the legends of a figure say, those of its panels included."""
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    return [text.get_text() for legend in legends if legend is not None for text in legend.get_texts()]


def ends_of(axes: Axes, place: int) -> np.ndarray:
    """The ends of the interval of a point, by its place among the panel's error bars."""
    return axes.containers[place].lines[2][0].get_segments()[0][:, 1]  # type: ignore[attr-defined]


def test_curves_stand_at_their_shares_with_intervals_and_areas() -> None:
    curves = {"eap": curve(0.0, 0.3, 0.9, 1.0), "exact": curve(0.1, 0.5, 1.1, 1.0)}
    figure = drawn(curve_figure(curves))
    axes = figure.axes[0]
    assert axes.get_xscale() == "log" and "1,000 edges" in axes.get_xlabel()
    lines = {str(container.get_label()): container.lines[0] for container in axes.containers}  # type: ignore[attr-defined]
    for name, one in curves.items():
        line = lines[f"{name}: CPR {one.cpr:.3f}, CMD {one.cmd:.3f}"]
        assert np.allclose(line.get_xdata(), SHARES)
        assert np.allclose(line.get_ydata(), [point.effect for point in one.faithfulness])
    assert np.allclose(ends_of(axes, 0), (-0.1, 0.05))
    assert any(np.allclose(line.get_ydata(), 1) and line.get_linestyle() == "--" for line in axes.lines)
    assert set(lines) <= set(words(figure)) and "7 prompts" in figure.get_suptitle()
    colours = [to_hex(line.get_color()) for line in lines.values()]
    assert len(set(colours)) == 2 and len({line.get_marker() for line in lines.values()}) == 2


def test_random_circuits_are_a_band_with_their_mean() -> None:
    one, other = curve(0, 0.5, 1, 1), curve(0, 0.4, 1, 1)
    other = dataclasses.replace(other, null=other.null + 0.5)
    figure = curve_figure({"a": one, "b": other})
    axes = figure.axes[0]
    both = torch.cat([one.null, other.null])
    mean = next(line for line in axes.lines if "mean" in str(line.get_label()))
    assert np.allclose(mean.get_ydata(), both.mean(dim=0)) and "6 random circuits" in str(mean.get_label())
    earlier = dataclasses.replace(one, metadata={"model": "m"})
    assert earlier.random_name == "random sets of edges", "of which files of earlier versions hold the numbers"
    bands = [part for part in axes.collections if isinstance(part, PolyCollection)]
    corners = np.asarray(bands[0].get_paths()[0].vertices)
    for column, share in enumerate(SHARES):
        heights = corners[np.isclose(corners[:, 0], share), 1]
        assert heights.min() == pytest.approx(float(both[:, column].min()))
        assert heights.max() == pytest.approx(float(both[:, column].max()))
    alone = curve_figure({"a": curve(0, 0.5, 1, 1, draws=0)})
    assert len(words(alone)) == 1, "no band where no random circuits were drawn"


def test_many_curves_with_strange_names_stay_inside_the_picture() -> None:
    curves = {f"{place} {STRANGE}": curve(0, 0.1 * place, 0.5, 1, model=STRANGE) for place in range(9)}
    figure = drawn(curve_figure(curves))
    styles = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines if line.get_marker() != "None"}
    assert len({style for style in styles if style[0] != "#8c8c8c"}) >= 6
    drawn(curve_figure(curves, title=STRANGE))
    assert drawn(curve_figure({"a": curve(0, 1, 1, 1)}, title="Mine")).get_suptitle() == "Mine"


def test_roc_curves_and_chance() -> None:
    scores = {f"a0.h{i}": float(i) for i in range(8)}
    good, bad = roc(scores, ["a0.h7", "a0.h6"]), roc(scores, ["a0.h0", "a0.h7"])
    figure = drawn(roc_figure({"good": good, "bad": bad}))
    lines = {str(line.get_label()).split(":")[0]: line for line in figure.axes[0].lines}
    assert np.allclose(lines["good"].get_ydata(), good.true_positives)
    assert np.allclose(lines["bad"].get_xdata(), bad.false_positives)
    assert np.allclose(lines["chance"].get_xdata(), lines["chance"].get_ydata())
    assert f"AUROC {good.auroc:.3f}" in words(figure)[1] and f"AUROC {bad.auroc:.3f}" in words(figure)[2]
    assert "2 members" in figure.axes[0].get_ylabel() and "6 others" in figure.axes[0].get_xlabel()
    other = drawn(roc_figure({STRANGE: good, "of another circuit": roc(scores, ["a0.h1"])}))
    assert other.axes[0].get_ylabel() == "share of the members found", "no number where the curves differ in it"


def test_a_verdict_has_three_panels() -> None:
    one = verdict()
    figure = drawn(verdict_figure(one))
    own, complete, minimal = figure.axes
    assert np.allclose([container.lines[0].get_ydata()[0] for container in own.containers], [0.8, 0.9])  # type: ignore[attr-defined]
    assert np.allclose(ends_of(own, 0), (0.7, 0.95))
    assert np.allclose(own.collections[-1].get_offsets()[:, 1], one.null)  # type: ignore[index]
    assert "0.80" in own.get_title() and "p = 0.1" in own.get_title()
    points = np.concatenate([np.asarray(cloud.get_offsets()) for cloud in complete.collections])
    assert sorted(map(tuple, points.tolist())) == sorted((removal.model, removal.circuit) for removal in one.completeness)
    assert np.allclose(complete.lines[0].get_xdata(), complete.lines[0].get_ydata())
    assert words(figure) == ["random halves", "grown greedily"] and f"{one.incompleteness:.2f}" in complete.get_title()
    bars = dict(zip([label.get_text() for label in minimal.get_yticklabels()], minimal.patches, strict=True))
    for need in one.minimality:
        assert bars[need.node].get_width() == pytest.approx(need.change)  # type: ignore[attr-defined]
    assert "1 of 5 nodes not needed" in minimal.get_title() and "12 edges of m (1.2 % of all)" in figure.get_suptitle()


def test_needs_have_the_colour_of_their_sign_and_grey_below_a_hundredth() -> None:
    panel = verdict_figure(dataclasses.replace(verdict(), minimality=(Need("m0", -0.5), Need("m1", 0.2), Need("m2", 0.005))))
    assert [to_hex(bar.get_facecolor()) for bar in panel.axes[2].patches] == [POSITIVE, NEGATIVE, "#8c8c8c"]


def test_only_the_largest_needs_are_drawn() -> None:
    figure = drawn(verdict_figure(verdict(nodes=60)))
    bars = [abs(bar.get_width()) for bar in figure.axes[2].patches]  # type: ignore[attr-defined]
    assert len(bars) == MOST_BARS and bars == sorted(bars, reverse=True)
    assert f"{MOST_BARS} of 60 nodes" in figure.axes[2].get_xlabel()


def test_what_was_not_measured_has_no_panel() -> None:
    bare = dataclasses.replace(verdict(), completeness=(), minimality=(), null=(), p_value=None, searched_on=None)
    figure = drawn(verdict_figure(bare))
    assert len(figure.axes) == 1 and "p =" not in figure.axes[0].get_title()
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["circuit"]
    assert len(drawn(verdict_figure(dataclasses.replace(verdict(), completeness=()))).axes) == 2
    long = dataclasses.replace(verdict(nodes=1, removals=1), metadata={"model": STRANGE})
    assert len(drawn(verdict_figure(long)).axes) == 3


def test_nothing_cannot_be_drawn() -> None:
    for figure in (curve_figure, roc_figure):
        with pytest.raises(CircuitsError, match="there is no"):
            figure({})


@pytest.mark.parametrize(
    ("method", "supporting", "legend"),
    [
        ("eap-ig", "m1->logits", ["supports, score up to -1", "opposes, score up to +2"]),
        ("exact", "m1->logits", ["supports, score up to -1", "opposes, score up to +2"]),
        ("screen then verify", "m0->logits", ["supports, score up to +2", "opposes, score up to -1"]),
        ("acdc", "m0->logits", ["supports, score up to +2", "opposes, score up to -1"]),
        ("edge-pruning", "m0->logits", ["edge score up to +2", "edge score up to -1"]),
        (None, "m0->logits", ["edge score up to +2", "edge score up to -1"]),
    ],
)
def test_an_edge_s_colour_says_whether_it_supports_the_metric(method: str | None, supporting: str, legend: list[str]) -> None:
    graph = Graph(n_layers=2, n_heads=2, n_key_value_heads=2, d_mlp=8)
    scores = {"m0->logits": 2.0, "m1->logits": -1.0, "input->logits": 0.0}
    figure = drawn(circuit_figure(Circuit(graph, scores, metadata={"method": method} if method else {})))
    colours = {str(patch.get_gid()): to_hex(patch.get_edgecolor()) for patch in figure.axes[0].patches}
    assert {name for name in scores if colours[name] == POSITIVE} == {supporting, "input->logits"}
    assert words(figure) == legend
