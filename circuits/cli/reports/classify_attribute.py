"""Word attributions as they are written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.reports.neuron import write_table
from circuits.cli.text import colours_allowed, filled, one_line, weighed_words
from circuits.statistics import Effect
from circuits.uses import WordAttributions
from circuits.uses.attributing.paths import COMPLETE
from circuits.uses.attributing.results import METHODS

_TEXTS, _TOP = 6, 8
"""Texts, and words of each class, that are printed."""
_NOTE = (
    "removed: by how much the class's probability falls without the words that count most, and by how much more than without "
    "as many random ones; alone: by how much it falls with these words alone, and by how much less than with random ones; each "
    "with its 95 % interval over texts. Where words decide, much is lost without them and little with them alone."
)


def write(found: WordAttributions, folder: Path) -> None:
    """Write the table and the picture."""
    write_table(found.to_dataframe(), folder / "words.csv")
    save_figure(found.plot(), folder / "words.png")


def attributions_report(
    found: WordAttributions, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = (), *, colours: bool | None = None
) -> Report:
    """The first texts with their words coloured or marked, the words that speak most for each class, and what taking words out
    does."""
    coloured = colours_allowed() if colours is None else colours
    parts: list[Part] = [_text(found, text, coloured) for text in range(min(_TEXTS, len(found.texts)))]
    top = found.top_words()
    rows = [
        (one_line(row["class"]), one_line(row["word"]), f"{row['mean']:+.3g}", f"{row['count']}")
        for _, part in top.groupby("class")
        for row in part.head(_TOP).to_dict("records")
    ]
    parts += [Table(("class", "word", "mean", "times"), rows)] if rows else []
    parts += [*_tested(found), filled(found.summary)]
    missed = int((found.errors > COMPLETE).sum()) if found.method == "integrated" else 0
    if missed:
        said = f"{missed} of {len(found.texts)} texts miss their sum by more than {COMPLETE:.0%}, at worst by {found.worst:.2g}"
        other = "" if found.baseline == "blank" else ", take --baseline blank"
        parts.append(filled(f"Mind: {said} of it: raise --most{other}, or take --method direct, which is exact."))
    baseline = f" from the baseline {found.baseline}" if found.baseline else ""
    heading = f"{one_line(found.model)}: {METHODS.get(found.method, found.method)}{baseline}, {len(found.texts)} texts"
    data = {"model": found.model, "classes": list(found.classes), "method": found.method, "baseline": found.baseline}
    data |= {"complete": found.worst, "steps": sorted(set(found.steps)), "words": records(found.to_dataframe())}
    data |= {"top": records(top), "removed": _removed(found)}
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)


def _text(found: WordAttributions, text: int, colours: bool) -> str:
    """A text with its words, below the class that they speak for."""
    own = found.labels[text] if found.labels else found.explained[text]
    named = f"{one_line(found.classes[found.explained[text]])}, margin {float(found.margins[text]):+.2f}"
    named += "" if own == found.explained[text] else f" (the text is {one_line(found.classes[own])})"
    words = weighed_words(found.words[text], found.numbers[text], colours=colours)
    return "\n".join([named, *(f"  {line}" for line in words.splitlines())])


def _tested(found: WordAttributions) -> list[Part]:
    rows = [
        (f"{row['share']:.0%}", *(_shown(row[name]) for name in ("removed", "removed_random", "alone", "alone_random")))
        for row in _removed(found)
    ]
    header = ("words", "removed", "more than random", "alone", "less than random")
    return [Table(header, rows), filled(_NOTE)] if rows else []


def _removed(found: WordAttributions) -> list[dict]:
    """What taking words out does, a row a share."""
    rows = []
    for place, share in enumerate(found.faithfulness.shares if found.faithfulness is not None else ()):
        assert found.faithfulness is not None
        removed, alone = found.faithfulness.comprehensiveness(place), found.faithfulness.sufficiency(place)
        pairs = zip(("removed", "removed_random", "alone", "alone_random"), (*removed, *alone), strict=True)
        rows.append({"share": share, **{name: effect.as_json() for name, effect in pairs}})
    return rows


def _shown(effect: Mapping[str, float] | Effect) -> str:
    values = effect.as_json() if isinstance(effect, Effect) else effect
    return f"{values['effect']:+.3f} [{values['low']:+.3f}, {values['high']:+.3f}]"
