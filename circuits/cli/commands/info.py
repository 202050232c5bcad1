"""`circuits info`: what is in a circuit file."""

import circuits
from circuits.cli.app import app
from circuits.cli.options import AsJson, CircuitFile
from circuits.cli.settings import Setting


@app.command()
def info(file: CircuitFile, as_json: AsJson = False) -> None:
    """Say what is in a circuit file.

    \b
    Examples:
      circuits info out/induction-mini/circuit.json
      circuits info circuit.mib.json --json
    """
    from circuits.cli.reports.circuit import circuit_report

    circuit = circuits.Circuit.load(file)
    Setting(job="info", as_json=as_json).answer(circuit_report(circuit, file))
