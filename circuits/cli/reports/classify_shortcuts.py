"""Shortcuts of a classifier, as they are written and printed."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.text import filled, one_line
from circuits.statistics import Effect
from circuits.uses import Shortcuts

_NOTE = (
    "LMI: local mutual information with the class, in nats, over the words of the training texts. top: how much more often the "
    "word adds most to the margin than a word drawn from the text would. margin, flips: by how much the margin of its class "
    "falls (nats) and what share of predictions changes when the word is swapped, the latter less what swapping another word "
    "changes; p: McNemar's exact test of that, corrected over these words (Holm). * leaned on: margin above 0 with its "
    "interval, p below 0.05. ** shortcut: leaned on, and outside of the rationales. ↑ favoured: top above 0 with its interval, "
    "not corrected; attributions can miss what a swap shows."
)
_CHOSEN = "Words that were found were chosen on these very texts: flipped is somewhat too low for them."
_UNTOLD = (
    "The texts have no rationales: a word that goes along with the label may do so by its meaning, which no count can tell. "
    "Name words that should not matter with --words to see what hangs on them."
)


def write(found: Shortcuts, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "shortcuts.csv", index=False)
    save_figure(found.plot(), folder / "shortcuts.png")


def shortcuts_report(found: Shortcuts, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """How much the head of the list counts, its words, the accuracies, and how early."""
    rows = [
        (
            f"{one_line(one.word)}{' **' if one.shortcut else ' *' if one.leaned_on else ''}{' ↑' if one.favoured else ''}",
            one_line(one.label),
            f"{one.lmi:.2g}",
            str(one.texts),
            _said(one.top),
            one_line(one.counterpart) if one.counterpart else "(taken out)",
            _said(one.change),
            _said(one.flips),
            "" if one.p_value is None else f"{one.p_value:.2g}",
        )
        for one in found.words
    ]
    header = ("word", "class", "LMI", "texts", "top", "swapped for", "margin", "flips", "p")
    share = found.in_head
    head = (
        f"The word that adds most to the margin is one of the {found.head} that tell most of the label (of {found.types:,}) in "
        f"{share.effect:.0%} [{share.low:.0%}, {share.high:.0%}] of {found.texts} texts; of words drawn at random "
        f"{found.expected:.0%} ({found.above.effect:+.0%} [{found.above.low:+.0%}, {found.above.high:+.0%}])."
    )
    parts: list[Part] = [filled(head)]
    parts += [Table(header, rows, below=filled(_NOTE))] if rows else ["None of them is in five of the judged texts."]
    right = [(name, _share(effect)) for name, effect in found.accuracy.items()]
    swapped = ", ".join(map(one_line, found.swapped[:8])) or "none"
    below = filled(_CHOSEN) if set(found.swapped) & set(found.leaned_on) else ""
    parts.append(Table(("texts", "right"), right, title=f"accuracy (swapped: {swapped})", below=below))
    if found.early:
        names = tuple(found.early[0].accuracy)
        lines = [(str(one.step), *map(_share, (one.in_head, *one.accuracy.values()))) for one in found.early]
        parts.append(Table(("step", "top word in head", *names), lines, title="while it was trained"))
    if found.degree is not None:
        parts.append(filled(f"shortcut degree of training texts (Du 2021, 0 to 1): {_share(found.degree, percent=False)}"))
    if found.leaned_on and not found.rationales:
        parts.append(filled(_UNTOLD))
    parts.append(filled(found.summary))
    data = {"model": found.model, "classes": list(found.classes), "head": found.head, "types": found.types}
    data |= {"in_head": vars(found.in_head), "expected": found.expected, "above": vars(found.above)}
    data |= {"shortcuts": list(found.shortcuts), "leaned_on": list(found.leaned_on), "words": records(found.to_dataframe())}
    data |= {"accuracy": {name: vars(effect) for name, effect in found.accuracy.items()}}
    data |= {"early": [dataclasses.asdict(one) for one in found.early]}
    data |= {"degree": None if found.degree is None else vars(found.degree)}
    heading = f"which words does a classifier on {one_line(found.model)} lean on? ({found.method})"
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)


def _said(effect: Effect) -> str:
    return f"{effect.effect:+.2f} [{effect.low:+.2f}, {effect.high:+.2f}]"


def _share(effect: Effect, *, percent: bool = True) -> str:
    if not percent:
        return f"{effect.effect:.2f} [{effect.low:.2f}, {effect.high:.2f}]"
    return f"{effect.effect:.1%} [{effect.low:.1%}, {effect.high:.1%}]"
