"""Neurons as logical forms over concepts (Mu & Andreas 2020)."""

from circuits.concepts.forms.activity import Activity, read_activity
from circuits.concepts.forms.composing import compose
from circuits.concepts.forms.masks import ConceptMasks, concept_masks, read_lexicon
from circuits.concepts.forms.results import NeuronForm, NeuronForms
from circuits.concepts.forms.units import Units

__all__ = [
    "Activity",
    "ConceptMasks",
    "NeuronForm",
    "NeuronForms",
    "Units",
    "compose",
    "concept_masks",
    "read_activity",
    "read_lexicon",
]
