"""The phase change: small attention-only models learn to copy what they have seen, all at once, if they have two layers.

    python experiments/phase_change.py [--seeds 3] [--models one-layer,two-layer] [--out out/phase_change] [--json]

Models of one and of two layers are trained from scratch on text that repeats at random lags (phase_change_training.py), about a
minute each on one core. Every 20 steps they are measured: prefix matching and previous-token score of the best head and
K-composition, as `circuits.score_heads` and `composition_scores` define them; the in-context-learning score (loss at the last 8
of 64 positions minus loss at positions 4 to 7, held-out text); the loss of random tokens said for the first and second time.

The rule: a curve is smoothed by running medians of three. The window of the phase change goes from the last step with prefix
matching below 0.1 to the first at 0.6 or more. Its step is the middle of the 5 % of training over which prefix matching rises
most; by in-context learning and by loss, the middle of the 5 % over which the score, and the loss of what is said a second
time, fall most. A run that was stopped goes on where it was when the same command is given again.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from circuits.cli.output import staged
from circuits.cli.progress import ProgressBars
from circuits.errors import CircuitsError
from circuits.heads import TrainingCurves, steepest
from circuits.plots.heads.training import PUBLISHED, phase_change_figure
from experiments.ground_truth import chosen
from experiments.phase_change_training import Recipe, train

LAYERS = {"one-layer": 1, "two-layer": 2}
LOW, HIGH, WINDOW, NEVER = 0.1, 0.6, 0.15, 0.15
"""The targets: prefix matching before and after, the window as a share of training, and what one layer stays below."""


def summary(recipe: Recipe, curves: TrainingCurves) -> dict[str, Any]:
    """What is reported of a run; the steps of the change are None where prefix matching shows none."""
    values = curves.curves
    change = curves.phase_change(low=LOW, high=HIGH)
    row: dict[str, Any] = {"model": "one-layer" if recipe.layers == 1 else "two-layer", "seed": recipe.seed}
    row |= {"highest": float(values["prefix_matching"].max()), "last": float(values["prefix_matching"][-1])}
    row |= {"before": None, "start": None, "end": None, "share": None, "step": None, "step_icl": None, "step_loss": None}
    if change is not None:
        row |= {"before": change.before, "start": change.start, "end": change.end, "share": change.share, "step": change.step}
        for name, curve in (("step_icl", "icl_score"), ("step_loss", "second_loss")):
            row[name] = steepest(curves.steps, values[curve].tolist(), falling=True)[0]
    row["apart"] = None if change is None else max(steps := [row[n] for n in ("step", "step_icl", "step_loss")]) - min(steps)
    _, row["largest_icl_fall"] = steepest(curves.steps, values["icl_score"].tolist(), falling=True)
    row |= {"last_icl": float(values["icl_score"][-1]), "last_second_loss": float(values["second_loss"][-1])}
    row["heads"] = f"{curves.previous_token_head} -> {curves.induction_head}" if recipe.layers > 1 else curves.induction_head
    if "k_composition" in values:
        row |= {"k_first": float(values["k_composition"][0]), "k_last": float(values["k_composition"][-1])}
    return row


def targets(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each target beside what was measured, a number a seed (None: no phase change)."""
    asked = [
        ("two-layer", f"prefix matching before, < {LOW}", "before", lambda value: value < LOW),
        ("two-layer", f"prefix matching after, > {HIGH}", "last", lambda value: value > HIGH),
        ("two-layer", f"window as a share of training, <= {WINDOW:.0%}", "share", lambda value: value <= WINDOW),
        ("one-layer", f"prefix matching throughout, < {NEVER}", "highest", lambda value: value < NEVER),
    ]
    found = []
    for model, target, key, holds in asked:
        values = [row[key] for row in rows if row["model"] == model]
        if values:
            met = all(value is not None and holds(value) for value in values)
            found.append({"model": model, "target": target, "measured": values, "met": met})
    return found


