"""What explanations are good for: a classifier on top of a model, what it looks at, and how it is mended."""

from circuits.uses.attributing import (
    Amplified,
    Attributing,
    Faithfulness,
    Stability,
    WordAttributions,
    amplify,
    attribute_words,
    stability,
    train_flat,
)
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
from circuits.uses.feedback import Feedback, FeedbackEffects, FeedbackItem, apply_feedback, proposed
from circuits.uses.inside import InsideChange, compare_inside, meaning_swaps, shortcut_swaps
from circuits.uses.regularising import ErTest, Regularisation, er_test, train_regularised, wishes_of
from circuits.uses.regularising.frozen import train_head_without
from circuits.uses.shortcuts import Shortcuts, Watching, find_shortcuts, label_words, swapped

__all__ = [
    "Amplified",
    "Attributing",
    "Classifier",
    "ClassifierScores",
    "ErTest",
    "Examples",
    "Faithfulness",
    "Feedback",
    "FeedbackEffects",
    "FeedbackItem",
    "InsideChange",
    "PlantedShortcut",
    "Recipe",
    "Regularisation",
    "Shortcuts",
    "Stability",
    "Watching",
    "WordAttributions",
    "amplify",
    "apply_feedback",
    "attribute_words",
    "class_pairs",
    "compare_inside",
    "er_test",
    "find_shortcuts",
    "label_words",
    "meaning_swaps",
    "planted_shortcut",
    "proposed",
    "read_labelled",
    "score_classifier",
    "shortcut_swaps",
    "stability",
    "swapped",
    "train_all",
    "train_flat",
    "train_head",
    "train_head_without",
    "train_regularised",
    "wishes_of",
]
