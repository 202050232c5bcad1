"""The kinds of saved results, by the format that their files name: in words, their class, and the command that shows them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuits.errors import FileFormatError
from circuits.files.origins import origin_of
from circuits.files.reading import read_json
from circuits.files.results import LARGEST_RESULT, Result
from circuits.files.tensors import format_of_tensors, origin_of_tensors
from circuits.graph import Circuit


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of saved result."""

    what: str
    """What it is, in words."""
    title: str
    """What its section of a page is called."""
    cls: str
    """Its class, which is imported when the first such file is read."""
    command: str = ""
    """The words of the command that shows it, where there is one."""

    def load(self, file: Path) -> Result:
        """A file of this kind. Raises FileFormatError for any other."""
        return self.result.load(file)

    @property
    def result(self) -> type[Result]:
        """The class itself."""
        from circuits import attribution, concepts, graph, heads, lenses, models, patching, probes, search, tasks, uses

        room, _, name = self.cls.partition(".")
        rooms = {"attribution": attribution, "graph": graph, "heads": heads, "lenses": lenses, "patching": patching}
        rooms |= {"concepts": concepts, "models": models, "probes": probes, "search": search, "tasks": tasks, "uses": uses}
        return getattr(rooms[room], name)


KINDS: Mapping[str, Kind] = {
    "circuits-classifier-scores": Kind(
        "how often a classifier is right", "Scores of a classifier", "uses.ClassifierScores", "classify train --open"
    ),
    "circuits-er-test": Kind(
        "what regularising a classifier changes", "Regularisation", "uses.ErTest", "classify regularise --open"
    ),
    "circuits-feedback-effects": Kind(
        "what feedback on a classifier changes", "Feedback", "uses.FeedbackEffects", "classify feedback --open"
    ),
    "circuits-inside-change": Kind(
        "what changed inside of a mended classifier", "What changed inside", "uses.InsideChange", "classify inside --open"
    ),
    "circuits-edit-scores": Kind(
        "facts edited in the weights, before and after", "Edited facts", "uses.EditScores", "edit --open"
    ),
    "circuits-edits-together": Kind(
        "facts edited alone and together", "Facts edited together", "uses.EditsTogether", "edit --open"
    ),
    "circuits-weight-edit": Kind("an edit of a model's weights", "Edit", "models.WeightEdit"),
    "circuits-key-moments": Kind("which keys an MLP reads on a text", "Keys of a layer", "uses.KeyMoments"),
    "circuits-shortcuts": Kind("words that a classifier leans on", "Shortcuts", "uses.Shortcuts", "classify shortcuts --open"),
    "circuits-concept-test": Kind("whether an answer hangs on a concept", "Concept", "concepts.ConceptTest", "concept --open"),
    "circuits-ablation": Kind("ablations", "Ablation", "patching.Ablation", "ablate --open"),
    "circuits-amplified": Kind(
        "a larger model with rationales in its prompt", "Rationales in a prompt", "uses.Amplified", "classify amplify --open"
    ),
    "circuits-anomalies": Kind(
        "wrong sentences by layer", "Where wrong sentences stand out", "probes.Anomalies", "probe anomaly --open"
    ),
    "circuits-attention": Kind("attention traced to tokens", "Attention", "patching.AttentionTrace", "attention --open"),
    "circuits-attention-probe": Kind("the attention-only probe", "Attention probe", "heads.AttentionProbe"),
    "circuits-behaviour-scores": Kind("behaviour scores", "Behaviour", "tasks.BehaviourScores", "behaviour --open"),
    "circuits-clamp": Kind("a neuron that was held", "A neuron held", "lenses.Clamp"),
    "circuits-comparison": Kind("two circuits compared", "Two circuits compared", "search.Comparison"),
    "circuits-composition": Kind("composition between heads", "Composition of heads", "heads.Composition"),
    "circuits-compression": Kind("heads of low rank", "Compression of heads", "heads.Compression", "tables compress --open"),
    "circuits-dictionary-report": Kind(
        "a dictionary of features", "A dictionary of features", "concepts.DictionaryReport", "features dictionary --open"
    ),
    "circuits-feature": Kind("a feature of a dictionary", "A feature", "concepts.FeatureReport", "features dictionary --open"),
    "circuits-attribution-graph": Kind(
        "an attribution graph of features", "Attribution graph", "concepts.AttributionGraph", "features graph --open"
    ),
    "circuits-feature-circuit": Kind(
        "a circuit of features", "A circuit of features", "concepts.FeatureCircuit", "features circuit --open"
    ),
    "circuits-feature-scores": Kind(
        "what features do to an answer", "Features behind an answer", "concepts.FeatureScores", "features attribute --open"
    ),
    "circuits-direct-logits": Kind("logits taken apart", "Direct logit attribution", "lenses.DirectLogits", "logits --open"),
    "circuits-discovery": Kind("a circuit with scores and verdict", "The circuit", "search.Discovery"),
    "circuits-edge-scores": Kind("scores of edges", "Edge scores", "attribution.EdgeScores"),
    "circuits-effects": Kind("effects of patching", "Patching", "patching.Effects", "patch --open"),
    "circuits-equivariance": Kind("units that a symmetry exchanges", "A symmetry", "concepts.Equivariance", "symmetry --open"),
    "circuits-explanation": Kind("a neuron explained", "A neuron explained", "lenses.NeuronExplanation", "explain --open"),
    "circuits-explanations": Kind("neurons explained", "Neurons explained", "lenses.Explanations", "explain --open"),
    "circuits-faithfulness": Kind("faithfulness over sizes", "Faithfulness over sizes", "search.Curve"),
    "circuits-coreference-probes": Kind(
        "probes of coreference", "Probes of coreference", "probes.CoreferenceProbes", "probe coreference --open"
    ),
    "circuits-head-labels": Kind("heads labelled by relations", "Head labels", "heads.HeadLabels", "attention labels --open"),
    "circuits-head-patterns": Kind("patterns of heads", "Patterns of heads", "probes.HeadPatterns", "probe heads --open"),
    "circuits-head-pruning": Kind("the loss without heads", "Heads taken out", "probes.HeadPruning"),
    "circuits-head-scores": Kind("scores of heads", "Head scores", "heads.HeadScores"),
    "circuits-knockout": Kind("attention that was blocked", "Attention knockout", "patching.Knockout"),
    "circuits-layer-removal": Kind(
        "the loss without layers", "Layers taken out", "patching.LayerRemoval", "tables layers --open"
    ),
    "circuits-lens": Kind("a lens", "Lens", "lenses.Lens", "lens --open"),
    "circuits-lens-comparison": Kind("lenses compared", "Lenses compared", "lenses.LensComparison"),
    "circuits-letter-heads": Kind(
        "heads that answer by a letter", "Letter heads", "search.LetterHeads", "heads letters --open"
    ),
    "circuits-memory-agreement": Kind(
        "values of neurons beside what follows triggers", "Keys and values of neurons", "lenses.KeyValueAgreement"
    ),
    "circuits-module-explanation": Kind(
        "a module explained", "A module explained", "lenses.ModuleExplanation", "explain --open"
    ),
    "circuits-neuron": Kind("a neuron", "A neuron", "lenses.NeuronReport", "neuron --open"),
    "circuits-neuron-forms": Kind(
        "neurons as forms over concepts", "Neurons as logical forms", "concepts.NeuronForms", "compose --open"
    ),
    "circuits-neuron-knockout": Kind("what is lost without neurons", "What is lost without neurons", "probes.NeuronKnockout"),
    "circuits-neuron-rankings": Kind(
        "neurons ranked by what they know", "Neurons ranked", "probes.NeuronRankings", "neurons --open"
    ),
    "circuits-probes": Kind("probes of a property", "Probes of a property", "probes.Probes", "probe --open"),
    "circuits-prompt-probes": Kind(
        "facts by typed and trained prompts", "Facts by prompts", "probes.PromptProbes", "probe prompts --open"
    ),
    "circuits-prompt-report": Kind("how the model does on prompts", "The prompts", "tasks.PromptReport"),
    "circuits-property-use": Kind("what erasing a property costs", "What erasing a property costs", "probes.PropertyUse"),
    "circuits-recurrence": Kind(
        "which edges return when a search is repeated", "Stability", "search.Recurrence", "discover --open"
    ),
    "circuits-roc": Kind("a ROC curve", "Scores against a known circuit", "search.Roc"),
    "circuits-screening": Kind("edges screened and verified", "Edges tested exactly", "search.Screening"),
    "circuits-self-repair": Kind("self-repair by layer", "Self-repair", "patching.SelfRepair"),
    "circuits-span-probes": Kind("probes of spans", "Probes of spans", "probes.SpanProbes", "probe spans --open"),
    "circuits-specialisation": Kind(
        "classes of words divided between heads", "Heads as branches", "concepts.Specialisation", "heads specialise --open"
    ),
    "circuits-stability": Kind(
        "words that count when synonyms replace some",
        "Words replaced by synonyms",
        "uses.Stability",
        "classify stability --open",
    ),
    "circuits-studied": Kind("a behaviour that was studied", "A task of a study", "search.StudiedCircuit"),
    "circuits-study": Kind("a study of a model", "A study", "search.Study"),
    "circuits-study-plan": Kind("the plan of a study", "What a study measured and planned", "search.StudyPlan"),
    "circuits-sub-updates": Kind("what neurons add to a prediction", "What neurons write", "lenses.SubUpdates"),
    "circuits-superposition": Kind(
        "features packed into fewer dimensions", "Superposition", "concepts.Superposition", "features --open"
    ),
    "circuits-tables": Kind("weight tables", "Tables of the weights", "heads.Tables", "tables --open"),
    "circuits-terms": Kind("the loss term by term", "Loss by order of terms", "patching.Terms", "tables terms --open"),
    "circuits-trace": Kind("a causal trace", "Causal tracing", "patching.Trace", "trace --open"),
    "circuits-traces": Kind("causal traces of facts", "Causal tracing", "patching.Traces", "trace --open"),
    "circuits-training-curves": Kind("scores of heads over training", "Heads over training", "heads.TrainingCurves"),
    "circuits-tree-probes": Kind("probes of trees", "Probes of trees", "probes.TreeProbes", "probe tree --open"),
    "circuits-triggers": Kind("triggers of neurons", "Triggers of neurons", "lenses.Triggers"),
    "circuits-tuned-lens": Kind("a tuned lens", "A tuned lens", "lenses.TunedLens", "lens --tuned"),
    "circuits-values": Kind("values of neurons", "Values of neurons", "lenses.Values"),
    "circuits-verdict": Kind("a verdict on a circuit", "Verdict", "search.Verdict"),
    "circuits-word-attributions": Kind(
        "words attributed", "Which words a classifier goes by", "uses.WordAttributions", "classify attribute --open"
    ),
    "transformer-circuits/circuit": Kind("a circuit", "The circuit", "graph.Circuit", "info"),
}
"""The format of a file → what it holds."""


