"""Feedback on a classifier's explanations, as it is written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.text import filled, one_line
from circuits.statistics import Effect
from circuits.uses import Feedback, FeedbackEffects

_NOTE = (
    "right: the share of texts, before and after, with 95 % intervals (Wilson); gain: text by text, bootstrapped. control: "
    "trained in the same way with a strength of 0; over it: what is right more often with feedback than after that. All "
    "intervals are over texts of one training: other seeds may give other gains. share: of the sizes of what all words of a "
    "text are attributed (input times gradient), the mean over texts with the word."
)


def write(found: FeedbackEffects, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "feedback.csv", index=False)
    save_figure(found.plot(), folder / "feedback.png")


def feedback_report(found: FeedbackEffects, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """Accuracies, attributions and predictions before and after."""
    rows = [
        (one_line(name), _share(before), _share(after), _signed(gain), str(changed))
        for name, before, after, gain, changed in zip(
            found.splits, found.before, found.after, found.gains, found.changed, strict=True
        )
    ]
    names = ("texts", "right before", "after", "gain", "changed")
    if found.control:
        beside = zip(rows, found.control, found.over_control, strict=True)
        rows = [(*row, _share(control), _signed(over)) for row, control, over in beside]
        names = (*names, "control", "over it")
    parts: list[Part] = [Table(names, rows)]
    words = [
        (one_line(one.word), "should" if one.matters else "should not", str(one.texts), _share(one.before), _share(one.after))
        for one in found.words
    ]
    if words:
        parts.append(Table(("word", "matter", "texts", "share before", "after"), words))
    parts.append(filled(_NOTE))
    if found.unused:
        parts.append(filled(f"In no training text: {', '.join(map(one_line, found.unused))}."))
    if found.texts:
        told = [(f"{a} → {b}", one_line(text)) for text, (a, b) in zip(found.texts, found.predictions, strict=True)]
        parts.append(Table(("prediction", "text"), told, title="some of what changed"))
    parts.append(filled(found.summary))
    data = {"model": found.model, "items": found.items, "told": found.told, "unused": list(found.unused)}
    data |= {"changes": records(found.to_dataframe()), "changed": dict(zip(found.splits, found.changed, strict=True))}
    heading = f"a classifier on {one_line(found.model)} after {found.items} items of feedback, strength {found.strength:g}"
    heading += f"\n{found.trained}" if found.trained else ""
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)


def proposal_report(found: Feedback, files: Mapping[str, str], steps: Sequence[tuple[str, str]]) -> Report:
    """What was proposed, to be looked through."""
    rows = [(one_line(item.word), "should" if item.matters else "should not") for item in found.items]
    said = (
        "These words tell most of the label and are what the classifier goes by. So which of them should not matter? Take out "
        'the others, or turn them into "matters": true; name a "text" where it is about one text alone.'
    )
    data = {"classifier": found.classifier, "items": [vars(item) for item in found.items]}
    heading = f"feedback to be looked through, on the classifier {found.classifier[:12]}…"
    return Report(heading=heading, parts=[Table(("word", "matter"), rows), filled(said)], data=data, files=files, next=steps)


def _share(effect: Effect) -> str:
    return f"{effect.effect:.1%} [{effect.low:.1%}, {effect.high:.1%}]"


def _signed(effect: Effect) -> str:
    return f"{effect.effect:+.1%} [{effect.low:+.1%}, {effect.high:+.1%}]"
