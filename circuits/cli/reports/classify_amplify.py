"""A larger model's answers with and without rationales, as they are written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table
from circuits.cli.reports.neuron import write_table
from circuits.cli.text import filled, one_line
from circuits.uses import Amplified
from circuits.uses.attributing.amplify import OTHERS
from circuits.uses.attributing.showing import CONDITIONS

_SHOWN = {"none": "without rationales", "rationales": "with the words that count", "random": "with random words"}
_SHOWN |= {"small": "the small classifier"}
_EXAMPLES = 4
_NOTE = (
    "right: the share of texts, with its 95 % interval (Wilson). rationales bring: the share with rationales less this one, of "
    "the same texts, with its 95 % interval (Newcombe); p: McNemar's exact test, two-sided, corrected for two comparisons "
    "(Holm). unnamed: answers that name no class, which count as wrong."
)


def write(found: Amplified, folder: Path) -> None:
    """Write the table, the picture and the prompt."""
    write_table(found.to_dataframe(), folder / "amplified.csv")
    (folder / "prompt.txt").write_text(found.prompt("rationales"), encoding="utf-8")
    save_figure(found.plot(), folder / "amplified.png")


def amplified_report(found: Amplified, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """How often it is right under each condition, and what is shown."""
    rows, data = [], {"model": found.model, "larger": found.larger, "method": found.method, "texts": len(found.texts)}
    for condition in (*CONDITIONS, "small"):
        right = found.accuracy(condition)
        none = 0 if condition == "small" else int((found.answers[CONDITIONS.index(condition)] < 0).sum())
        shown = f"{right.effect:.1%} [{right.low:.1%}, {right.high:.1%}]"
        data[condition], brought = right.as_json() | {"unnamed": none}, ("", "")
        if condition in OTHERS:
            gain, p = found.gain(condition), found.p_value(condition)
            data[condition] |= {"gain": gain.as_json(), "p_value": p}
            brought = f"{gain.effect:+.1%} [{gain.low:+.1%}, {gain.high:+.1%}]", f"{p:.2g}"
        rows.append((_SHOWN[condition], shown, *brought, f"{none}"))
    examples = [
        (one_line(found.names[one.label]), ", ".join(map(one_line, one.words)), ", ".join(map(one_line, one.random)))
        for one in found.examples[:_EXAMPLES]
    ]
    parts: list[Part] = [
        Table(("the larger model", "right", "rationales bring", "p", "unnamed"), rows),
        Table(("class", "words that count", "random words"), examples, title="shown, the first few"),
        filled(_NOTE),
        filled(f"Shown: {one_line(found.shown)}."),
        filled(found.summary),
    ]
    heading = (
        f"{one_line(found.larger)} shown {len(found.examples)} texts that {one_line(found.model)} gets wrong, or nearly, and "
        f"asked about {len(found.texts)} others"
    )
    data |= {"wanted": found.wanted, "pool": found.pool, "examples": [vars(one) for one in found.examples]}
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)
