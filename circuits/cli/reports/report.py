"""What only the model can tell of a saved circuit, and what is printed of a page."""

from pathlib import Path
from typing import Any

import circuits
from circuits.cli.loading import load
from circuits.cli.progress import ProgressBars
from circuits.cli.report import Pairs, Part, Report, Table
from circuits.cli.settings import Setting
from circuits.cli.text import one_line
from circuits.errors import CircuitsError
from circuits.files.words import counted
from circuits.graph import Circuit
from circuits.models import TokenBatch
from circuits.progress import Progress
from circuits.report import Facts, Grid, Looked, Page, Paragraphs, Saved, Section, look_closer
from circuits.report.blocks import AnyBlock
from circuits.report.closer import ROOM
from circuits.tasks import PromptPairs, PromptReport

_COUNT = 16
"""Pairs that are drawn where it is not known how many a run had."""


def looks_of(saved: Saved, model: str | None, setting: Setting) -> dict[str, Looked]:
    """What the model says of the circuit of a run ("") and of those of a study (by folder); else, and beside it, what is
    missing. Raises ModelError where a model that was named cannot be loaded."""
    saved = saved.opened()
    places = {name: one for name, one in {"": saved, **saved.parts}.items() if one.first(Circuit) is not None}
    names = [circuit.metadata.get("model") for one in places.values() if (circuit := one.first(Circuit)) is not None]
    if not places:
        return {}
    if model is None and names[0] not in circuits.bundled_models():
        which = f" ({one_line(names[0])})" if isinstance(names[0], str) else ""
        said = f"Attention, written tokens and effects by prompt need the model{which}: circuits report --model MODEL."
        return dict.fromkeys(places, Looked(missing=[said]))
    with ProgressBars() as progress:
        progress("loading the model", 0, 1)
        loaded = load(model or str(names[0]), device=setting.device, dtype=setting.dtype, edits=setting.edits)
        progress("loading the model", 1, 1)
        room = ROOM // len(places)
        return {name: _look(one, loaded, room, _named(progress, name)) for name, one in places.items()}


def _named(progress: ProgressBars, name: str) -> Progress:
    """Progress that says which circuit it is about, where there are several."""
    return progress if not name else lambda what, done, total: progress(f"{name}: {what}", done, total)


def _look(saved: Saved, model: circuits.Model, room: int, progress: Progress) -> Looked:
    """What a model says of one circuit."""
    circuit = saved.first(Circuit)
    assert circuit is not None
    refused = _other_model(circuit, model)
    if refused:
        return Looked(missing=[refused])
    opened = circuit.metadata.get("prepend_bos")
    model = model.with_bos(opened if isinstance(opened, bool) else None)
    prompts, metric, missing = _prompts(saved, circuit, model, progress)
    if prompts is None:
        return Looked(missing=missing)
    if circuit.graph.roles is not None and metric is not None:
        metric = None
        missing = [*missing, "On which prompts an edge between roles of tokens matters is not shown."]
    return Looked(look_closer(model, circuit, prompts, metric=metric, room=room, progress=progress), missing)


def _other_model(circuit: Circuit, model: circuits.Model) -> str:
    """Why a model is not the circuit's; nothing where it is, as far as one can tell."""
    if circuit.graph != model.graph(neurons=circuit.graph.neurons, roles=circuit.graph.roles):
        return f"{one_line(model.name)} has another shape than the circuit's model: nothing of it is shown."
    own = circuit.metadata.get("weights_sha256")
    if isinstance(own, str) and own != model.fingerprint:
        return (
            f"{one_line(model.name)} has other weights than the circuit's model (fingerprints differ): nothing of it is shown."
        )
    return ""


