"""Which class reads a saved result, by the format that its file names."""

from collections.abc import Mapping

from circuits.attribution import EdgeScores
from circuits.files.results import Result
from circuits.graph import Circuit
from circuits.heads import AttentionProbe, Composition, Compression, HeadLabels, HeadScores, Tables, TrainingCurves
from circuits.lenses import (
    Clamp,
    DirectLogits,
    KeyValueAgreement,
    Lens,
    LensComparison,
    NeuronReport,
    SubUpdates,
    Triggers,
    TunedLens,
    Values,
)
from circuits.patching import Ablation, AttentionTrace, Effects, Knockout, LayerRemoval, SelfRepair, Terms, Trace, Traces
from circuits.search import Comparison, Curve, Discovery, Roc, Screening, StudiedCircuit, Study, StudyPlan, Verdict
from circuits.tasks import BehaviourScores, PromptReport

_TITLES: Mapping[type[Result], str] = {
    Ablation: "Ablation",
    AttentionProbe: "Attention probe",
    AttentionTrace: "Attention",
    BehaviourScores: "Behaviour",
    Circuit: "The circuit",
    Clamp: "A neuron held",
    Comparison: "Two circuits compared",
    Composition: "Composition of heads",
    Compression: "Compression of heads",
    Curve: "Faithfulness over sizes",
    DirectLogits: "Direct logit attribution",
    Discovery: "The circuit",
    EdgeScores: "Edge scores",
    Effects: "Patching",
    HeadLabels: "Head labels",
    HeadScores: "Head scores",
    KeyValueAgreement: "Keys and values of neurons",
    Knockout: "Attention knockout",
    LayerRemoval: "Layers taken out",
    Lens: "Lens",
    LensComparison: "Lenses compared",
    NeuronReport: "A neuron",
    PromptReport: "The prompts",
    Roc: "Scores against a known circuit",
    Screening: "Edges tested exactly",
    SelfRepair: "Self-repair",
    StudiedCircuit: "A task of a study",
    Study: "A study",
    StudyPlan: "What a study measured and planned",
    SubUpdates: "What neurons write",
    Tables: "Tables of the weights",
    Terms: "Loss by order of terms",
    Trace: "Causal tracing",
    Traces: "Causal tracing",
    TrainingCurves: "Heads over training",
    Triggers: "Triggers of neurons",
    TunedLens: "A tuned lens",
    Values: "Values of neurons",
    Verdict: "Verdict",
}
TITLES: Mapping[str, str] = {kind.FORMAT: title for kind, title in _TITLES.items()}
"""The format of a file → what its section is called."""
KINDS: Mapping[str, type[Result]] = {kind.FORMAT: kind for kind in _TITLES}
"""The format of a file → the class that reads it."""
