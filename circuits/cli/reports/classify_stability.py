"""Pairs of texts with replaced words, as they are written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.reports.neuron import write_table
from circuits.cli.text import filled, one_line
from circuits.statistics import Effect, paired_difference
from circuits.uses import Stability
from circuits.uses.attributing.results import METHODS

_COLUMNS = ("fewer_turned", "tau", "right")
_PAIRS = 4
"""Pairs that are printed."""
_NAMES = {"stability": "the classifier", "attacked": "trained on attacked texts too", "flat": "trained with FLAT"}
_COMPARED = (
    ("attacked", "stability", "attacked texts against plain training"),
    ("flat", "stability", "FLAT against plain training"),
    ("flat", "attacked", "FLAT's penalty alone"),
)
_NOTE = (
    "tau: Kendall's rank correlation of the words' numbers in the text and in the one with replaced words, both for the class "
    "that the text was given; the mean over texts with its 95 % interval. searched: words that lower that class most, one "
    "after the other, until it turns; drawn: as many words at random. kept less turned is told of searched words alone, as "
    "drawn ones seldom turn a class."
)
_COMPARISON = (
    "fewer turned, tau, right: by how much the first has fewer of the same texts turned (Newcombe's 95 % interval), agrees "
    "more where both were searched (bootstrap over texts), and tells more texts right (Newcombe). Of one training each: other "
    "seeds may differ. Attacked texts against plain is adversarial training; the penalty is what FLAT has over that."
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
    right: Mapping[str, Sequence[bool]] | None = None,
) -> Report:
    """How far the words agree where the class is kept and where it turns, for one classifier or for several, compared."""
    parts: list[Part] = []
    for name, found in several.items():
        rows = []
        for searched in (True, False):
            words = "searched" if searched else "drawn"
            for kept in (True, False):
                chosen = [one == kept and other == searched for one, other in zip(found.kept, found.searched, strict=True)]
                replaced = f"{float(found.replaced[chosen].double().mean()):.1f}" if any(chosen) else "-"
                shown = _shown(found.agreement(kept=kept, searched=searched))
                rows.append(("kept" if kept else "turned", words, f"{sum(chosen)}", replaced, shown))
            if searched:
                rows.append(("kept less turned", words, f"{sum(found.searched)}", "", _shown(found.difference)))
        told = f", {_share(right[name]):.0%} of the texts told right" if right and name in right else ""
        turned = f"{found.turned.effect:.0%} [{found.turned.low:.0%}, {found.turned.high:.0%}] of {found.tried} texts"
        title = f"{_NAMES.get(name, name)}: synonyms turn {turned}{told}"
        parts.append(Table(("class", "words", "texts", "replaced", "tau"), rows, title=title))
    first, compared = next(iter(several.values())), _compared(several, right or {})
    if compared:
        rows = [(words, *(_shown(effects[key]) for key in _COLUMNS)) for words, effects in compared.items()]
        parts += [Table(("compared", "fewer turned", "tau", "right"), rows), filled(_COMPARISON)]
    parts += [filled(_NOTE), *_examples(first), *(filled(found.summary) for found in several.values())]
    heading = (
        f"{one_line(first.model)}: {METHODS.get(first.method, first.method)} when words are replaced by synonyms "
        f"({one_line(first.synonyms)})"
    )
    data: dict[str, Any] = {"model": first.model, "method": first.method, "synonyms": first.synonyms}
    for name, found in several.items():
        own: dict[str, Any] = {"turned": found.turned.as_json(), "given": found.given, "tried": found.tried}
        own["pairs"] = records(found.to_dataframe())
        numbers = {"kept": found.agreement(kept=True), "turns": found.agreement(kept=False), "difference": found.difference}
        own |= {key: _plain(one) for key, one in numbers.items()}
        data[name] = own | ({"right": _share(right[name])} if right and name in right else {})
    data |= {words: {key: _plain(one) for key, one in effects.items()} for words, effects in compared.items()}
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)


def _compared(several: Mapping[str, Stability], right: Mapping[str, Sequence[bool]]) -> dict[str, dict[str, Effect | None]]:
    """By how much each classifier is better than another, by what is compared."""
    found = {}
    for name, other, words in _COMPARED:
        if name in several and other in several:
            sides = [torch.tensor(list(right[one])) for one in (name, other) if one in right]
            one, theirs = several[name], several[other]
            told = paired_difference(*sides) if len(sides) == 2 else None
            effects = (one.less_turned(theirs), one.more_agreement(theirs), told)
            found[words] = dict(zip(_COLUMNS, effects, strict=True))
    return found


def _share(right: Sequence[bool]) -> float:
    return sum(right) / len(right)


def _plain(effect: Effect | None) -> dict[str, float] | None:
    return None if effect is None else effect.as_json()


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
