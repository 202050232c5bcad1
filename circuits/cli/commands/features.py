"""`circuits features`: how toy models pack more features than they have dimensions."""

from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import Open, Seed
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.errors import CircuitsError

FILES = {
    "superposition.json": "every model's weights; circuits features --open shows it again",
    "superposition.csv": "every feature's norm and dimensionality",
    "superposition.png": "how many are packed, by how often they are zero",
}
"""What `circuits features` writes, and what for."""


@app.command()
@with_setting("features", instead="toy")
def features(
    context: Context,
    count: Annotated[int, typer.Option("--features", min=1, max=1000, help="Features.")] = 5,
    hidden: Annotated[int, typer.Option(min=1, max=1000, help="Dimensions that they are packed into.")] = 2,
    sparsity: Annotated[
        str, typer.Option(metavar="CHANCES", help="How often a feature is zero.")
    ] = "0,0.3,0.5,0.7,0.8,0.9,0.95,0.98,0.99",
    decay: Annotated[float, typer.Option(help="Each feature is so many times as important as the one before.")] = 1.0,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Starts of each; that of the smallest loss counts.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = 2000,
    batch: Annotated[int, typer.Option(min=1, help="Examples of a step.")] = 256,
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """See how a layer packs more features than it has dimensions.

    Toy models x' = W^T W x + b, with a ReLU around it and without, learn to give back features that are often zero (Elhage et
    al. 2022). Without the ReLU they keep as many as there are dimensions, as PCA does. With it, the rarer features are, the
    more of them share dimensions: pairs, then pentagons. All are trained together, in seconds.

    \b
    Examples:
      circuits features
      circuits features --features 20 --hidden 5
      circuits features --features 6 --hidden 3 --decay 0.8
      circuits features --sparsity 0,0.9 --seeds 8
      circuits features --open out/features-toy/superposition.json
    """
    from circuits.cli.reports.superposition import superposition_report, write

    if open_file is not None:
        refuse_with_open(context)
        found = opened(circuits.concepts.Superposition, open_file)
        setting, files = written_again(found, open_file, setting, write, FILES)
        setting.answer(superposition_report(found, files))
        return
    about: dict[str, Any] = {"features": count, "hidden": hidden, "seeds": seeds, "steps": steps, "batch": batch, "seed": seed}
    chances = _numbers(sparsity)
    with setting.parts(FILES, options="--features, --seeds, --batch") as work:
        found = circuits.concepts.toy_superposition(sparsities=chances, decay=decay, **about, progress=work.progress)
        found.save(work.staging / "superposition.json")
        work.publish()
        write(found, work.staging)
    steps_next = [setting.opening("superposition.json")]
    setting.answer(superposition_report(found, work.written, steps_next))


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise CircuitsError(f"--sparsity {text}: expected numbers from 0 to below 1, such as 0,0.5,0.9") from None
