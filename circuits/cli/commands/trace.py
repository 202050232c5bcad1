"""`circuits trace`: causal tracing of one prompt or of many facts, its files and its report."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from circuits.cli.loading import load
from circuits.cli.output import default_directory, staged
from circuits.cli.progress import ProgressBars
from circuits.cli.text import filled, one_line, print_json, printable, table
from circuits.errors import FileFormatError, PromptError
from circuits.files.reading import read_json
from circuits.models import Model
from circuits.patching import Trace, Traces, causal_trace, noise_level
from circuits.patching.tracing.causal import KINDS, SEVERED, TraceKind
from circuits.patching.tracing.facts import trace_facts
from circuits.plots import role_curves_figure, trace_figure
from circuits.tasks import mini_facts
from circuits.tasks.sources.readers import read_facts

_DOTS_PER_INCH = 150
_MOST_HEATMAPS = 20
_STRONGEST = 4
"""Cells printed a kind."""
_HEADINGS = {
    "states": "states restored",
    "mlp": "MLP outputs restored",
    "attention": "attention outputs restored",
    "states_severed_mlp": "states, later MLPs severed",
    "states_severed_attention": "states, later attention severed",
}


@dataclasses.dataclass(frozen=True)
class Question:
    """What is traced: a prompt about a subject, the facts of a file, or, with neither, a fact that comes with the package."""

    prompt: str | None
    subject: str | None
    facts: Path | None
    limit: int | None

    def __post_init__(self) -> None:
        if (self.prompt is None) != (self.subject is None):
            raise PromptError("--prompt and --subject go together: the subject is the part of the prompt to corrupt")
        if self.prompt is not None and self.facts is not None:
            raise PromptError("--prompt and --facts exclude each other: trace one prompt, or the facts of a file")
        if self.limit is not None and self.facts is None:
            raise PromptError("--limit counts facts of a file: it needs --facts")


@dataclasses.dataclass(frozen=True)
class Corruption:
    """How the subject is corrupted, and what is put back."""

    noise: float | None
    replacement: str | None
    draws: int
    kinds: tuple[TraceKind, ...]
    window: int | None
    seed: int
    prepend_bos: bool | None
    budget: int

    def __post_init__(self) -> None:
        if self.noise is not None and self.replacement is not None:
            raise PromptError("--noise and --replacement exclude each other: the subject gets noise, or another text")
        if self.noise is not None and not (math.isfinite(self.noise) and self.noise > 0):
            raise PromptError(f"--noise is {self.noise}; expected a standard deviation above 0")

    def options(self, model: Model) -> dict[str, Any]:
        """The options of `causal_trace` for a model."""
        usual = 10 if model.n_layers >= 20 else max(1, model.n_layers // 2)
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**fields, "window": usual if self.window is None else self.window}


def parse_kinds(text: str, severed: bool) -> tuple[TraceKind, ...]:
    """The kinds named in `a,b`, each once; with `severed`, the severed ones too."""
    names = [name.strip() for name in text.split(",")] + (list(SEVERED) if severed else [])
    known: dict[str, TraceKind] = {kind: kind for kind in (*KINDS, *SEVERED)}
    wrong = next((name for name in names if name not in known), None)
    if wrong is not None:
        raise PromptError(f"no kind {wrong!r} of site to trace: expected some of {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(names))


def run(
    question: Question, corruption: Corruption, *, model: str, out: Path | None, device: str, dtype: str, as_json: bool
) -> None:
    """Trace, write the files, print the report."""
    facts = None if question.facts is None else read_facts(question.facts)
    folder = Path("out") / f"trace-{default_directory(model).name.removeprefix('induction-')}" if out is None else out
    with staged(folder) as staging, staged(folder / "heatmaps") as heatmaps, ProgressBars() as progress:
        progress("loading the model", 0, 1)
        loaded = load(model, device=device, dtype=dtype)
        progress("loading the model", 1, 1)
        options = {**corruption.options(loaded), "progress": progress}
        found: Trace | Traces
        if facts is not None:
            found = trace_facts(loaded, facts, limit=question.limit, **options)
            if not found.traces:
                raise PromptError(
                    f"none of {len(facts)} facts can be traced with {loaded.name}; the last one: {found.skipped[-1][1]}"
                )
        elif question.prompt is not None and question.subject is not None:
            found = causal_trace(loaded, question.prompt, subject=question.subject, **options)
        else:
            found = _built_in(loaded, options)
        found.save(staging / ("trace.json" if isinstance(found, Trace) else "traces.json"))
        files = _write(found, staging, heatmaps, progress)
    _report(found, folder, files, as_json=as_json, model=model)


def reopen(file: Path, *, out: Path | None, as_json: bool) -> None:
    """Print a saved result again, and write its table and pictures beside it, or into `out`."""
    data = read_json(file, max_bytes=2**31)
    many = isinstance(data, dict) and data.get("format") == Traces.FORMAT
    found = Traces.load(file) if many else Trace.load(file)
    if isinstance(found, Traces) and not found.traces:
        raise FileFormatError(f"{file}: no fact was traced")
    folder = file.parent if out is None else out
    with staged(folder) as staging, staged(folder / "heatmaps") as heatmaps, ProgressBars() as progress:
        files = _write(found, staging, heatmaps, progress)
    model = found.model if isinstance(found, Trace) else found.traces[0].model
    _report(found, folder, files, as_json=as_json, model=model)


def _built_in(model: Model, options: Mapping[str, Any]) -> Trace:
    """The first capital of the bundled model's facts that a model knows, traced."""
    noise = options["noise"]
    if noise is None and options["replacement"] is None:
        noise = noise_level(model)
    found = trace_facts(model, mini_facts(relation="country_capital"), **{**options, "noise": noise}, limit=1)
    if not found.traces:
        raise PromptError(f"no prompt that comes with the package can be traced: {found.skipped[-1][1]}; give --prompt")
    return found.traces[0]