def _prompts(
    saved: Saved, circuit: Circuit, model: circuits.Model, progress: Progress
) -> tuple[PromptPairs | TokenBatch | None, Any, list[str]]:
    """The prompts of the run: its pairs where the task draws them again, else their texts; the metric where there are pairs;
    and what is missing."""
    from circuits.tasks.registry import is_task, task

    report, name, seed = saved.first(PromptReport), circuit.metadata.get("task"), circuit.metadata.get("seed")
    if isinstance(name, str) and is_task(name) and model.tokenizer is not None:
        try:
            count = _COUNT if report is None else len(report)
            drawn = task(name).draw(model, count, seed if isinstance(seed, int) else 0, progress=progress)
        except CircuitsError as error:
            return None, None, [f"The prompts of {name} cannot be made again: {one_line(error)}."]
        pairs = drawn.pairs
        if report is None or _same(pairs, report, model):
            metric = task(name).metric(model, pairs)
            if report is None:
                return (
                    pairs,
                    None,
                    [f"The prompts were drawn anew for this page (task {name}); effects by prompt were not measured."],
                )
            return (*_searched(pairs, metric, seed if isinstance(seed, int) else 0), [])
    if report is None:
        return None, None, ["Attention and written tokens need prompts: the folder has no prompts.json."]
    said = "On which prompts an edge matters is not shown: the corrupt prompts were not saved."
    return model.to_tokens(list(report.prompts)), None, [said]


def _same(pairs: PromptPairs, report: PromptReport, model: circuits.Model) -> bool:
    """Whether pairs that were drawn again are those of the run."""
    texts = tuple(model.to_string(ids[mask]) for ids, mask in zip(pairs.clean.ids, pairs.clean.mask, strict=True))
    return (
        tuple(text.strip() for text in texts) == tuple(text.strip() for text in report.prompts)
        or pairs.labels == report.prompts
    )


def _searched(pairs: PromptPairs, metric: Any, seed: int) -> tuple[PromptPairs, Any]:
    """Those that the search saw, whose effects the scores are means of."""
    from circuits.tasks.metric import Metric, Relative
    from circuits.tasks.sharing import halves

    if len(pairs) < 4:
        return pairs, metric
    rows, _ = halves(pairs, seed)
    return pairs[rows], metric if isinstance(metric, Relative) else Metric.of(metric).on(rows)


def report_section(report: Report, *, title: str | None = None) -> Section:
    """What a command said as a section of a page: the heading's first line is its title."""
    first, _, rest = report.heading.partition("\n")
    blocks: list[AnyBlock] = [Paragraphs([rest])] if rest else []
    for part in report.parts:
        if isinstance(part, Table):
            blocks += [
                Grid(part.header, part.rows, part.title),
                *([Paragraphs([part.below], tone="note")] if part.below else []),
            ]
        elif isinstance(part, Pairs):
            blocks += [Paragraphs([part.heading]), Facts(part.rows)]
        elif part:
            blocks.append(Paragraphs(part.split("\n")))
    if report.next:
        blocks.append(Grid(("command", "what it tells"), report.next, "Try next", folded=True))
    return Section(title or first, blocks)


def page_report(saved: Saved, page: Page, file: Path, missing: list[str]) -> Report:
    """What was written, and what is in it."""
    size = file.stat().st_size
    rows = [(section.title, section.word or counted(len(section.blocks), "part")) for section in page.sections]
    parts: list[Part] = [Pairs("Sections", [(one_line(title), word) for title, word in rows])]
    notes = [*saved.unfinished, *(f"{name}: {why}" for name, why in saved.unread.items()), *missing]
    parts += ["\n".join(map(one_line, notes))] if notes else []
    parts.append(f"Open it in a browser: {file.resolve().as_uri()}")
    heading = f"{one_line(file)}: {size / 1e6:.2f} MB, one file that needs no network"
    data = {
        "page": str(file),
        "bytes": size,
        "title": page.title,
        "sections": [dict(zip(("title", "word"), row, strict=True)) for row in rows],
    }
    return Report(heading=heading, parts=parts, data={**data, "missing": notes})
