"""Letter heads, as they are written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.text import filled, one_line
from circuits.search import LetterHeads
from circuits.search.mechanisms.letter_results import LEAST
from circuits.statistics import Effect

_MOST = 12
_HEADS = (
    "writes: to the right label's logit, less that of the label that is right in the corrupt prompt, through the "
    "final norm as it was; nats. patched: share of the gap that comes back when the head's output at the last token "
    "is that of the clean prompt. at: so many tokens behind the label it tells the right item from the others most "
    "(found on half of the questions); item, others: attention from the last token there, behind the right label and "
    "behind another (on the other half); label, choice: to the right label and the right choice's word. *: a letter "
    f"head by all three: writes and patched {LEAST:.0%} or more of the whole and surely above 0, and surely more "
    "attention to the right item than to the others. Intervals are 95 %, over prompts."
)
_KEPT = (
    "dimensions: the fewest leading principal ones, of the queries at the last token or of the keys and values where "
    "the head looks for each item on half of the prompts, at which the answers' loss on the other half rises by at "
    "most the tolerance, each part by itself. letter, place, right: share of their variance that is told by which "
    "letter the item has (of queries: the right one), by its place among the choices, by being the right one; "
    "corrected for chance, so that it may be just below 0. With labels in a fixed order letter and place are the "
    "same."
)


def write(found: LetterHeads, folder: Path) -> None:
    """Write the tables and the picture."""
    found.to_dataframe().to_csv(folder / "letters.csv", index=False)
    if found.kept:
        found.kept_table().to_csv(folder / "kept.csv", index=False)
    save_figure(found.plot(), folder / "letters.png")


def letters_report(found: LetterHeads, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """The heads that write most by the three measures, what letter heads keep, and their ranks."""
    heads = sorted(found.heads, key=lambda one: -abs(one.direct.effect))[:_MOST]
    rows = [
        (
            f"{one.head}{' *' if found.is_letter_head(one) else ''}",
            _interval(one.direct, "+"),
            _interval(one.patched, "+"),
            f"{one.item.effect:.2f}",
            f"{one.others.effect:.2f}",
            f"{one.label.effect:.2f}",
            f"{one.choice.effect:.2f}",
            f"+{one.at}" if one.at else "label",
        )
        for one in heads
    ]
    title = (
        f"the {len(heads)} of {len(found.heads)} heads that write most of a logit difference of {found.difference.effect:.2f}"
    )
    parts: list[Part] = [
        Table(("head", "writes", "patched", "item", "others", "label", "choice", "at"), rows, title=title),
        filled(_HEADS),
    ]
    parts += [_kept(found), filled(_KEPT)] if found.kept else []
    parts += [_ranks(found)] if found.compression is not None else []
    parts.append(filled(found.summary))
    heading = (
        f"{one_line(found.model)}: heads at the last token of {found.prompts} questions ({one_line(found.task)})\n"
        f"right {_share(found.right)}, the likeliest of {found.labels} labels {_share(found.among)}, chance "
        f"{1 / found.labels:.0%}"
    )
    data: dict[str, Any] = {"model": found.model, "task": found.task, "prompts": found.prompts, "summary": found.summary}
    data |= {"right": found.right.as_json(), "among": found.among.as_json(), "difference": found.difference.as_json()}
    data |= {"letter_heads": [one.head for one in found.letter_heads], "heads": records(found.to_dataframe())}
    data |= {"kept": records(found.kept_table()), "loss": found.loss, "joint_loss": found.joint_loss}
    data["compression"] = None if found.compression is None else records(found.compression.to_dataframe())
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)


def _share(effect: Effect) -> str:
    return f"{effect.effect:.0%} [{effect.low:.0%}, {effect.high:.0%}]"


def _interval(one: Effect, sign: str = "") -> str:
    return f"{one.effect:{sign}.2f} [{one.low:{sign}.2f}, {one.high:{sign}.2f}]"


def _kept(found: LetterHeads) -> Table:
    rows = []
    for one in found.kept:
        told = [_number(getattr(one, name)) for name in ("letter", "place", "right")]
        rows.append(
            (f"{one.head} {one.part}", f"{one.dimensions} of {one.d_head}", f"{one.change:+.4f}", f"{one.variance:.2f}", *told)
        )
    header = ("kept at constant loss", "dimensions", "loss", "variance", "letter", "place", "right")
    joint = f"all at once: loss {found.joint_loss:.3f} instead of {found.loss:.3f} on {found.held_out} held-out questions"
    return Table(header, rows, below=joint)


def _ranks(found: LetterHeads) -> Table:
    assert found.compression is not None
    pairs = list(zip(found.compression.parts[::2], found.compression.parts[1::2], strict=True))
    rows = [(qk.head, f"{qk.rank}", f"{qk.change:+.4f}", f"{ov.rank}", f"{ov.change:+.4f}") for qk, ov in pairs]
    one = found.compression
    below = f"all at once: loss of the answers {one.joint_loss:.3f} instead of {one.loss:.3f}"
    header = ("ranks of their weights", "W_QK", "loss", "W_OV", "loss")
    return Table(header, rows, below=f"{below}; of {one.d_head}, each part by itself to {one.tolerance:g} nats")


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.2f}"
