"""What users mean by a word, as a direction of activations, and whether the model's answer hangs on it; features that are not
neurons."""

from circuits.concepts.features.results import Superposition
from circuits.concepts.features.toy import toy_superposition
from circuits.concepts.results import ConceptCurve, ConceptTest
from circuits.concepts.tcav import tcav
from circuits.concepts.texts import as_examples, random_examples, read_examples

__all__ = [
    "ConceptCurve",
    "ConceptTest",
    "Superposition",
    "as_examples",
    "random_examples",
    "read_examples",
    "tcav",
    "toy_superposition",
]
