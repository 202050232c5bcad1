"""The trees that sentences have, as distances between words and depths."""

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.probes.columns import depths
from circuits.probes.reading import WordText
from circuits.tasks.sources.conllu import Sentence

BATCH = 24
"""Sentences that are trained on together."""


@dataclasses.dataclass(frozen=True, eq=False)
class GoldTree:
    """The tree of one sentence, of those words that have a token of their own."""

    sentence: int
    words: Int[Tensor, " word"]
    """Which words of the text."""
    distance: Float[Tensor, "word word"]
    """How many relations lie between two words."""
    depth: Float[Tensor, " word"]
    """How many lie between a word and the root."""
    edges: tuple[tuple[int, int], ...]
    """Pairs of words (by their place in `words`), the head and what depends on it."""
    scored: Bool[Tensor, " word"]
    """Words that are no punctuation."""


def gold_trees(text: WordText, *, least: int = 2) -> list[GoldTree]:
    """The trees of sentences with so many words or more that are no punctuation."""
    rows: dict[int, list[int]] = {}
    for place, (number, _) in enumerate(text.places):
        rows.setdefault(number, []).append(place)
    found = []
    for number, words in rows.items():
        sentence = text.aligned[number].sentence
        inside = [text.places[place][1] for place in words]
        scored = torch.tensor([sentence.words[word].tag != "PUNCT" for word in inside])
        if int(scored.sum()) >= least:
            chosen = torch.tensor(inside)
            distance = tree_distances(sentence)[chosen][:, chosen]
            depth = torch.tensor(depths(sentence), dtype=torch.float32)[chosen]
            at = {word: place for place, word in enumerate(inside)}
            heads = [(sentence.words[word].head, word) for word in inside]
            edges = tuple((at[head], at[word]) for head, word in heads if head is not None and head in at)
            found.append(GoldTree(number, torch.tensor(words), distance, depth, edges, scored))
    return found


def tree_distances(sentence: Sentence) -> Float[Tensor, "word word"]:
    """How many relations lie between each two words: their depths, less twice that of the lowest word above both."""
    count = len(sentence.words)
    above = torch.zeros(count, count)
    for word in range(count):
        at: int | None = word
        while at is not None:
            above[word, at] = 1
            at = sentence.words[at].head
    shared = above @ above.T
    depth = shared.diagonal()
    return depth[:, None] + depth - 2 * shared


@dataclasses.dataclass(frozen=True, eq=False)
class TreeBatch:
    """Sentences side by side, padded behind."""

    words: Int[Tensor, "sentence word"]
    mask: Bool[Tensor, "sentence word"]
    distance: Float[Tensor, "sentence word word"]
    depth: Float[Tensor, "sentence word"]

    @classmethod
    def of(cls, trees: Sequence[GoldTree]) -> "TreeBatch":
        """These trees."""
        width = max(len(tree.words) for tree in trees)
        shape = (len(trees), width)
        words, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.bool)
        distance, depth = torch.zeros(*shape, width), torch.zeros(shape)
        for row, tree in enumerate(trees):
            size = len(tree.words)
            words[row, :size], mask[row, :size] = tree.words, True
            distance[row, :size, :size], depth[row, :size] = tree.distance, tree.depth
        return cls(words, mask, distance, depth)


def batches(trees: Sequence[GoldTree]) -> Iterator[TreeBatch]:
    """Batches of sentences of similar length."""
    order = sorted(trees, key=lambda tree: len(tree.words))
    for start in range(0, len(order), BATCH):
        yield TreeBatch.of(order[start : start + BATCH])