def title_of(result: Result) -> str:
    """What the section of a result is called."""
    kind: Any = type(result)
    return KINDS[kind.FORMAT].title if kind.FORMAT in KINDS else kind.FORMAT


def format_of(file: Path) -> str:
    """The format that a file names, of JSON or of tensors; empty where it names none. Raises FileFormatError for a file that
    cannot be read."""
    if file.suffix.lower() == ".safetensors":
        return format_of_tensors(file)
    data = read_json(file, max_bytes=LARGEST_RESULT)
    found = data.get("format") if isinstance(data, dict) else None
    return found if isinstance(found, str) else ""


def origin_in(file: Path) -> str:
    """The command line that a file of a result names; "" where it names none. Raises FileFormatError for a file that cannot be
    read."""
    if file.suffix.lower() == ".safetensors":
        return origin_of_tensors(file)
    data = read_json(file, max_bytes=LARGEST_RESULT)
    if isinstance(data, dict) and data.get("format") == Circuit.FORMAT:  # its metadata tell it
        data = data["graph"].get("metadata") if isinstance(data.get("graph"), dict) else None
    return origin_of(data)


def load_saved(file: Path) -> tuple[Kind, Result]:
    """A saved result of any kind. Raises FileFormatError, with the file's name, for one of no kind that is known."""
    name = format_of(file)
    if name not in KINDS:
        raise FileFormatError(f"{file}: {f'no format is called {name[:80]!r}' if name else 'names no format'}")
    return KINDS[name], KINDS[name].load(file)
