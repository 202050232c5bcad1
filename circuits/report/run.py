"""The page of a run: what its folder holds, in the order in which it is read."""

from collections.abc import Callable, Mapping, Sequence

from circuits.attribution import EdgeScores
from circuits.concepts import ConceptTest
from circuits.files.results import Result
from circuits.graph import Circuit
from circuits.heads import HeadScores
from circuits.lenses import Explanations, Lens, ModuleExplanation, NeuronExplanation
from circuits.patching import Trace, Traces
from circuits.probes import NeuronKnockout, NeuronRankings, Probes, PropertyUse, TreeProbes
from circuits.report.blocks import AnyBlock, Grid, Paragraphs, Section
from circuits.report.closer import Closer, Looked
from circuits.report.folder import Saved
from circuits.report.kinds import title_of
from circuits.report.page import Page
from circuits.report.sections.concepts import classifier_scores_section, concept_section
from circuits.report.sections.explained import explanation_section, explanations_section, module_section
from circuits.report.sections.explorer import explorer_section
from circuits.report.sections.general import result_section
from circuits.report.sections.inside import inside_section
from circuits.report.sections.judged import scored_by, verdict_section
from circuits.report.sections.lenses import lens_section
from circuits.report.sections.made import made_section
from circuits.report.sections.probed import probes_section, property_use_section, tree_probes_section
from circuits.report.sections.ranked import knockout_section, rankings_section
from circuits.report.sections.scored import head_scores_section
from circuits.report.sections.studied import study_section
from circuits.report.sections.traced import trace_section, traces_section
from circuits.report.sections.worded import word_attributions_section
from circuits.search import Curve, Study, Verdict
from circuits.tasks import PromptReport
from circuits.uses import ClassifierScores, InsideChange, WordAttributions

_MOST_PROMPTS = 64
_OWN: Mapping[type[Result], Callable[..., Section]] = {
    Probes: probes_section,
    PropertyUse: property_use_section,
    TreeProbes: tree_probes_section,
    NeuronRankings: rankings_section,
    NeuronKnockout: knockout_section,
    NeuronExplanation: explanation_section,
    Explanations: explanations_section,
    ModuleExplanation: module_section,
    ConceptTest: concept_section,
    ClassifierScores: classifier_scores_section,
    WordAttributions: word_attributions_section,
    InsideChange: inside_section,
}
"""Kinds of results with a section of their own, titled as their kind, in the order in which they stand in a page."""


def run_page(
    saved: Saved,
    *,
    closer: Closer | None = None,
    missing: Sequence[str] = (),
    parts: Mapping[str, Looked] | None = None,
    commands: Sequence[tuple[str, str]] = (),
    title: str | None = None,
) -> Page:
    """A page of all that was saved.

    Args:
        saved: what a folder or a file holds.
        closer: what the model itself says of the circuit.
        missing: what the page cannot show of the circuit, each with what would bring it.
        parts: the same of the circuits of a study, by their folders' names.
        commands: command lines that belong to it: what each did, and the line.
        title: the page's title (default: the task and the model).
    """
    saved = saved.opened()
    circuit, verdict = saved.first(Circuit), saved.first(Verdict)
    curve, scores = saved.first(Curve), saved.first(EdgeScores)
    if circuit is None and scores is not None:
        circuit = scores.top(100, connected=True)
        missing = [*missing, "No circuit was saved: these are the strongest edges of the scores, 100 on paths at most."]
    if verdict is not None and circuit is not None and not _fits(verdict, circuit):
        missing = [
            *missing,
            "The verdict in this folder is of a circuit of another size; what each node is needed for is not shown.",
        ]
    own = verdict if verdict is not None and circuit is not None and _fits(verdict, circuit) else None
    sections = [*_warnings(saved)]
    if circuit is not None:
        missing = [*missing, *_lacking(circuit)]
        about = {"scores": scores, "verdict": own, "curve": _curve_of(curve, circuit), "closer": closer, "missing": missing}
        sections.append(explorer_section(circuit, **about))
    for study in saved.all(Study).values():
        sections += [study_section(study), *_studied(saved, parts or {})]
    if verdict is not None or (circuit is not None and circuit.metadata.get("verdict") != "found"):
        sections.append(verdict_section(verdict, curve))
    sections += _others(saved)
    metadata = _metadata(saved, circuit)
    files = {name: title_of(result) for name, result in saved.results.items()}
    lines = [("command line", line) for line in saved.command_lines() if line != metadata.get("command")]
    sections.append(made_section(metadata, commands=[*lines, *commands], files=files))
    lead = metadata.get("summary")
    return Page(title or _title(metadata, saved), sections, lead=lead if isinstance(lead, str) else "")


def _studied(saved: Saved, looks: Mapping[str, Looked]) -> list[Section]:
    """The circuit of each task of a study, with its verdict and what the model says of it."""
    sections = []
    for name, part in saved.parts.items():
        circuit, verdict = part.first(Circuit), part.first(Verdict)
        if circuit is None:
            continue
        own = verdict if verdict is not None and _fits(verdict, circuit) else None
        curve = part.first(Curve)
        about = {"scores": part.first(EdgeScores), "verdict": own, "curve": _curve_of(curve, circuit)}
        look = looks.get(name, Looked())
        about |= {"closer": look.closer, "missing": [*look.missing, *_lacking(circuit)]}
        sections.append(explorer_section(circuit, **about, title=f"{name}: the circuit", name=name))
        sections.append(verdict_section(verdict, curve, title=f"{name}: verdict"))
    return sections


