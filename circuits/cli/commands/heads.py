"""`circuits heads`: scores of every head."""

from pathlib import Path

import torch
import typer

from circuits.cli.loading import load
from circuits.cli.output import staged
from circuits.cli.progress import ProgressBars
from circuits.cli.text import one_line, print_json, table
from circuits.errors import CircuitsError, FileFormatError, PromptError
from circuits.heads import HeadScores, score_heads
from circuits.heads.scores import SCORES
from circuits.models import Model, TokenBatch
from circuits.plots import head_scores_figure

_WIDTH, _PROMPTS = 128, 16
"""Tokens of a text's prompts, and how many of these are read."""


def run(
    *,
    model: str,
    text: Path | None,
    sort: str,
    top: int,
    out: Path | None,
    seed: int,
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """Score the heads, write them where asked, print the best."""
    if sort not in SCORES:
        raise CircuitsError(f"no score {sort!r} to sort by: there are {', '.join(SCORES)}")
    if out is not None and out.suffix.lower() not in (".csv", ".png"):
        raise FileFormatError(f"{out}: unknown kind of file; expected a name that ends in .csv or .png")
    words = None if text is None else _read(text)
    with ProgressBars() as progress:
        progress("loading the model", 0, 1)
        loaded = load(model, device=device, dtype=dtype)
        progress("loading the model", 1, 1)
        progress("scoring heads", 0, 1)
        scores = score_heads(loaded, seed=seed, text=None if words is None else _prompts(loaded, words))
        progress("scoring heads", 1, 1)
    if out is not None:
        _write(scores, out)
    rows = scores.to_dataframe().sort_values(sort, ascending=False, kind="stable").head(top)
    records = [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]
    if as_json:
        where = None if out is None else str(out)
        print_json({"model": loaded.name, "sort": sort, "seed": seed, "file": where, "heads": records})
        return
    header = ("head", *(name.replace("_", " ") for name in SCORES))
    typer.echo(f"{one_line(loaded.name)}: {len(records)} of {loaded.n_layers * loaded.n_heads} heads by {sort}")
    typer.echo(table(header, [(row["name"], *(f"{row[name]:.2f}" for name in SCORES)) for row in records]))
    if out is not None:
        typer.echo(f"wrote {one_line(out)}", err=True)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PromptError(f"{path}: no UTF-8 text ({error.reason} at byte {error.start})") from None


def _prompts(model: Model, text: str) -> TokenBatch:
    """The beginning of a text, cut into two prompts or more of equal length, each after BOS where the model has one."""
    ids = model.to_tokens(text, prepend_bos=False).ids[0].tolist()
    if len(ids) < 4:
        raise PromptError(f"a text of {len(ids)} tokens is too short to measure attention on: give a longer one")
    bos = [int(model.tokenizer.bos_token_id)] if model.prepend_bos else []
    width = min(_WIDTH, (model.max_positions or _WIDTH) - len(bos), len(ids) // 2)
    rows = [bos + ids[start : start + width] for start in range(0, len(ids) - width + 1, width)][:_PROMPTS]
    return TokenBatch.unpadded(torch.tensor(rows)).to(model.device)


def _write(scores: HeadScores, out: Path) -> None:
    with staged(out.parent) as staging:
        if out.suffix.lower() == ".csv":
            scores.to_dataframe().to_csv(staging / out.name, index=False)
        else:
            head_scores_figure(scores).savefig(staging / out.name, dpi=150)
