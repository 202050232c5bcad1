"""`circuits attention`: one prompt traced, its files and its report."""

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import typer

from circuits.cli.loading import load
from circuits.cli.measured import naming_options, paired, save_figure
from circuits.cli.output import default_directory, staged
from circuits.cli.progress import ProgressBars
from circuits.cli.prompts import names_of
from circuits.cli.text import filled, one_line, print_json, printable, table
from circuits.errors import CircuitsError, GraphError, PromptError
from circuits.graph import Node
from circuits.models import Model
from circuits.patching import AttentionTrace, attention
from circuits.patching.tracing.attention_trace import EFFECTS, HINT
from circuits.plots import attention_figure, patterns_figure

_MOST_ROWS = 60
_MOST_DRAWN = 160
_KINDS: dict[str, Literal["mean", "resample"]] = {"mean": "mean", "resample": "resample"}
_WORDS = {"lat": "LAT", "norm": "norm", "embedding": "replaced", "knockout": "hidden"}


@dataclasses.dataclass(frozen=True)
class Question:
    """What is traced."""

    prompt: str
    answer: str | None
    position: int
    heads: str | None
    replace: str
    seed: int
    bos: bool | None

    def __post_init__(self) -> None:
        if self.replace not in _KINDS:
            raise CircuitsError(f"--replace is {self.replace!r}; expected one of {', '.join(_KINDS)}")
        for name in self.head_names:
            if Node.parse(name).kind != "head":
                raise GraphError(f"{name} has no attention pattern, only heads do: name one, such as a0.h1")

    @property
    def head_names(self) -> list[str]:
        """The heads whose patterns are drawn."""
        return [] if self.heads is None else names_of(self.heads)


def folder_of(model: str, out: Path | None) -> Path:
    """Where the files go."""
    return Path("out") / f"attention-{default_directory(model).name.removeprefix('induction-')}" if out is None else out


def run(question: Question, *, model: str, device: str, dtype: str, memory: int, out: Path | None, as_json: bool) -> None:
    """Trace, write the files, print the report."""
    folder = folder_of(model, out)
    with staged(folder, replacing=["patterns.png"]) as staging, ProgressBars() as progress, naming_options():
        progress("loading the model", 0, 1)
        loaded = load(model, device=device, dtype=dtype)
        progress("loading the model", 1, 1)
        for name in question.head_names:
            loaded.graph().node(Node.parse(name))
        tokens = loaded.to_tokens(question.prompt, prepend_bos=question.bos)
        if tokens.ids.shape[1] < 2:
            raise PromptError(
                f"the prompt is {tokens.ids.shape[1]} token: attention has nothing to choose from; give a longer one"
            )
        options: dict[str, Any] = {"position": question.position, "kind": _KINDS[question.replace], "seed": question.seed}
        found = attention(loaded, tokens, answers=question.answer, budget=memory * 2**20, progress=progress, **options)
        found.save(staging / "attention.json")
        files = {"attention.json": "everything measured; circuits attention --open shows it again", **_write(found, staging)}
        if question.head_names:
            files |= _draw(loaded, question.head_names, found, tokens.ids, staging)
    if as_json:
        print_json(_as_json(found, {name: str(folder / name) for name in files}))
        return
    own = "the model's own" if question.answer is None else "as asked"
    parts = _report(found, folder, files, question.prompt, f"answer ({own})")
    typer.echo("\n\n".join([*parts, paired("Try next", _steps(question, model))]))


def reopen(file: Path, *, out: Path | None, as_json: bool) -> None:
    """Print a saved trace again, and write its table and figure beside it, or into `out`."""
    found, folder = AttentionTrace.load(file), file.parent if out is None else out
    if len(found) > 1:
        raise PromptError(f"{file}: holds {len(found)} prompts; the command shows one: read it with AttentionTrace.load")
    with staged(folder) as staging:
        files = _write(found, staging)
    if as_json:
        print_json(_as_json(found, {name: str(folder / name) for name in files}))
    else:
        typer.echo("\n\n".join(_report(found, folder, files, "".join(found.tokens[0][found.opening[0] :]), "answer")))


def _write(found: AttentionTrace, folder: Path) -> dict[str, str]:
    """Write the table and the figure; returns what they are."""
    found.to_dataframe().to_csv(folder / "attention.csv", index=False)
    files = {"attention.csv": "a row a token"}
    if len(found.tokens[0]) <= _MOST_DRAWN:
        save_figure(attention_figure(found), folder / "attention.png")
        files["attention.png"] = "it as a picture"
    return files


