"""Training, curve by curve: heads, composition and losses by step, with the phase change shaded."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from circuits.errors import CircuitsError, NonFiniteError
from circuits.files.pictures import draws
from circuits.heads import TrainingCurves
from circuits.plots.style import BLUE, GREEN, INK, ORANGE, PINK, SKY, VERMILION, frame
from circuits.plots.text import shortened, wrapped

_PANELS = {
    "prefix_matching": ("prefix matching, best head", "share of attention"),
    "previous_token": ("previous token, best head", "share of attention"),
    "k_composition": ("K-composition of these two heads", "above random matrices"),
    "icl_score": ("in-context learning: loss late − early", "nats"),
    "second_loss": ("random tokens said a second time", "loss, nats"),
    "loss": ("held-out text", "loss, nats"),
}
"""Curve → title and axis, in the order of the panels."""
_COLOURS = (BLUE, VERMILION, GREEN, PINK, ORANGE, SKY)
PUBLISHED = (
    "Published (Olsson et al. 2022): the in-context-learning score and prefix matching jump together during training; models "
    "of one layer never show it (except with smeared keys)."
)


@draws(TrainingCurves)
def training_curves_figure(curves: TrainingCurves) -> Figure:
    """Draw one run's curves by training step, the phase change shaded."""
    return phase_change_figure({curves.model: [curves]})


def phase_change_figure(
    groups: Mapping[str, Sequence[TrainingCurves]], *, low: float = 0.1, high: float = 0.6, title: str | None = None
) -> Figure:
    """Draw every curve by training step, a colour a group and a line a run (a seed, say), with the published description below.

    Shaded: the window in which a run's prefix matching goes from `low` to `high`. Raises CircuitsError where there is nothing
    to draw or a group has more than one kind of model's curves.
    """
    if not groups or not all(groups.values()):
        raise CircuitsError(f"there are no training curves to draw for {[name for name in groups if not groups[name]]}")
    if len(groups) > len(_COLOURS):
        raise CircuitsError(f"{len(groups)} groups to draw; expected at most {len(_COLOURS)}")
    there = {curve for runs in groups.values() for run in runs for curve in run.curves}
    panels = [name for name in _PANELS if name in there]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.6 * columns + 0.2, 2.6 * rows + 1.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axes, name in zip(grid.flat, panels, strict=False):
        _panel(axes, name, groups, (low, high))
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for column in range(columns):  # the lowest panel of a column has the steps' numbers
        lowest = grid[(len(panels) - 1 - column) // columns, column]
        lowest.set_xlabel("training step", fontsize=9)
        lowest.tick_params(labelbottom=True)
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(), loc="outside upper right", fontsize=8, frameon=False, ncols=len(groups)
    )
    heading = title or "Prefix matching and in-context learning through training"
    width = int(figure.get_figwidth() * 11)
    figure.suptitle(wrapped(heading, int(width * 0.55)), fontsize=10.5, parse_math=False, x=0.01, ha="left")
    figure.supxlabel(wrapped(f"{PUBLISHED} {_rule(low, high)}", int(width * 1.5), lines=5), fontsize=7.5, x=0.01, ha="left")
    return figure


def _rule(low: float, high: float) -> str:
    return (
        f"Shaded: the window of each run from the last step below {low:g} to the first at {high:g} or more (medians of three)."
    )


def _panel(axes: Axes, name: str, groups: Mapping[str, Sequence[TrainingCurves]], bounds: tuple[float, float]) -> None:
    for (group, runs), colour in zip(groups.items(), _COLOURS, strict=False):
        label = f"{shortened(group, 40)} ({len(runs)} run{'s' * (len(runs) > 1)})"
        for run in runs:
            change = run.phase_change(low=bounds[0], high=bounds[1])
            if change is not None:
                axes.axvspan(change.start, change.end, color=colour, alpha=0.25 / len(runs) + 0.05, linewidth=0)
            if name not in run.curves:
                continue
            values = run.curves[name]
            if not bool(values.isfinite().all()):
                raise NonFiniteError(f"{name} of {run.model} holds a number that is not finite")
            axes.plot(run.steps, values.numpy(), color=colour, linewidth=1.2, alpha=0.85, label=label)
            label = "_"
    if name == "prefix_matching":
        for bound in bounds:
            axes.axhline(bound, color=INK, linewidth=0.7, linestyle=":")
    if name in ("prefix_matching", "previous_token"):
        axes.set_ylim(0, 1)
    if any(_spread_out(run.steps) for runs in groups.values() for run in runs):
        axes.set_xscale("symlog", linthresh=max(1, min(run.steps[1] for runs in groups.values() for run in runs)))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    heading, unit = _PANELS[name]
    axes.set_title(heading, fontsize=9)
    axes.set_ylabel(unit, fontsize=8)
    frame(axes, grid="both")


def _spread_out(steps: Sequence[int]) -> bool:
    """Whether steps are recorded ever more rarely, as the checkpoints of large models are."""
    return len(steps) > 2 and steps[-1] - steps[-2] > 8 * (steps[1] - steps[0])
