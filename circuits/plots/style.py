"""One look for all pictures: colours, frames, colour bars, numbers in cells.

Colours are those of Okabe and Ito, which people who see colours differently can tell apart. Positive is blue and negative
vermilion in every picture that shows signs.
"""

from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LinearSegmentedColormap

BLUE, SKY, GREEN, ORANGE, VERMILION, PINK, YELLOW = (
    "#0072b2",
    "#56b4e9",
    "#009e73",
    "#e69f00",
    "#d55e00",
    "#cc79a7",
    "#f0e442",
)
POSITIVE, NEGATIVE, NEUTRAL = BLUE, VERMILION, "#8c8c8c"
INK, CAPTION, FAINT = "#303030", "#404040", "#666666"
"""Lines at zero and error bars; captions; what stands back."""
BASELINE, BAND, GRID, EMPTY, ROW = "#999999", "#d0d0d0", "#e0e0e0", "#c8c8c8", "#f5f5f5"
"""What is compared with; its band; grid lines; cells without a value; the ground of a row of nodes."""

SIGNED = LinearSegmentedColormap.from_list("signed", [NEGATIVE, "#ffffff", POSITIVE])
"""Colours of values with a sign, white at 0: draw from −x to x."""

ERRORS = {"ecolor": INK, "elinewidth": 0.9, "capsize": 2.0}
"""How error bars look, for `errorbar` and for `error_kw`."""


def frame(axes: Axes, *, grid: Literal["x", "y", "both"] | None = "y", labels: float = 8.0) -> None:
    """Leave the left and the lower line of a frame, with a pale grid behind what is drawn, and labels of that size. A grid
    of x alone belongs to horizontal bars: the names beside them keep their size."""
    axes.tick_params(axis="x" if grid == "x" else "both", labelsize=labels)
    if grid is not None:
        axes.grid(axis=grid, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def colour_bar(axes: Axes, image: Any, said: str = "", *, fraction: float = 0.05, pad: float = 0.02) -> Colorbar:
    """A slim bar beside the axes that says what the colours mean."""
    bar = axes.get_figure().colorbar(image, ax=axes, fraction=fraction, pad=pad)  # type: ignore[union-attr]
    bar.ax.tick_params(labelsize=7)
    if said:
        bar.set_label(said, fontsize=8)
    return bar


def contrast(image: Any, value: float) -> str:
    """Black or white, whichever can be read on the colour of this value (by its luma, ITU-R BT.601)."""
    red, green, blue, _ = image.cmap(image.norm(value))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "black"


def annotate(axes: Axes, image: Any, values: np.ndarray, *, digits: int = 2, size: float = 6.0) -> None:
    """Write each finite number into its cell (.25, -.50, 1.00), dark on light and light on dark."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = f"{round(float(value), digits) + 0.0:.{digits}f}"  # + 0.0: no minus in front of a zero
            text = text.replace("0.", ".", 1) if text.removeprefix("-").startswith("0.") and float(text) else text
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=contrast(image, value))
