"""What is probed for: a column of words, as one class a word."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.errors import PromptError, shown
from circuits.tasks.sources.conllu import Sentence, Word

DEEPEST = 7
"""Words deeper in the tree than that are of one class."""
FAREST = 4
"""Heads farther away than that are of one class for each side."""
_PLAIN: dict[str, Callable[[Word], str]] = {
    "form": lambda word: word.form,
    "lemma": lambda word: word.lemma,
    "upos": lambda word: word.tag,
    "xpos": lambda word: word.xpos,
    "feats": lambda word: word.feats,
    "relation": lambda word: word.relation.split(":")[0],
    "deprel": lambda word: word.relation,
    "deps": lambda word: word.deps,
    "misc": lambda word: word.misc,
}
_OF_TREES = ("depth", "head")
COLUMNS = (*_PLAIN, *_OF_TREES)
"""Properties by name; besides them the name of any feature (Number, Tense) or key of MISC."""


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """One class for each of some words; -1 where a word has none, or one that too few words have."""

    name: str
    classes: tuple[str, ...]
    """The most frequent first."""
    labels: Int[Tensor, " word"]
    left_out: dict[str, int]
    """Words without a class, by reason."""


def column(sentence: Sentence, name: str) -> list[str]:
    """The value of a column at each word of a sentence; `_` where there is none."""
    if name in _PLAIN:
        return [_PLAIN[name](word) for word in sentence.words]
    if name == "depth":
        return [str(depth) if depth < DEEPEST else f"{DEEPEST}+" for depth in depths(sentence)]
    if name == "head":
        return [_offset(place, word.head) for place, word in enumerate(sentence.words)]
    return [_feature(word, name) for word in sentence.words]


def depths(sentence: Sentence) -> list[int]:
    """How many relations lie between each word and the root of its sentence."""
    found: dict[int, int] = {}
    for place in range(len(sentence.words)):
        way: list[int] = []
        at: int | None = place
        while at is not None and at not in found:
            way.append(at)
            at = sentence.words[at].head
        start = -1 if at is None else found[at]
        found |= {one: start + up for up, one in enumerate(reversed(way), 1)}
    return [found[place] for place in range(len(sentence.words))]


def _offset(place: int, head: int | None) -> str:
    """Where a word's head stands: so many words before it (negative) or after; `root` for the root."""
    if head is None:
        return "root"
    offset = head - place
    return f"{offset:+d}" if abs(offset) <= FAREST else f"{'+' if offset > 0 else '-'}{FAREST + 1}…"


def _feature(word: Word, name: str) -> str:
    for cell in (word.feats, word.misc):
        for pair in cell.split("|"):
            key, found, value = pair.partition("=")
            if found and key == name:
                return value
    return "_"


def label_words(
    sentences: Sequence[Sentence],
    places: Sequence[tuple[int, int]],
    name: str,
    *,
    least: int = 20,
    classes: Sequence[str] | None = None,
) -> Labels:
    """The class of each word at `places` (sentence, word) by a column: upos, xpos, relation (without its subtype), deprel,
    depth (below the root; 7 and more are one), head (how far away, by sign; more than 4 are one), lemma, form, feats, or the
    name of a feature such as Number or of a key of MISC.

    Words with `_` have no class, nor those of a class that fewer than `least` of them have (or that is not among `classes`).
    Raises PromptError, with the place in the file, for a column that no word has and where fewer than two classes are left.
    """
    by_sentence = {number: column(sentences[number], name) for number, _ in places}
    values = [by_sentence[number][word] for number, word in places]
    where = (sentences[places[0][0]].place.rpartition(":")[0] if places else "") or "the sentences"
    first = sentences[places[0][0]].place or "sentence 1" if places else "there"
    counts = Counter(value for value in values if value != "_")
    if not counts:
        raise PromptError(
            f"{where}: none of {len(values):,} words has {shown(name)} (from {first} on it is _): a property is one of "
            f"{', '.join(COLUMNS)}, or a feature such as {_some_feature(sentences)}"
        )
    chosen = tuple(value for value, count in counts.most_common() if count >= least) if classes is None else tuple(classes)
    if len(chosen) < 2:
        common, often = counts.most_common(1)[0]
        begins = sentences[places[values.index(common)][0]].place or f"sentence {places[values.index(common)][0] + 1}"
        raise PromptError(
            f"{where}: {name} has {len(counts)} {'classes' if len(counts) > 1 else 'class'} ({shown(common)} {often:,} times, "
            f"first in {begins}), {len(chosen)} of them on {least} words or more: a probe needs two; give more sentences"
        )
    index = {value: number for number, value in enumerate(chosen)}
    labels = torch.tensor([index.get(value, -1) for value in values])
    without = sum(value == "_" for value in values)
    rare = int((labels < 0).sum()) - without
    return Labels(name, chosen, labels, {"without": without, "rare": rare})


def _some_feature(sentences: Sequence[Sentence]) -> str:
    words = (word.feats for sentence in sentences for word in sentence.words if "=" in word.feats)
    return next(words, "Number=Sing").partition("=")[0]
