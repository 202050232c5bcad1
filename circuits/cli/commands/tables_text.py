"""`circuits tables --terms`, `--layers`, `--compress`: what a text says of heads and layers."""

import dataclasses
from pathlib import Path
from typing import Any, get_args

import typer

from circuits.cli.loading import load
from circuits.cli.measured import save_figure
from circuits.cli.output import default_directory, staged
from circuits.cli.progress import ProgressBars
from circuits.cli.text import filled, one_line, print_json, table
from circuits.errors import PromptError
from circuits.heads import Compression, compress_heads
from circuits.models import Model, TokenBatch
from circuits.patching import LayerRemoval, Terms, order_of_terms, remove_layers
from circuits.patching.ablation.expansion import MLPs
from circuits.patching.ablation.layers import Removal
from circuits.tasks.sources.corpus import read_text, text_rows, written_text

_WRITTEN = 64
"""Tokens of a row that the model writes itself."""


@dataclasses.dataclass(frozen=True)
class Place:
    """The model, where its files go, and how results are printed."""

    model: str
    device: str
    dtype: str
    out: Path | None
    as_json: bool

    @property
    def folder(self) -> Path:
        """Where the files go."""
        last = default_directory(self.model).name.removeprefix("induction-")
        return Path("out") / f"tables-{last}" if self.out is None else self.out

    def load(self, progress: ProgressBars) -> Model:
        """Load the model."""
        progress("loading the model", 0, 1)
        model = load(self.model, device=self.device, dtype=self.dtype)
        progress("loading the model", 1, 1)
        return model


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A text: a file, or what the model writes itself."""

    file: Path | None
    limit: int
    seed: int

    def read(self) -> str | None:
        """The file's text, before a model is loaded."""
        return None if self.file is None else read_text(self.file)

    def tokens(self, model: Model, text: str | None) -> TokenBatch:
        """The text as prompts."""
        if text is not None:
            return text_rows(model, text, limit=self.limit).to(model.device)
        width = min(_WRITTEN, self.limit, model.max_positions or _WRITTEN)
        return written_text(model, count=max(1, self.limit // width), length=width, seed=self.seed)

    def describe(self, tokens: int) -> str:
        """What was read."""
        return f"{tokens:,} tokens " + ("that the model wrote itself" if self.file is None else f"of {one_line(self.file)}")


def order(corpus: Corpus, where: Place, *, mlps: str) -> None:
    """Measure the order of terms, write and print it."""
    if mlps not in get_args(MLPs):
        raise PromptError(f"--mlps {mlps}: expected frozen or zero")
    held: MLPs = "zero" if mlps == "zero" else "frozen"
    text = corpus.read()
    with staged(where.folder) as staging, ProgressBars() as progress:
        model = where.load(progress)
        found = order_of_terms(model, corpus.tokens(model, text), mlps=held, progress=progress)
        found.heads_dataframe().to_csv(staging / "terms_heads.csv", index=False)
        files = _write(found, staging, "terms")
    heads = found.heads_dataframe().sort_values("rise", ascending=False, kind="stable")
    if where.as_json:
        orders = [{"order": n, "loss": found.loss(n)} for n in range(len(found.losses))]
        best = [{str(key): value for key, value in row.items()} for row in heads.to_dict("records")]
        about = {"model": found.model, "mlps": found.mlps, "tokens": int(found.counts.sum()), "loss": found.full_loss}
        print_json({**about, "uniform": found.uniform, "orders": orders, "heads": best, "files": _paths(where, files)})
        return
    said = {"frozen": ", MLPs as the run wrote them", "zero": ", MLPs left out", "none": ""}[found.mlps]
    typer.echo(f"Order of terms in {one_line(found.model)}: loss on {corpus.describe(int(found.counts.sum()))}{said}")
    names = ["direct path", *(_order_name(n) for n in range(1, len(found.losses)))]
    rows = [(name, f"{found.loss(n):.3f}", _gain(found, n)) for n, name in enumerate(names)]
    rows += [("the model itself", f"{found.full_loss:.3f}", ""), ("knowing nothing", f"{found.uniform:.3f}", "")]
    typer.echo(table(("terms", "loss (nats)", "gain"), rows))
    typer.echo("Heads whose own term is worth most (rise of the loss of order 1 without it)")
    shown = [(row["head"], f"{row['rise']:+.3f}") for row in heads.loc[heads["order"] == 1].head(8).to_dict("records")]
    typer.echo(table(("head", "nats"), shown))
    _where(where, files)


def _order_name(order: int) -> str:
    return {1: "+ single heads", 2: "+ virtual heads of two"}.get(order, f"+ virtual heads of {order}")


def _gain(found: Terms, order: int) -> str:
    if order == 0:
        return ""
    gain = found.loss(order - 1) - found.loss(order)
    if len(found.full) == 1:
        return f"{gain:+.3f}"
    spread = found.interval(order)
    return f"{gain:+.3f} [{spread.low:.3f}, {spread.high:.3f}]"


def remove(corpus: Corpus, where: Place, *, kind: str) -> None:
    """Remove layers, write and print what is lost."""
    if kind not in get_args(Removal):
        raise PromptError(f"--kind {kind}: expected zero or mean")
    stand: Removal = "mean" if kind == "mean" else "zero"
    text = corpus.read()
    with staged(where.folder) as staging, ProgressBars() as progress:
        model = where.load(progress)
        found = remove_layers(model, corpus.tokens(model, text), kind=stand, progress=progress)
        files = _write(found, staging, "layers")
    rows = [{str(key): value for key, value in row.items()} for row in found.to_dataframe().to_dict("records")]
    if where.as_json:
        about = {"model": found.model, "kind": found.kind, "tokens": int(found.counts.sum()), "loss": found.full_loss}
        print_json({**about, "layers": rows, "later": found.later.tolist(), "files": _paths(where, files)})
        return
    _print_layers(found, corpus, rows)
    _where(where, files)


def _print_layers(found: LayerRemoval, corpus: Corpus, rows: list[dict[str, Any]]) -> None:
    stand = "0" if found.kind == "zero" else "its mean"
    typer.echo(
        f"{one_line(found.model)} without each layer ({stand} in its place), on {corpus.describe(int(found.counts.sum()))}"
    )
    typer.echo(f"  loss of the whole model {found.full_loss:.3f} nats a token")
    names = {"attention": "attention", "mlp": "MLP", "both": "layer"}
    cells = []
    for row in rows:
        values = [f"{row[name]:+.3f}" for name in ("loss", "direct", "total", "compensation")]
        cells.append((f"{names[row['part']]} {row['layer']}", *values))
    typer.echo(table(("removed", "loss", "direct", "total", "compensation"), cells))
    note = "direct, total: the true next token's logit, what the part writes itself and what is lost without it; compensation: "
    note += "what later layers add when it is gone (below 0: they needed it). total has the final norm's scale without the "
    typer.echo(filled(note + "part, the others that of the whole model: they need not add up."))


def shrink(corpus: Corpus, where: Place, *, head: str | None, tolerance: float, together: bool) -> None:
    """Find the ranks that heads need, write and print them."""
    if not 0 <= tolerance < float("inf"):
        raise PromptError(f"--tolerance {tolerance}: expected nats, 0 or more")
    heads = None if head is None else [name.strip() for name in head.split(",")]
    text = corpus.read()
    with staged(where.folder) as staging, ProgressBars() as progress:
        model = where.load(progress)
        options: dict[str, Any] = {"tolerance": tolerance, "together": together, "progress": progress}
        if heads is not None:
            for name in heads:
                model.graph().node(name)
        found = compress_heads(model, corpus.tokens(model, text), heads=heads, **options)
        files = _write(found, staging, "compression")
    if where.as_json:
        rows = [{str(key): value for key, value in row.items()} for row in found.to_dataframe().to_dict("records")]
        names = ("model", "tolerance", "tokens", "loss", "joint_loss", "parameters", "whole_parameters")
        print_json({**{name: getattr(found, name) for name in names}, "parts": rows, "files": _paths(where, files)})
        return
    _print_ranks(found, corpus)
    _where(where, files)


def _print_ranks(found: Compression, corpus: Corpus) -> None:
    typer.echo(f"Smallest ranks of {one_line(found.model)}'s heads (of {found.d_head}) on {corpus.describe(found.tokens)}")
    typer.echo(
        f"  each part by itself costs at most {found.tolerance:g} nats a token; loss of the whole model {found.loss:.3f}"
    )
    pairs = list(zip(found.parts[::2], found.parts[1::2], strict=True))
    cells = [(qk.head, str(qk.rank), f"{qk.change:+.4f}", str(ov.rank), f"{ov.change:+.4f}") for qk, ov in pairs]
    typer.echo(table(("head", "rank of W_QK", "loss", "rank of W_OV", "loss"), cells))
    share = found.parameters / found.whole_parameters
    typer.echo(
        f"  all at once: loss {found.joint_loss:.3f} ({found.joint_loss - found.loss:+.3f}), "
        f"{found.parameters:,} of {found.whole_parameters:,} numbers ({share:.0%})"
    )


def _write(found: Terms | LayerRemoval | Compression, folder: Path, stem: str) -> list[str]:
    """Write a result, its table and its figure; returns the names of all files that are there now."""
    found.save(folder / f"{stem}.json")
    found.to_dataframe().to_csv(folder / f"{stem}.csv", index=False)
    save_figure(found.plot(), folder / f"{stem}.png")
    return sorted(path.name for path in folder.iterdir())


def _paths(where: Place, files: list[str]) -> dict[str, str]:
    return {name: str(where.folder / name) for name in files}


def _where(where: Place, files: list[str]) -> None:
    typer.echo(f"Files in {one_line(where.folder)}: {', '.join(files)}")
