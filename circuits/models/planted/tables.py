"""A one-layer attention-only model with known bigrams and skip-trigrams (Elhage et al. 2021), among heads of the same size.

The residual stream holds orthogonal subspaces: the token, the output, and scratch. The unembedding reads the token for the
bigrams, and the output for what heads write. Two heads hold skip-trigrams: their destinations attend to their sources and
rest on BOS where none is there, and sources raise their outputs. One source of each head serves two phrases, as "keep …
in mind" and "keep … at bay", so that the head cannot help to say "keep … in bay" too. All other heads are random with the
same norms, one a decoy that attends as a planted one does; they write to scratch, which the unembedding, noisy throughout,
reads a little. No norms, no positions; float64.
"""

import dataclasses
import random

import torch
from torch import Tensor

from circuits.models.model import Model
from circuits.models.planted.parts import (
    Head,
    Space,
    bare_block,
    decoy_of,
    distractor_head,
    factor,
    planted_model,
    random_matrix,
    random_rotation,
)
from circuits.models.weights import Weights

D_VOCAB, D_HEAD, SCRATCH, HEADS = 64, 12, 24, 5
BIGRAM, WEAK_BIGRAM, RAISED, SHARP, REST, NOISE = 9.0, 6.0, 10.0, 14.0, 7.0, 0.1
"""Logits of planted bigrams, of those that tell phrases of one source apart, and of what a source raises; attention scores of
planted pairs and of BOS; and the unembedding's noise."""

Triple = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class PlantedTables:
    """A model and the tables that were written into its weights, in token ids; skip-trigrams as (source, destination,
    output), by head."""

    model: Model
    bigrams: frozenset[tuple[int, int]]
    skip_trigrams: dict[str, frozenset[Triple]]
    forced: dict[str, frozenset[Triple]]
    """Skip-trigrams that nobody asked for: crossings of two phrases with one source."""
    fillers: tuple[int, ...]
    """Tokens without a meaning."""


@dataclasses.dataclass(frozen=True)
class _Phrases:
    """What one head holds: by source, its destinations and outputs; the first source has two of each."""

    wanted: tuple[Triple, ...]

    @property
    def all(self) -> frozenset[Triple]:
        """The wanted phrases and the crossings that come with them."""
        sources = {source for source, _, _ in self.wanted}
        ends = {s: [(d, o) for source, d, o in self.wanted if source == s] for s in sources}
        return frozenset((s, d, o) for s, pairs in ends.items() for d, _ in pairs for _, o in pairs)


def planted_tables(*, seed: int = 0) -> PlantedTables:
    """A model that knows bigrams by its direct path and skip-trigrams by two of its five heads; drawn from `seed`. 64 tokens,
    of which 0 is BOS."""
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    space = Space.random({"token": D_VOCAB, "output": D_VOCAB, "scratch": SCRATCH}, generator)
    words = draw.sample(range(1, D_VOCAB), D_VOCAB - 1)
    bigrams = [(words.pop(), words.pop()) for _ in range(6)]
    places = sorted(draw.sample(range(HEADS), 2))
    phrases = {place: _draw_phrases(words) for place in places}
    heads = {place: _phrase_head(space, held, generator) for place, held in phrases.items()}
    rest = [place for place in range(HEADS) if place not in heads]
    models = list(heads.values())
    heads[rest[0]] = decoy_of(space, models[0], generator)
    heads |= {place: distractor_head(space, draw.choice(models), generator) for place in rest[1:]}
    weak = [(d, o) for held in phrases.values() for _, d, o in held.wanted[:2]]
    logits = torch.zeros(D_VOCAB, D_VOCAB, dtype=torch.float64)
    for pairs, size in ((bigrams, BIGRAM), (weak, WEAK_BIGRAM)):
        for first, second in pairs:
            logits[first, second] = size
    noise = random_matrix(space.d_model, D_VOCAB, NOISE * (space.d_model * D_VOCAB) ** 0.5, generator)
    weights = Weights(
        W_E=space["token"].clone(),
        W_U=space["token"].T @ logits + space["output"].T + noise,
        b_U=None,
        blocks=(bare_block([heads[place] for place in range(HEADS)], None),),
        final_norm=None,
        max_positions=None,
    )
    return PlantedTables(
        planted_model(f"planted-tables-{seed}", weights),
        frozenset(bigrams + weak),
        {f"a0.h{place}": frozenset(held.wanted) for place, held in phrases.items()},
        {f"a0.h{place}": held.all - frozenset(held.wanted) for place, held in phrases.items()},
        tuple(sorted(words)),
    )


def _draw_phrases(words: list[int]) -> _Phrases:
    """Two phrases of one source, and four of sources of their own."""
    source = words.pop()
    double = [(source, words.pop(), words.pop()) for _ in range(2)]
    return _Phrases((*double, *((words.pop(), words.pop(), words.pop()) for _ in range(4))))


def _phrase_head(space: Space, phrases: _Phrases, generator: torch.Generator) -> Head:
    """A head that holds phrases, and rests on BOS, which raises nothing."""
    token, output = space["token"], space["output"]
    sources = sorted({source for source, _, _ in phrases.wanted})

    def ends(which: int) -> Tensor:
        """For each source, which tokens are its destinations (1) or its outputs (2)."""
        marked = torch.zeros(len(sources), D_VOCAB, dtype=torch.float64)
        for phrase in phrases.wanted:
            marked[sources.index(phrase[0]), phrase[which]] = 1.0
        return marked

    destinations, outputs = ends(1) @ token, ends(2) @ output
    rest = (token.sum(dim=0, keepdim=True), token[:1], REST)
    W_Q, W_K = factor([(destinations, token[sources], SHARP), rest], D_HEAD, random_rotation(D_HEAD, generator))
    W_V, W_O = factor([(token[sources], outputs, RAISED)], D_HEAD, random_rotation(D_HEAD, generator))
    return Head(W_Q, W_K, W_V, W_O.T)