def _fits(verdict: Verdict, circuit: Circuit) -> bool:
    """Whether a verdict may be one on this circuit."""
    return (verdict.edges, verdict.nodes) == (len(circuit.edges), len(circuit.nodes))


def _curve_of(curve: Curve | None, circuit: Circuit) -> Curve | None:
    """The curve, where it takes edges by the method that chose the circuit's: what refining keeps, or screening confirms, is
    no beginning of the strongest edges by the scores that it began with, so their curve tells nothing of fewer of its edges."""
    method = circuit.metadata.get("method")
    return curve if curve is not None and method is not None and method == scored_by(curve) else None


def _lacking(circuit: Circuit) -> list[str]:
    """What a circuit does not tell."""
    lines = []
    if circuit.edges and all(score is None for score in circuit.edges.values()):
        lines.append("The edges have no scores: all are drawn alike, and the slider keeps them in the order of computation.")
    if not circuit.edges:
        lines.append("The circuit has nodes alone, no edges.")
    if not circuit.evidence and not circuit.metadata:
        lines.append("The file holds no evidence: who found this circuit, on what and how sure it is, is not recorded.")
    return lines


def _warnings(saved: Saved) -> list[Section]:
    """What is wrong with the run itself."""
    blocks: list[AnyBlock] = []
    if saved.unfinished:
        blocks.append(Paragraphs(saved.unfinished, tone="warning"))
    if saved.unread:
        blocks.append(Grid(("file", "why"), list(saved.unread.items()), "Files that could not be read"))
    return [Section("What is missing", blocks, "incomplete", "bad")] if blocks else []


def _others(saved: Saved) -> list[Section]:
    """A section for each other result: those with a form of their own first."""
    found: list[Section] = []
    for name, trace in saved.all(Trace).items():
        found.append(trace_section(trace, title=_named("Causal tracing", name, saved)))
    for name, traces in saved.all(Traces).items():
        found.append(traces_section(traces, title=_named("Causal tracing", name, saved)))
    for name, lens in saved.all(Lens).items():
        found.append(lens_section(lens, title=_named("Tuned lens" if lens.tuned else "Logit lens", name, saved)))
    for name, scores in saved.all(HeadScores).items():
        found.append(head_scores_section(scores, title=_named("Head scores", name, saved)))
    if saved.head_scores is not None:
        found.append(head_scores_section(saved.head_scores))
    for report in saved.all(PromptReport).values():
        found.append(prompts_section(report))
    for kind, section in _OWN.items():
        for name, result in saved.all(kind).items():
            found.append(section(result, title=_named(title_of(result), name, saved)))
    shown = (Trace, Traces, Lens, HeadScores, PromptReport, Verdict, Curve, EdgeScores, Study, *_OWN)
    first = saved.first(Circuit)
    for name, result in saved.results.items():
        if not isinstance(result, shown) and result is not first:
            found.append(result_section(result, title=_named(title_of(result), name, saved)))
    return found


def _named(title: str, name: str, saved: Saved) -> str:
    """A title, with the file's name where several have the same."""
    kind = type(saved.results[name])
    return title if len(saved.all(kind)) < 2 else f"{title}: {name}"


def prompts_section(report: PromptReport, *, title: str = "The prompts") -> Section:
    """How the model does on the prompts that it was asked about."""
    metric = report.metric.replace("_", " ")
    rows = [
        (*(_clipped(one[row]) for one in (report.prompts, report.answers, report.said)), int(report.ranks[row]), clean, corrupt)
        for row, (clean, corrupt) in enumerate(zip(report.clean.tolist(), report.corrupt.tolist(), strict=True))
    ][:_MOST_PROMPTS]
    more = f" ({_MOST_PROMPTS} of {len(report)})" if len(report) > _MOST_PROMPTS else ""
    header = ("prompt", "answer", "the model says", "rank of the answer", f"{metric}, clean", f"{metric}, corrupt")
    advice: list[AnyBlock] = (
        [Paragraphs([f"Mind: {line}." for line in report.advice()], tone="warning")] if report.advice() else []
    )
    grid = Grid(header, rows, f"{len(report)} prompts{more}", folded=True)
    return Section(title, [Paragraphs([report.summary]), *advice, grid])


def _clipped(text: str, most: int = 300) -> str:
    """A text that does not bloat the page: its beginning and its end."""
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"


def _metadata(saved: Saved, circuit: Circuit | None) -> Mapping[str, object]:
    """What the results say of how they were made, the circuit first."""
    found: dict[str, object] = {}
    for result in [circuit, *saved.results.values()]:
        if result is None:
            continue
        own = getattr(result, "metadata", None)
        own = own if isinstance(own, Mapping) else {}
        direct = {name: getattr(result, name) for name in ("model", "weights_sha256", "seed") if hasattr(result, name)}
        found = {**direct, **own, **found}
    return found


def _title(metadata: Mapping[str, object], saved: Saved) -> str:
    task, model = metadata.get("task"), metadata.get("model")
    if task and model:
        return f"{task} in {model}"
    return f"{saved.place.resolve().name}" if not model else f"{model}: {saved.place.resolve().name}"
