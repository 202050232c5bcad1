"""The test of a concept, as it is written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.text import filled, one_line
from circuits.concepts import ConceptCurve, ConceptTest
from circuits.probes.results import SURE

MOST = 24
"""Places that are printed: those of the largest slopes."""
_NOTE = (
    "told: the share of examples told from the other texts, each left out in turn, beside sets of other texts told from each "
    "other. score: the share of prompts whose number grows along the direction, beside that of directions between other texts. "
    "a step: half of the way from other texts to the concept's, by how much it changes the number, to first order, with the "
    "95 % interval over prompts. p: of that slope among random concepts', for all places together; published: of the scores, "
    "as TCAV was published, which is too sure since all its directions share the same examples."
)


def write(found: ConceptTest, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "concept.csv", index=False)
    save_figure(found.plot(), folder / "concept.png")


def concept_report(found: ConceptTest, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """Every place, then what moving the direction does."""
    rows, every = [], found.to_dataframe().to_dict("records")
    shown = set(sorted(range(len(every)), key=lambda place: -abs(every[place]["slope"]))[:MOST])
    for place, row in enumerate(every):
        if place not in shown:
            continue
        mark = " *" if row["site"] in found.significant else ""
        rows.append(
            (
                f"{row['site']}{mark}",
                f"{row['accuracy']:.0%} ({row['chance']:.0%})",
                f"{row['score']:.2f} ({row['null']:.2f})",
                f"{row['slope']:+.3g} [{row['low']:.3g}, {row['high']:.3g}]",
                f"{row['p_values']:.2g}",
                f"{row['published']:.2g}",
            )
        )
    rest = f"; {len(every) - MOST} places of smaller slopes stand in concept.csv" if len(every) > MOST else ""
    below = f"  * the concept counts{rest}"
    header = ("place", "told", "score", "a step", "p", "published p")
    parts: list[Part] = [Table(header, rows, below=below), filled(_NOTE)]
    parts += [_curve(curve, found.whole) for curve in found.curves] + [filled(found.summary)]
    data = {"model": found.model, "concept": found.concept, "target": found.target, "sets": found.sets}
    data |= {"examples": found.examples, "prompts": found.prompts, "whole": found.whole, "seed": found.seed}
    data |= {"significant": list(found.significant), "places": records(found.to_dataframe())}
    data |= {"curves": [vars(curve) for curve in found.curves]}
    heading = (
        f"does {one_line(found.target)} hang on {one_line(found.concept)} in {one_line(found.model)}?\n{found.sets} sets of "
        f"{found.examples} examples and {found.examples} other texts, {found.prompts} prompts ({found.whole:.3g} on average)"
    )
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)


def _curve(curve: ConceptCurve, whole: float) -> Table:
    """The spread of random directions is left out where a file of before does not tell it."""
    spread: Sequence[float | None] = curve.random_spread or (None,) * len(curve.steps)
    rows = [
        (f"{step:+g} steps" if step else "as it is", f"{value:.3g} ± {SURE * error:.2g}", _random(random, apart))
        for step, value, error, random, apart in zip(curve.steps, curve.values, curve.errors, curve.random, spread, strict=True)
    ]
    last = _random(curve.random_erased, curve.random_erased_spread)
    rows.append(("erased", f"{curve.erased:.3g} ± {SURE * curve.erased_error:.2g}", last))
    title = (
        f"the number when the direction at {curve.site} is moved (± of the change from {whole:.3g}; of random directions: sd)"
    )
    return Table((curve.site, "concept", "random directions"), rows, title=title)


def _random(mean: float, spread: float | None) -> str:
    return f"{mean:.3g}" if spread is None else f"{mean:.3g} ± {spread:.2g}"
