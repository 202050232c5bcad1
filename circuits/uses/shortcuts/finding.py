"""Looking for words that a classifier leans on because they go along with the label."""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import TypedDict

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import PromptError
from circuits.models.memory import BUDGET
from circuits.progress import Progress
from circuits.statistics import FEWEST, Effect, bootstrap, holm, mcnemar, share_interval
from circuits.uses.attributing.attribute import Attributing
from circuits.uses.attributing.gradients import margins_of
from circuits.uses.classifying.changed import read_changed
from circuits.uses.classifying.classifier import Classifier
from circuits.uses.classifying.examples import Examples, marked_words
from circuits.uses.shortcuts.attributed import Attributed, attributed
from circuits.uses.shortcuts.early import Watching, accuracy_of
from circuits.uses.shortcuts.label_words import HEAD, LabelWords, form_of, label_words
from circuits.uses.shortcuts.results import Shortcuts, ShortcutWord
from circuits.uses.shortcuts.swapping import in_place, replaced, swapped

MOST = 100
"""Texts that a word is swapped in, at most."""


def find_shortcuts(
    classifier: Classifier,
    train: Examples,
    judged: Examples,
    *,
    splits: Mapping[str, Examples] | None = None,
    head: float = HEAD,
    words: Sequence[str] = (),
    how: Attributing | None = None,
    watched: Watching | None = None,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Shortcuts:
    """Which words a classifier leans on because they tell much of the label (Du 2021).

    Words are ranked by local mutual information with the label. A word of the head of that list is *leaned on* where swapping
    it for its counterpart (the word of another class with most neighbours in common; where there is none, taking it out)
    lowers its class's margin (with its 95 % interval), and changes more predictions than swapping another word of the same
    texts does, drawn from those outside of the head, for one that has stood in such a place: by McNemar's exact one-sided
    test, with p-values corrected over all words that are looked at (Holm 1979), below 0.05. Texts without such another word
    are left out. It is *favoured*
    where it is the top attributed word more often than chance would have it: attributions can miss what a swap shows, so that
    they are told beside it. It is a *shortcut* where it is leaned on and more than half of its occurrences stand outside of
    the rationales. Without rationales nothing tells a shortcut from a word whose meaning decides: both go along with the
    label, and both are used.

    Unless `words` are given, the words that are swapped for the accuracies are chosen on the very texts that these are told of,
    so that `flipped` is somewhat too low; what is told of `splits` and of other texts is not.

    Raises PromptError for fewer than five judged texts, labels that the classifier does not know, and `words` that are in no
    training text.

    Args:
        classifier: what is looked at.
        train: the texts that it was trained on, or others of the kind: words are counted in them.
        judged: texts that it was not trained on.
        splits: more texts whose accuracy is reported, by name.
        head: the share of words that are the head of the list.
        words: look at these words as well, and swap these alone for the accuracies.
        how: the method by which words are attributed to (default: input times gradient from the mean embedding).
        watched: what was seen while it was trained.
        seed: what other words and random shortcuts are drawn by.
        budget: bytes that a pass may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    how = how or Attributing(method="gradient")
    train, judged = train.labelled(classifier.classes), judged.labelled(classifier.classes)
    if len(judged) < FEWEST:
        raise PromptError(f"{len(judged)} texts to judge on: expected {FEWEST} or more")
    counted = label_words(train, head=head)
    asked = _known(words, counted)
    about: _About = {"budget": budget, "progress": progress}
    logits = classifier.logits(judged.texts, **about).cpu()
    there = attributed(classifier, judged.texts, logits.argmax(dim=1), how=how, **about)
    looking = _Looking(classifier, counted, judged, logits, there, seed)
    found = looking.words([*counted.words[: counted.head], *(word for word in asked if word not in counted.in_head)], **about)
    chosen = asked or tuple(one.word for one in found if (one.leaned_on if not judged.marked else one.shortcut))
    told, chance = looking.tops()
    return Shortcuts(
        model=classifier.base,
        weights_sha256=classifier.model.fingerprint,
        classes=classifier.classes,
        method=how.said,
        training_texts=len(train),
        types=len(counted.words),
        head=counted.head,
        texts=len(judged),
        in_head=share_interval(float(told.mean()), len(judged)),
        expected=float(chance.mean()),
        above=bootstrap(told - chance, seed=seed),
        words=tuple(found),
        swapped=chosen,
        accuracy=looking.accuracies(chosen, splits or {}),
        early=() if watched is None else tuple(watched.found),
        degree=None if watched is None else watched.degree(classifier, counted),
        rationales=judged.marked,
        seed=seed,
    )


class _About(TypedDict):
    """How passes are run."""

    budget: int
    progress: Progress | None


def _known(words: Sequence[str], counted: LabelWords) -> tuple[str, ...]:
    """Words that are asked for, each once. Raises PromptError for one that is in no training text."""
    asked = tuple(dict.fromkeys(map(form_of, words)))
    unknown = next((word for word in asked if word not in counted.places), None)
    if unknown is not None:
        raise PromptError(f"the word {unknown!r} is in no training text")
    return asked


@dataclasses.dataclass(frozen=True, eq=False)
class _Looking:
    """What is known of the judged texts."""

    classifier: Classifier
    counted: LabelWords
    judged: Examples
    logits: Float[Tensor, "text class"]
    attributed: Attributed
    seed: int

    def tops(self) -> tuple[Float[Tensor, " text"], Float[Tensor, " text"]]:
        """Of each text whether its top attributed word lies in the head, and how likely that of a word drawn from it would."""
        head, there = self.counted.in_head, self.attributed
        told = [float(word in head) for word in there.top]
        chance = [sum(form in head for form in forms) / len(forms) for forms in there.forms]
        return torch.tensor(told, dtype=torch.float64), torch.tensor(chance, dtype=torch.float64)

    def accuracies(self, words: Sequence[str], splits: Mapping[str, Examples]) -> dict[str, Effect]:
        """Of the judged texts as they are and with words swapped, and of other texts."""
        counted = self.counted
        swaps = {word: (counted.labels[counted.places[word]], counted.counterpart(word)) for word in words}
        ways = {way: swapped(self.judged, swaps, way, seed=self.seed) for way in ("random", "flipped")}
        right = (self.logits.argmax(dim=1) == torch.tensor(self.judged.labels)).double()
        found = {"as they are": share_interval(float(right.mean()), len(right))}
        return found | {name: accuracy_of(self.classifier, split) for name, split in {**ways, **splits}.items()}

    def words(self, asked: Sequence[str], *, budget: int, progress: Progress | None) -> list[ShortcutWord]:
        """Those that are in enough texts: each is swapped in them, and in the same texts another word is. All of them are
        classified together, each from the word on that differs."""
        holding: dict[str, list[int]] = {word: [] for word in asked}
        for place, forms in enumerate(self.attributed.forms):
            for form in dict.fromkeys(forms):
                if form in holding and self._others(forms, form):
                    holding[form].append(place)
        chosen = {word: self._drawn(places) for word, places in holding.items() if len(places) >= FEWEST}
        others = {word: self.counted.counterpart(word) for word in chosen}
        if not chosen:
            return []
        texts = [text for word, places in chosen.items() for text in self._changed(word, others[word], places)]
        sources = [place for places in chosen.values() for place in (*places, *places)]
        rows, reader = self.classifier.rows(self.judged.texts), self.classifier.model
        changed = list(zip(sources, self.classifier.rows(texts), strict=True))
        _, logits = read_changed(reader, rows, changed, what="swapping words, in tokens", budget=budget, progress=progress)
        logits = logits.cpu()
        found, flipped, done = [], [], 0
        for word, places in chosen.items():
            both = logits[done : done + 2 * len(places)].unflatten(0, (2, -1))
            before = self.logits[places].argmax(dim=1)
            flipped.append((both.argmax(dim=2) != before).double())
            found.append(self._word(word, others[word], places, both[0], flipped[-1]))
            done += 2 * len(places)
        p_values = holm(torch.tensor([mcnemar(*_alone(one)) for one in flipped], dtype=torch.float64)).tolist()
        return [dataclasses.replace(one, p_value=p) for one, p in zip(found, p_values, strict=True)]

    def _others(self, forms: Sequence[str], word: str) -> list[int]:
        """The places of a text's words that may be swapped instead of one: neither it nor others of the head."""
        return [at for at, form in enumerate(forms) if form not in self.counted.in_head and form != word]

    def _drawn(self, places: list[int]) -> list[int]:
        return places if len(places) <= MOST else sorted(random.Random(self.seed).sample(places, MOST))

    def _changed(self, word: str, other: str | None, places: list[int]) -> list[str]:
        """The texts with the word swapped, then the texts with another word swapped: one outside of the head, for one that has
        stood in such a place; taken out where the word is taken out."""
        draw, without = random.Random(f"{self.seed} {word}"), []
        for place in places:
            words, forms = self.judged.texts[place].split(), self.attributed.forms[place]
            at = draw.choice(self._others(forms, word))
            stand_in = None if other is None else self.counted.stand_in(forms, at, draw)
            changed = [*words[:at], in_place(words[at], forms[at], stand_in), *words[at + 1 :]]
            without.append(" ".join(filter(None, changed)) or words[0])
        return [replaced(self.judged.texts[place], {word: other}) for place in places] + without

    def _word(
        self,
        word: str,
        other: str | None,
        places: list[int],
        without: Float[Tensor, "text class"],
        flips: Float[Tensor, "2 text"],
    ) -> ShortcutWord:
        listed, label = self.counted.places[word], self.counted.labels[self.counted.places[word]]
        own = torch.full((len(places),), label)
        falls = margins_of(self.logits[places].double(), own) - margins_of(without.double(), own)
        forms = [self.attributed.forms[place] for place in places]
        top = self.attributed.top
        tops = [float(top[place] == word) - some.count(word) / len(some) for place, some in zip(places, forms, strict=True)]
        return ShortcutWord(
            word=word,
            label=self.classifier.classes[label],
            lmi=self.counted.lmi[listed],
            texts=len(places),
            top=bootstrap(torch.tensor(tops), seed=self.seed),
            counterpart=other,
            change=bootstrap(falls, seed=self.seed),
            flips=bootstrap(flips[0] - flips[1], seed=self.seed),
            outside=self._outside(word),
        )

    def _outside(self, word: str) -> float | None:
        """The share of a word's occurrences, in texts with rationales, that stand outside of them."""
        found = []
        for rationale, forms in zip(self.judged.rationales, self.attributed.forms, strict=False):
            if rationale is not None:
                marked = marked_words(rationale)
                found += [place not in marked for place, form in enumerate(forms) if form == word]
        return sum(found) / len(found) if found else None


def _alone(flips: Float[Tensor, "2 text"]) -> tuple[int, int]:
    """Texts whose prediction the word alone changes, and those in which the other one alone does."""
    word, other = flips.bool()
    return int((word & ~other).sum()), int((other & ~word).sum())
