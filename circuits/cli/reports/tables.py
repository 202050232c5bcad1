"""Weight tables as they are written and printed."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.cli.output import save_figure
from circuits.cli.questions.tables import TablesQuestion
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.settings import Setting
from circuits.cli.text import filled, one_line
from circuits.heads import Tables

_PER_HEAD = 3
"""Skip-trigrams printed a head, unless they are all that is asked for."""
_PARTS = ("bigrams", "skip_trigrams", "bugs", "virtual", "heads")


def write(found: Tables, folder: Path) -> None:
    """Write the tables that have rows, and the picture."""
    for part in ("bigrams", "skip_trigrams", "bugs", "virtual"):
        rows = found.to_dataframe(part)
        if len(rows):
            rows.to_csv(folder / f"{part}.csv", index=False)
    if found.bigrams or found.skip_trigrams:
        save_figure(found.plot(), folder / "tables.png")


def tables_report(
    found: Tables, options: TablesQuestion, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()
) -> Report:
    """The strongest entries of each table; skip-trigrams alone where they are all that is asked for."""
    heading = f"Weight tables of {one_line(found.model)}" + (", tokens through the first MLP" if found.through_mlp0 else "")
    if found.partial:
        note = "this model is more than one layer of heads: what follows is what its direct path, and its heads on the"
        heading += "\n" + filled(f"{note} embeddings alone, would say; MLPs and later layers change it.")
    parts: list[Part] = [_trigrams(found, options)]
    if not options.alone:
        parts = [_bigrams(found), *parts, _bugs(found, options.top), _virtual(found, options.top)]
    data: dict[str, Any] = {"model": found.model, "partial": found.partial, "scale": found.scale, "context": found.context}
    data |= {part: records(found.to_dataframe(part)) for part in _PARTS}
    shown = [part for part in parts if isinstance(part, str) or (isinstance(part, Table) and part.rows)]
    return Report(heading=heading, parts=shown, data=data, files=files, next=steps)


def next_steps(setting: Setting) -> list[tuple[str, str]]:
    """What to try after this."""
    return [
        (setting.command("tables", "--token", " the"), "one token from all sides"),
        (setting.command("tables", "terms"), "what heads are worth on a text"),
        setting.opening("tables.json"),
    ]


def _bigrams(found: Tables) -> Table:
    rows = [
        (_quoted(found, one.token), _quoted(found, one.next), f"{math.exp(one.log_probability):.1%}") for one in found.bigrams
    ]
    return Table(("token", "next", "probability"), rows, "Most likely bigrams, by the direct path alone")


def _trigrams(found: Tables, options: TablesQuestion) -> Part:
    copying = {one.head: one.copying for one in found.heads}
    heads = sorted({one.head for one in found.skip_trigrams}, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
    most = options.top if options.alone else _PER_HEAD
    rows = []
    for head in heads:
        for place, one in enumerate([one for one in found.skip_trigrams if one.head == head][:most]):
            label = f"{head} (copying {copying[head]:+.2f})" if place == 0 else ""
            phrase = f"{_quoted(found, one.source)} … {_quoted(found, one.destination)} → {_quoted(found, one.output)}"
            rows.append((label, phrase, f"{one.score:.2f}", f"{one.attention:.2f}"))
    title = f"Strongest skip-trigrams: source … destination → output (score in logits, context of {found.context} tokens)"
    if not rows:
        return f"{title}\n  none: no head raises anything"
    return Table(("head", "skip-trigram", "score", "attention"), rows, title)


def _bugs(found: Tables, top: int) -> Table:
    rows = []
    for bug in found.bugs[:top]:
        cells = []
        for pair in (bug.wanted, bug.forced):
            cells.append(" and ".join(f"{_quoted(found, one.destination)} → {_quoted(found, one.output)}" for one in pair))
        rows.append((f"{bug.wanted[0].head} {_quoted(found, bug.wanted[0].source)} …", *cells, f"{bug.severity:.2f}"))
    return Table(("source", "makes sense", "is forced", "severity"), rows, "Bugs: what comes with them, as heads cannot tell")


def _virtual(found: Tables, top: int) -> Table:
    rows = []
    for one in found.virtual[:top]:
        tokens = "" if one.source is None else f"{_quoted(found, one.source)} → {_quoted(found, one.output)}"
        rows.append((f"{one.first}, {one.second}", tokens, f"{one.norm:.2f}", f"{one.composition:.2f}", f"{one.copying:+.2f}"))
    return Table(("heads", "strongest tokens", "norm", "composition", "copying"), rows, "Virtual heads, by norm")


def _quoted(found: Tables, token: int | None) -> str:
    return repr(found.word(token))
