"""Results opened again: each by the command of its kind, tables and pictures beside it."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import circuits
from circuits.cli.output import pictured
from circuits.cli.report import written
from circuits.cli.settings import Setting
from circuits.cli.text import one_line
from circuits.errors import FileFormatError

_Kind = TypeVar("_Kind")


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of saved result: what it is, in words; its class; the words of the command that shows it, where there is one."""

    what: str
    cls: str
    command: str = ""


KINDS = {
    "circuits-ablation": Kind("ablations", "patching.Ablation", "ablate --open"),
    "circuits-attention": Kind("attention traced to tokens", "patching.AttentionTrace", "attention --open"),
    "circuits-attention-probe": Kind("the attention-only probe", "heads.AttentionProbe"),
    "circuits-behaviour-scores": Kind("behaviour scores", "tasks.BehaviourScores", "behaviour --open"),
    "circuits-clamp": Kind("a neuron that was held", "lenses.Clamp"),
    "circuits-comparison": Kind("two circuits compared", "search.Comparison"),
    "circuits-composition": Kind("composition between heads", "heads.Composition"),
    "circuits-compression": Kind("heads of low rank", "heads.Compression", "tables compress --open"),
    "circuits-direct-logits": Kind("logits taken apart", "lenses.DirectLogits", "logits --open"),
    "circuits-discovery": Kind("a circuit with scores and verdict", "search.Discovery"),
    "circuits-edge-scores": Kind("scores of edges", "attribution.EdgeScores"),
    "circuits-effects": Kind("effects of patching", "patching.Effects", "patch --open"),
    "circuits-faithfulness": Kind("faithfulness over sizes", "search.Curve"),
    "circuits-head-labels": Kind("heads labelled by relations", "heads.HeadLabels", "attention labels --open"),
    "circuits-head-scores": Kind("scores of heads", "heads.HeadScores"),
    "circuits-knockout": Kind("attention that was blocked", "patching.Knockout"),
    "circuits-layer-removal": Kind("the loss without layers", "patching.LayerRemoval", "tables layers --open"),
    "circuits-lens": Kind("a lens", "lenses.Lens", "lens --open"),
    "circuits-lens-comparison": Kind("lenses compared", "lenses.LensComparison"),
    "circuits-memory-agreement": Kind("values of neurons beside what follows triggers", "lenses.KeyValueAgreement"),
    "circuits-neuron": Kind("a neuron", "lenses.NeuronReport", "neuron --open"),
    "circuits-prompt-report": Kind("how the model does on prompts", "tasks.PromptReport"),
    "circuits-roc": Kind("a ROC curve", "search.Roc"),
    "circuits-screening": Kind("edges screened and verified", "search.Screening"),
    "circuits-self-repair": Kind("self-repair by layer", "patching.SelfRepair"),
    "circuits-studied": Kind("a behaviour that was studied", "search.StudiedCircuit"),
    "circuits-study": Kind("a study of a model", "search.Study"),
    "circuits-study-plan": Kind("the plan of a study", "search.StudyPlan"),
    "circuits-sub-updates": Kind("what neurons add to a prediction", "lenses.SubUpdates"),
    "circuits-tables": Kind("weight tables", "heads.Tables", "tables --open"),
    "circuits-terms": Kind("the loss term by term", "patching.Terms", "tables terms --open"),
    "circuits-trace": Kind("a causal trace", "patching.Trace", "trace --open"),
    "circuits-traces": Kind("causal traces of facts", "patching.Traces", "trace --open"),
    "circuits-training-curves": Kind("scores of heads over training", "heads.TrainingCurves"),
    "circuits-triggers": Kind("triggers of neurons", "lenses.Triggers"),
    "circuits-tuned-lens": Kind("a tuned lens", "lenses.TunedLens", "lens --tuned"),
    "circuits-values": Kind("values of neurons", "lenses.Values"),
    "circuits-verdict": Kind("a verdict on a circuit", "search.Verdict"),
    "transformer-circuits/circuit": Kind("a circuit", "graph.Circuit", "info"),
}
"""The format of a file → what it holds."""
OPENED_BY = {name: kind.command for name, kind in KINDS.items() if kind.command and kind.command != "lens --tuned"}
"""The format of a file → the words of the command that shows it."""


def opened(kind: type[_Kind], file: Path) -> _Kind:
    """The saved result of a file. Raises FileFormatError, which names the command that shows the file where it holds a result
    of another kind."""
    try:
        return kind.load(file)  # type: ignore[attr-defined]
    except FileFormatError as error:
        other = _format_of(file)
        words = OPENED_BY.get(other) if other != kind.FORMAT else None  # type: ignore[attr-defined]
        if words is None:
            raise
        raise FileFormatError(f"{error}; circuits {words} {one_line(file)} shows it") from None


def _format_of(file: Path) -> str:
    try:
        return format_of(file)
    except FileFormatError:
        return ""


def format_of(file: Path) -> str:
    """The format that a file names, of JSON or of tensors; empty where it names none. Raises FileFormatError for a file that
    cannot be read."""
    from circuits.files.reading import read_json
    from circuits.files.results import LARGEST_RESULT
    from circuits.files.tensors import format_of_tensors

    if file.suffix.lower() == ".safetensors":
        return format_of_tensors(file)
    data = read_json(file, max_bytes=LARGEST_RESULT)
    found = data.get("format") if isinstance(data, dict) else None
    return found if isinstance(found, str) else ""


def load_saved(file: Path) -> "tuple[Kind, Any]":
    """A saved result of any kind. Raises FileFormatError, with the file's name, for one of no kind that is known."""
    name = format_of(file)
    if name not in KINDS:
        raise FileFormatError(f"{file}: {f'no format is called {name[:80]!r}' if name else 'names no format'}")
    room, _, cls = KINDS[name].cls.partition(".")
    return KINDS[name], getattr(getattr(circuits, room), cls).load(file)


def written_again(
    found: Any, file: Path, setting: Setting, write: Callable[[Any, Path], None], known: Mapping[str, str]
) -> tuple[Setting, dict[str, str]]:
    """Write a saved result's tables and pictures beside its file, or into the folder asked for; gives the setting of that
    folder, and of the files that a command may write (`known`) those that it wrote."""
    setting = setting.beside(file)
    with setting.work() as (staging, _):
        write(found, staging)
        every = {one: what for name, what in known.items() for one in pictured([name])}
        return setting, written(staging, every)
