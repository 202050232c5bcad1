"""`circuits export`: a circuit file in another format."""

from pathlib import Path
from typing import Annotated

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.options import CircuitFile, KeyValueHeads
from circuits.cli.text import one_line
from circuits.errors import FileFormatError, GraphError


@app.command()
def export(
    file: CircuitFile,
    to: Annotated[str, typer.Option(metavar="graphml|dot|mib|json", help="Format to write.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="stdout")] = None,
    key_value_heads: KeyValueHeads = None,
) -> None:
    """Write a circuit in another format.

    graphml: for Gephi, yEd, Cytoscape and networkx. dot: for Graphviz. mib: for MIB and EAP-IG, which have a k and a v edge
    for every query head: where heads share keys, a group's score is split over them. json: this package's own, the only one
    that keeps roles and evidence whole.

    \b
    Examples:
      circuits export circuit.json --to graphml --out circuit.graphml
      circuits export circuit.json --to dot | dot -Tsvg > circuit.svg
    """
    from circuits.graph import storage
    from circuits.graph.per_head import PerHead

    if to not in storage.FORMATS:
        raise FileFormatError(f"unknown format {one_line(to)!r}: expected {', '.join(storage.FORMATS)}")
    circuit = circuits.Circuit.load(file, n_key_value_heads=key_value_heads)
    if to == "mib" and circuit.graph.grouped:
        counted = f"{len(circuit.edges):,} of {circuit.graph.edge_count:,} edges"
        typer.echo(f"{counted} are {PerHead.of(circuit.graph, circuit.edges).describe()}", err=True)
    if out is not None:
        storage.export(circuit, out, to)
        typer.echo(f"wrote {one_line(out)}", err=True)
        return
    try:
        text = storage.FORMATS[to].write(circuit)
    except GraphError as error:
        raise FileFormatError(f"{file}: {error}") from None
    typer.echo(text, nl=False)
