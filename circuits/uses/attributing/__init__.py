"""Which words a classifier goes by."""

from circuits.uses.attributing.amplify import Amplified, amplify
from circuits.uses.attributing.attribute import Attributing, attribute_words
from circuits.uses.attributing.faithful import Faithfulness
from circuits.uses.attributing.flat import train_flat
from circuits.uses.attributing.results import WordAttributions
from circuits.uses.attributing.stability import Stability, stability

__all__ = [
    "Amplified",
    "Attributing",
    "Faithfulness",
    "Stability",
    "WordAttributions",
    "amplify",
    "attribute_words",
    "stability",
    "train_flat",
]
