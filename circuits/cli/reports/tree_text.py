"""A sentence with its tree as text: relations of the annotation as arcs above the words, those that a probe tells below."""

from collections.abc import Sequence

from circuits.cli.text import one_line
from circuits.probes.trees.results import ShownTree

_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_BOXES = {0: " ", _UP: "│", _DOWN: "│", _UP | _DOWN: "│", _LEFT | _RIGHT: "─", _LEFT: "─", _RIGHT: "─"}
_BOXES |= {_UP | _LEFT: "┘", _UP | _RIGHT: "└", _DOWN | _LEFT: "┐", _DOWN | _RIGHT: "┌"}
_BOXES |= {_UP | _LEFT | _RIGHT: "┴", _DOWN | _LEFT | _RIGHT: "┬", _UP | _DOWN | _LEFT: "┤", _UP | _DOWN | _RIGHT: "├"}
_BOXES |= {_UP | _DOWN | _LEFT | _RIGHT: "┼"}
"""Which way lines go from a cell → what is drawn there."""
_WIDEST = 100
"""Characters of a line: wider sentences are not drawn."""


def tree_text(tree: ShownTree) -> str:
    """The words with the annotation's arcs above and the probe's below, and the relations that are in one of them alone; these
    by themselves where the sentence is too wide."""
    words = [one_line(word) for word in tree.words]
    wrong = [f"{words[one]}-{words[other]}" for one, other in tree.told if frozenset((one, other)) not in tree.right]
    missed = [f"{words[one]}-{words[other]}" for one, other in tree.gold if frozenset((one, other)) not in tree.right]
    said = f"below, {len(tree.right)} of {len(tree.gold)} relations are right"
    said += f"; wrong: {', '.join(wrong)}; missed: {', '.join(missed)}" if wrong or missed else ""
    line, middles = "", list[int]()
    for word in words:
        middles.append(len(line) + len(word) // 2)
        line += f"{word} "
    if len(line) > _WIDEST:
        return f"{line.rstrip()}\n{said}"
    above, below = arcs(tree.gold, middles, len(line)), arcs(tree.told, middles, len(line), down=True)
    return "\n".join([*above, line.rstrip(), *below, said])


def arcs(edges: Sequence[tuple[int, int]], middles: Sequence[int], width: int, *, down: bool = False) -> list[str]:
    """Lines of text with an arc for each edge between words whose middles are at these columns; above the words, or below."""
    spans = sorted((tuple(sorted(edge)) for edge in edges), key=lambda span: span[1] - span[0])
    levels = dict[tuple[int, ...], int]()
    for first, last in spans:
        under = [level for (start, stop), level in levels.items() if start < last and first < stop]
        levels[first, last] = 1 + max(under, default=0)
    height = max(levels.values(), default=0)
    cells = [[0] * width for _ in range(height)]  # the row that is nearest to the words comes first
    for (first, last), level in levels.items():
        left, right = middles[first], middles[last]
        for row in range(level - 1):
            cells[row][left] |= _UP | _DOWN
            cells[row][right] |= _UP | _DOWN
        cells[level - 1][left] |= _DOWN | _RIGHT
        cells[level - 1][right] |= _DOWN | _LEFT
        for column in range(left + 1, right):
            cells[level - 1][column] |= _LEFT | _RIGHT
    if down:
        turned = {_UP: _DOWN, _DOWN: _UP}
        cells = [[sum(turned.get(way, way) for way in (1, 2, 4, 8) if cell & way) for cell in row] for row in cells]
    rows = cells if down else cells[::-1]
    return ["".join(_BOXES[cell] for cell in row).rstrip() for row in rows]
