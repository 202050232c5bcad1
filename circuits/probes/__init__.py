"""What can be read off activations by training a little model on them, beside what that would give without the model."""

from circuits.probes.anomalies.probing import probe_anomaly
from circuits.probes.anomalies.results import Anomalies
from circuits.probes.coreference.probing import probe_coreference
from circuits.probes.coreference.results import CoreferenceProbes
from circuits.probes.patterns.classifying import probe_heads
from circuits.probes.patterns.pruning import prune_heads
from circuits.probes.patterns.results import FreeHeads, HeadPatterns, HeadPruning, PrunedClass
from circuits.probes.probing import probe
from circuits.probes.prompts.probing import probe_prompts
from circuits.probes.prompts.results import PromptProbes
from circuits.probes.ranking.circuit import neuron_circuit
from circuits.probes.ranking.knockout import knock_out
from circuits.probes.ranking.rank import rank_neurons
from circuits.probes.ranking.results import NeuronKnockout, NeuronRankings
from circuits.probes.results import HiddenLayer, Probes, PropertyUse
from circuits.probes.spans.probing import probe_spans
from circuits.probes.spans.results import ScalarMix, SpanProbes
from circuits.probes.spans.targets import SpanSentence, SpanTarget, read_spans, tree_spans
from circuits.probes.storing import Activations, activations
from circuits.probes.trees.probing import probe_trees
from circuits.probes.trees.results import TreeProbes
from circuits.probes.use import property_use

__all__ = [
    "Activations",
    "Anomalies",
    "CoreferenceProbes",
    "FreeHeads",
    "HeadPatterns",
    "HeadPruning",
    "HiddenLayer",
    "NeuronKnockout",
    "NeuronRankings",
    "Probes",
    "PromptProbes",
    "PropertyUse",
    "PrunedClass",
    "ScalarMix",
    "SpanProbes",
    "SpanSentence",
    "SpanTarget",
    "TreeProbes",
    "activations",
    "knock_out",
    "neuron_circuit",
    "probe",
    "probe_anomaly",
    "probe_coreference",
    "probe_heads",
    "probe_prompts",
    "probe_spans",
    "probe_trees",
    "property_use",
    "prune_heads",
    "rank_neurons",
    "read_spans",
    "tree_spans",
]
