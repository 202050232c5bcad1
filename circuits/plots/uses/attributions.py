"""Texts with coloured words, and what taking the words out does."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from circuits.files.pictures import draws
from circuits.plots.style import BASELINE, BLUE, FAINT, INK, ORANGE, SIGNED, SKY, frame
from circuits.plots.text import shortened, wrapped
from circuits.uses import Faithfulness, WordAttributions

_TEXTS, _LINES, _WIDTH = 8, 3, 560.0
"""Texts that are drawn, lines of each, and points of a line."""
_SIZE = 8.5


@draws(WordAttributions)
def word_attributions_figure(found: WordAttributions, *, title: str | None = None) -> Figure:
    """Draw the first texts with their words coloured: blue speaks for the class, vermilion against it, the strongest word of
    each text in full colour. Below, the class's probability when words are taken out."""
    blocks = [_lines(found.words[text], found.numbers[text]) for text in range(min(_TEXTS, len(found.texts)))]
    height = sum(len(block) + 1.2 for block in blocks) * 0.22
    tested = found.faithfulness
    figure = Figure(figsize=(9.0, 0.6 + height + (2.6 if tested is not None else 0)), layout="constrained")
    axes = figure.subplots(2, 1, height_ratios=[height, 2.4]) if tested is not None else [figure.subplots()]
    _texts(axes[0], found, blocks)
    if tested is not None:
        _removal(axes[1], tested)
    heading = title or found.summary
    figure.suptitle(wrapped(heading, 110), fontsize=9.5, parse_math=False)
    return figure


def _lines(words: tuple[str, ...], numbers: tuple[float, ...]) -> list[list[tuple[str, float, float, float]]]:
    """Words in lines: text, number over the largest, left end and width in points."""
    largest = max((abs(number) for number in numbers), default=0.0) or 1.0
    lines: list[list[tuple[str, float, float, float]]] = [[]]
    x = 0.0
    for word, number in zip(words, numbers, strict=True):
        said = shortened(word, 28)
        width = TextPath((0, 0), said, size=_SIZE, usetex=False).get_extents().width if said.strip() else 4.0
        if x + width > _WIDTH and lines[-1]:
            if len(lines) == _LINES:
                lines[-1].append(("…", 0.0, x, 8.0))
                break
            lines.append([])
            x = 0.0
        lines[-1].append((said, number / largest, x, width))
        x += width + 7
    return lines


def _texts(axes: Axes, found: WordAttributions, blocks: list[list[list[tuple[str, float, float, float]]]]) -> None:
    axes.set_axis_off()
    legend = {"fontsize": 7, "color": FAINT, "va": "center", "ha": "right"}
    axes.text(_WIDTH, 0, "blue: for the class, orange: against it", **legend)
    y = 0.0
    for text, block in enumerate(blocks):
        own = found.labels[text] if found.labels else found.explained[text]
        named = f"{found.classes[found.explained[text]]}, margin {float(found.margins[text]):+.2f}"
        named += "" if own == found.explained[text] else f" (the text is {found.classes[own]})"
        axes.text(0, y, shortened(named, 90), fontsize=7, color=FAINT, va="center", parse_math=False)
        y += 1
        for line in block:
            for said, strength, x, width in line:
                box = {"facecolor": SIGNED((strength + 1) / 2), "edgecolor": "none", "boxstyle": "square,pad=0.15"}
                dark = "white" if abs(strength) > 0.75 else "black"
                at = {"fontsize": _SIZE, "va": "center", "ha": "center", "color": dark, "bbox": box, "parse_math": False}
                axes.text(x + width / 2, y, said, **at)
            y += 1
        y += 0.2
    axes.set_xlim(-2, _WIDTH + 6)
    axes.set_ylim(y, -0.8)


def _removal(axes: Axes, tested: Faithfulness) -> None:
    x = [100 * share for share in tested.shares]
    columns = (
        ("without the words that count most", tested.without, BLUE, "-"),
        ("without random words", tested.without_random, BASELINE, "-"),
        ("with these words alone", tested.alone, ORANGE, "--"),
        ("with random words alone", tested.alone_random, SKY, "--"),
    )
    for name, values, colour, line in columns:
        axes.plot(x, values.nanmean(dim=1).tolist(), line, color=colour, marker="o", markersize=3, linewidth=1.3, label=name)
    axes.axhline(float(tested.whole.mean()), color=INK, linewidth=0.7, linestyle=":")
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("words that are taken out, or left alone, %", fontsize=8.5)
    axes.set_ylabel("probability of the class\n(dotted: of the whole text)", fontsize=8.5)
    axes.legend(fontsize=7, frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.45, 1.0))
    frame(axes)
