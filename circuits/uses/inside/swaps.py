"""Texts, and the same with a shortcut swapped, or with the words that decide turned: as many tokens long each."""

import dataclasses
import random
from collections.abc import Callable, Collection, Iterable, Sequence

from circuits.errors import PromptError
from circuits.tasks import PromptPairs
from circuits.uses.classifying.asking import class_pairs
from circuits.uses.classifying.classifier import Classifier
from circuits.uses.classifying.examples import Examples, marked_words
from circuits.uses.shortcuts.label_words import LabelWords, form_of
from circuits.uses.shortcuts.swapping import in_place

FEWEST = 5


@dataclasses.dataclass(frozen=True)
class Swaps:
    """Clean and corrupt texts, and the class that the swapped words of each clean text speak for."""

    what: str
    clean: tuple[str, ...]
    corrupt: tuple[str, ...]
    classes: tuple[str, ...]

    def pairs(self, classifier: Classifier) -> PromptPairs:
        """As prompts of a classifier: the answer is the class that the swapped words speak for."""
        return class_pairs(classifier, self.clean, self.classes, corrupt=self.corrupt)


def shortcut_swaps(
    classifier: Classifier, counted: LabelWords, examples: Examples, words: Collection[str], *, most: int = 64, seed: int = 0
) -> Swaps:
    """Texts in which one of the words stands, and the same with it swapped for its counterpart; the answer is the class that
    the word goes along with. Raises PromptError where fewer than five texts can be swapped so.

    Args:
        classifier: whose tokens count.
        counted: the words of the training texts.
        examples: labelled texts.
        words: the shortcuts.
        most: texts, at most.
        seed: what they are drawn by.
    """
    forms = {form_of(word) for word in words}

    def places(_: int, text: Sequence[str]) -> list[int]:
        return [place for place, word in enumerate(text) if word in forms]

    return _swaps("the shortcut", classifier, counted, examples, places, most, seed)


def meaning_swaps(classifier: Classifier, counted: LabelWords, examples: Examples, *, most: int = 64, seed: int = 0) -> Swaps:
    """Texts with rationales, and the same with those of the words in them that go along with the label swapped for words of
    another class; the answer is the label. Raises PromptError where fewer than five texts can be swapped so."""

    def places(row: int, text: Sequence[str]) -> list[int]:
        marked = marked_words((examples.rationales[row] if examples.rationales else None) or ())
        return [place for place in sorted(marked) if counted.label_of(text[place]) == examples.labels[row]]

    return _swaps("the meaning", classifier, counted, examples, places, most, seed)


def _swaps(
    what: str,
    classifier: Classifier,
    counted: LabelWords,
    examples: Examples,
    places: Callable[[int, Sequence[str]], list[int]],
    most: int,
    seed: int,
) -> Swaps:
    order, found = list(range(len(examples))), []
    random.Random(seed).shuffle(order)
    for row in order:
        words = examples.texts[row].split()
        forms = [form_of(word) for word in words]
        at = places(row, forms)
        labels = {counted.label_of(forms[place]) for place in at}
        swapped = _swapped(classifier, counted, words, forms, at) if len(labels) == 1 else None
        if swapped is not None:
            found.append((" ".join(words), swapped, classifier.classes[labels.pop() or 0]))
        if len(found) == most:
            break
    if len(found) < FEWEST:
        raise PromptError(
            f"{what} can be swapped for words of as many tokens in {len(found)} of {len(examples)} texts: expected {FEWEST}"
        )
    clean, corrupt, classes = zip(*found, strict=True)
    return Swaps(what, clean, corrupt, classes)


def _swapped(
    classifier: Classifier, counted: LabelWords, words: Sequence[str], forms: Sequence[str], places: Sequence[int]
) -> str | None:
    """A text with words swapped for others of another class, one by one, as many tokens long; None where one has none."""
    now, length = list(words), len(classifier.rows([" ".join(words)])[0])
    for place in places:
        for other in _others(counted, forms[place]):
            tried = [*now[:place], in_place(words[place], forms[place], other), *now[place + 1 :]]
            if len(classifier.rows([" ".join(tried)])[0]) == length:
                now = tried
                break
        else:
            return None
    return " ".join(now)


def _others(counted: LabelWords, word: str) -> Iterable[str]:
    """The counterparts of a word, the nearest first."""
    return counted.counterparts(word)[:8]
