"""Single neurons: what triggers them, what they write, what holding them does."""

from circuits.lenses.neurons.report import NeuronReport, neuron

__all__ = ["NeuronReport", "neuron"]
