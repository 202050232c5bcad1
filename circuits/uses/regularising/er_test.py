"""ER-TEST: whether regularisation helps on unseen data, contrast sets and functional tests, beside plain training."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import torch

from circuits.errors import PromptError
from circuits.models import Model
from circuits.progress import Progress, silent
from circuits.uses.classifying.classifier import LONGEST, Classifier
from circuits.uses.classifying.examples import Examples
from circuits.uses.classifying.training import Recipe, Trained, sha256_of, train_all
from circuits.uses.regularising.guidance import Wishes, wishes_of
from circuits.uses.regularising.penalty import Regularisation, train_regularised
from circuits.uses.regularising.results import ErTest
from circuits.uses.shortcuts.early import accuracy_of
from circuits.uses.shortcuts.label_words import LabelWords, form_of, label_words
from circuits.uses.shortcuts.swapping import in_place

Made = tuple[Examples, Mapping[str, Examples]]
"""Training texts, and others by name, whose first are of the same kind as those."""


@dataclasses.dataclass(frozen=True)
class FunctionalTest:
    """Pairs of texts that differ in a few words, and whether the prediction should change with them."""

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    should_change: bool

    def passed(self, classifier: Classifier) -> float:
        """The share of pairs that a classifier takes as it should."""
        first, second = classifier.predict(self.before), classifier.predict(self.after)
        right = [(one != other) == self.should_change for one, other in zip(first, second, strict=True)]
        return sum(right) / len(right)


def functional_tests(train: Examples, judged: Examples, wishes: Wishes) -> tuple[FunctionalTest, ...]:
    """Tests made from the texts themselves: words that should matter are each swapped for their counterparts of another class
    where they speak for the text's own (the prediction should change), and of the words that should not, those that tell most
    of the label are swapped for theirs (it should stay). Only tests with at least one pair.

    Args:
        train: the texts whose words are counted: counterparts stand in the same places in texts of another class.
        judged: the texts that are changed.
        wishes: of each judged text.
    """
    counted = label_words(train)
    swaps = {word: counted.counterpart(word) for word in counted.words}
    found = []
    for name, matters in (("meaning changed", True), ("the rest changed", False)):
        pairs = []
        for text, label, said in zip(judged.texts, judged.labels, wishes, strict=True):
            forms = [form_of(word) for word in text.split()]
            places = {place for place, wish in said.items() if wish is matters and (matters or forms[place] in counted.in_head)}
            after = _swapped(text, places, label if matters else None, swaps, counted)
            if after != text:
                pairs.append((text, after))
        if pairs:
            before, changed = zip(*pairs, strict=True)
            found.append(FunctionalTest(name, before, changed, matters))
    return tuple(found)


def er_test(
    base: Model,
    make: Callable[[int], Made],
    *,
    how: Regularisation | None = None,
    without: Collection[str] = (),
    recipe: Recipe | None = None,
    only: Trained = "all",
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    longest: int = LONGEST,
    progress: Progress | None = None,
    seen: Callable[[int, Classifier, Classifier], None] | None = None,
) -> ErTest:
    """Train with and without regularisation for each seed, and judge both (ER-TEST, Joshi et al. 2022).

    Raises PromptError for fewer than two seeds, where nothing is said of any word, and for a head with a rationale that it does
    not change. Tests that cannot be made for every seed are named in `left_out`.

    Args:
        base: the language model.
        make: the texts of a seed: training texts, and sets of others. The first is taken for texts of the same kind; one called
            contrast for a contrast set; the others are unseen data.
        how: the rationale, the distance and the strength.
        without: words that should matter nowhere.
        recipe: steps and rates; the seed is replaced.
        only: "all" weights, or the "head" alone.
        seeds: of texts and trainings.
        longest: tokens that are read of a text, at most.
        progress: hears what is being done, how much of it is done, and how much there is.
        seen: is given each seed with the plain and the regularised classifier.
    """
    how, recipe, report = how or Regularisation(), recipe or Recipe(), progress or silent
    if len(set(seeds)) < 2:
        raise PromptError(f"{len(set(seeds))} seeds: expected two or more, each once")
    how.check_reach(only)
    rows: list[list[dict[tuple[str, str], float]]] = []
    texts, read = 0, set()
    for number, seed in enumerate(seeds):
        train, splits = make(seed)
        own = dataclasses.replace(recipe, seed=seed)
        plain = train_all(base, train, recipe=own, only=only, longest=longest, progress=progress)
        options = {"how": how, "recipe": own, "only": only, "longest": longest, "progress": progress}
        held = train_regularised(base, train, wishes_of(train, without=without), **options)
        tests = _functional(train, splits, without)
        texts = len(train)
        read.add(sha256_of(train))
        rows.append([_judged(one, splits, tests) for one in (plain, held)])
        report("seeds", number + 1, len(seeds))
        if seen is not None:
            seen(seed, plain, held)
    every = dict.fromkeys(name for some, _ in rows for name in some)
    names = [name for name in every if all(name in some for some, _ in rows)]
    both = torch.tensor([[[one[name] for name in names] for one in some] for some in rows])  # [seed training test]
    trained = f"{'all weights' if only == 'all' else 'head'} trained on {texts:,} texts"
    return ErTest(
        model=base.name,
        weights_sha256=base.fingerprint,
        **dataclasses.asdict(how),
        trained=trained,
        seeds=tuple(seeds),
        tests=tuple(name for name, _ in names),
        kinds=tuple(kind for _, kind in names),
        plain=both[:, 0],
        regularised=both[:, 1],
        left_out=tuple(test for test, kind in every if (test, kind) not in names),
        same_texts=len(read) == 1,
    )


def _functional(train: Examples, splits: Mapping[str, Examples], without: Collection[str]) -> tuple[FunctionalTest, ...]:
    """Functional tests of the first of the other sets; words that are in none of its texts are left out there."""
    judged = next(iter(splits.values()))
    there = {form_of(word) for text in judged.texts for word in text.split()}
    wishes = wishes_of(judged, without=[word for word in without if form_of(word) in there])
    return functional_tests(train, judged, wishes)


def _judged(
    classifier: Classifier, splits: Mapping[str, Examples], tests: Sequence[FunctionalTest]
) -> dict[tuple[str, str], float]:
    """What is right, by the name and the kind of each test."""
    kinds = ["in distribution", *["unseen"] * (len(splits) - 1)]
    found = {
        (name, "contrast" if "contrast" in name else kind): accuracy_of(classifier, split).effect
        for (name, split), kind in zip(splits.items(), kinds, strict=True)
    }
    return found | {(test.name, "functional"): test.passed(classifier) for test in tests}


def _swapped(text: str, places: set[int], label: int | None, swaps: Mapping[str, str | None], counted: LabelWords) -> str:
    """A text with some of its words swapped for their counterparts; with a label only those that go along with it."""
    found = []
    for place, word in enumerate(text.split()):
        form = form_of(word)
        other = swaps.get(form) if place in places else None
        found.append(word if other is None or label not in (None, counted.label_of(form)) else in_place(word, form, other))
    return " ".join(found)
