"""`circuits heads`: scores of every head."""

from pathlib import Path
from typing import Annotated

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.loading import bos_hint
from circuits.cli.options import Seed
from circuits.cli.output import claimed
from circuits.cli.report import Report, Table, records
from circuits.cli.settings import Setting, with_setting
from circuits.cli.text import one_line
from circuits.errors import CircuitsError, FileFormatError, PromptError

_WIDTH, _PROMPTS = 128, 16
"""Tokens of a text's prompts, and how many of these are read."""


@app.command()
@with_setting("heads", out=typer.Option(help="Also write every head's scores to a .csv file, or as a .png, .svg or .pdf."))
def heads(
    text: Annotated[
        Path | None,
        typer.Option(help="A text file to measure previous_token and first_token on (default: random tokens)."),
    ] = None,
    sort: Annotated[str, typer.Option(help="Score to sort by.")] = "prefix_matching",
    top: Annotated[int, typer.Option(min=1, help="Heads to print.")] = 10,
    seed: Seed = 0,
    *,
    setting: Setting,
) -> None:
    """Score every attention head of a model.

    prefix_matching: attention to what followed earlier copies of the current token. copying: the share of what the head
    raises that falls on tokens it attends to, from -1 to 1; a head that copies nothing scores about -0.92.
    previous_token, duplicate_token, first_token: attention to the token before, to earlier copies of the current token,
    to the prompt's first token.

    \b
    Examples:
      circuits heads
      circuits heads --model gpt2 --sort copying --top 20
      circuits heads --text book.txt --out scores.csv
    """
    run(setting, text=text, sort=sort, top=top, seed=seed)


def run(setting: Setting, *, text: Path | None, sort: str, top: int, seed: int) -> None:
    """Score the heads, write them where asked, print the best."""
    from circuits.cli.progress import ProgressBars
    from circuits.files.reading import read_text
    from circuits.heads.scores import SCORES

    out = setting.out
    if sort not in SCORES:
        raise CircuitsError(f"no score {sort!r} to sort by: there are {', '.join(SCORES)}")
    if out is not None and out.suffix.lower() not in (".csv", ".png", ".svg", ".pdf"):
        raise FileFormatError(f"{out}: unknown kind of file; expected a name that ends in .csv, .png, .svg or .pdf")
    words = None if text is None else read_text(text)
    with claimed(out, setting.line) as place:
        with ProgressBars() as progress:
            loaded = setting.load(progress)
            progress("scoring heads", 0, 1)
            scores = circuits.score_heads(loaded, seed=seed, text=None if words is None else _prompts(loaded, words))
            progress("scoring heads", 1, 1)
        if place is not None:
            _write(scores, place)
    best = records(scores.to_dataframe().sort_values(sort, ascending=False, kind="stable").head(top))
    file = None if out is None else str(out)
    report = Report(
        heading=f"{one_line(loaded.name)}: {len(best)} of {loaded.n_layers * loaded.n_heads} heads by {sort}",
        parts=[
            Table(
                ("head", *(name.replace("_", " ") for name in SCORES)),
                [(row["name"], *(f"{row[name]:.2f}" for name in SCORES)) for row in best],
            ),
            bos_hint(loaded),
        ],
        data={"model": loaded.name, "sort": sort, "seed": seed, "file": file, "heads": best},
    )
    setting.answer(report)
    if out is not None:
        typer.echo(f"wrote {one_line(out)}", err=True)


def _prompts(model: "circuits.Model", text: str) -> "circuits.models.TokenBatch":
    """The beginning of a text, cut into two prompts or more of equal length, each after what opens the model's prompts."""
    import torch

    from circuits.models import TokenBatch

    ids = model.to_tokens(text, prepend_bos=False).ids[0].tolist()
    if len(ids) < 4:
        raise PromptError(f"a text of {len(ids)} tokens is too short to measure attention on: give a longer one")
    opening = model.opening()
    width = min(_WIDTH, (model.max_positions or _WIDTH) - len(opening), len(ids) // 2)
    rows = [opening + ids[start : start + width] for start in range(0, len(ids) - width + 1, width)][:_PROMPTS]
    return TokenBatch.unpadded(torch.tensor(rows)).to(model.device)


def _write(scores: "circuits.heads.HeadScores", out: Path) -> None:
    from circuits.cli.output import save_figure

    if out.suffix.lower() == ".csv":
        scores.to_dataframe().to_csv(out, index=False)
    else:
        save_figure(scores.plot(), out)