def _write(found: Trace | Traces, folder: Path, heatmaps: Path, progress: ProgressBars) -> dict[str, str]:
    """Write the table and the pictures; returns names and what is in them, the saved result first."""
    one = isinstance(found, Trace)
    shown = [] if one else found.traces[:_MOST_HEATMAPS]
    progress("drawing", 0, 1 + len(shown))
    figure = trace_figure(found) if one else role_curves_figure(found)
    figure.savefig(folder / ("trace.png" if one else "roles.png"), dpi=_DOTS_PER_INCH)
    found.to_dataframe().to_csv(folder / ("trace.csv" if one else "roles.csv"), index=False)
    for place, trace in enumerate(shown, 1):
        progress("drawing", place, 1 + len(shown))
        trace_figure(trace).savefig(heatmaps / f"fact-{place:02}.png", dpi=_DOTS_PER_INCH)
    progress("drawing", 1 + len(shown), 1 + len(shown))
    if one:
        return {
            "trace.json": "everything measured; --open and circuits.patching.Trace.load read it",
            "trace.csv": "every cell",
            "trace.png": "the heatmaps",
        }
    return {
        "traces.json": "everything measured; --open and circuits.patching.Traces.load read it",
        "roles.csv": "averages by role and layer, with their intervals",
        "roles.png": "the same as curves",
        **{f"heatmaps/fact-{place:02}.png": one_line(trace.prompt) for place, trace in enumerate(shown, 1)},
    }


def _report(found: Trace | Traces, folder: Path, files: Mapping[str, str], *, as_json: bool, model: str) -> None:
    if as_json:
        facts = _trace_json(found) if isinstance(found, Trace) else _traces_json(found)
        print_json({**facts, "files": {name: str(folder / name) for name in files}})
        return
    parts = _trace_report(found) if isinstance(found, Trace) else _traces_report(found)
    rows = [(name, what) for name, what in files.items() if not name.startswith("heatmaps/")]
    if len(files) > len(rows):
        rows.append(("heatmaps/", f"each of the first {len(files) - len(rows)} facts by itself"))
    saved = folder / next(iter(files))
    steps = [(f"circuits trace --open {one_line(saved)}", "this again, without computing")]
    named = "" if model == "mini" else f" --model {one_line(model)}"
    if isinstance(found, Trace):
        steps += [
            (f"circuits trace{named} --severed", "also states whose later MLPs or attention stay corrupted"),
            (f"circuits trace{named} --prompt TEXT --subject TEXT", "a prompt of your own"),
            (f"circuits trace{named} --facts known_1000.json --limit 50", "averages by role, with intervals"),
        ]
    else:
        steps.append((f"circuits trace{named} --facts FILE --severed", "which part MLPs and attention mediate"))
    parts += [f"Files in {one_line(folder)}\n{_two_columns(rows)}", f"Try next\n{_two_columns(steps)}"]
    typer.echo("\n\n".join(parts))


def _two_columns(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name.ljust(width)}   {what}" for name, what in rows)


def _corrupted_by(trace: Trace) -> str:
    if not trace.noise:
        return "the subject replaced"
    return f"noise of sd {trace.noise:.3g} on the subject, {len(trace.corrupted)} draws, seed {trace.seed}"


def _trace_report(trace: Trace) -> list[str]:
    corrupted, roles = float(trace.corrupted.mean()), trace.roles()
    parts = [
        f"Causal trace of {one_line(trace.model)}: {one_line(trace.prompt)}",
        f"answer (the model's own): {one_line(trace.answer)}\n"
        f"its probability: {trace.clean:.1%} clean, {corrupted:.1%} corrupted ({_corrupted_by(trace)})\n"
        f"total effect: {trace.total_effect:+.3f}",
    ]
    rows: list[tuple[str, ...]] = []
    for kind in trace.restored:
        effects = trace.effects(kind)
        order = effects.flatten().argsort(descending=True, stable=True).tolist()
        rows += [("",) * 5, (_heading(kind, trace), *("",) * 4)]
        for cell in order[:_STRONGEST] + [order[-1]] * (float(effects.min()) < -0.005):
            position, layer = divmod(cell, effects.shape[1])
            token = printable(trace.tokens[position].replace(" ", "·").replace("\n", "↵"))
            effect = float(effects[position, layer])
            row = (f"  {position} {token}", roles[position], str(layer), f"{effect:+.3f}", f"{effect + corrupted:.1%}")
            rows.append(row)
    parts.append(table(("strongest cells", "role", "layer", "indirect effect", "p"), rows, indent=0))
    parts.append(
        "p: probability of the answer with the clean value put back there; a negative effect comes last.\n"
        "The last token's last state brings back everything in any model."
    )
    return parts


def _heading(kind: str, trace: Trace) -> str:
    layers = trace.effects(kind).shape[1]
    window = f", {min(trace.window, layers)} layers around" if kind in ("mlp", "attention") else ""
    return f"{_HEADINGS.get(kind, kind)}{window}"


def _traces_report(found: Traces) -> list[str]:
    (clean, corrupted), (effect, half) = found.average_probabilities(), found.average_total_effect()
    first, count = found.traces[0], len(found.traces)
    parts = [
        f"Causal traces of {one_line(first.model)}: {count} facts that it knows, {len(found.skipped)} skipped",
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
    parts.append(table(("by role", "facts", "peak layer", "average indirect effect"), rows, indent=0))
    parts.append("in brackets, 95 % intervals over facts (none from one fact)")
    if found.skipped:
        prompt, reason = found.skipped[0]
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
