"""Reading activations and weights out as tokens."""

import warnings
from typing import Any

from circuits.lenses.comparison import LensComparison, compare_lenses
from circuits.lenses.direct.attribution import logits
from circuits.lenses.direct.direct_logits import DirectLogits
from circuits.lenses.explaining.explaining import explain, explain_neurons
from circuits.lenses.explaining.explanations import Explanations, NeuronExplanation
from circuits.lenses.explaining.module_explanations import ModuleExplanation
from circuits.lenses.explaining.sasc import explain_module
from circuits.lenses.lens import Lens
from circuits.lenses.logit_lens import logit_lens
from circuits.lenses.neurons.clamping import Clamp, clamp
from circuits.lenses.neurons.memories import KeyValueAgreement, Values, key_value_agreement, read_values
from circuits.lenses.neurons.places import Triggers
from circuits.lenses.neurons.report import NeuronReport, neuron
from circuits.lenses.neurons.triggers import find_triggers
from circuits.lenses.neurons.updates import SubUpdates, sub_updates
from circuits.lenses.training import train_tuned_lens
from circuits.lenses.tuned_lens import TunedLens

__all__ = [
    "Clamp",
    "DirectLogits",
    "Explanations",
    "KeyValueAgreement",
    "Lens",
    "LensComparison",
    "ModuleExplanation",
    "NeuronExplanation",
    "NeuronReport",
    "SubUpdates",
    "Triggers",
    "TunedLens",
    "Values",
    "clamp",
    "compare_lenses",
    "explain",
    "explain_module",
    "explain_neurons",
    "find_triggers",
    "key_value_agreement",
    "logit_lens",
    "logits",
    "neuron",
    "read_values",
    "sub_updates",
    "train_tuned_lens",
]


def __getattr__(name: str) -> Any:
    if name != "Agreement":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn("circuits.lenses.Agreement is called KeyValueAgreement now", DeprecationWarning, stacklevel=2)
    return KeyValueAgreement
