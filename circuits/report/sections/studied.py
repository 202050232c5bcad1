"""A study as sections: which behaviours a model has, how the circuit of each stands, and what circuits share."""

from circuits.report.blocks import AnyBlock, Chart, Grid, Links, Paragraphs, Section, Standing
from circuits.search import StudiedCircuit, Study
from circuits.search.judging.verdict import HALF, SIGNIFICANT
from circuits.search.studying.results import task_folder
from circuits.statistics import Effect

_WORDS = {"proven": "proven", "partial": "partial", "unproven": "unproven", "none": "no circuit found"}
_KEPT = (
    "Prompts: searched on + held out. Keeps: the share of the behaviour that the circuit keeps by itself, held out. p: the "
    "chance that a random circuit keeps as much. Misses: the largest gap to the model when nodes are taken out of both."
)
_MOST_HEADS = 24
"""Heads in several circuits that are listed open."""


def study_section(study: Study, *, title: str = "The study") -> Section:
    """Behaviours with their intervals, the verdicts on their circuits, and overlaps against chance."""
    blocks: list[AnyBlock] = [Paragraphs([study.summary])]
    if study.left_out:
        lines = [f"Not searched: {task}, since {why}." for task, why in study.left_out.items()]
        blocks.append(Paragraphs(lines, tone="warning"))
    rows = [
        (one.task, one.state, one.prompts, _said(one.right), _said(one.preferred), _said(one.clean), _said(one.gap), one.why)
        for one in study.behaviours
    ]
    header = (
        "behaviour",
        "the model",
        "prompts",
        "right",
        "preferred",
        "metric on clean",
        "less on corrupt",
        "what decided it",
    )
    blocks.append(Grid(header, rows, "Which behaviours the model has (in brackets: 95 % intervals over prompts)"))
    judged = [(one.task, one.verdict) for one in study.circuits if one.verdict is not None]
    if judged:
        points = [verdict.faithfulness for _, verdict in judged]
        series = {"name": "circuit, held-out prompts", "look": "points", "names": [task for task, _ in judged], "colour": "0"}
        series |= {"x": [float(place) for place in range(len(judged))], "y": [one.effect for one in points]}
        series |= {"low": [one.low for one in points], "high": [one.high for one in points]}
        ticks = [(float(place), task) for place, (task, _) in enumerate(judged)]
        name = "faithfulness (1 = as the whole model)"
        blocks.append(Chart("What each circuit keeps by itself", [series], "", name, lines_at=(0.0, HALF, 1.0), x_ticks=ticks))
    if study.circuits:
        rows = [(one.task, _WORDS[one.standing], *_figures(one)) for one in study.circuits]
        header = ("task", "verdict", "prompts", "edges", "nodes", "keeps", "p", "misses")
        blocks += [Grid(header, rows, "The circuits"), Paragraphs([_KEPT], tone="note")]
        blocks += [Paragraphs(lines)] if (lines := _beside(study)) else []
    blocks += _shared(study)
    return Section(title, blocks, *_ending(study))


def _figures(one: StudiedCircuit) -> tuple[str | int | float, ...]:
    """What a circuit's verdict says; nothing of what has none."""
    verdict = one.verdict
    if verdict is None:
        return ("",) * 6
    chance, gap = ("" if value is None else value for value in (verdict.p_value, verdict.incompleteness))
    prompts = f"{one.prompts_searched} + {one.prompts_held_out}"
    return prompts, one.edges, len(one.nodes), _said(verdict.faithfulness), chance, gap


def _beside(study: Study) -> list[str]:
    """What the table does not say: why there is no circuit, or none that is refined; which heads do it by what they do."""
    lines = [f"{one.task}: no circuit, since {one.why}." for one in study.circuits if one.verdict is None]
    lines += [f"{one.task}: by {one.method}, unrefined: {one.unrefined}." for one in study.circuits if one.unrefined]
    return [*lines, *(f"{one.task}, heads by what they do: {one.mechanism}" for one in study.circuits if one.mechanism)]


def _ending(study: Study) -> tuple[str, Standing]:
    """In a few words how many circuits are proven, and how many behaviours have none; good where all that was asked for is
    proven."""
    counts = {word: sum(one.standing == standing for one in study.circuits) for standing, word in _WORDS.items()}
    counts["not searched"] = len(study.left_out)
    counts["not had"] = sum(one.state == "has not" for one in study.behaviours)
    counts["not asked"] = sum(one.state == "cannot be asked" for one in study.behaviours)
    there = [f"{count} {word}" for word, count in counts.items() if count]
    standing: Standing = "part" if counts["proven"] else "bad"
    return ", ".join(there) or "nothing asked", "good" if list(there) == [f"{counts['proven']} proven"] else standing


def _shared(study: Study) -> list[AnyBlock]:
    """What circuits have in common; what chance would not do is named."""
    if not study.overlaps:
        return []
    rows = [
        (f"{one.first}, {one.second}", one.kind, one.shared, one.expected, one.p_value, " ".join(one.names))
        for one in sorted(study.overlaps, key=lambda one: one.p_value)
    ]
    more = sum(one.p_value <= SIGNIFICANT for one in study.overlaps)
    caption = f"What circuits share: {more} of {len(rows)} more than chance would have it (p at most {SIGNIFICANT})"
    header = ("circuits", "of", "shared", "by chance", "p", "heads in both")
    blocks: list[AnyBlock] = [Grid(header, rows, caption)]
    if study.heads:
        heads = [(head, list(map(task_folder, tasks))) for head, tasks in study.heads.items()]
        caption = f"Heads in several circuits: {len(heads)}; a click on a task shows the head in its circuit"
        blocks.append(Links(("head", "in the circuits of"), heads, caption, folded=len(heads) > _MOST_HEADS))
    return blocks


def _said(one: Effect | None) -> str:
    return "" if one is None else f"{one.effect:.2f} [{one.low:.2f}, {one.high:.2f}]"
