"""Effects of patching as they are written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

import circuits
from circuits.cli.output import save_figure
from circuits.cli.prompts import Behaviour
from circuits.cli.report import Part, Report, Table
from circuits.cli.reports.look import looked
from circuits.cli.reports.measured import again, interval, prompts_of
from circuits.cli.settings import Setting
from circuits.cli.text import one_line
from circuits.errors import GraphError
from circuits.files.plain import thaw
from circuits.graph import Node
from circuits.patching import Effects
from circuits.patching.effects import WORDS
from circuits.plots.patching.effects import largest


def write(effects: Effects, folder: Path) -> None:
    """Write the table and the pictures."""
    effects.to_dataframe().to_csv(folder / "effects.csv", index=False)
    save_figure(effects.plot(), folder / "effects.png")
    if any("->" in name for name in effects.names):
        try:
            save_figure(circuits.plots.path_figure(effects), folder / "paths.png")
        except GraphError as error:  # whole MLPs and single neurons have no picture together
            typer.echo(f"no paths.png: {one_line(error)}", err=True)


def patch_report(effects: Effects, files: Mapping[str, str], top: int, next_steps: Sequence[tuple[str, str]] = ()) -> Report:
    """What was patched, and the largest effects."""
    about, count, prompts = effects.metadata, len(effects), len(effects.clean)
    metric, patched = (one_line(about.get(key, "")).replace("_", " ") for key in ("metric", "patched"))
    ends = {"clean": float(effects.clean.mean()), "corrupt": float(effects.corrupt.mean())}
    heading = (
        f"{one_line(about.get('model', 'model'))}: {count:,} {patched if count > 1 else patched.rstrip('s')} patched one at a "
        f"time, {WORDS[effects.direction]} ({effects.direction})\n"
        f"{prompts_of(effects)}: mean {metric} {ends['clean']:.4g} clean, {ends['corrupt']:.4g} corrupt"
    )
    heading += f"\nasks: {one_line(about['question'])}" if isinstance(about.get("question"), str) else ""
    first = largest(effects, top)
    shown = [_labelled(name, about.get("tokens")) for name in first.names]
    measured = zip(shown, first.intervals(), first.counts, strict=True)
    rows: list[tuple[str, ...]] = [(name, interval(found, number)) for name, found, number in measured]
    more = f"... and {count - len(rows):,} more in effects.csv" if count > len(rows) else ""
    header: tuple[str, ...] = ("largest effects", "share of the gap bridged" + " [95 % interval]" * (prompts > 1))
    if first.having is not None:
        header = (*header, "prompts that have the position")
        rows = [(*row, f"{number:,} of {prompts:,}") for row, number in zip(rows, first.counts, strict=True)]
    told = {key: about.get(key) for key in ("model", "patched", "metric", "source", "question")}
    data = {**told, "direction": effects.direction, "prompts": prompts, **ends}
    table = effects.to_dataframe()
    data["effects"] = (table.drop(columns="prompts") if effects.having is None else table).to_dict("records")
    parts: list[Part] = [Table(header, rows, below=more)]
    look: Any = thaw(about.get("look"))
    if isinstance(look, dict):  # results of earlier versions hold none
        data["look"] = look
        parts.append(looked(look))
    return Report(heading=heading, parts=parts, data=data, files=files, next=next_steps)


def _labelled(name: str, tokens: object) -> str:
    """A name, with the token that stands at its position where there is one prompt."""
    column = name.rpartition("@")[2] if "@" in name else ""
    if not isinstance(tokens, list) or not column.isdigit() or int(column) >= len(tokens):
        return name
    return f"{name} {str(tokens[int(column)]).replace(' ', '·')}"


def next_steps(effects: Effects, asked: Behaviour, setting: Setting, positions: str | None) -> list[tuple[str, str]]:
    """What to try after this."""
    patched, node, steps = effects.metadata["patched"], _best_node(effects), []

    def command(*words: str) -> str:
        """A command line about the same prompts."""
        return setting.command(*words, *again(asked, positions))

    if patched == "nodes" and positions is None:
        steps.append((command("patch", "--nodes", "residual", "--positions", "each"), "which positions matter"))
    if patched == "nodes":
        steps.append((command("patch", "--edges", "all"), "through which edges"))
    inner = next((name for name in largest(effects, len(effects)).names if _is_inner(name)), None)
    if patched == "edges" and inner is not None:
        path = f"{inner.partition('@')[0].replace('->', ',')},logits"
        steps.append((command("patch", "--path", path), "how much of it goes on to the logits"))
    if node is not None:
        steps.append((command("ablate", str(node)), f"what is lost without {node}"))
    return [*steps, setting.opening("effects.json")]


def _is_inner(name: str) -> bool:
    """Whether an edge runs between two nodes of the model's inside."""
    return "->" in name and not name.startswith("input") and "logits" not in name


def _best_node(effects: Effects) -> Node | None:
    """The head, MLP or neuron with the largest effect, as a site or as the start of an edge or path."""
    for name in largest(effects, len(effects)).names:
        try:
            node = Node.parse(name.partition("@")[0].partition("->")[0].partition("<")[0])
        except GraphError:
            continue
        if node.kind != "input":
            return node
    return None
