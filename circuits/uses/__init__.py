"""What explanations are good for: a classifier on top of a model, what it looks at, and how it is mended."""

from circuits.uses.classifying import (
    Classifier,
    ClassifierScores,
    Examples,
    PlantedShortcut,
    Recipe,
    class_pairs,
    planted_shortcut,
    read_labelled,
    score_classifier,
    train_all,
    train_head,
)

__all__ = [
    "Classifier",
    "ClassifierScores",
    "Examples",
    "PlantedShortcut",
    "Recipe",
    "class_pairs",
    "planted_shortcut",
    "read_labelled",
    "score_classifier",
    "train_all",
    "train_head",
]
