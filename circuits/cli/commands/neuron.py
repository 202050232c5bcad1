"""`circuits neuron`: one neuron, or a list of them, its files and its report."""

import csv
import dataclasses
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import typer

import circuits.plots
from circuits.cli.loading import load
from circuits.cli.measured import paired, save_figure
from circuits.cli.output import default_directory, staged
from circuits.cli.progress import ProgressBars
from circuits.cli.prompts import require_text
from circuits.cli.text import one_line, print_json, printable, table
from circuits.errors import GraphError, PromptError
from circuits.graph import Node
from circuits.lenses import (
    Clamp,
    KeyValueAgreement,
    NeuronReport,
    clamp,
    find_triggers,
    key_value_agreement,
    neuron,
    read_values,
)
from circuits.lenses.neurons.activations import chosen_neurons, parse_neuron
from circuits.lenses.neurons.listing import list_neurons
from circuits.lenses.neurons.report import default_corpus
from circuits.models import Model, TokenBatch
from circuits.tasks.sources.corpus import read_text, text_rows

FILES = {
    "neuron.json": "everything; circuits neuron --open shows it again",
    "triggers.csv": "where it fires most and least, with the text around",
    "neuron.png": "triggers in their contexts, and the tokens that it raises and lowers",
    "clamp.json": "next-token probabilities with the neuron held",
    "clamp.png": "the same as a picture",
    "neurons.csv": "every neuron: triggers, value, agreement",
    "triggers.safetensors": "the places of all triggers",
    "agreement.json": "key-value agreement by layer, and by chance",
    "agreement.png": "the same as a picture",
    "activity.png": "how often and how strongly neurons fire",
}
"""What `circuits neuron` writes, and what for: the first ones about one neuron, the others about a list."""
_WRITTEN, _CONTEXT = 8, 76
"""Tokens of a value, and characters of a context, that are printed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """Which neurons, in which text, and what else is asked of them."""

    name: str | None
    text: Path | None
    limit: int
    top: int
    through: str | None
    clamp: float | None
    prompt: str | None
    seed: int

    @property
    def node(self) -> Node | None:
        """The neuron or the MLP of that name; None for all. Raises GraphError for another node."""
        node = None if self.name is None else Node.parse(self.name)
        if node is not None and node.kind not in ("mlp", "neuron"):
            raise GraphError(f"{node} is no neuron and no MLP: expected a name such as m3.n7 or m3")
        return node

    def check(self) -> None:
        """Raise where the options contradict each other; needs no model."""
        node = self.node
        if self.prompt is not None and self.clamp is None:
            raise PromptError("--prompt is the text on which a neuron is held: it needs --clamp VALUE")
        if self.prompt is not None:
            require_text(self.prompt, "--prompt")
        if self.clamp is not None and not math.isfinite(self.clamp):
            raise PromptError(f"--clamp is {self.clamp}; expected a finite number")
        single = {"--clamp": self.clamp, "--through": self.through}
        given = next((name for name, value in single.items() if value is not None), None)
        if given is not None and (node is None or node.kind == "mlp"):
            raise PromptError(f"{given} is about one neuron: name it, such as circuits neuron m3.n7 {given} ...")

    def check_with(self, model: Model) -> None:
        """Raise for names and prompts that do not fit the model, before anything takes time."""
        chosen_neurons(model, None if self.name is None else [self.name])
        if self.through is not None:
            read_values(model, [self.name or ""], k=1, through=self.through)
        if self.prompt is not None:
            model.prepare(self.prompt)

    def words(self, *more: str, model: str) -> str:
        """A command line about the same text."""
        text = [] if self.text is None else ["--text", str(self.text)]
        return one_line(shlex.join(["circuits", "neuron", *more, *text, *([] if model == "mini" else ["--model", model])]))


def run(question: Question, *, model: str, device: str, dtype: str, out: Path | None, as_json: bool) -> None:
    """Look at the neurons, write the files, print the report."""
    question.check()
    words = None if question.text is None else read_text(question.text)
    folder = Path("out") / f"neuron-{default_directory(model).name.removeprefix('induction-')}" if out is None else out
    with staged(folder) as staging, ProgressBars() as progress:
        progress("loading the model", 0, 1)
        loaded = load(model, device=device, dtype=dtype)
        progress("loading the model", 1, 1)
        question.check_with(loaded)
        progress("preparing the text", 0, 1)
        corpus = default_corpus(loaded, seed=question.seed) if words is None else text_rows(loaded, words, limit=question.limit)
        progress("preparing the text", 1, 1)
        if question.node is not None and question.node.kind == "neuron":
            report, held = _one(question, loaded, corpus, progress)
            report.save(staging / "neuron.json")
            written = _write_one(report, held, staging)
        else:
            listed, agreement = _many(question, loaded, corpus, progress, staging)
            written = None
    if written is not None:
        if held is None:  # those of an earlier run would be about something else
            for name in ("clamp.json", "clamp.png"):
                (folder / name).unlink(missing_ok=True)
        _print_one(report, held, folder, written, question, model=model, as_json=as_json)
        return
    _print_many(listed, agreement, folder, question, model=model, as_json=as_json)


def reopen(file: Path, question: Question, *, out: Path | None, as_json: bool) -> None:
    """Print a saved report again, and write its table and picture beside it, or into `out`."""
    report, folder = NeuronReport.load(file), file.parent if out is None else out
    with staged(folder) as staging:
        written = _write_one(report, None, staging)
    _print_one(report, None, folder, written, question, model=report.model, as_json=as_json)


def _one(question: Question, model: Model, corpus: TokenBatch, progress: ProgressBars) -> tuple[NeuronReport, Clamp | None]:
    node = parse_neuron(model, question.name or "")
    report = neuron(model, node, corpus, top=question.top, through=question.through, progress=progress)
    if question.clamp is None:
        return report, None
    prompt: Any = question.prompt
    if prompt is None:
        place = report.lowest[0]
        row = corpus.ids[place.prompt, : place.position + 1]
        prompt = row[corpus.mask[place.prompt, : place.position + 1]]
    return report, clamp(model, prompt, {str(node): question.clamp})


def _many(
    question: Question, model: Model, corpus: TokenBatch, progress: ProgressBars, folder: Path
) -> tuple[list[dict[str, Any]], KeyValueAgreement]:
    names = None if question.name is None else [question.name]
    found = find_triggers(model, corpus, neurons=names, progress=progress)
    progress("reading values", 0, 1)
    agreement = key_value_agreement(model, found, corpus, seed=question.seed)
    listed = list_neurons(model, found, read_values(model, names), corpus)
    progress("reading values", 1, 1)
    found.save(folder / "triggers.safetensors")
    agreement.save(folder / "agreement.json")
    _write_table(listed, folder / "neurons.csv")
    save_figure(circuits.plots.agreement_figure(agreement), folder / "agreement.png")
    save_figure(circuits.plots.triggers_figure(found), folder / "activity.png")
    return listed.head(question.top).to_dict("records"), agreement


def _write_one(report: NeuronReport, held: Clamp | None, folder: Path) -> list[str]:
    """Write what is known of one neuron; returns the names of all files that are there."""
    _write_table(report.to_dataframe(), folder / "triggers.csv")
    save_figure(circuits.plots.neuron_figure(report), folder / "neuron.png")
    if held is not None:
        (folder / "clamp.json").write_text(json.dumps(held.as_json(), allow_nan=False), encoding="utf-8")
        if any(shift.change for shift in held.rising):
            save_figure(circuits.plots.clamp_figure(held), folder / "clamp.png")
    return [name for name in FILES if (folder / name).is_file()]


def _write_table(rows: pd.DataFrame, path: Path) -> None:
    """A CSV file with all text in quotes: a bare carriage return in a token would end its row."""
    rows.to_csv(path, index=False, quoting=csv.QUOTE_NONNUMERIC)


def _print_one(
    report: NeuronReport,
    held: Clamp | None,
    folder: Path,
    files: Sequence[str],
    question: Question,
    *,
    model: str,
    as_json: bool,
) -> None:
    if as_json:
        extra = {} if held is None else {"clamp": held.as_json()}
        print_json({**report.as_json(), **extra, "files": {name: str(folder / name) for name in files}})
        return
    heading = (
        f"{one_line(report.model)}: {report.neuron}, active at {report.active:.1%} of {report.places:,} tokens, "
        f"mean {report.mean:.3f}, largest {report.largest:.3f}"
    )
    rows = [
        (_shortened(one.marked()), f"{one.activation:.3f}", _token(one.following)) for one in report.triggers[: question.top]
    ]
    through = f", through {report.through}" if report.through else ""
    weights = [("raises", _weighted(report.raises)), ("lowers", _weighted(report.lowers))]
    weights += [(f"{slot} reads", _weighted(ends[0])) for slot, ends in report.keys.items()]
    nodes = [("written by", report.writers), ("read by", report.readers)]
    weights += [(way, ", ".join(f"{name} {value:+.2f}" for name, value in found)) for way, found in nodes if found]
    parts = [
        heading,
        table(("trigger", "activation", "next token"), rows, indent=0),
        paired(f"By its weights (tokens: logits{through}, and pre-activation; nodes: cosines)", weights),
    ]
    if held is not None:
        parts.append(_held(held))
    parts.append(paired(f"Files in {one_line(folder)}", [(name, FILES[name]) for name in files]))
    if held is None:
        again = question.words(report.neuron, "--clamp", f"{max(report.largest, 0.1) * 1.5:.2g}", model=model)
        parts.append(paired("Try next", [(again, "what the model says with it held")]))
    typer.echo("\n\n".join(parts))


def _held(held: Clamp) -> str:
    """What holding the neuron changes."""
    (name, value), own = next(iter(held.clamped.items())), next(iter(held.natural.values()))
    where = one_line(repr(held.prompt[-60:]))
    heading = f"{name} held at {value:g} (by itself {own:.3f}) on {where}: KL(held ‖ own) {held.kl:.3f} nats"
    shifts = [*held.rising[:5], *held.falling[:5]]
    rows = [(_token(one.token), f"{one.before:.4f}", f"{one.after:.4f}", f"{one.change:+.4f}") for one in shifts]
    texts = [("before", one_line(repr(held.continuation[0]))), ("after", one_line(repr(held.continuation[1])))]
    return "\n".join([heading, table(("next token", "before", "after", "change"), rows), paired("  It continues", texts)])


def _print_many(
    rows: list[dict[str, Any]], agreement: KeyValueAgreement, folder: Path, question: Question, *, model: str, as_json: bool
) -> None:
    names = ("neurons.csv", "triggers.safetensors", "agreement.json", "agreement.png", "activity.png")
    if as_json:
        files = {name: str(folder / name) for name in names}
        clean = [{key: None if value != value else value for key, value in row.items()} for row in rows]
        print_json({"model": agreement.model, "agreement": agreement.as_json(), "neurons": clean, "files": files})
        return
    layers = ("layer", "neurons", "first token", "by chance", f"first {agreement.k}", "by chance")
    cells = [_agreeing(row) for row in agreement.to_dataframe().to_dict("records")]
    best = []
    for row in rows:
        numbers = (f"{row['agreement']:.0%}", f"{row['chance']:.1%}", f"{row['largest']:.2f}", f"{row['active']:.1%}")
        best.append((row["neuron"], *numbers, _shortened(row["trigger"], 48), one_line(row["raises"])))
    shown = table(("neuron", "agrees", "by chance", "largest", "active", "trigger", "raises"), best, indent=0)
    parts = [
        f"{one_line(agreement.model)}: does a neuron's value name the token after its top trigger?",
        table(layers, cells, indent=0),
        f"The {len(rows)} neurons whose values name what follows their triggers most surprisingly\n{shown}",
        paired(f"Files in {one_line(folder)}", [(name, FILES[name]) for name in names]),
    ]
    if rows:
        parts.append(paired("Try next", [(question.words(rows[0]["neuron"], model=model), "one neuron from all sides")]))
    typer.echo("\n\n".join(parts))


def _agreeing(row: dict[str, Any]) -> tuple[str, ...]:
    """One layer's shares, each beside what chance gives."""
    cells = [f"m{row['layer']}", f"{row['neurons']:,}"]
    for end in ("", "_within"):
        share, chance, low, high = (row[f"{name}{end}"] for name in ("share", "chance", "low", "high"))
        cells += [f"{share:.2%}", f"{chance:.2%} [{low:.2%}, {high:.2%}]"]
    return tuple(cells)


def _weighted(tokens: Sequence[tuple[str, float]]) -> str:
    return "  ".join(f"{_token(token)} {value:+.2f}" for token, value in tokens[:_WRITTEN])


def _token(token: str | None) -> str:
    return "–" if token is None else printable(repr(token))


def _shortened(context: str, longest: int = _CONTEXT) -> str:
    """A context on one line, the text around its mark cut off."""
    before, here, after = context.partition("[[")[0], *context.partition("[[")[2].partition("]]")[::2]
    room = max(longest - len(here) - 4, 8)
    after = printable(after.replace("\n", "↵"))[: room // 3]
    before = printable(before.replace("\n", "↵"))
    left = room - len(after)
    before = before if len(before) <= left else f"…{before[1 - left :]}"
    return f"{before}[[{printable(here.replace(chr(10), '↵'))}]]{after}"
