"""Where a circuit's nodes and edges go on paper, in inches: a row a layer's heads or MLP, input below, logits above."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

from circuits.graph import Circuit, Edge, Node, Reader
from circuits.graph.nodes import SLOTS, Slot

Point = tuple[float, float]

BOX_WIDTH, BOX_HEIGHT = 0.86, 0.5
_SPACING = 1.2
_WIDEST = 12
"""Nodes side by side, before a row is broken."""
PORTS: dict[Slot | None, float] = {None: 0.0, "q": -0.27, "k": 0.0, "v": 0.27}
"""Where an edge enters its reader, from the middle of the box."""
_CLEAR = 0.07
_LANE = 0.05
"""Between edges that pass a row side by side; also what counts as room for one in a gap."""


@dataclasses.dataclass(frozen=True)
class BoxRow:
    """Nodes (or readers that heads share) side by side, and what to call them."""

    label: str
    items: tuple[Node | Reader, ...]
    y: float
    at: tuple[float, ...] = ()
    """The centres of the boxes, where they are not spread evenly."""

    def xs(self) -> list[float]:
        """The centres of the boxes."""
        return list(self.at) or [(place - (len(self.items) - 1) / 2) * _SPACING for place in range(len(self.items))]


@dataclasses.dataclass(frozen=True)
class CircuitLayout:
    """Rows of boxes, and for every edge the points it passes: out of its writer, between boxes, into its reader. `columns`: of
    a circuit with roles of tokens their names, each with its left and right end."""

    rows: tuple[BoxRow, ...]
    centres: dict[Node | Reader, Point]
    paths: dict[tuple[Edge, Node | Reader], tuple[Point, ...]]
    width: float
    height: float
    columns: tuple[tuple[str, float, float], ...] = ()


def lay_out(circuit: Circuit) -> CircuitLayout:
    """Place a circuit's nodes and route its edges between them, so that no edge runs behind a box."""
    rows, ends = placed(circuit)
    centres = {item: (x, row.y) for row in rows for item, x in zip(row.items, row.xs(), strict=True)}
    strongest = sorted(circuit.edges, key=lambda edge: -abs(circuit.edges[edge] or 0.0))
    pairs = [(edge, end) for edge in strongest for end in ends[edge]]
    paths = _routes(rows, centres, pairs)
    reach = max((abs(x) for path in paths.values() for x, _ in path), default=0.0)
    widest = max((len(row.items) for row in rows), default=1) * _SPACING
    height = rows[-1].y + BOX_HEIGHT if rows else BOX_HEIGHT
    columns = () if circuit.graph.roles is None else role_columns(circuit, [item for row in rows for item in row.items])
    widest = 2 * max((abs(x) for _, *ends in columns for x in ends), default=widest / 2)
    return CircuitLayout(rows, centres, paths, max(widest, 2 * reach + 0.2), height, columns)


def placed(circuit: Circuit) -> tuple[tuple[BoxRow, ...], dict[Edge, list[Node | Reader]]]:
    """The rows of boxes, and the boxes that each edge runs to."""
    ends = {edge: _ends(circuit, edge) for edge in circuit.edges}
    shared = {end for edge_ends in ends.values() for end in edge_ends if isinstance(end, Reader)}
    items = [*circuit.nodes, *sorted(shared)]
    levels = len({_place(item)[:3] for item in items}) or 1
    gap = 0.45 + min(0.9, 0.03 * len(circuit.edges) / levels)
    if circuit.graph.roles is not None:
        return tuple(_rows_by_role(items, gap, role_columns(circuit, items))), ends
    return tuple(_rows(items, gap)), ends


def role_columns(circuit: Circuit, items: Sequence[Node | Reader]) -> tuple[tuple[str, float, float], ...]:
    """The roles that have boxes, in their order, each with its left and right end: wide enough for its fullest row."""
    assert circuit.graph.roles is not None
    most: dict[str, int] = {}
    for (_, role), count in Counter((_place(item)[:3], _node(item).at or "") for item in items).items():
        most[role] = max(most.get(role, 0), count)
    widths = [(role, most[role] * _SPACING) for role in circuit.graph.roles.names if role in most]
    found, left = [], -sum(width for _, width in widths) / 2
    for role, width in widths:
        found.append((role, left, left + width))
        left += width
    return tuple(found)


def _rows_by_role(items: Sequence[Node | Reader], gap: float, columns: Sequence[tuple[str, float, float]]) -> Iterator[BoxRow]:
    """A row a layer's heads or MLP, whose boxes stand in the columns of their roles."""
    y, order = BOX_HEIGHT / 2, {role: place for place, (role, *_) in enumerate(columns)}
    ordered = sorted(items, key=lambda item: (_place(item)[:3], order[_node(item).at or ""], _place(item)))
    for place, group in itertools.groupby(ordered, key=lambda item: _place(item)[:3]):
        members = list(group)
        xs: list[float] = []
        for role, left, right in columns:
            count = sum(_node(item).at == role for item in members)
            xs += [(left + right) / 2 + (number - (count - 1) / 2) * _SPACING for number in range(count)]
        yield BoxRow(_label(place, members[0]), tuple(members), y, tuple(xs))
        y += BOX_HEIGHT + gap