def show(rows: Sequence[dict[str, Any]], costs: Sequence[dict[str, Any]]) -> None:
    """Print targets, steps and what is published."""
    print(f"{'target':<58}measured, a number a seed")
    for line in targets(rows):
        numbers = "  ".join("none" if value is None else f"{value:.3f}" for value in line["measured"])
        print(f"{line['model'] + ' ' + line['target']:<58}{numbers}   {'met' if line['met'] else 'MISSED'}")
    print("\nphase change  seed   window         step by: prefix matching   in-context   loss   apart   heads")
    for row in rows:
        if row["step"] is None:
            line = f"none; prefix matching at most {row['highest']:.3f}"
        else:
            steps = f"{row['step']:>19.0f}{row['step_icl']:>17.0f}{row['step_loss']:>7.0f}{row['apart']:>8.0f}"
            line = f"{row['start']} to {row['end']}".ljust(18) + steps + f"   {row['heads']}"
        print(f"{row['model']:<14}{row['seed']:<7}{line}")
    print("\nmodel         seed   fall of in-context score in 5 %   last score   last loss, said again   K-composition")
    for row in rows:
        composed = f"{row['k_first']:.3f} to {row['k_last']:.3f}" if "k_first" in row else "none"
        losses = f"{row['largest_icl_fall']:>29.3f}{row['last_icl']:>13.3f}{row['last_second_loss']:>24.3f}"
        print(f"{row['model']:<14}{row['seed']:<4}{losses}   {composed}")
    print(f"\n{PUBLISHED}")
    print("CPU seconds a run: " + ", ".join(f"{one['run']} {one['cpu_seconds']:.0f}" for one in costs))


def write(folder: Path, runs: Sequence[tuple[Recipe, TrainingCurves]], rows: list[dict[str, Any]]) -> None:
    """curves.json (with the summary), curves.csv and the figure; they appear together."""
    groups = {name: [c for r, c in runs if r.layers == layers] for name, layers in LAYERS.items()}
    figure = phase_change_figure({name: curves for name, curves in groups.items() if curves}, low=LOW, high=HIGH)
    tables = [
        curves.to_dataframe().assign(model=row["model"], seed=row["seed"]) for (_, curves), row in zip(runs, rows, strict=True)
    ]
    document = {"targets": targets(rows), "summary": rows, "curves": [curves.as_json() for _, curves in runs]}
    with staged(folder) as staging:
        (staging / "curves.json").write_text(json.dumps(document, allow_nan=False))
        pd.concat(tables).to_csv(staging / "curves.csv", index=False)
        figure.savefig(staging / "phase_change.png", dpi=150)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each model (seeds 0, 1, ...)")
    parser.add_argument("--models", help=f"between commas, of {', '.join(LAYERS)} (default: both)")
    parser.add_argument("--steps", type=int, help="training steps (default: 1600)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; results are the same for the same number")
    parser.add_argument("--quick", action="store_true", help="60 steps of tiny models: tries the script, shows no phase change")
    parser.add_argument("--out", type=Path, help="folder for curves, figure and run states (default: out/phase_change)")
    parser.add_argument("--json", action="store_true", help="print targets and summary as one JSON object")
    options = parser.parse_args()
    for name in ("seeds", "threads", *(["steps"] if options.steps is not None else [])):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is a number from 1 on")
    options.out = options.out or Path("out/phase_change_quick" if options.quick else "out/phase_change")
    return options


def plan(options: argparse.Namespace) -> list[Recipe]:
    """A recipe a model and seed."""
    small = {"steps": 60, "vocabulary": 32, "d_model": 16, "context": 40, "batch": 4, "lags": (5, 15)} if options.quick else {}
    steps = {} if options.steps is None else {"steps": options.steps}
    models = chosen(options.models, list(LAYERS), "model")
    return [Recipe(LAYERS[name], seed, **{**small, **steps}) for name in models for seed in range(options.seeds)]


def main() -> None:
    """Parse the command line, train, write, print."""
    options = parse()
    torch.set_num_threads(options.threads)
    runs, costs, started = [], [], time.perf_counter()
    try:
        recipes = plan(options)
        with ProgressBars() as progress:
            for recipe in recipes:
                curves, cpu_seconds = train(recipe, options.out / "runs", progress)
                runs.append((recipe, curves))
                costs.append({"run": recipe.name, "cpu_seconds": round(cpu_seconds, 1)})
        rows = [summary(recipe, curves) for recipe, curves in runs]
        write(options.out, runs, rows)
    except (CircuitsError, OSError) as error:
        print(f"phase-change: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if options.json:
        seconds = {"wall_seconds": round(time.perf_counter() - started, 1), "runs": costs}
        print(json.dumps({"targets": targets(rows), "summary": rows, "cost": seconds, "published": PUBLISHED}, indent=1))
    else:
        show(rows, costs)
        print(f"wall seconds of this command: {time.perf_counter() - started:.0f}; written to {options.out}")


if __name__ == "__main__":
    main()
