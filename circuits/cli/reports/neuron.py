"""One neuron as it is written and printed."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from circuits.cli.output import save_figure
from circuits.cli.report import Pairs, Part, Report, Table
from circuits.cli.settings import Setting
from circuits.cli.text import one_line, printable
from circuits.lenses import Clamp, NeuronReport

_WRITTEN, _CONTEXT = 8, 76
"""Tokens of a value, and characters of a context, that are printed."""


def write_neuron(found: NeuronReport, held: Clamp | None, folder: Path) -> None:
    """Write what is known of one neuron."""
    write_table(found.to_dataframe(), folder / "triggers.csv")
    save_figure(found.plot(), folder / "neuron.png")
    if held is not None:
        held.save(folder / "clamp.json")
        if any(shift.change for shift in held.rising):
            save_figure(held.plot(), folder / "clamp.png")


def write_table(rows: pd.DataFrame, path: Path) -> None:
    """A CSV file with all text in quotes: a bare carriage return in a token would end its row."""
    rows.to_csv(path, index=False, quoting=csv.QUOTE_NONNUMERIC)


def neuron_report(
    found: NeuronReport,
    held: Clamp | None,
    files: Mapping[str, str],
    setting: Setting,
    *,
    top: int,
    said: Sequence[str] = (),
) -> Report:
    """Its triggers, what its weights say, and what changes where it was held; `said`: which text, as words of a command."""
    heading = (
        f"{one_line(found.model)}: {found.neuron}, active at {found.active:.1%} of {found.places:,} tokens, "
        f"mean {found.mean:.3f}, largest {found.largest:.3f}"
    )
    rows = [(shortened(one.marked()), f"{one.activation:.3f}", _token(one.following)) for one in found.triggers[:top]]
    through = f", through {found.through}" if found.through else ""
    weights = Pairs(f"By its weights (tokens: logits{through}, and pre-activation; nodes: cosines)", _weights(found))
    parts: list[Part] = [Table(("trigger", "activation", "next token"), rows), weights]
    parts += [] if held is None else _held(held)
    steps = []
    if held is None:
        words = ["neuron", found.neuron, "--clamp", f"{max(found.largest, 0.1) * 1.5:.2g}", *said]
        steps.append((setting.command(*words), "what the model says with it held"))
    data: dict[str, Any] = {**found.as_json(), **({} if held is None else {"clamp": held.as_json()})}
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)


def _weights(found: NeuronReport) -> list[tuple[str, str]]:
    weights = [("raises", _weighted(found.raises)), ("lowers", _weighted(found.lowers))]
    weights += [(f"{slot} reads", _weighted(ends[0])) for slot, ends in found.keys.items()]
    nodes = [("written by", found.writers), ("read by", found.readers)]
    return weights + [(way, ", ".join(f"{name} {value:+.2f}" for name, value in ends)) for way, ends in nodes if ends]


def _held(held: Clamp) -> list[Part]:
    """What holding the neuron changes."""
    (name, value), own = next(iter(held.clamped.items())), next(iter(held.natural.values()))
    where = one_line(repr(held.prompt[-60:]))
    heading = f"{name} held at {value:g} (by itself {own:.3f}) on {where}: KL(held ‖ own) {held.kl:.3f} nats"
    shifts = [*held.rising[:5], *held.falling[:5]]
    rows = [(_token(one.token), f"{one.before:.4f}", f"{one.after:.4f}", f"{one.change:+.4f}") for one in shifts]
    texts = [("before", one_line(repr(held.continuation[0]))), ("after", one_line(repr(held.continuation[1])))]
    return [Table(("next token", "before", "after", "change"), rows, heading), Pairs("It continues", texts)]


def _weighted(tokens: Sequence[tuple[str, float]]) -> str:
    return "  ".join(f"{_token(token)} {value:+.2f}" for token, value in tokens[:_WRITTEN])


def _token(token: str | None) -> str:
    return "–" if token is None else printable(repr(token))


def shortened(context: str, longest: int = _CONTEXT) -> str:
    """A context on one line, the text around its mark cut off."""
    before, here, after = context.partition("[[")[0], *context.partition("[[")[2].partition("]]")[::2]
    room = max(longest - len(here) - 4, 8)
    after = printable(after.replace("\n", "↵"))[: room // 3]
    before = printable(before.replace("\n", "↵"))
    left = room - len(after)
    before = before if len(before) <= left else f"…{before[1 - left :]}"
    return f"{before}[[{printable(here.replace(chr(10), '↵'))}]]{after}"
