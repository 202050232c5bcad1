"""`circuits compare`: what two circuits share, and where they differ."""

from pathlib import Path
from typing import Annotated

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.options import AsJson
from circuits.cli.settings import Setting
from circuits.errors import GraphError

FILES = {"compare.csv": "every edge and node, and where it is"}
"""What `circuits compare` writes where it is given a folder, and what for."""


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A circuit: .json or .mib.json.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one of the same graph.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Folder for compare.csv.", show_default="no file")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two circuits edge by edge and node by node.

    \b
    Examples:
      circuits compare out/discover-mini/circuit.json circuit.mib.json
      circuits compare mine.json theirs.mib.json --out out/compare --json
    """
    run(a, b, Setting(job="compare", out=out, as_json=as_json))


def run(first: Path, second: Path, setting: Setting) -> None:
    """Compare, write the table where a folder is given, print the report."""
    import pandas as pd

    from circuits.cli.circuit_files import fitted
    from circuits.cli.output import staged
    from circuits.cli.reports.compare import comparison_report, rows_of, turned
    from circuits.files.unfinished import unfinished_run
    from circuits.graph.storage import load_counted
    from circuits.search.judging.compare import supporting_sign

    one, other = load_counted(first), load_counted(second)
    setting.said.extend(filter(None, map(unfinished_run, (first, second))))
    a, counts_a = fitted(first, one, other[0].graph)
    b, counts_b = fitted(second, other, one[0].graph)
    if a.graph != b.graph:
        shapes = [one.graph.describe().splitlines()[0] for one in (a, b)]
        raise GraphError(f"circuits of different graphs cannot be compared: {first} ({shapes[0]}) and {second} ({shapes[1]})")
    signs = supporting_sign(a) * supporting_sign(b)
    found = circuits.compare(a, b)
    rows = rows_of(found, a, turned(b) if signs < 0 else b)
    if setting.out is not None:
        with staged(setting.out, names=list(FILES), who=setting.line) as staging:
            pd.DataFrame(rows).to_csv(staging / "compare.csv", index=False)
    files = FILES if setting.out is not None else {}
    setting.answer(comparison_report(found, rows, (first, second), files, signs=signs, counts=(counts_a, counts_b)))
