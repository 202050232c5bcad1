"""A list of neurons as it is written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from circuits.cli.output import save_figure
from circuits.cli.report import Report, Table, records
from circuits.cli.reports.neuron import shortened, write_table
from circuits.cli.settings import Setting
from circuits.cli.text import one_line
from circuits.lenses import KeyValueAgreement, Triggers


def write_neurons(found: Triggers, agreement: KeyValueAgreement, listed: pd.DataFrame, folder: Path) -> None:
    """Write all triggers, the list and what chance gives."""
    found.save(folder / "triggers.safetensors")
    agreement.save(folder / "agreement.json")
    write_table(listed, folder / "neurons.csv")
    save_figure(agreement.plot(), folder / "agreement.png")
    save_figure(found.plot(), folder / "activity.png")


def neurons_report(
    best: pd.DataFrame, agreement: KeyValueAgreement, files: Mapping[str, str], setting: Setting, said: Sequence[str]
) -> Report:
    """How many values name what follows their triggers, and the neurons that do so most surprisingly; `said`: in which text,
    as words of a command."""
    rows = best.to_dict("records")
    layers = ("layer", "neurons", "first token", "by chance", f"first {agreement.k}", "by chance")
    cells = [_agreeing(row) for row in agreement.to_dataframe().to_dict("records")]
    listed = []
    for row in rows:
        numbers = (f"{row['agreement']:.0%}", f"{row['chance']:.1%}", f"{row['largest']:.2f}", f"{row['active']:.1%}")
        listed.append((row["neuron"], *numbers, shortened(row["trigger"], 48), one_line(row["raises"])))
    header = ("neuron", "agrees", "by chance", "largest", "active", "trigger", "raises")
    title = f"The {len(rows)} neurons whose values name what follows their triggers most surprisingly"
    steps = [(setting.command("neuron", str(row["neuron"]), *said), "one neuron from all sides") for row in rows[:1]]
    return Report(
        heading=f"{one_line(agreement.model)}: does a neuron's value name the token after its top trigger?",
        parts=[Table(layers, cells), Table(header, listed, title)],
        data={"model": agreement.model, "agreement": agreement.as_json(), "neurons": records(best)},
        files=files,
        next=steps,
    )


def _agreeing(row: dict[str, Any]) -> tuple[str, ...]:
    """One layer's shares, each beside what chance gives."""
    cells = [f"m{row['layer']}", f"{row['neurons']:,}"]
    for end in ("", "_within"):
        share, chance, low, high = (row[f"{name}{end}"] for name in ("share", "chance", "low", "high"))
        cells += [f"{share:.2%}", f"{chance:.2%} [{low:.2%}, {high:.2%}]"]
    return tuple(cells)
