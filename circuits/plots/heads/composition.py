"""Which heads read which, by weights: composition as a heatmap of writers by readers."""

import numpy as np
from matplotlib.figure import Figure

from circuits.errors import CircuitsError
from circuits.files.pictures import draws
from circuits.heads import Composition
from circuits.plots.style import INK, SIGNED, colour_bar

_SLOTS = {"q": "Q (queries)", "k": "K (keys)", "v": "V (values)"}
_MOST_LABELS = 24


@draws(Composition)
def composition_figure(composition: Composition) -> Figure:
    """Draw Q-, K- and V-composition of every pair of heads, less the mean of random matrices: writers to the right, readers
    upwards, one scale for all three. Raises CircuitsError for a model of one layer, which has no pairs."""
    layers, heads = composition.q.shape[:2]
    if layers < 2:
        raise CircuitsError("a model of one layer has no heads that read heads: there is nothing to draw")
    tables = {slot: getattr(composition, slot).reshape(layers * heads, layers * heads).T.numpy() for slot in _SLOTS}
    reach = max(max(float(np.abs(table).max()) for table in tables.values()), 1e-9)
    side = min(max(0.11 * layers * heads, 2.2), 5.5)
    figure = Figure(figsize=(3 * side + 1.6, side + 1.3), layout="constrained")
    step = -(-layers * heads // _MOST_LABELS)
    places = range(0, layers * heads, step)
    names = [f"a{place // heads}.h{place % heads}" for place in places]
    panels = figure.subplots(1, 3)
    for axes, (slot, table) in zip(panels, tables.items(), strict=True):
        options = {"cmap": SIGNED, "vmin": -reach, "vmax": reach, "interpolation": "nearest"}
        image = axes.imshow(table, origin="lower", **options)
        axes.set_title(_SLOTS[slot], fontsize=9)
        axes.set_xticks(places, names, fontsize=6, rotation=90)
        axes.set_yticks(places, names if axes is panels[0] else [""] * len(names), fontsize=6)
        axes.set_xlabel("writer", fontsize=8)
        for layer in range(1, layers):
            axes.axhline(layer * heads - 0.5, color=INK, linewidth=0.3)
            axes.axvline(layer * heads - 0.5, color=INK, linewidth=0.3)
    panels[0].set_ylabel("reader", fontsize=8)
    colour_bar(panels[-1], image, "composition less chance")
    figure.suptitle(f"Composition of heads, less that of random matrices ({composition.random:.3f})", fontsize=10.5)
    return figure
