"""Classifiers on top of a model: labelled texts, training, files."""

from circuits.uses.classifying.asking import class_pairs
from circuits.uses.classifying.classifier import Classifier
from circuits.uses.classifying.examples import Examples, read_labelled
from circuits.uses.classifying.planted import PlantedShortcut, planted_shortcut
from circuits.uses.classifying.scores import ClassifierScores, score_classifier
from circuits.uses.classifying.training import Recipe, train_all, train_head

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
