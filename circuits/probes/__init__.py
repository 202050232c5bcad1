"""What can be read off activations by training a little model on them, beside what that would give without the model."""

from circuits.probes.probing import probe
from circuits.probes.results import HiddenLayer, Probes, PropertyUse
from circuits.probes.storing import Activations, activations
from circuits.probes.use import property_use

__all__ = [
    "Activations",
    "HiddenLayer",
    "Probes",
    "PropertyUse",
    "activations",
    "probe",
    "property_use",
]
