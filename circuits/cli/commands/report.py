"""`circuits report`: anything that was saved, as one page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import app
from circuits.cli.options import AsJson, Device, Devices, Dtype, Edits
from circuits.cli.output import PAGE, claimed
from circuits.cli.settings import Setting
from circuits.errors import CircuitsError, FileFormatError

if TYPE_CHECKING:
    from circuits.report import Page, Saved


@app.command()
def report(
    place: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_FOLDER|FILE", help="A folder of results, a circuit, or another saved result.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The page.", show_default="report.html in the folder")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="The model, for what only it can tell: attention, tokens, prompts.",
            show_default="the circuit's, if bundled",
        ),
    ] = None,
    no_model: Annotated[bool, typer.Option("--no-model", help="Show what was saved, and nothing else.")] = False,
    title: Annotated[str | None, typer.Option(help="The page's title.", show_default="task and model")] = None,
    device: Device = "cpu",
    devices: Devices = None,
    dtype: Dtype = "float32",
    edits: Edits = None,
    as_json: AsJson = False,
) -> None:
    """Show what was saved as one page.

    One file of HTML that opens from a mail attachment: it loads nothing, and needs no server and no network. It shows the
    circuit to walk through, its verdict, tracing, lenses and head scores, as far as the folder has them, and how all was
    made. With the model of the circuit it also shows what heads attend to, what nodes write, and on which prompts an edge
    matters.

    \b
    Examples:
      circuits report out/induction-mini
      circuits report out/discover-gpt2 --model gpt2 --out ioi.html
      circuits report circuit.mib.json --no-model
    """
    on = tuple(edits or ())
    if on and model is None:
        raise CircuitsError("--edits are put on the model that is named: it needs --model")
    where: dict[str, Any] = {"device": device, "devices": devices, "dtype": dtype, "edits": on}
    setting = Setting(job="report", model=model or "", as_json=as_json, **where)
    run(place, setting, out=out, model=model, no_model=no_model, title=title)


def run(place: Path, setting: Setting, *, out: Path | None, model: str | None, no_model: bool, title: str | None) -> None:
    """Read, look closer, write the page, say what is in it."""
    from circuits.cli.reports.report import page_report

    if not place.exists():
        raise FileFormatError(f"{place}: No such file or directory")
    file = out or _beside(place)
    with claimed(file, setting.line) as hidden:
        saved, page, missing = _page(place, setting, model=model, no_model=no_model, title=title)
        if hidden is not None:
            page.save(hidden)
    setting.answer(page_report(saved, page, file, missing))


def _page(
    place: Path, setting: Setting, *, model: str | None, no_model: bool, title: str | None
) -> "tuple[Saved, Page, list[str]]":
    """What is saved there, the page about it, and what it lacks."""
    from circuits.cli.reports.report import looks_of
    from circuits.report import Looked, read_saved, run_page

    saved = read_saved(place)
    if saved.unread and not saved.results and saved.head_scores is None and not saved.unfinished:
        name, why = next(iter(saved.unread.items()))
        raise FileFormatError(f"{place / name}: {why}" if place.is_dir() else f"{place}: {why}")
    without = Looked(missing=["Made without the model."])
    looks = dict.fromkeys(["", *saved.parts], without) if no_model else looks_of(saved, model, setting)
    own, parts = looks.get("", Looked()), {name: one for name, one in looks.items() if name}
    about = {"closer": own.closer, "missing": own.missing, "parts": parts}
    page = run_page(saved, **about, title=title, commands=[("this page", _line(place, setting))])
    missing = list(dict.fromkeys(line for look in looks.values() for line in look.missing))
    return saved, page, missing


def _line(place: Path, setting: Setting) -> str:
    """How this page is made; of the place its own name alone, for a page is passed on."""
    return setting.command("report", place.resolve().name, model=bool(setting.model))


def _beside(place: Path) -> Path:
    """Where the page goes, if nothing is said: into the folder, or beside the file under its name."""
    return place / PAGE if place.is_dir() else place.with_name(f"{place.name.removesuffix('.json').removesuffix('.mib')}.html")
