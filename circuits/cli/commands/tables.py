"""`circuits tables`: weight tables, their files and their report; what a text says of them is in `tables_text`."""

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from circuits.cli.commands.tables_text import Place
from circuits.cli.output import staged
from circuits.cli.progress import ProgressBars
from circuits.cli.text import filled, one_line, print_json, table
from circuits.errors import PromptError
from circuits.heads import Tables, bigram_table, measured_scale, ov_table, qk_table, tables as read_tables
from circuits.heads.weight_tables.embedded import head_of
from circuits.models import Model

_PER_HEAD = 3
"""Skip-trigrams printed a head, unless they are all that is asked for."""
_PARTS = ("bigrams", "skip_trigrams", "bugs", "virtual", "heads")


@dataclasses.dataclass(frozen=True)
class Options:
    """What tables are made of, and which are printed."""

    top: int
    context: int
    offset: int
    through_mlp0: bool
    alone: bool
    head: str | None

    def heads(self, model: Model) -> list[str]:
        """The heads asked for, those of layer 0 where none are. Raises GraphError for what is no head."""
        if self.head is None:
            return [f"a0.h{head}" for head in range(model.n_heads)]
        names = list(dict.fromkeys(name.strip() for name in self.head.split(",")))
        return ["a{}.h{}".format(*head_of(model, name)) for name in names]


def check_jobs(jobs: Mapping[str, bool], text: Path | None) -> None:
    """Refuse two jobs at once, and a text that no job reads."""
    chosen = [name for name, wanted in jobs.items() if wanted]
    if len(chosen) > 1:
        raise PromptError(f"{' and '.join(chosen)} exclude each other: ask for one at a time")
    if text is not None and not set(chosen) & {"--terms", "--layers", "--compress"}:
        raise PromptError("--text is read by --terms, --layers and --compress alone: tables come from the weights")


def read(where: Place, options: Options) -> None:
    """Read the tables, write and print them."""
    with staged(where.folder, replacing=["bugs.csv", "virtual.csv"]) as staging, ProgressBars() as progress:
        model = where.load(progress)
        found = read_tables(
            model,
            top=options.top,
            heads=options.heads(model),
            per_source=None if options.alone else 1,
            context=options.context,
            offset=options.offset,
            through_mlp0=options.through_mlp0,
            progress=progress,
        )
        found.save(staging / "tables.json")
        files = _write(found, staging)
    _report(found, where, options, files)


def reopen(file: Path, where: Place, options: Options) -> None:
    """Print saved tables again, and write their csv files and picture beside them, or into `out`."""
    found = Tables.load(file)
    where = dataclasses.replace(where, out=file.parent if where.out is None else where.out)
    with staged(where.folder) as staging:
        files = _write(found, staging)
    _report(found, where, options, files)


def _write(found: Tables, folder: Path) -> list[str]:
    for part in ("bigrams", "skip_trigrams", "bugs", "virtual"):
        rows = found.to_dataframe(part)
        if len(rows):
            rows.to_csv(folder / f"{part}.csv", index=False)
    if found.bigrams or found.skip_trigrams:
        found.plot().savefig(folder / "tables.png", dpi=120)
    return sorted(path.name for path in folder.iterdir())


def _report(found: Tables, where: Place, options: Options, files: list[str]) -> None:
    if where.as_json:
        records = {part: found.to_dataframe(part).astype(object).to_dict("records") for part in _PARTS}
        for rows in records.values():
            for row in rows:
                row.update({key: None for key, value in row.items() if value != value})
        about = {"model": found.model, "partial": found.partial, "scale": found.scale, "context": found.context}
        print_json({**about, **records, "files": {name: str(where.folder / name) for name in files}})
        return
    typer.echo(f"Weight tables of {one_line(found.model)}" + (", tokens through the first MLP" if found.through_mlp0 else ""))
    if found.partial:
        note = "this model is more than one layer of heads: what follows is what its direct path, and its heads on the"
        typer.echo(filled(f"  {note} embeddings alone, would say; MLPs and later layers change it."))
    if not options.alone:
        rows = [(_quoted(found, one.token), _quoted(found, one.next), _percent(one.log_probability)) for one in found.bigrams]
        _section("Most likely bigrams, by the direct path alone", ("token", "next", "probability"), rows)
    _print_trigrams(found, options)
    if not options.alone:
        _print_bugs(found, options.top)
        _print_virtual(found, options.top)
    typer.echo(f"Files in {one_line(where.folder)}: {', '.join(files)}")
    if not options.alone:
        named = "" if where.model == "mini" else f" --model {one_line(where.model)}"
        typer.echo(f'Try next: circuits tables{named} --token " the"; circuits tables{named} --terms')


