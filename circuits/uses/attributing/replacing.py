"""Texts with words replaced by synonyms: a greedy search for what turns a classifier's answer, many texts at once."""

import dataclasses
import random
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import PromptError
from circuits.models.memory import BUDGET
from circuits.progress import Progress, silent
from circuits.uses.attributing.gradients import margins_of
from circuits.uses.attributing.synonyms import Synonyms, alternatives
from circuits.uses.classifying.changed import read_changed
from circuits.uses.classifying.classifier import Classifier

Swap = tuple[int, str]
"""A place among a text's words, and the word that stands there now."""
MOST_WORDS = 3
"""Words of a text that are replaced, at most."""


@dataclasses.dataclass(frozen=True)
class ReplacedText:
    """A text and what became of it."""

    text: str
    other: str
    places: tuple[int, ...]
    """The words that were replaced."""
    kept: bool
    """Whether the classifier gives both the same class."""


def attacked(
    classifier: Classifier,
    texts: Sequence[str],
    synonyms: Synonyms,
    *,
    most: int = MOST_WORDS,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> list[ReplacedText]:
    """Replace words by synonyms, one at a time, each time the one that lowers the margin of the class that the classifier gave
    most of all, until it gives another one, `most` words are replaced, or no replacement lowers it. Texts without a word that
    has a synonym are left out; words are joined by single spaces.

    All replacements of a round, of all texts, are classified together, each from the word on that is replaced. Raises
    PromptError where no text has such a word.

    Args:
        classifier: whose answers are to turn.
        texts: to begin with.
        synonyms: what may stand for a word.
        most: words of a text that are replaced, at most.
        budget: bytes that a pass may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    words = [text.split() for text in texts]
    words = [one for one in words if any(alternatives(word, synonyms) for word in one)]
    if not words or most < 1:
        raise PromptError(f"none of {len(texts)} texts has a word with a synonym: give others, or other synonyms")
    report = progress or silent
    logits = classifier.logits([" ".join(one) for one in words], budget=budget)
    labels, now = logits.argmax(dim=1), list(map(list, words))
    margins = margins_of(logits, labels)
    open_, places = set(range(len(words))), [list[int]() for _ in words]
    kept = [True] * len(words)
    for turn in range(most):
        report("replacing words", turn, most)
        jobs = [(row, swap) for row in sorted(open_) for swap in _swaps(words[row], places[row], synonyms)]
        if not jobs:
            break
        found = _answers(classifier, now, jobs, budget)
        rows = torch.tensor([row for row, _ in jobs], device=found.device)
        lowered, answers = margins_of(found, labels[rows]), found.argmax(dim=1)
        for row in sorted(open_):
            own = (rows == row).nonzero()[:, 0]
            best = int(own[lowered[own].argmin()]) if len(own) else None
            if best is None or float(lowered[best]) >= float(margins[row]):
                open_.discard(row)
                continue
            swap = jobs[best][1]
            now[row], margins[row] = _with(now[row], [swap]), lowered[best]
            places[row].append(swap[0])
            if int(answers[best]) != int(labels[row]):
                kept[row] = False
                open_.discard(row)
    report("replacing words", most, most)
    pairs = zip(words, now, places, kept, strict=True)
    return [ReplacedText(" ".join(one), " ".join(other), tuple(sorted(at)), same) for one, other, at, same in pairs if at]


def _answers(
    classifier: Classifier, now: Sequence[Sequence[str]], jobs: Sequence[tuple[int, Swap]], budget: int
) -> Float[Tensor, "job class"]:
    """What a classifier says of texts with one more word replaced."""
    several = list(dict.fromkeys(row for row, _ in jobs))
    rows = classifier.rows([" ".join(now[row]) for row in several])
    tried = classifier.rows([" ".join(_with(now[row], [swap])) for row, swap in jobs])
    changed = [(several.index(row), ids) for (row, _), ids in zip(jobs, tried, strict=True)]
    return read_changed(classifier.model, rows, changed, what="replacing words, in tokens", budget=budget)[1]


def replaced_at_random(
    classifier: Classifier, pairs: Sequence[ReplacedText], synonyms: Synonyms, *, seed: int = 0, budget: int = BUDGET
) -> list[ReplacedText]:
    """The same texts with as many words replaced, drawn, as control.

    Args:
        classifier: which says whether the class is kept.
        pairs: texts, and how many of their words were replaced.
        synonyms: what may stand for a word.
        seed: what words and synonyms are drawn by.
        budget: bytes that a pass may take, besides the model.
    """
    draw, others = random.Random(seed), list[tuple[str, tuple[int, ...]]]()
    for pair in pairs:
        words = pair.text.split()
        able = [place for place, word in enumerate(words) if alternatives(word, synonyms)]
        places = sorted(draw.sample(able, min(len(able), len(pair.places))))
        swaps = [(place, draw.choice(alternatives(words[place], synonyms))) for place in places]
        others.append((" ".join(_with(words, swaps)), tuple(places)))
    before = classifier.predict([pair.text for pair in pairs], budget=budget)
    after = classifier.predict([text for text, _ in others], budget=budget)
    return [
        ReplacedText(pair.text, text, places, before[row] == after[row])
        for row, (pair, (text, places)) in enumerate(zip(pairs, others, strict=True))
    ]


def _swaps(words: Sequence[str], done: Sequence[int], synonyms: Synonyms) -> list[Swap]:
    """What may be replaced in a text, but for words that were."""
    return [(place, other) for place, word in enumerate(words) if place not in done for other in alternatives(word, synonyms)]


def _with(words: Sequence[str], swaps: Sequence[Swap]) -> list[str]:
    found = list(words)
    for place, other in swaps:
        found[place] = other
    return found
