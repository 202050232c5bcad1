"""The induction circuit as it is printed and drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import circuits
from circuits.cli.output import save_figure
from circuits.cli.report import Pairs, Part, Report, Table, records
from circuits.cli.reports.circuit import contents
from circuits.cli.settings import Setting
from circuits.cli.text import filled, nats, one_line
from circuits.files.plain import thaw
from circuits.heads import HeadScores
from circuits.tasks import repeated_tokens

_MOST_ROWS, _MOST_PATTERNS, _FIRST_ROWS = 12, 24, 8
_SHOWN_SEGMENT = 10
"""Tokens in the segment whose patterns are drawn: few enough to read."""
_KINDS = {
    "zero": "set to zero",
    "mean": "set to their mean",
    "zero_frozen": "zero, patterns frozen",
    "mean_frozen": "mean, patterns frozen",
}


def induction_report(circuit: "circuits.Circuit", files: Mapping[str, str], setting: Setting, *, hint: str = "") -> Report:
    """What was found, how sure it is, and what to try next; `hint`: how the prompts opened."""
    metadata: Any = thaw(circuit.metadata)
    found = {**metadata, **contents(circuit)}
    parts: list[Part] = [filled(found["summary"])]
    if found["verdict"] != "none":
        parts += [_heads(found, "induction", "prefix_matching"), _heads(found, "previous token", "previous_token")]
        parts.append(edge_table(circuit))
    parts += [_left_out(found["rejected"])] if found["rejected"] else []
    parts += [_certainty(found), hint]
    heading = f"Induction circuit of {one_line(found['model'])}: {found['verdict']}"
    return Report(heading=heading, parts=parts, data=found, files=files, next=_next_steps(found, setting))


def _heads(found: Mapping[str, Any], role: str, score: str) -> Table:
    known = {node["name"]: node["evidence"] for node in found["nodes"] if node.get("role") == role}
    rows = [
        (name, f"{about[score]:.2f}", f"{about['copying']:+.2f}", nats(about["ablation"]["zero"]))
        for name, about in sorted(known.items(), key=lambda item: -item[1][score])
    ]
    header = (f"{role.replace(' ', '-')} heads", score.replace("_", " "), "copying", "rise of loss without it (nats)")
    return _first(header, rows)


def head_table(scores: HeadScores) -> Table:
    """The heads with most prefix matching, as a first answer."""
    names = ("prefix_matching", "previous_token", "copying")
    ranked = records(scores.to_dataframe().sort_values(names[0], ascending=False, kind="stable").head(_FIRST_ROWS))
    rows = [(row["name"], *(f"{row[name]:.2f}" for name in names)) for row in ranked]
    return Table(("heads with most prefix matching", *(name.replace("_", " ") for name in names)), rows)


def edge_table(circuit: "circuits.Circuit") -> Table:
    """The edges from previous-token heads to keys, with what is known of each."""
    found = contents(circuit)
    known = {edge["name"]: edge["evidence"] for edge in found["edges"] if "k_composition" in edge.get("evidence", {})}
    rows = [
        (name, f"{about['k_composition']:+.3f}", nats(about["prefix_matching_drop"]), _share(about["path_patching"]))
        for name, about in sorted(known.items(), key=lambda item: -item[1]["prefix_matching_drop"]["effect"])
    ]
    header = ("keys that read them", "K-composition", "drop of prefix matching without it", "share of the answer, patched")
    return _first(header, rows)


def _share(effect: Mapping[str, float]) -> str:
    return f"{effect['effect']:.0%} [{effect['low']:.0%}, {effect['high']:.0%}]"


def _left_out(rejected: Mapping[str, Mapping[str, Any]]) -> Pairs:
    """Why candidates are on no edge."""
    rows = [(name, one_line(reason["words"])) for name, reason in rejected.items()]
    more = [("...", f"and {len(rows) - _MOST_ROWS} more in circuit.json")] if len(rows) > _MOST_ROWS else []
    return Pairs("Left out", [*rows[:_MOST_ROWS], *more])


def _first(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """The first rows of a table, and how many more there are."""
    more = f"... and {len(rows) - _MOST_ROWS} more in circuit.json" if len(rows) > _MOST_ROWS else ""
    return Table(header, rows[:_MOST_ROWS], below=more)


def _certainty(found: Mapping[str, Any]) -> str:
    loss = found["loss"]
    lines = [
        f"{'How sure' if 'set' in found else 'Measured'}: {found['sequences']} sequences of {found['length']} random tokens "
        "said twice; in brackets, 95 % intervals",
        f"  loss on the first copy {loss['first_copy']:.2f} nats, on the second {loss['second_copy']:.2f}",
    ]
    if "set" in found:
        lines.append(f"  rise of the loss on the second copy without all {len(found['set']['heads'])} heads:")
        effects = found["set"]["ablation"]
        lines += [f"    {words.ljust(22)} {_said(effects[kind], found)}" for kind, words in _KINDS.items() if kind in effects]
        lines += _beside_chance(found["control"])
    if "edges_patched" in found:
        share = _share(found["edges_patched"])
        lines.append(f"  share of the logit difference that goes when the edges into keys are patched, all at once: {share}")
    return "\n".join(lines)


def _said(effect: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """An effect, and on how many sequences it was measured where these are not all."""
    used = effect.get("sequences", found["sequences"])
    return nats(effect) + (f"  ({used} sequences)" if used < found["sequences"] else "")


def _beside_chance(control: Mapping[str, Any]) -> list[str]:
    """What random sets of heads cost."""
    null = {kind: control[kind] for kind in ("zero", "mean") if kind in control}
    if not null:
        return []
    tried = control.get("tried", control["sets"])
    others = f"all {control['sets']}" if control.get("all") and tried == control["sets"] else f"{tried} random"
    lines = [f"  without as many other heads ({others} sets of {control['size']}):"]
    for kind, drawn in null.items():
        words = f"{drawn['mean']:+.2f} on average, {drawn['max']:+.2f} at most; p = {drawn['p_value']:.3f}"
        words += f"  (up to {drawn['sequences']} sequences each)" if "sequences" in drawn else ""
        lines.append(f"    {_KINDS[kind].ljust(22)} {words}")
    return [*lines, *([f"    no more were tried: {control['stopped']}"] if "stopped" in control else [])]


def _next_steps(found: Mapping[str, Any], setting: Setting) -> list[tuple[str, str]]:
    info = setting.command("info", str(setting.folder / "circuit.json"), model=False)
    steps = [
        (info, "the circuit again, or in Python: circuits.Circuit.load(...)"),
        (setting.command("heads", "--sort", "copying"), "other head scores"),
    ]
    if found["verdict"] == "none":
        return [steps[1], ("circuits induction --model mini", "a model that has induction heads")]
    return [
        *steps,
        (setting.command("induction", "--sequences", "128"), "more sequences, narrower intervals"),
        (setting.command("study"), "the tour: which other behaviours it has, and the circuit of each"),
    ]


def draw_patterns(model: "circuits.Model", circuit: "circuits.Circuit", scores: HeadScores, seed: int, path: Path) -> None:
    """Patterns of the found heads on one repeated sequence; where none was found, of the nearest candidates."""
    roles = {str(node): role for node, role in circuit.roles.items()}
    heads = [node for node in circuit.nodes if node.kind == "head"]
    title = f"Where the heads of {model.name}'s induction circuit look"
    if not heads:
        heads = [head for head, _ in scores.top("prefix_matching", 4)]
        title = f"No induction circuit in {model.name}: the heads with most prefix matching"
    tokens, length = repeated_tokens(model, count=1, length=_SHOWN_SEGMENT, copies=2, seed=seed)
    run = model.run(tokens)
    start = tokens.ids.shape[1] - 2 * length
    labels = model.to_token_strings(tokens.ids[0])
    copies = [place for place in (start, start + length) if place > 0]
    shown = sorted(heads[:_MOST_PATTERNS])
    save_figure(circuits.plots.patterns_figure(run, shown, labels, roles=roles, copies=copies, title=title), path)
