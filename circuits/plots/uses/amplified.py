"""How often a larger model is right with rationales in its prompt, without, and with random words."""

from matplotlib.figure import Figure

from circuits.files.pictures import draws
from circuits.plots.style import BASELINE, BLUE, INK, ORANGE, SKY, frame
from circuits.plots.text import shortened, wrapped
from circuits.uses import Amplified

_ROWS = (
    ("none", "without rationales", BASELINE),
    ("rationales", "with the words that count", BLUE),
    ("random", "with random words", SKY),
    ("small", "the small classifier", ORANGE),
)


@draws(Amplified)
def amplified_figure(found: Amplified, *, title: str | None = None) -> Figure:
    """Draw the share of texts told right under each condition with its 95 % interval, and the small classifier's."""
    figure = Figure(figsize=(6.8, 2.9), layout="constrained")
    axes = figure.subplots()
    for at, (condition, _, colour) in enumerate(_ROWS):
        right = found.accuracy(condition)
        reach = [[max(0.0, right.effect - right.low)], [max(0.0, right.high - right.effect)]]
        axes.errorbar([right.effect], [at], xerr=reach, fmt="o", color=colour, capsize=3, elinewidth=1.3)
    axes.axvline(1 / len(found.classes), color=INK, linewidth=0.6, linestyle=":")
    axes.set_yticks(range(len(_ROWS)), [words for _, words, _ in _ROWS], fontsize=8.5)
    axes.set_ylim(len(_ROWS) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(f"share of {len(found.texts)} texts told right (dotted: one in as many as there are classes)", fontsize=8.5)
    frame(axes, grid="x")
    heading = title or f"{shortened(found.larger, 40)}: {found.summary.partition(': ')[2]}"
    figure.suptitle(wrapped(heading, 88), fontsize=9, parse_math=False)
    return figure
