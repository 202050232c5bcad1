"""What holding a classifier to what people say changes, over seeds."""

import numpy as np
from matplotlib.figure import Figure

from circuits.files.pictures import draws
from circuits.plots.style import BASELINE, BLUE, INK, frame
from circuits.plots.text import shortened, wrapped
from circuits.uses import ErTest


@draws(ErTest)
def er_test_figure(found: ErTest, *, title: str | None = None) -> Figure:
    """Draw, test by test, the share that is right with plain training and with regularisation, a pair of points a seed; to the
    right the mean gain with Student's 95 % interval over seeds."""
    figure = Figure(figsize=(8.4, 1.7 + 0.45 * len(found.tests)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.6, 1])
    at = np.arange(len(found.tests))
    plain, held = found.plain.numpy(), found.regularised.numpy()
    for seed in range(len(found.seeds)):
        left.hlines(at, plain[seed], held[seed], color=BASELINE, linewidth=0.6, alpha=0.7)
    for values, colour, label in ((plain, BASELINE, "plain training"), (held, BLUE, f"regularised ({found.distance})")):
        left.plot(values.ravel(), np.tile(at, len(found.seeds)), "o", color=colour, markersize=4, alpha=0.75, label=label)
    left.set_xlim(-0.02, 1.02)
    left.set_xlabel("share that is right", fontsize=8.5)
    left.legend(fontsize=7.5, frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0))
    for row, test in enumerate(found.tests):
        gain = found.gain(test)
        reach = [[gain.effect - gain.low], [gain.high - gain.effect]]
        right.errorbar(gain.effect, row, xerr=np.clip(reach, 0, None), fmt="o", color=BLUE, capsize=2, elinewidth=1)
    right.axvline(0, color=INK, linewidth=0.8)
    right.set_xlabel(f"gain, mean of {len(found.seeds)} seeds", fontsize=8.5)
    names = [f"{shortened(test, 28)}\n({kind})" for test, kind in zip(found.tests, found.kinds, strict=True)]
    left.set_yticks(at, names, fontsize=8, parse_math=False)
    left.set_ylim(len(at) - 0.5, -0.5)
    for axes in (left, right):
        frame(axes, grid="x")
    heading = (
        title or f"{shortened(found.model, 30)}: {found.rationale} rationale held to people's, strength {found.strength:g}"
    )
    figure.suptitle(wrapped(heading, 90), fontsize=10.5, parse_math=False)
    return figure
