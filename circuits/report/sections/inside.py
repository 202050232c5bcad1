"""What changed inside of a mended classifier as a section: its nodes, its neurons, and its circuits."""

from circuits.report.blocks import AnyBlock, Chart, Grid, Paragraphs, Section
from circuits.report.sections.general import table_of
from circuits.report.sections.series import line
from circuits.uses import InsideChange
from circuits.uses.inside import InsideNeurons

_MOST = 20


def inside_section(found: InsideChange, *, title: str = "What changed inside") -> Section:
    """For each kind of words the nodes that carry it before and after and the neurons that change; what the circuits keep by
    themselves, and what they share."""
    blocks: list[AnyBlock] = [Paragraphs([found.summary])]
    for at, kind in enumerate(found.kinds):
        blocks.append(_nodes(found, at))
        blocks += [] if found.neurons is None else [_neurons(found.neurons, at, kind)]
    blocks += [_circuits(found), _shared(found)] if found.overlaps else []
    return Section(title, [*blocks, table_of(found)])


def _nodes(found: InsideChange, at: int) -> Chart:
    """The heads and MLPs that carry most, in the order of computation."""
    sizes = found.before[at].abs().maximum(found.after[at].abs())
    order = sizes.argsort(descending=True, stable=True)[:_MOST].sort().values
    places = [float(place) for place in range(len(order))]
    before = line("before", places, found.before[at][order].tolist(), colour="faint", look="points")
    after = {"name": "after", "look": "points", "colour": "0", "x": places, "y": found.after[at][order].tolist()}
    # The interval is that of the change: it stands about what the node carries now.
    for name in ("low", "high"):
        after |= {name: (found.before[at] + getattr(found, name)[at])[order].tolist()}
    marks = [" *" if bool(found.sure[at, place]) else "" for place in order]
    ticks = [(place, found.nodes[row] + mark) for place, row, mark in zip(places, order.tolist(), marks, strict=True)]
    caption = f"{found.kinds[at]}: by how much the margin falls with what a node says of the swapped text (* surely changed)"
    return Chart(caption, [before, after], "", "logits", lines_at=(0.0,), x_ticks=ticks)


def _neurons(found: InsideNeurons, at: int, kind: str) -> Grid:
    header = ("neuron", "before", "after", "change", "p", "patched, before", "patched, after")
    header = (*header, "active at, before", "active at, after", "raises, before", "raises, after")
    numbers = (found.before, found.after, found.change, found.p_values, found.patched_before, found.patched_after)
    rows = [
        (
            found.names[place],
            *(float(one[at, place]) for one in numbers),
            *(" ".join(one[place]) for one in (found.active_before, found.active_after)),
            found.raises_before[place],
            found.raises_after[place],
        )
        for place in found.order(at)
    ]
    held = f"{found.held_before[at]:.0%} of what all have before, {found.held_after[at]:.0%} after"
    return Grid(header, rows, f"{kind}: {len(found.names)} of {found.scored:,} neurons, by attribution ({held})")


def _circuits(found: InsideChange) -> Grid:
    rows = []
    for at, kind in enumerate(found.kinds):
        for when, one in (("before", found.verdicts_before[at]), ("after", found.verdicts_after[at])):
            rows.append(
                (f"{kind}, {when}", one.edges, *vars(one.faithfulness).values(), one.p_value, one.incompleteness, one.standing)
            )
    caption = "The circuits, searched on half of the texts: what they keep on the other half; gap: without sets of nodes"
    return Grid(("circuit", "edges", "keeps", "from", "to", "p", "gap", "verdict"), rows, caption)


def _shared(found: InsideChange) -> Grid:
    rows = [
        (kind, found.shared_edges[at], one.control, one.apart, one.own)
        for at, (kind, one) in enumerate(zip(found.kinds, found.overlaps, strict=True))
    ]
    header = (
        "shares of edges",
        "before and after",
        "two plain trainings",
        "before and after, other texts",
        "one and itself, other texts",
    )
    return Grid(header, rows, "What the circuits have in common (shared edges over all edges of either)")