def _node(item: Node | Reader) -> Node:
    return item.node if isinstance(item, Reader) else item


def _ends(circuit: Circuit, edge: Edge) -> list[Node | Reader]:
    """The boxes that an edge runs to: its reader; for keys or values that heads share, those of the heads that are in
    the circuit, else a box for the shared input itself."""
    heads: list[Node | Reader] = [node for node in circuit.graph.targets(edge) if node in circuit.nodes]
    return heads or [edge.target]


def _rows(items: Sequence[Node | Reader], gap: float) -> Iterator[BoxRow]:
    y = BOX_HEIGHT / 2
    ordered = sorted(items, key=_place)
    for place, group in itertools.groupby(ordered, key=lambda item: _place(item)[:3]):
        members = list(group)
        lines = -(-len(members) // _WIDEST)
        size = -(-len(members) // lines)
        for start in range(0, len(members), size):
            yield BoxRow(_label(place, members[0]) if start == 0 else "", tuple(members[start : start + size]), y)
            y += BOX_HEIGHT + gap


def _place(item: Node | Reader) -> tuple[int, int, int, int, int]:
    """Row and place in it: section, layer, part (shared inputs, heads, MLP), index, slot."""
    node = _node(item)
    section, layer, part, index, _ = node.rank
    slot = SLOTS.index(item.slot) if isinstance(item, Reader) and item.slot else 0
    return (section, layer, part * 2 + (0 if isinstance(item, Reader) else 1), index, slot)


def _label(place: tuple[int, ...], item: Node | Reader) -> str:
    if isinstance(item, Reader):
        return f"layer {place[1]}\nshared inputs"
    if item.layer is None:
        return item.kind
    return f"layer {item.layer}\n" + {"head": "heads", "mlp": "MLP", "neuron": "neurons"}[item.kind]


def _routes(
    rows: tuple[BoxRow, ...], centres: dict[Node | Reader, Point], pairs: list[tuple[Edge, Node | Reader]]
) -> dict[tuple[Edge, Node | Reader], tuple[Point, ...]]:
    """Lead each edge straight up through the row gaps that lie nearest to its line, side by side where they share one."""
    levels = {item: level for level, row in enumerate(rows) for item in row.items}
    starts = [(centres[edge.writer][0], centres[edge.writer][1] + BOX_HEIGHT / 2) for edge, _ in pairs]
    stops = [(centres[end][0] + _port(edge, end), centres[end][1] - BOX_HEIGHT / 2) for edge, end in pairs]
    spans = [range(levels[edge.writer] + 1, levels[end]) for edge, end in pairs]
    between: list[list[Point]] = [[] for _ in pairs]
    for level, row in enumerate(rows):
        wanted = {
            number: start[0] + (stop[0] - start[0]) * (row.y - start[1]) / (stop[1] - start[1])
            for number, (start, stop, span) in enumerate(zip(starts, stops, spans, strict=True))
            if level in span
        }
        for number, x in _crossings(_gaps(row), wanted).items():
            between[number] += [(x, row.y - BOX_HEIGHT / 2), (x, row.y + BOX_HEIGHT / 2)]
    return {pair: (starts[place], *between[place], stops[place]) for place, pair in enumerate(pairs)}


def _port(edge: Edge, end: Node | Reader) -> float:
    return PORTS[None if isinstance(end, Reader) else edge.slot]


def _crossings(gaps: list[tuple[float, float]], wanted: dict[int, float]) -> dict[int, float]:
    """Where each edge crosses a row: in the gap nearest to its line that has room left, in the order of the lines."""
    chosen: dict[int, dict[int, float]] = {place: {} for place in range(len(gaps))}
    for number, x in wanted.items():
        room = [place for place, (low, high) in enumerate(gaps) if len(chosen[place]) < (high - low) / _LANE - 0.5]
        nearest = min(room, key=lambda place: max(gaps[place][0] - x, x - gaps[place][1], 0.0))
        chosen[nearest][number] = x
    found = {}
    for place, members in chosen.items():
        ordered = sorted(members, key=lambda number: (members[number], number))
        lanes = _lanes(gaps[place], [members[number] for number in ordered])
        found.update(zip(ordered, lanes, strict=True))
    return found


def _gaps(row: BoxRow) -> list[tuple[float, float]]:
    """The free stretches of a row: left of its boxes, between them, right of them."""
    xs = row.xs()
    half = BOX_WIDTH / 2 + _CLEAR
    inner = [(left + half, right - half) for left, right in itertools.pairwise(xs)]
    return [(float("-inf"), xs[0] - half), *inner, (xs[-1] + half, float("inf"))]


def _lanes(gap: tuple[float, float], wanted: list[float]) -> list[float]:
    """Spread crossings over a gap in their order: evenly where it is narrow, apart from each other where it is open."""
    low, high = gap
    count = len(wanted)
    if low == float("-inf"):
        return [-x for x in reversed(_lanes((-high, float("inf")), [-x for x in reversed(wanted)]))]
    if high == float("inf"):
        found: list[float] = []
        for x in wanted:
            found.append(max(x, low, found[-1] + _LANE if found else low))
        return found
    return [low + (high - low) * (place + 1) / (count + 1) for place in range(count)]
