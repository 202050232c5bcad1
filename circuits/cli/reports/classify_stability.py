"""Pairs of texts with replaced words, as they are written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.reports.neuron import write_table
from circuits.cli.text import filled, one_line
from circuits.statistics import Effect
from circuits.uses import Stability
from circuits.uses.attributing.results import METHODS

_PAIRS = 4
"""Pairs that are printed."""
_NAMES = {"stability": "the classifier", "flat": "trained with FLAT"}
_NOTE = (
    "tau: Kendall's rank correlation of the words' numbers in the text and in the one with replaced words, both for the class "
    "that the text was given; the mean over pairs with its 95 % interval. searched: words that lower that class most, one "
    "after the other, until it turns; drawn: as many words at random."
)


def write(found: Stability, folder: Path, name: str) -> None:
    """Write the table and the picture."""
    write_table(found.to_dataframe(), folder / f"{name}.csv")
    save_figure(found.plot(), folder / f"{name}.png")


def stability_report(
    several: Mapping[str, Stability],
    files: Mapping[str, str],
    steps: Sequence[tuple[str, str]] = (),
    *,
    right: Mapping[str, float] | None = None,
) -> Report:
    """How far the words agree where the class is kept and where it turns, for one classifier or for two."""
    parts: list[Part] = []
    for name, found in several.items():
        rows = []
        for kept in (True, False):
            for searched in (True, False):
                pairs = zip(found.kept, found.searched, strict=True)
                number = sum(one == kept and other == searched for one, other in pairs)
                words = "searched" if searched else "drawn"
                rows.append(
                    ("kept" if kept else "turned", words, f"{number}", _shown(found.agreement(kept=kept, searched=searched)))
                )
        rows.append(("kept less turned", "both", f"{len(found.texts)}", _shown(found.difference)))
        told = f", {right[name]:.0%} of the texts told right" if right and name in right else ""
        title = f"{_NAMES.get(name, name)}: synonyms turn {found.turned:.0%}{told}"
        parts.append(Table(("class", "words", "pairs", "tau"), rows, title=title))
    first = next(iter(several.values()))
    parts += [filled(_NOTE), *_examples(first), *(filled(found.summary) for found in several.values())]
    heading = (
        f"{one_line(first.model)}: {METHODS.get(first.method, first.method)} when words are replaced by synonyms "
        f"({one_line(first.synonyms)})"
    )
    data: dict[str, Any] = {"model": first.model, "method": first.method, "synonyms": first.synonyms}
    for name, found in several.items():
        own = {"turned": found.turned, "pairs": records(found.to_dataframe())}
        numbers = {"kept": found.agreement(kept=True), "turns": found.agreement(kept=False), "difference": found.difference}
        own |= {key: None if one is None else one.as_json() for key, one in numbers.items()}
        data[name] = own | ({"right": right[name]} if right and name in right else {})
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)


def _examples(found: Stability) -> list[Part]:
    """Some texts that were turned."""
    lines = []
    for text, other, kept in zip(found.texts, found.others, found.kept, strict=True):
        if not kept and len(lines) < _PAIRS:
            pairs = zip(text.split(), other.split(), strict=True)
            lines.append(filled(" ".join(one if one == new else f"[{one} -> {new}]" for one, new in pairs)))
    return ["\n".join(["turned by", *(f"  {line}".replace("\n", "\n  ") for line in lines)])] if lines else []


def _shown(effect: Effect | None) -> str:
    return "-" if effect is None else f"{effect.effect:+.3f} [{effect.low:+.3f}, {effect.high:+.3f}]"
