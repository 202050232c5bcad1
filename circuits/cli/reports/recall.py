"""The circuit of recalled facts as it is written and printed."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from circuits.cli.report import Part, Report, Table
from circuits.cli.reports.circuit import contents, draw
from circuits.cli.settings import Setting, Work
from circuits.cli.text import filled, one_line
from circuits.files.plain import thaw
from circuits.graph import Circuit
from circuits.patching import Effects
from circuits.search.mechanisms.recall import sites_of

_MOST_ROWS = 20


def recall_parts(work: Work) -> Callable[[Any], None]:
    """What writes and prints each part of the search as it comes: sites, the growing circuit, the whole one, the judged one."""

    def add(part: Any) -> None:
        """One part."""
        if isinstance(part, Effects):
            sites = sites_of(part)
            rows = [{"position": name, "layer": i, **e} for name, effects in sites.items() for i, e in enumerate(effects)]
            pd.DataFrame(rows).to_csv(work.staging / "sites.csv", index=False)
            part.save(work.staging / "sites.json")
            work.publish()
            work.say(_sites(sites))
        else:
            part.save(work.staging / "circuit.json")
            lacking = {"searching": "the rest of the circuit, the verdict", "unjudged": "the verdict"}
            work.publish(lacking=lacking.get(part.metadata["verdict"], ""))
            if part.metadata["verdict"] == "unjudged":
                work.say(filled(part.metadata["summary"]), _nodes(part))

    return add


def write(circuit: Circuit, folder: Path) -> None:
    """Write the circuit for other programs, and the picture."""
    for name in ("circuit.graphml", "circuit.dot"):
        circuit.save(folder / name)
    draw(circuit, folder / "circuit.png")


def recall_report(circuit: Circuit, files: Mapping[str, str], setting: Setting, said: Sequence[str]) -> Report:
    """What was found, how sure it is, where the files are and what to try next; `said`: the words of the same search but for
    --min-effect."""
    about: Any = circuit.metadata
    parts: list[Part] = [filled(about["summary"]), _sites(about["sites"])]
    if circuit:
        parts += [_nodes(circuit), "\n".join(["How sure", *_control(about)])]
    return Report(
        heading=f"Recall circuit of {one_line(about['model'])}: {about['verdict']}",
        parts=parts,
        data={**thaw(circuit.metadata), **contents(circuit)},  # type: ignore[dict-item]
        files=files,
        next=[
            (setting.command("info", str(setting.folder / "circuit.json"), model=False), "the circuit again"),
            (setting.command("recall", *_more(about, said)), "more nodes and edges"),
        ],
    )


def _more(about: Mapping[str, Any], said: Sequence[str]) -> list[str]:
    """Options that find more: weaker edges, or, where the limit on forwards has cut the search, a higher limit (weaker edges
    would wait behind those that were not tested)."""
    if not about.get("left_out"):
        return [*said, "--min-effect", f"{about['min_effect'] / 2:g}"]
    at = said.index("--forwards") if "--forwards" in said else len(said)
    kept = [*said[:at], *said[at + 2 :], "--min-effect", f"{about['min_effect']:g}"]
    return [*kept, "--forwards", f"{max(80.0, 2 * about['forwards']):.0f}"]


def _sites(sites: Mapping[str, Sequence[Mapping[str, float]]]) -> Table:
    header = ["before layer", *(str(layer) for layer in range(len(next(iter(sites.values())))))]
    header[-1] = "end"
    rows = [[name, *(f"{effect['effect']:.2f}" for effect in effects)] for name, effects in sites.items()]
    title = "Where the fact is (share of the gap that the clean residual stream brings back)"
    return Table(header, rows, title)


def _nodes(circuit: Circuit) -> Table:
    rows = []
    ordered = sorted((node for node in circuit.nodes if node in circuit.roles), key=lambda node: -(circuit.nodes[node] or 0.0))
    for node in ordered[:_MOST_ROWS]:
        claim: Any = circuit.evidence[node]["patched"]
        sure = f"[{claim['low']:.2f}, {claim['high']:.2f}]" if claim["prompts"] > 1 else "(no interval)"
        effect = f"{claim['effect']:.2f} {sure}"
        rows.append([str(node), circuit.roles[node], effect, str(claim["prompts"])])
    more = len(ordered) - len(rows)
    title = "Nodes (what noising one alone costs, on the prompts where it matters)"
    below = f"  ... and {more} more in circuit.json" if more > 0 else ""
    return Table(["node", "role", "effect", "prompts"], rows, title, below)


def _control(about: Mapping[str, Any]) -> list[str]:
    whole, control = about["set"], about["control"]
    lines = [
        f"  {about['prompts']} pairs of facts; in brackets, 95 % intervals over prompts",
        f"  logit difference lost without all found nodes, set to their mean: {whole['effect']:.2f} "
        f"[{whole['low']:.2f}, {whole['high']:.2f}]",
    ]
    if "mean" in control:
        lines.append(
            f"  without {control['size']} other heads and neurons ({control['sets']} random sets): {control['mean']:.2f} on "
            f"average, {control['max']:.2f} at most; p = {control['p_value']:.3f}"
        )
    return lines
