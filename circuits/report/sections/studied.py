"""A study as sections: which behaviours a model has, how the circuit of each stands, and what circuits share."""

from circuits.report.blocks import AnyBlock, Chart, Grid, Paragraphs, Section, Standing
from circuits.search import Study
from circuits.search.judging.verdict import HALF, SIGNIFICANT
from circuits.statistics import Effect

_WORDS = {"proven": "proven", "partial": "partial", "unproven": "unproven", "none": "no circuit found"}


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
    circuits = [(one.task, _WORDS[one.standing], one.edges, len(one.nodes), one.summary) for one in study.circuits]
    if circuits:
        blocks.append(Grid(("task", "verdict", "edges", "nodes", "in words"), circuits, "The circuits"))
    blocks += _shared(study)
    standings = {one.standing for one in study.circuits}
    return Section(title, blocks, *_ending(standings))


def _ending(standings: set[str]) -> tuple[str, Standing]:
    """In a word how the circuits stand."""
    if not standings:
        return "no circuit", "bad"
    if standings == {"proven"}:
        return "all proven", "good"
    return ("some proven", "part") if "proven" in standings else ("none proven", "bad")


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
        heads = [(head, ", ".join(tasks)) for head, tasks in study.heads.items()]
        blocks.append(Grid(("head", "in the circuits of"), heads, "Heads of several circuits", folded=True))
    return blocks


def _said(one: Effect | None) -> str:
    return "" if one is None else f"{one.effect:.2f} [{one.low:.2f}, {one.high:.2f}]"
