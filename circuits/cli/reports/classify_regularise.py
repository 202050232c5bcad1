"""What regularising a classifier changes, as it is written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.text import filled, one_line
from circuits.uses import ErTest

_NOTE = (
    "plain, regularised: the share of texts that is right, of pairs that change or stay as they should, the mean over seeds. "
    "gain: the mean difference of trainings with the same seed, with Student's 95 % interval; * its interval does not hold 0."
)
_SAME = "All seeds read the same texts: the intervals tell what other trainings would give, not what other texts would."


def write(found: ErTest, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "regularised.csv", index=False)
    save_figure(found.plot(), folder / "regularised.png")


def er_report(found: ErTest, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """Test by test, with and without regularisation."""
    table = found.to_dataframe()
    rows = [
        (
            one_line(row["test"]),
            row["kind"],
            f"{row['plain']:.1%}",
            f"{row['regularised']:.1%}",
            f"{row['gain']:+.1%} [{row['low']:+.1%}, {row['high']:+.1%}]{' *' if row['low'] > 0 or row['high'] < 0 else ''}",
        )
        for row in table.to_dict("records")
    ]
    heading = (
        f"a classifier on {one_line(found.model)} held to what people say ({found.rationale}, {found.distance}, strength "
        f"{found.strength:g})\n{found.trained}, {len(found.seeds)} seeds"
    )
    data = {"model": found.model, "rationale": found.rationale, "distance": found.distance, "strength": found.strength}
    data |= {"trained": found.trained, "seeds": list(found.seeds), "tests": records(table)}
    data |= {"left_out": list(found.left_out), "same_texts": found.same_texts}
    parts: list[Part] = [Table(("test", "kind", "plain", "regularised", "gain"), rows), filled(_NOTE)]
    parts += [filled(_SAME)] if found.same_texts else []
    if found.left_out:
        parts.append(filled(f"Left out, since some seeds have no such pair: {', '.join(map(one_line, found.left_out))}."))
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)
