"""`circuits info`: what is in a circuit file."""

from circuits.cli.app import app
from circuits.cli.options import AsJson, CircuitFile, KeyValueHeads
from circuits.cli.settings import Setting


@app.command()
def info(file: CircuitFile, key_value_heads: KeyValueHeads = None, as_json: AsJson = False) -> None:
    """Say what is in a circuit file.

    Where heads share keys, edges are counted by group, and also by query head, as MIB and EAP-IG do.

    \b
    Examples:
      circuits info out/induction-mini/circuit.json
      circuits info circuit.mib.json --json
      circuits info eap_ig_graph.json --key-value-heads 3
    """
    from circuits.cli.reports.circuit import circuit_report
    from circuits.files.unfinished import unfinished_run
    from circuits.graph.storage import load_counted

    circuit, counts = load_counted(file, n_key_value_heads=key_value_heads)
    setting = Setting(job="info", as_json=as_json)
    setting.said.extend(filter(None, [unfinished_run(file)]))
    setting.answer(circuit_report(circuit, file, counts))
