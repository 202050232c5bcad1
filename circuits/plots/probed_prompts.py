"""Facts by typed and trained prompts, relation by relation."""

import numpy as np
from matplotlib.figure import Figure

from circuits.files.pictures import draws
from circuits.plots.style import BLUE, FAINT, GREEN, ORANGE, PINK, frame
from circuits.plots.text import shortened, wrapped
from circuits.probes import PromptProbes
from circuits.probes.prompts.results import KINDS
from circuits.probes.results import SURE

_LOOKS = (("^", GREEN), ("o", BLUE), ("s", ORANGE), ("D", PINK), ("|", FAINT))
_MOST = 30


@draws(PromptProbes)
def prompt_probes_figure(probes: PromptProbes, *, title: str | None = None) -> Figure:
    """Draw the share of held-out facts that each kind of prompt gets right in each relation with 95 % intervals; all facts, and
    those that no control gets right, below. Of more than 30 relations those with the most facts are drawn."""
    table = probes.to_dataframe()
    *own, everything, hard = table.to_dict("records")
    least = sorted((row["facts"] for row in own), reverse=True)[:_MOST][-1]
    rows = [*[row for row in own if row["facts"] >= least][:_MOST], everything, hard]
    places = np.arange(len(rows), dtype=float)
    places[-2:] += 0.5
    names = [shortened(f"{row['relation'] or 'no relation'} ({row['facts']:,})", 44) for row in rows]
    figure = Figure(figsize=(8.2, 0.36 * len(rows) + 1.7), layout="constrained")
    axes = figure.subplots()
    for at, (kind, (marker, colour)) in enumerate(zip(KINDS, _LOOKS, strict=True)):
        name = kind.replace(" ", "_")
        means, errors = (np.array([row[column] for row in rows], dtype=float) for column in (name, f"{name}_error"))
        if np.isfinite(means).any():
            style = {"color": colour, "marker": marker, "markersize": 5, "linestyle": "none", "elinewidth": 0.8, "capsize": 1.5}
            size = {"markersize": 10, "markeredgewidth": 1.8} if marker == "|" else {}
            half = SURE * errors  # no share is below 0 or above 1
            spread = None if kind == "majority" else np.stack([np.fmin(half, means), np.fmin(half, 1 - means)])
            axes.errorbar(means, places + 0.13 * (at - 2), xerr=spread, label=kind, clip_on=False, **{**style, **size})
    axes.set_yticks(places, names, fontsize=8, parse_math=False)
    axes.set_ylim(places[-1] + 0.6, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of held-out facts, among the relation's objects; lines: 95 % intervals", fontsize=8.5)
    frame(axes, grid="x")
    figure.legend(loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    heading = title or f"Facts that {shortened(probes.model, 40)} completes, by prompts"
    figure.suptitle(wrapped(heading, 90), fontsize=10.5, parse_math=False)
    return figure
