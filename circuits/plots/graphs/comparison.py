"""What two circuits share, drawn."""

from matplotlib.figure import Figure

from circuits.files.pictures import draws
from circuits.plots.style import BLUE, GREEN, VERMILION, frame
from circuits.plots.text import wrapped
from circuits.search.judging.compare import Comparison

_PARTS = (("only the first", BLUE), ("both", GREEN), ("only the second", VERMILION))


@draws(Comparison)
def comparison_figure(comparison: Comparison, *, title: str | None = None) -> Figure:
    """Draw how many edges and nodes are in the first circuit alone, in both, and in the second alone, a bar each, with the
    share that is in both of all in either."""
    edges = (comparison.only_first, comparison.shared_edges, comparison.only_second)
    nodes = (comparison.nodes_only_first, comparison.shared_nodes, comparison.nodes_only_second)
    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    axes = figure.subplots()
    bars = (("edges", edges, comparison.edge_overlap), ("nodes", nodes, comparison.node_overlap))
    for place, (_, parts, _) in enumerate(bars):
        total, left = sum(map(len, parts)), 0.0
        for (name, colour), part in zip(_PARTS, parts, strict=True):
            width = len(part) / total if total else 0.0
            axes.barh(place, width, left=left, color=colour, height=0.6, label=name if place == 0 else None)
            if width > 0.04:
                axes.text(left + width / 2, place, f"{len(part):,}", ha="center", va="center", fontsize=8, color="white")
            left += width
    axes.set_yticks(range(2), [f"{name}\n{overlap:.0%} in both" for name, _, overlap in bars], fontsize=8)
    axes.set_xlabel("share of all in either circuit", fontsize=9)
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    frame(axes, grid="x")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.suptitle(wrapped(title or "Two circuits compared", 70, lines=2), fontsize=10, parse_math=False)
    return figure
