"""How well logical forms fit neurons, beside chance, and whether neurons that are explained well are needed."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.concepts import NeuronForm, NeuronForms
from circuits.files.pictures import draws
from circuits.plots.style import BASELINE, BLUE, ERRORS, FAINT, INK, ORANGE, SKY, frame
from circuits.plots.text import wrapped
from circuits.probes.results import SURE

_FEW = 8
"""Neurons up to which a form may take several lines."""


@draws(NeuronForms)
def neuron_forms_figure(found: NeuronForms, *, most: int = 30) -> Figure:
    """Draw of each neuron, best first, the IoU of its form on all of the text and of the form chosen on half of it on the other
    half (filled where that is more than chance), beside what both are for masks that were moved; at most `most` neurons. To the
    right, where it was measured, by how much the loss rises without the neuron against the IoU on held-out text."""
    chosen = found.ranked[:most]
    used = [one for one in found.neurons if one.rise is not None and one.held_iou is not None]
    wide = len(used) > 2
    height = (0.23 if len(chosen) > _FEW else 0.5) * max(len(chosen), 4) + 1.7
    figure = Figure(figsize=(11.0 if wide else 7.6, height), layout="constrained")
    axes = figure.subplots(1, 2 if wide else 1, width_ratios=[1.7, 1] if wide else None, squeeze=False)[0]
    _bars(axes[0], chosen, found.moves)
    if wide:
        _use(axes[1], used, found)
    few = f"; {len(found.sure):,} of {len(found.neurons):,} fit held-out text by more than chance"
    said = f"{found.model}: neurons as forms of up to {found.length} of {found.concepts:,} concepts ({found.source}){few}"
    figure.suptitle(wrapped(said, 130 if wide else 92, lines=2), fontsize=9.5, parse_math=False)
    return figure


def _bars(axes: Axes, chosen: Sequence[NeuronForm], moves: int) -> None:
    """The fit of each neuron's form, and chance."""
    at = np.arange(len(chosen))
    axes.barh(at, [one.iou for one in chosen], height=0.7, color=SKY, label="all of the text")
    if moves:
        axes.plot(
            [one.null or 0.0 for one in chosen], at, "|", color=INK, markersize=8, label=f"the same search, moved ({moves}×)"
        )
    held = [(place, one) for place, one in enumerate(chosen) if one.held_iou is not None]
    for sure, face in ((True, BLUE), (False, "white")):
        own = [(one.held_iou or 0.0, place) for place, one in held if one.sure == sure]
        label = "held out, more than chance" if sure else "held out"
        axes.plot([x for x, _ in own], [y for _, y in own], "o", color=BLUE, markerfacecolor=face, markersize=4, label=label)
    chance = [(one.held_null or 0.0, place) for place, one in held]
    axes.plot([x for x, _ in chance], [y for _, y in chance], "|", color=ORANGE, markersize=6, label="held out, by chance")
    lines = 1 if len(chosen) > _FEW else 3
    names = [wrapped(f"{one.neuron}  {' '.join(one.form.split())}", 64, lines=lines) for one in chosen]
    axes.set_yticks(at, names, fontsize=6.5, parse_math=False)
    axes.set_ylim(len(chosen) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel("IoU of neuron and form", fontsize=8)
    axes.legend(fontsize=6.5, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.12 - 0.6 / (len(chosen) + 3)))
    frame(axes, grid="x", labels=7.5)


def _use(axes: Axes, used: list[NeuronForm], found: NeuronForms) -> None:
    """Explained well against needed."""
    x, y = ([getattr(one, name) for one in used] for name in ("held_iou", "rise"))
    errors = [SURE * (one.rise_error or 0.0) for one in used]
    axes.errorbar(x, y, yerr=errors, fmt="o", color=BLUE, markersize=3.5, **{**ERRORS, "ecolor": FAINT, "elinewidth": 0.6})
    axes.axhline(0, color=BASELINE, linewidth=0.8)
    axes.set_xlabel("IoU on held-out text", fontsize=8)
    axes.set_ylabel("rise in loss without the neuron (nats)", fontsize=8)
    if found.agreement is not None:
        one = found.agreement
        said = f"Spearman {one.effect:+.2f} [{one.low:.2f}, {one.high:.2f}]\nover {len(used)} neurons"
        axes.set_title(said, fontsize=8, parse_math=False)
    frame(axes, grid="both", labels=7.5)
