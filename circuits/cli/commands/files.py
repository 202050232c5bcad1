"""`circuits export` and `circuits info`."""

from pathlib import Path

import typer

from circuits.cli.circuit_report import circuit_report, contents
from circuits.cli.text import one_line, print_json
from circuits.errors import FileFormatError, GraphError
from circuits.files.plain import thaw
from circuits.graph import Circuit, storage


def export(file: Path, *, to: str, out: Path | None) -> None:
    """Write a circuit in another format, to a file or to stdout."""
    if to not in storage.FORMATS:
        raise FileFormatError(f"unknown format {one_line(to)!r}: expected {', '.join(storage.FORMATS)}")
    circuit = Circuit.load(file)
    if out is not None:
        storage.export(circuit, out, to)
        typer.echo(f"wrote {one_line(out)}", err=True)
        return
    try:
        text = storage.FORMATS[to].write(circuit)
    except GraphError as error:
        raise FileFormatError(f"{file}: {error}") from None
    typer.echo(text, nl=False)


def info(file: Path, *, as_json: bool) -> None:
    """Print what is in a circuit file."""
    circuit = Circuit.load(file)
    if as_json:
        print_json({"file": str(file), **contents(circuit), "metadata": thaw(circuit.metadata)})
    else:
        typer.echo(circuit_report(circuit, file))
