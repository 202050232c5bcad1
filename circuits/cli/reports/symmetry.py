"""Whether a symmetry exchanges units, as it is written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.text import filled, one_line
from circuits.concepts import Equivariance

_SHOWN = 12
_NOTE = (
    "gap: how far units after the exchange are from their partners before it, as a share of what they do: 0 for an exact "
    "exchange, 1 for nothing in common. stays: the same where every unit is its own partner; gain: by how much the matching is "
    "better, with the 95 % interval over prompts that it was not found on. random: of random matchings, p of the gap among "
    "them. other tokens: of the best matchings where random tokens stand in place of the exchanged ones, p likewise."
)


def write(found: Equivariance, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "symmetry.csv", index=False)
    save_figure(found.plot(), folder / "symmetry.png")


def symmetry_report(found: Equivariance, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """Every layer's gap beside chance, then the units that change places."""
    rows, layers = [], []
    for row, layer in enumerate(found.layers):
        gap, stay = float(found.gaps[row]), float(found.stays[row])
        gain, low, high = found.gains[row].tolist()
        random, runs, p = float(found.random[row].mean()), found.relabelled[row], found.relabelled_p[row]
        others = f"{float(runs.mean()):.3f} ({p:.2g})" if len(runs) else "-"
        moved = sum(unit != partner for unit, partner in enumerate(found.matching[row].tolist()))
        chance = f"{random:.3f} ({float(found.p_values[row]):.2g})"
        gains = f"{gain:+.3f} [{low:.3f}, {high:.3f}]"
        rows.append((str(layer), f"{gap:.3f}", f"{stay:.3f}", gains, chance, others, str(moved)))
        layers.append({"layer": layer, "gap": gap, "stays": stay, "gain": gain, "low": low, "high": high, "moved": moved})
        layers[-1] |= {"random": random, "p_value": float(found.p_values[row])}
        layers[-1] |= {"relabelled": float(runs.mean()) if len(runs) else None, "relabelled_p": p}
    header = ("layer", "gap", "stays", "gain", "random (p)", "other tokens (p)", "moved")
    parts: list[Part] = [Table(header, rows)]
    exchanged = found.exchanged
    if exchanged:
        parts.append(Table(("unit", "takes the place of"), exchanged[:_SHOWN], title="units that surely change places"))
    data: dict[str, Any] = {"model": found.model, "symmetry": found.symmetry, "units": found.units, "prompts": found.prompts}
    data |= {"seed": found.seed, "layers": layers, "exchanged": [list(pair) for pair in exchanged]}
    data |= {"table": records(found.to_dataframe())}
    heading = f"Does it exchange {found.units} of {one_line(found.model)}: {one_line(found.symmetry)}?\n{found.prompts} prompts"
    heading += f", {found.random.shape[1]} random matchings, {found.relabelled.shape[1]} runs with random tokens"
    return Report(heading=heading, parts=[*parts, filled(_NOTE), filled(found.summary)], data=data, files=files, next=steps)