def _print_trigrams(found: Tables, options: Options) -> None:
    copying = {one.head: one.copying for one in found.heads}
    heads = sorted({one.head for one in found.skip_trigrams}, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
    typer.echo(f"Strongest skip-trigrams: source … destination → output (score in logits, context of {found.context} tokens)")
    most = options.top if options.alone else _PER_HEAD
    rows = []
    for head in heads:
        for place, one in enumerate([one for one in found.skip_trigrams if one.head == head][:most]):
            label = f"{head} (copying {copying[head]:+.2f})" if place == 0 else ""
            phrase = f"{_quoted(found, one.source)} … {_quoted(found, one.destination)} → {_quoted(found, one.output)}"
            rows.append((label, phrase, f"{one.score:.2f}", f"{one.attention:.2f}"))
    typer.echo(table(("head", "skip-trigram", "score", "attention"), rows) if rows else "  none: no head raises anything")


def _print_bugs(found: Tables, top: int) -> None:
    rows = []
    for bug in found.bugs[:top]:
        cells = []
        for pair in (bug.wanted, bug.forced):
            cells.append(" and ".join(f"{_quoted(found, one.destination)} → {_quoted(found, one.output)}" for one in pair))
        rows.append((f"{bug.wanted[0].head} {_quoted(found, bug.wanted[0].source)} …", *cells, f"{bug.severity:.2f}"))
    _section("Bugs: what comes with them, as heads cannot tell", ("source", "makes sense", "is forced", "severity"), rows)


def _print_virtual(found: Tables, top: int) -> None:
    rows = []
    for one in found.virtual[:top]:
        tokens = "" if one.source is None else f"{_quoted(found, one.source)} → {_quoted(found, one.output)}"
        rows.append((f"{one.first}, {one.second}", tokens, f"{one.norm:.2f}", f"{one.composition:.2f}", f"{one.copying:+.2f}"))
    _section("Virtual heads, by norm", ("heads", "strongest tokens", "norm", "composition", "copying"), rows)


def about_token(token: str, where: Place, options: Options) -> None:
    """What the tables say of one token: what follows it, and for each head whom it attends to, who attends to it, and what it
    raises when it is attended to."""
    with staged(where.folder) as staging, ProgressBars() as progress:
        model = where.load(progress)
        place = model.single_token(token)
        size = measured_scale(model)
        direct = bigram_table(model, through_mlp0=options.through_mlp0).top(place, options.top)
        report: dict[str, Any] = {"model": model.name, "token": token, "next": _entries(model, direct), "heads": {}}
        heads = options.heads(model)
        for done, name in enumerate(heads):
            progress("reading heads", done, len(heads))
            report["heads"][name] = _of_head(model, name, place, size, options)
        progress("reading heads", len(heads), len(heads))
        (staging / "token.json").write_text(json.dumps(report, allow_nan=False), encoding="utf-8")
    if where.as_json:
        print_json({**report, "files": {"token.json": str(where.folder / "token.json")}})
        return
    typer.echo(f"{token!r} in the weight tables of {one_line(model.name)}")
    following = [(repr(row["token"]), _percent(row["value"])) for row in report["next"]]
    _section("Next, by the direct path alone", ("token", "probability"), following)
    most = max(3, min(options.top, 5))
    for column, heading in _COLUMNS.items():
        _section(heading, ("head", "tokens"), [(name, _list(row[column], most)) for name, row in report["heads"].items()])
    typer.echo(f"Files in {one_line(where.folder)}: token.json")


_COLUMNS = {
    "attends_to": "Whom it attends to (attention score above the mean token's)",
    "attended_from": "Who attends to it (attention score above the mean token's)",
    "raises": "What it raises when a head attends to it (logits above the mean token's)",
}


def _of_head(model: Model, name: str, token: int, scale: float, options: Options) -> dict[str, list[dict[str, Any]]]:
    common: dict[str, Any] = {"through_mlp0": options.through_mlp0}
    attends = qk_table(model, name, offset=options.offset, **common).top(token, options.top)
    attended = qk_table(model, name, offset=options.offset, rows="source", **common).top(token, options.top)
    raised = ov_table(model, name, scale=scale, **common).top(token, options.top)
    return {key: _entries(model, found) for key, found in zip(_COLUMNS, (attends, attended, raised), strict=True)}


def _entries(model: Model, found: Sequence[tuple[int, float]]) -> list[dict[str, Any]]:
    words = model.to_token_strings([token for token, _ in found])
    return [{"token": word, "value": value} for word, (_, value) in zip(words, found, strict=True)]


def _list(entries: Sequence[Mapping[str, Any]], most: int) -> str:
    return ", ".join(f"{entry['token']!r} {entry['value']:.1f}" for entry in entries[:most])


def _quoted(found: Tables, token: int | None) -> str:
    return repr(found.word(token))


def _percent(log_probability: float) -> str:
    return f"{math.exp(log_probability):.1%}"


def _section(heading: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        typer.echo(heading)
        typer.echo(table(header, rows))
