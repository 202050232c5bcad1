"""Logits taken apart, as they are written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.cli.output import save_figure
from circuits.cli.questions.logits import LogitsQuestion
from circuits.cli.report import Pairs, Part, Report, Table
from circuits.cli.settings import Setting
from circuits.cli.text import one_line
from circuits.lenses import DirectLogits

_HEADS, _SHARE = 4, 0.1
"""Heads whose sources are printed, and the least share of a head at which a source is."""


def write(found: DirectLogits, folder: Path) -> None:
    """Write tables and picture."""
    found.to_dataframe().to_csv(folder / "logits.csv", index=False)
    if found.sources is not None:
        found.sources_dataframe().to_csv(folder / "sources.csv", index=False)
    save_figure(found.plot(), folder / "logits.png")


def logits_report(
    found: DirectLogits, files: Mapping[str, str], top: int, *, source: str = "", steps: Sequence[tuple[str, str]] = ()
) -> Report:
    """What writes to the logits of the prompts from a `source`, the largest rows first."""
    heading = f"{one_line(found.model)}: {_asked(found)}{'; ' if source else ''}{one_line(source)}"
    cap = "The model caps its logits: the sum is the logit before the cap." if found.capped else ""
    parts: list[Part] = [_rows(found, top, cap)]
    parts += [_sources(found)] if found.sources is not None else []
    return Report(heading=heading, parts=parts, data=_data(found), files=files, next=steps)


def _data(found: DirectLogits) -> dict[str, Any]:
    single = len(found.total) == 1
    rows = [
        {"row": row, "mean": mean, "standard_error": None if single else error}
        for row, mean, error in zip(found.rows, found.mean.tolist(), found.standard_error.tolist(), strict=True)
    ]
    about = {"model": found.model, "prompts": len(found.total), "answers": found.answers, "distractors": found.distractors}
    return {**about, "total": float(found.total.mean()), "capped": found.capped, "rows": rows}


def _rows(found: DirectLogits, top: int, below: str) -> Table:
    errors = dict(zip(found.rows, found.standard_error.tolist(), strict=True))
    single = len(found.total) == 1
    cells = [(row, f"{mean:+.3f}", *(() if single else (f"{errors[row]:.3f}",))) for row, mean in found.top(top)]
    header = ("row", "logits", *(() if single else ("standard error",)))
    if len(cells) < len(found.rows):
        rest = float(found.mean.sum()) - sum(mean for _, mean in found.top(top))
        cells.append((f"{len(found.rows) - len(cells):,} other rows", f"{rest:+.3f}", *(() if single else ("",))))
    cells.append(("sum", f"{float(found.total.mean()):+.3f}", *(() if single else ("",))))
    return Table(header, cells, below=below)


def _asked(found: DirectLogits) -> str:
    if len(found.total) > 1:
        kind = "logit difference" if found.distractors else "logit of the answer"
        return f"{kind}, mean over {len(found.total):,} prompts"
    less = f" less that of {found.distractors[0]!r}" if found.distractors else ""
    return one_line(f"logit of {found.answers[0]!r}{less}")


def _sources(found: DirectLogits) -> Pairs:
    """The strongest heads and the tokens of the first prompt that they take theirs from."""
    heads = [(row, mean) for row, mean in found.top(len(found.rows)) if row in found.heads][:_HEADS]
    lines = []
    for head, _ in heads:
        taken = found.by_source(head)[0].tolist()
        order = sorted(range(len(taken)), key=lambda column: -abs(taken[column]))
        least = _SHARE * max(map(abs, taken), default=0.0)
        kept = [column for column in order if abs(taken[column]) >= least and found.tokens[0][column]][:4]
        lines.append((head, ", ".join(f"{found.tokens[0][column]!r} at {column} {taken[column]:+.3f}" for column in kept)))
    where = "Strongest heads, by the token they take it from" + (" (first prompt)" if len(found.total) > 1 else "")
    return Pairs(where, [(head, one_line(text)) for head, text in lines])


def next_steps(question: LogitsQuestion, setting: Setting) -> list[tuple[str, str]]:
    """What to try after this."""
    start, steps = ["logits", *question.words()], []
    if question.neurons is None:
        steps.append((setting.command(*start, "--neurons", "5"), "the neurons behind the MLPs"))
    if not question.positions:
        steps.append((setting.command(*start, "--positions"), "which tokens the heads take theirs from"))
    return [*steps, setting.opening("logits.json")]
