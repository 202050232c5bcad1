"""`circuits info`: what is in a file or a folder that a command wrote."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.app import app
from circuits.cli.options import AsJson, KeyValueHeads
from circuits.cli.report import Report
from circuits.cli.settings import Setting
from circuits.cli.text import one_line
from circuits.errors import CircuitsError, FileFormatError

_SHOWN = {".csv": "a table", ".md": "a text", ".html": "a page", ".png": "a picture", ".svg": "a picture", ".pdf": "a picture"}
"""What commands write beside results, by the end of its name."""


@app.command()
def info(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A circuit (.json, .mib.json), any other saved result, or a folder.", show_default=False
        ),
    ],
    key_value_heads: KeyValueHeads = None,
    as_json: AsJson = False,
) -> None:
    """Say what is in a circuit file, or in any other saved one.

    Where heads share keys, a circuit's edges are counted by group, and also by query head, as MIB and EAP-IG do. Of other
    results it says what they are, in a line or two, and which command shows them; of a folder, what is in it.

    \b
    Examples:
      circuits info out/induction-mini/circuit.json
      circuits info out/discover-mini
      circuits info circuit.mib.json --json
      circuits info eap_ig_graph.json --key-value-heads 3
    """
    setting = Setting(job="info", as_json=as_json)
    report = _of_result(file, setting)
    if report is None:
        report = _of_circuit(file, key_value_heads, setting)
    elif key_value_heads is not None:
        raise CircuitsError(f"--key-value-heads is about circuits: {file} is none")
    setting.answer(report)


def _of_result(file: Path, setting: Setting) -> Report | None:
    """What is in a folder, a mark or a result; None for what may be a circuit."""
    from circuits.cli.reports.saved import folder_report, mark_report, result_report
    from circuits.files.unfinished import FORMAT, unfinished_run
    from circuits.graph.storage import FORMAT as CIRCUIT
    from circuits.report.kinds import KINDS, format_of, load_saved

    if file.is_dir():
        return folder_report(file)
    name = ""
    with contextlib.suppress(FileFormatError):  # which says the same of a circuit
        name = format_of(file)
    if name == FORMAT:
        return mark_report(file)
    if name == CIRCUIT or name not in KINDS:
        return None
    setting.said.extend(filter(None, [unfinished_run(file)]))
    return result_report(file, *load_saved(file), setting)


def _of_circuit(file: Path, key_value_heads: int | None, setting: Setting) -> Report:
    """What is in a circuit file."""
    from circuits.cli.reports.circuit import circuit_report
    from circuits.files.unfinished import unfinished_run
    from circuits.graph.storage import load_counted

    if not file.exists():
        raise FileFormatError(f"{file}: No such file or directory")
    if file.suffix.lower() in _SHOWN:
        beside = sorted(one.name for one in file.parent.iterdir() if one.suffix in (".json", ".safetensors"))
        named = f": beside it stand {', '.join(map(one_line, beside[:4]))}" if beside else ""
        raise FileFormatError(
            f"{file}: {_SHOWN[file.suffix.lower()]}, not a saved result; those are .json and .safetensors{named}"
        )
    circuit, counts = load_counted(file, n_key_value_heads=key_value_heads)
    setting.said.extend(filter(None, [unfinished_run(file)]))
    return circuit_report(circuit, file, counts)