def _draw(model: Model, heads: list[str], found: AttentionTrace, ids: torch.Tensor, folder: Path) -> dict[str, str]:
    """Draw the patterns of these heads."""
    with torch.no_grad():
        ran = model.run(ids)
    names, title = [str(Node.parse(name)) for name in heads], f"Attention patterns of {model.name}"
    save_figure(patterns_figure(ran, names, list(found.tokens[0]), title=title), folder / "patterns.png")
    return {"patterns.png": one_line(f"where {', '.join(names)} look")}


def _as_json(found: AttentionTrace, files: Mapping[str, str]) -> dict[str, Any]:
    rows = []
    for row in found.disagreement():
        parts = {"spearman": row.spearman, "top": row.top}
        rank = {name: None if value is None else value.effect for name, value in parts.items()}
        rows.append({"tracing": row.tracing, "effect": row.effect, **rank})
    sources = [{str(key): value for key, value in row.items()} for row in found.to_dataframe().to_dict("records")]
    return {
        "model": found.model,
        "answer": found.answers[0],
        "position": found.positions[0],
        "log_probability": float(found.log_probabilities[0]),
        "logit": float(found.logits[0]),
        "replaced_by": found.kind,
        "seed": found.seed,
        "tokens": sources,
        "disagreement": rows,
        "note": HINT,
        "files": dict(files),
    }


def _report(found: AttentionTrace, folder: Path, files: Mapping[str, str], prompt: str, answer: str) -> list[str]:
    chance = float(found.log_probabilities[0].exp())
    place = found.positions[0]
    return [
        f"Attention of {one_line(found.model)}: {one_line(prompt)}",
        f"{answer}: {_token(found.answers[0])}, probability {chance:.1%}, "
        f"read at token {place} ({_token(found.tokens[0][place])})",
        _tokens(found),
        "LAT, rollout, flow, norm: what attention points at (shares; flow: of 1 a token).\n"
        "replaced, hidden: nats of the answer's log-probability lost with the token's embedding replaced "
        f"({found.kind}), and with the token\nhidden from all later ones; positive = it was helping. * is read.",
        filled(_disagreement(found)) + "\n" + HINT,
        paired(f"Files in {one_line(folder)}", list(files.items())),
    ]


def _steps(question: Question, model: str) -> list[tuple[str, str]]:
    named = [] if model == "mini" else ["--model", model]
    told = {"--answer": question.answer, "--position": question.position if question.position != -1 else None}
    asked = [word for name, value in told.items() if value is not None for word in (name, str(value))]
    first = one_line(shlex.join(["circuits", "attention", question.prompt, *asked, *named]))
    other = ("resample", "random tokens in place of the mean") if question.replace == "mean" else ("mean", "the mean embedding")
    return [
        (f"{first} --heads a0.h0", "also where heads look"),
        (f"{first} --replace {other[0]}", other[1]),
        (one_line(shlex.join(["circuits", "attention", *named, "--labels", "FILE.conllu"])), "heads by grammatical relation"),
    ]


def _token(text: str) -> str:
    return printable(text.replace(" ", "·").replace("\n", "↵"))


def _tokens(found: AttentionTrace) -> str:
    tokens, columns = found.tokens[0], {**found.tracings, **{name: found.effects[name] for name in EFFECTS}}
    rows = []
    for at, token in enumerate(tokens):
        cells = [
            f"{float(values[0, at]):+.2f}" if name in EFFECTS else f"{float(values[0, at]):.3f}"
            for name, values in columns.items()
        ]
        rows.append([f"{at} {_token(token)}{'*' if at == found.positions[0] else ''}", *cells])
    if len(rows) > _MOST_ROWS:
        rows = [*rows[: _MOST_ROWS // 2], ["…", *[""] * len(columns)], *rows[-_MOST_ROWS // 2 :]]
    return table(["token", *(_WORDS.get(name, name) for name in columns)], rows)


def _disagreement(found: AttentionTrace) -> str:
    said = []
    for effect in EFFECTS:
        rows = [row for row in found.disagreement() if row.effect == effect and row.spearman is not None]
        ranks = ", ".join(f"{_WORDS.get(row.tracing, row.tracing)} {row.spearman.effect:+.2f}" for row in rows if row.spearman)
        same = [_WORDS.get(row.tracing, row.tracing) for row in rows if row.top is not None and row.top.effect == 1.0]
        top = f"same first token: {', '.join(same) or 'none'}"
        said.append(f"with {_WORDS[effect]}: {ranks} ({top})" if rows else f"with {_WORDS[effect]}: too few tokens to rank")
    return "Rank correlation " + "; ".join(said) + "."
