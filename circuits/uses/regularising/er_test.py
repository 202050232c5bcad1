"""ER-TEST: whether regularisation helps on unseen data, contrast sets and functional tests, beside plain training."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

from circuits.errors import PromptError
from circuits.models import Model
from circuits.progress import Progress, silent
from circuits.runs import shards
from circuits.uses.classifying.classifier import HEAD, LONGEST, Classifier
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
    seen_of: Collection[int] | None = None,
) -> ErTest:
    """Train with and without regularisation for each seed, and judge both (ER-TEST, Joshi et al. 2022). A seed is a shard of a
    long run (`circuits.runs.shards`).

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
        seen_of: the seeds that it is given (None: all): of these a run keeps the weights.
    """
    how, recipe, report = how or Regularisation(), recipe or Recipe(), progress or silent
    if len(set(seeds)) < 2:
        raise PromptError(f"{len(set(seeds))} seeds: expected two or more, each once")
    how.check_reach(only)
    options = {"only": only, "longest": longest, "progress": progress}

    def trained(number: int) -> dict[str, Any]:
        """What comes of a seed."""
        train, splits = make(seeds[number])
        own = dataclasses.replace(recipe, seed=seeds[number])
        plain = train_all(base, train, recipe=own, **options)
        held = train_regularised(base, train, wishes_of(train, without=without), how=how, recipe=own, **options)
        tests = _functional(train, splits, without)
        kept = seen is not None and (seen_of is None or seeds[number] in seen_of)
        return {
            "texts": len(train),
            "data": sha256_of(train),
            "right": [_judged(one, splits, tests) for one in (plain, held)],
            "trained": [_plain(one) for one in (plain, held)] if kept else [],
        }

    rows: list[list[dict[tuple[str, str], float]]] = []
    texts, read = 0, set()
    for number, found in enumerate(shards("training with and without", len(seeds), trained)):
        texts = found["texts"]
        read.add(found["data"])
        rows.append([{(name, kind): right for name, kind, right in one} for one in found["right"]])
        report("seeds", number + 1, len(seeds))
        if seen is not None and found["trained"]:
            plain, held = (_classifier(base, *one) for one in found["trained"])
            seen(seeds[number], plain, held)
    every = dict.fromkeys(name for some, _ in rows for name in some)
    names = [name for name in every if all(name in some for some, _ in rows)]
    both = torch.tensor([[[one[name] for name in names] for one in some] for some in rows])  # [seed training test]
    return ErTest(
        model=base.name,
        weights_sha256=base.fingerprint,
        **dataclasses.asdict(how),
        trained=f"{'all weights' if only == 'all' else 'head'} trained on {texts:,} texts",
        seeds=tuple(seeds),
        tests=tuple(name for name, _ in names),
        kinds=tuple(kind for _, kind in names),
        plain=both[:, 0],
        regularised=both[:, 1],
        left_out=tuple(test for test, kind in every if (test, kind) not in names),
        same_texts=len(read) == 1,
    )


def _plain(classifier: Classifier) -> tuple[list[str], int, dict[str, Any], dict[str, torch.Tensor]]:
    """A trained classifier as plain values and the tensors that were trained."""
    tensors = {name: tensor for name, tensor in classifier.model.weights.tensors() if classifier.tuned or name in HEAD}
    return list(classifier.classes), classifier.longest, dict(classifier.training), tensors


def _classifier(
    base: Model, classes: Sequence[str], longest: int, training: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> Classifier:
    """It again, on its base model."""
    moved = {name: tensor.to(base.device) for name, tensor in tensors.items()}
    start = Classifier.on(base, classes, longest=longest)
    return start.with_tensors(moved, tuned=training["trained"] == "all", training=training)


def _functional(train: Examples, splits: Mapping[str, Examples], without: Collection[str]) -> tuple[FunctionalTest, ...]:
    """Functional tests of the first of the other sets; words that are in none of its texts are left out there."""
    judged = next(iter(splits.values()))
    there = {form_of(word) for text in judged.texts for word in text.split()}
    wishes = wishes_of(judged, without=[word for word in without if form_of(word) in there])
    return functional_tests(train, judged, wishes)


def _judged(
    classifier: Classifier, splits: Mapping[str, Examples], tests: Sequence[FunctionalTest]
) -> list[tuple[str, str, float]]:
    """The name and the kind of each test, and what is right there."""
    kinds = ["in distribution", *["unseen"] * (len(splits) - 1)]
    found = [
        (name, "contrast" if "contrast" in name else kind, accuracy_of(classifier, split).effect)
        for (name, split), kind in zip(splits.items(), kinds, strict=True)
    ]
    return found + [(test.name, "functional", test.passed(classifier)) for test in tests]


def _swapped(text: str, places: set[int], label: int | None, swaps: Mapping[str, str | None], counted: LabelWords) -> str:
    """A text with some of its words swapped for their counterparts; with a label only those that go along with it."""
    found = []
    for place, word in enumerate(text.split()):
        form = form_of(word)
        other = swaps.get(form) if place in places else None
        found.append(word if other is None or label not in (None, counted.label_of(form)) else in_place(word, form, other))
    return " ".join(found)
