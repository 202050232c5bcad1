"""Words that a classifier leans on because they go along with the label."""

from circuits.uses.shortcuts.early import EarlyStep, Watching
from circuits.uses.shortcuts.finding import find_shortcuts
from circuits.uses.shortcuts.label_words import LabelWords, label_words
from circuits.uses.shortcuts.results import Shortcuts, ShortcutWord
from circuits.uses.shortcuts.swapping import swapped

__all__ = ["EarlyStep", "LabelWords", "ShortcutWord", "Shortcuts", "Watching", "find_shortcuts", "label_words", "swapped"]
