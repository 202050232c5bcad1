"""What explanations are good for: a classifier on top of a model, what it looks at, and how it is mended."""

from circuits.uses.classifying import (
    Classifier,
    Examples,
    PlantedShortcut,
    Recipe,
    planted_shortcut,
    read_labelled,
    train_all,
    train_head,
)

__all__ = [
    "Classifier",
    "Examples",
    "PlantedShortcut",
    "Recipe",
    "planted_shortcut",
    "read_labelled",
    "train_all",
    "train_head",
]
