"""Causal traces as they are written and printed."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.cli.output import save_figure
from circuits.cli.progress import ProgressBars
from circuits.cli.report import Part, Report, Table
from circuits.cli.settings import Setting, Work
from circuits.cli.text import filled, one_line, printable
from circuits.patching import Trace, Traces
from circuits.patching.tracing.facts import SET_ASIDE

_MOST_HEATMAPS = 20
_STRONGEST = 4
"""Cells printed a kind."""
_MOST_LINES = 20
"""Facts of which a line is printed as they are traced."""
_PAUSE, _SHARE = 5.0, 20.0
"""Seconds between two times that the facts so far are written, and at least so many times as long as the writing took."""
ONE = {
    "trace.json": "everything measured; circuits trace --open and circuits.patching.Trace.load read it",
    "trace.csv": "every cell",
    "trace.png": "the heatmaps",
}
"""What is written of one prompt, and what for."""
MANY = {
    "traces.json": "everything measured; circuits trace --open and circuits.patching.Traces.load read it",
    "roles.csv": "averages by role and layer, with their intervals",
    "roles.png": "the same as curves",
    "heatmaps/fact-*.png": "the heatmap of a fact",
}
"""What is written of many facts."""
_HEADINGS = {
    "states": "states restored",
    "mlp": "MLP outputs restored",
    "attention": "attention outputs restored",
    "states_severed_mlp": "states, later MLPs severed",
    "states_severed_attention": "states, later attention severed",
}


class TraceParts:
    """Writes and prints each part of the tracing as it comes: of one prompt kind by kind of site, of many facts one by one."""

    def __init__(self, work: Work) -> None:
        self.work, self.saved, self.took, self.facts = work, 0.0, 0.0, 0

    def add(self, part: Trace | Traces) -> None:
        """What has been traced so far."""
        if isinstance(part, Traces):
            self._add_fact(part)
            return
        self.work.say(_heading_of(part))
        if part.restored:
            self.save(part)
        self.work.say(*_about_trace(part)[: 1 + len(part.restored)])

    def _add_fact(self, part: Traces) -> None:
        """A line for each of the first facts; the file again, where writing it is a small share of the time."""
        if self.facts < _MOST_LINES and not self.work.setting.as_json:
            one = part.traces[-1]
            self.work.progress.say(one_line(f"{len(part.traces)}. {one.prompt}: {one.summary}"), err=True)
        self.facts += 1
        if time.monotonic() - self.saved > max(_PAUSE, _SHARE * self.took):
            self.save(part)

    def save(self, part: Trace | Traces) -> None:
        """Write what there is."""
        before = time.monotonic()
        part.save(self.work.staging / ("trace.json" if isinstance(part, Trace) else "traces.json"))
        after = f"facts after the first {len(part.traces)}" if isinstance(part, Traces) else "kinds of sites after these"
        self.work.publish(lacking=after)
        self.saved = time.monotonic()
        self.took = self.saved - before


def write(found: Trace | Traces, folder: Path, progress: ProgressBars) -> dict[str, str]:
    """Write the table and the pictures; returns names and what is in them, the saved result first."""
    one = isinstance(found, Trace)
    shown = [] if one else found.traces[:_MOST_HEATMAPS]
    progress("drawing", 0, 1 + len(shown))
    save_figure(found.plot(), folder / ("trace.png" if one else "roles.png"))
    if shown:
        (folder / "heatmaps").mkdir()
    found.to_dataframe().to_csv(folder / ("trace.csv" if one else "roles.csv"), index=False)
    for place, trace in enumerate(shown, 1):
        progress("drawing", place, 1 + len(shown))
        save_figure(trace.plot(), folder / "heatmaps" / f"fact-{place:02}.png")
    progress("drawing", 1 + len(shown), 1 + len(shown))
    if one:
        return dict(ONE)
    return {
        **{name: what for name, what in MANY.items() if "*" not in name},
        **{f"heatmaps/fact-{place:02}.png": one_line(trace.prompt) for place, trace in enumerate(shown, 1)},
    }


def trace_report(
    found: Trace | Traces, files: Mapping[str, str], setting: Setting, what: Sequence[str], how: Sequence[str]
) -> Report:
    """Where the answer comes back, in one prompt or on average over facts; `what` was traced and `how`: the words of it."""
    one = isinstance(found, Trace)
    if one:
        heading = _heading_of(found)
        parts, data = _about_trace(found), _trace_json(found)
    else:
        model, count = one_line(found.traces[0].model), len(found.traces)
        heading = f"Causal traces of {model}: {count} facts that it knows, {len(found.skipped)} skipped"
        parts, data = _about_traces(found), _traces_json(found)
    return Report(heading=heading, parts=parts, data=data, files=files, next=_next(setting, files, what, how, one=one))


def _heading_of(trace: Trace) -> str:
    return f"Causal trace of {one_line(trace.model)}: {one_line(trace.prompt)}"


def _next(
    setting: Setting, files: Mapping[str, str], what: Sequence[str], how: Sequence[str], *, one: bool
) -> list[tuple[str, str]]:
    """What to try after this."""
    steps = [setting.opening(name) for name in files if name.endswith(".json")]
    if not one:
        told = "which part MLPs and attention mediate"
        return [*steps, (setting.command("trace", *(what or ["--facts", "FILE"]), *how, "--severed"), told)]
    return [
        *steps,
        (setting.command("trace", *what, *how, "--severed"), "also states whose later MLPs or attention stay corrupted"),
        (setting.command("trace", "PROMPT", "--subject", "TEXT", *how), "a prompt of your own"),
        (setting.command("trace", "--facts", "known_1000.json", "--limit", "50", *how), "averages by role, with intervals"),
    ]


def _corrupted_by(trace: Trace) -> str:
    if not trace.noise:
        return "the subject replaced"
    return f"noise of sd {trace.noise:.3g} on the subject, {len(trace.corrupted)} draws, seed {trace.seed}"


def _about_trace(trace: Trace) -> list[Part]:
    corrupted, roles = float(trace.corrupted.mean()), trace.roles()
    parts: list[Part] = [
        f"answer (the model's own): {one_line(trace.answer)}\n"
        f"its probability: {trace.clean:.1%} clean, {corrupted:.1%} corrupted ({_corrupted_by(trace)})\n"
        f"total effect: {trace.total_effect:+.3f}",
    ]
    for kind in trace.restored:
        rows: list[tuple[str, ...]] = []
        effects = trace.effects(kind)
        order = effects.flatten().argsort(descending=True, stable=True).tolist()
        for cell in order[:_STRONGEST] + [order[-1]] * (float(effects.min()) < -0.005):
            position, layer = divmod(cell, effects.shape[1])
            token = printable(trace.tokens[position].replace(" ", "·").replace("\n", "↵"))
            effect = float(effects[position, layer])
            row = (f"  {position} {token}", roles[position], str(layer), f"{effect:+.3f}", f"{effect + corrupted:.1%}")
            rows.append(row)
        parts.append(Table((f"{_heading(kind, trace)}: strongest cells", "role", "layer", "indirect effect", "p"), rows))
    parts.append(
        "p: probability of the answer with the clean value put back there; a negative effect comes last.\n"
        "The last token's last state brings back everything in any model."
    )
    return parts


def _heading(kind: str, trace: Trace) -> str:
    layers = trace.effects(kind).shape[1]
    window = f", {min(trace.window, layers)} layers around" if kind in ("mlp", "attention") else ""
    return f"{_HEADINGS.get(kind, kind)}{window}"


def _about_traces(found: Traces) -> list[Part]:
    (clean, corrupted), (effect, half) = found.average_probabilities(), found.average_total_effect()
    first = found.traces[0]
    parts: list[Part] = [
        f"mean probability of the answer: {clean:.1%} clean, {corrupted:.1%} corrupted ({_corrupted_by(first)})\n"
        f"average total effect: {effect:+.3f} [{effect - half:.3f}, {effect + half:.3f}]",
    ]
    rows: list[tuple[str, ...]] = []
    for kind in first.restored:
        rows += [("",) * 4, (_heading(kind, first), *("",) * 3)]
        for role, (mean, width, number) in found.average_by_role(kind).items():
            peak = int(mean.argmax())
            low, high = float(mean[peak] - width[peak]), float(mean[peak] + width[peak])
            rows.append((f"  {role}", str(number), str(peak), f"{float(mean[peak]):+.3f} [{low:.3f}, {high:.3f}]"))
    parts.append(Table(("by role", "facts", "peak layer", "average indirect effect"), rows))
    parts.append("in brackets, 95 % intervals over facts (none from one fact)")
    aside = [one for one in found.skipped if one[1].startswith(SET_ASIDE)]
    parts += [filled(f"{prompt!r} was {reason}") for prompt, reason in aside]
    if len(found.skipped) > len(aside):
        prompt, reason = next(one for one in found.skipped if one not in aside)
        parts.append(filled(f"first of {len(found.skipped)} skipped: {prompt!r}: {reason}"))
    return parts


def _trace_json(trace: Trace) -> dict[str, Any]:
    """A trace without its draws: effects `[position][layer]` by kind."""
    names = ("model", "prompt", "tokens", "subject", "answer", "clean", "noise", "window", "seed")
    return {
        **{name: getattr(trace, name) for name in names},
        "corrupted": float(trace.corrupted.mean()),
        "draws": len(trace.corrupted),
        "total_effect": trace.total_effect,
        "indirect_effects": {kind: trace.effects(kind).tolist() for kind in trace.restored},
    }


def _traces_json(found: Traces) -> dict[str, Any]:
    """Averages by role and layer."""
    (clean, corrupted), (effect, half) = found.average_probabilities(), found.average_total_effect()
    first = found.traces[0]
    return {
        **{name: getattr(first, name) for name in ("model", "noise", "window", "seed")},
        "facts": len(found.traces),
        "skipped": [{"prompt": prompt, "reason": reason} for prompt, reason in found.skipped],
        "clean": clean,
        "corrupted": corrupted,
        "average_total_effect": {"effect": effect, "low": effect - half, "high": effect + half},
        "average_indirect_effects": found.to_dataframe().to_dict("records"),
    }
