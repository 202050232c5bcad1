"""`circuits export`: a circuit file in another format."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.options import Bos, CircuitFile, Device, Devices, Edits, KeyValueHeads
from circuits.cli.output import claimed
from circuits.cli.prompts import require_text
from circuits.cli.settings import Setting
from circuits.cli.text import one_line
from circuits.errors import CircuitsError, FileFormatError, GraphError, ModelError, PromptError

_SHOWN = "neuronpedia"
"""The format that is drawn over a prompt, which a model answers."""


@app.command()
def export(
    file: CircuitFile,
    to: Annotated[str, typer.Option(metavar="graphml|dot|mib|json|neuronpedia", help="Format to write.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="stdout")] = None,
    key_value_heads: KeyValueHeads = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="neuronpedia: the prompt to draw over.", show_default=False)
    ] = None,
    answer: Annotated[
        str | None,
        typer.Option(help="neuronpedia: the token that logits stand for, with its space.", show_default="the model's own"),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TOKEN",
            help="neuronpedia: which token of the prompt a named position is, from 0, or from -1 at the end; once a name.",
            show_default=False,
        ),
    ] = None,
    slug: Annotated[
        str | None, typer.Option(metavar="NAME", help="neuronpedia: the graph's name there.", show_default="the file's")
    ] = None,
    scan: Annotated[
        str | None, typer.Option(metavar="NAME", help="neuronpedia: the model's name there.", show_default="its own")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="neuronpedia: the model that answers.", show_default="the circuit's, or mini"),
    ] = None,
    device: Device = "cpu",
    devices: Devices = None,
    edits: Edits = None,
    bos: Bos = None,
) -> None:
    """Write a circuit in another format.

    graphml: for Gephi, yEd, Cytoscape and networkx. dot: for Graphviz. mib: for MIB and EAP-IG, which have a k and a v edge
    for every query head: where heads share keys, a group's score is split over them. json: this package's own. neuronpedia:
    an attribution graph for its viewer, drawn over a prompt that the model answers; like json it keeps roles and evidence
    whole, and can be read again.

    \b
    Examples:
      circuits export circuit.json --to graphml --out circuit.graphml
      circuits export circuit.json --to dot | dot -Tsvg > circuit.svg
      circuits export circuit.json --to neuronpedia --prompt "Paris is in"
    """
    from circuits.graph import storage

    if to not in (*storage.FORMATS, _SHOWN):
        raise FileFormatError(f"unknown format {one_line(to)!r}: expected {', '.join((*storage.FORMATS, _SHOWN))}")
    own = {
        "--prompt": prompt,
        "--answer": answer,
        "--at": at,
        "--slug": slug,
        "--scan": scan,
        "--model": model,
        "--edits": edits,
        "--bos": bos,
    }
    beside = [name for name, value in own.items() if value not in (None, [])]
    if to == _SHOWN and prompt is None:
        raise PromptError("neuronpedia draws a circuit over a prompt: give --prompt TEXT")
    if to != _SHOWN and beside:
        raise CircuitsError(f"{beside[0]} is about --to neuronpedia: leave it out")
    if out is not None:
        _check_place(out)
    circuit = circuits.Circuit.load(file, n_key_value_heads=key_value_heads)
    if to == _SHOWN and circuit.graph.roles is not None:  # said before the model loads
        said = "Neuronpedia's layout has no roles of tokens; export a circuit that has some to json, graphml or dot"
        raise FileFormatError(f"{file}: {said}")
    try:
        if to == _SHOWN:
            question = {"prompt": prompt or "", "answer": answer, "places": _places(at or [])}
            where = {"device": device, "devices": devices, "edits": tuple(edits or ())}
            setting = _setting(circuit, model=model, bos=bos, where=where)
            text = _shown(circuit, question, (_slug(file) if slug is None else slug, scan), setting)
        else:
            text = _plain(circuit, to)
    except GraphError as error:
        raise FileFormatError(f"{file}: {error}") from None
    if out is None:
        typer.echo(text, nl=False)
        return
    with claimed(out, f"circuits export {file}") as place:
        if place is not None:
            place.write_text(text, encoding="utf-8", newline="")
    typer.echo(f"wrote {one_line(out)}", err=True)


def _check_place(out: Path) -> None:
    """Raise FileFormatError where no file can be written: a model takes long to load."""
    if out.is_dir():
        raise FileFormatError(f"{out}: cannot be written: it is a folder; name a file in it with --out")
    if not out.parent.is_dir():
        raise FileFormatError(f"{out}: cannot be written: there is no folder {out.parent}; name another file with --out")


def _plain(circuit: "circuits.Circuit", to: str) -> str:
    """The text of a format that needs nothing but the circuit."""
    from circuits.graph import storage
    from circuits.graph.per_head import PerHead

    if to == "mib" and circuit.graph.grouped:
        counted = f"{len(circuit.edges):,} of {circuit.graph.edge_count:,} edges"
        typer.echo(f"{counted} are {PerHead.of(circuit.graph, circuit.edges).describe()}", err=True)
    return storage.FORMATS[to].write(circuit)


def _shown(
    circuit: "circuits.Circuit",
    question: dict[str, Any],
    names: tuple[str, str | None],
    setting: Setting,
) -> str:
    """The text of an attribution graph; what is a choice in it is said on stderr. `names`: slug and scan."""
    from circuits.cli.progress import ProgressBars
    from circuits.graph.neuronpedia import hints, to_neuronpedia, to_text
    from circuits.models import shown_prompt

    require_text(question["prompt"], "--prompt")
    with ProgressBars() as progress:
        model = setting.load(progress)
    graph = model.graph(neurons=circuit.graph.neurons)
    if circuit.graph != graph:
        shapes = [one.describe().splitlines()[0] for one in (circuit.graph, graph)]
        raise GraphError(
            f"the circuit is one of another graph ({shapes[0]}) than that of {model.name} ({shapes[1]}): see --model"
        )
    prompt = shown_prompt(model, question["prompt"], answer=question["answer"], places=question["places"])
    document = to_neuronpedia(circuit, prompt, slug=names[0], scan=names[1] or model.name)
    for line in [*setting.said, *hints(document)]:
        typer.echo(one_line(line), err=True)
    return to_text(document)


def _setting(circuit: "circuits.Circuit", *, model: str | None, bos: bool | None, where: dict[str, Any]) -> Setting:
    """With which model: the one named, or that of the circuit, where it can be found by its name; `where`: its devices and
    the edits that are on it."""
    known = circuit.metadata.get("model")
    setting = Setting(job="export", model=model or "mini", bos=bos, **where)
    if model is not None or not isinstance(known, str):
        return setting
    setting = setting.of_saved(known)
    if setting.model == "MODEL":
        raise ModelError(f"the circuit is one of {known}, which is not found by this name: give --model")
    return setting


def _places(words: list[str]) -> dict[str, int]:
    """Names of positions and their tokens, from words such as subject_last=3."""
    found = {}
    for word in words:
        name, equals, number = word.rpartition("=")
        if not equals or not name or not re.fullmatch(r"-?[0-9]{1,9}", number):
            raise PromptError(f"--at is {word!r}; expected a name and a token's number, such as subject_last=3")
        found[name] = int(number)
    return found


def _slug(file: Path) -> str:
    """A name that the site takes, from a file's."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", file.name.removesuffix(".json")).strip("-.") or "circuit"
