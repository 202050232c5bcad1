"""What can be read off activations by training a little model on them, beside what that would give without the model."""

from circuits.probes.probing import probe
from circuits.probes.ranking.circuit import neuron_circuit
from circuits.probes.ranking.knockout import knock_out
from circuits.probes.ranking.rank import rank_neurons
from circuits.probes.ranking.results import NeuronKnockout, NeuronRankings
from circuits.probes.results import HiddenLayer, Probes, PropertyUse
from circuits.probes.storing import Activations, activations
from circuits.probes.trees.probing import probe_trees
from circuits.probes.trees.results import TreeProbes
from circuits.probes.use import property_use

__all__ = [
    "Activations",
    "HiddenLayer",
    "NeuronKnockout",
    "NeuronRankings",
    "Probes",
    "PropertyUse",
    "TreeProbes",
    "activations",
    "knock_out",
    "neuron_circuit",
    "probe",
    "probe_trees",
    "property_use",
    "rank_neurons",
]
