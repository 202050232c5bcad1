"""Attention traced back to tokens, as it is written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import circuits
from circuits.cli.output import save_figure
from circuits.cli.questions.attention import AttentionQuestion
from circuits.cli.report import Report, Table, records
from circuits.cli.settings import Setting
from circuits.cli.text import filled, one_line, printable
from circuits.graph import Node
from circuits.models import Model
from circuits.patching import AttentionTrace
from circuits.patching.tracing.attention_trace import EFFECTS, HINT

_MOST_ROWS, _MOST_DRAWN = 60, 160
_WORDS = {"lat": "LAT", "norm": "norm", "embedding": "replaced", "knockout": "hidden"}


def write(found: AttentionTrace, folder: Path) -> None:
    """Write the table, and the figure where the tokens can be told apart in it."""
    found.to_dataframe().to_csv(folder / "attention.csv", index=False)
    if len(found.tokens[0]) <= _MOST_DRAWN:
        save_figure(found.plot(), folder / "attention.png")


def draw_patterns(model: Model, heads: list[str], found: AttentionTrace, ids: torch.Tensor, path: Path) -> None:
    """Draw where these heads look."""
    with torch.no_grad():
        ran = model.run(ids)
    names, title = [str(Node.parse(name)) for name in heads], f"Attention patterns of {model.name}"
    save_figure(circuits.plots.patterns_figure(ran, names, list(found.tokens[0]), title=title), path)


def attention_report(
    found: AttentionTrace,
    files: Mapping[str, str],
    prompt: str,
    answer: str,
    steps: Sequence[tuple[str, str]] = (),
) -> Report:
    """What attention points at beside what each token's loss costs; `answer`: whose answer it is, in words."""
    place, chance = found.positions[0], float(found.log_probabilities[0].exp())
    read = (
        f"{answer}: {_token(found.answers[0])}, probability {chance:.1%}, "
        f"read at token {place} ({_token(found.tokens[0][place])})"
    )
    columns = (
        "LAT, rollout, flow, norm: what attention points at (shares; flow: of 1 a token).\n"
        "replaced, hidden: nats of the answer's log-probability lost with the token's embedding replaced "
        f"({found.kind}), and with the token\nhidden from all later ones; positive = it was helping. * is read."
    )
    return Report(
        heading=f"Attention of {one_line(found.model)}: {one_line(prompt)}",
        parts=[read, _tokens(found), columns, filled(_disagreement(found)) + "\n" + HINT],
        data=_data(found),
        files=files,
        next=steps,
    )


def _data(found: AttentionTrace) -> dict[str, Any]:
    rows = []
    for row in found.disagreement():
        parts = {"spearman": row.spearman, "top": row.top}
        rank = {name: None if value is None else value.effect for name, value in parts.items()}
        rows.append({"tracing": row.tracing, "effect": row.effect, **rank})
    return {
        "model": found.model,
        "answer": found.answers[0],
        "position": found.positions[0],
        "log_probability": float(found.log_probabilities[0]),
        "logit": float(found.logits[0]),
        "replaced_by": found.kind,
        "seed": found.seed,
        "tokens": records(found.to_dataframe()),
        "disagreement": rows,
        "note": HINT,
    }


def next_steps(question: AttentionQuestion, setting: Setting) -> list[tuple[str, str]]:
    """What to try after this."""
    told = {"--answer": question.answer, "--position": question.position if question.position != -1 else None}
    told |= {"--seed": question.seed or None}
    asked = [word for name, value in told.items() if value is not None for word in (name, str(value))]
    start = ["attention", "--prompt", question.prompt] if question.prompt == "labels" else ["attention", question.prompt]
    other = ("resample", "random tokens in place of the mean") if question.replace == "mean" else ("mean", "the mean embedding")
    return [
        (setting.command(*start, *asked, "--heads", "a0.h0"), "also where heads look"),
        (setting.command(*start, *asked, "--replace", other[0]), other[1]),
        (setting.command("attention", "labels", "FILE.conllu"), "heads by grammatical relation"),
    ]


def _token(text: str) -> str:
    return printable(text.replace(" ", "·").replace("\n", "↵"))


def _tokens(found: AttentionTrace) -> Table:
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
    return Table(["token", *(_WORDS.get(name, name) for name in columns)], rows)


def _disagreement(found: AttentionTrace) -> str:
    said = []
    for effect in EFFECTS:
        rows = [row for row in found.disagreement() if row.effect == effect and row.spearman is not None]
        ranks = ", ".join(f"{_WORDS.get(row.tracing, row.tracing)} {row.spearman.effect:+.2f}" for row in rows if row.spearman)
        same = [_WORDS.get(row.tracing, row.tracing) for row in rows if row.top is not None and row.top.effect == 1.0]
        top = f"same first token: {', '.join(same) or 'none'}"
        said.append(f"with {_WORDS[effect]}: {ranks} ({top})" if rows else f"with {_WORDS[effect]}: too few tokens to rank")
    return "Rank correlation " + "; ".join(said) + "."
