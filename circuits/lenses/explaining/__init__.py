"""Neurons and other modules in words, and how well the words foretell what they do."""

from circuits.lenses.explaining.explaining import explain, explain_neurons
from circuits.lenses.explaining.explanations import Explanations, NeuronExplanation
from circuits.lenses.explaining.module_explanations import ModuleExplanation
from circuits.lenses.explaining.sasc import explain_module

__all__ = ["Explanations", "ModuleExplanation", "NeuronExplanation", "explain", "explain_module", "explain_neurons"]
