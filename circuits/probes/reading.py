"""Sentences as a model reads them: tokens, the words they spell, and a layer at a time of what it computes."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import NonFiniteError, PromptError
from circuits.heads.attention.words import Aligned, align_sentences
from circuits.models import Edit, Model, Run, TokenBatch
from circuits.models.edits import Compiled
from circuits.models.forward import forward
from circuits.models.layers import embed
from circuits.probes.sites import REACH, SiteKind
from circuits.tasks.sources.conllu import Sentence

Pooling = Literal["last", "mean"]
"""What stands for a word of several tokens: its last token, which has seen all of it, or the mean of them."""
WITHOUT = "words without a token of their own"


def first_sentences(sentences: Sequence[Sentence], words: int | None) -> list[Sentence]:
    """The sentences up to the one in which their words reach `words`; all for None."""
    before = itertools.accumulate((len(sentence.words) for sentence in sentences), initial=0)
    return [sentence for sentence, count in zip(sentences, before, strict=False) if words is None or count < words]


@dataclasses.dataclass(frozen=True, eq=False)
class WordText:
    """Sentences as tokens, and the words that have a token of their own, one after the other."""

    aligned: tuple[Aligned, ...]
    places: tuple[tuple[int, int], ...]
    """Of each word its sentence (in `aligned`) and its number there."""
    left_out: dict[str, int]
    """Sentences, and words of those that are left, that cannot be used, by reason."""

    @classmethod
    def of(cls, model: Model, sentences: Sequence[Sentence], *, words: int | None = None) -> "WordText":
        """The sentences that the model can take, up to the one in which the words reach `words`. Raises what
        `align_sentences` raises, PromptError where no word has a token of its own."""
        chosen = first_sentences(sentences, words)
        total = sum(len(sentence.words) for sentence in chosen)
        try:
            aligned, left_out = align_sentences(model, chosen)
        except PromptError as error:
            place = chosen[0].place if chosen else "no sentence was given"
            raise PromptError(f"{place or 'sentence 1'}: {error}") from None
        places = [(number, word) for number, one in enumerate(aligned) for word, own in enumerate(one.own) if own]
        if not places:
            raise PromptError(f"none of {total:,} words has a token of its own: give other sentences")
        left_out[WITHOUT] = sum(len(one.sentence.words) for one in aligned) - len(places)
        return cls(tuple(aligned), tuple(places), left_out)

    @property
    def sentences(self) -> list[Sentence]:
        """The sentences that are left."""
        return [one.sentence for one in self.aligned]

    @property
    def sentence_of(self) -> Int[Tensor, " word"]:
        """The sentence of each word."""
        return torch.tensor([number for number, _ in self.places])

    @property
    def forms(self) -> list[str]:
        """Each word as it is written."""
        return [self.aligned[number].sentence.words[word].form for number, word in self.places]

    @property
    def tokens(self) -> int:
        """How many tokens are read, those in front of sentences too."""
        return sum(len(one.ids) for one in self.aligned)

    @property
    def sha256(self) -> str:
        """What tells this text from others: its tokens and which word each belongs to."""
        rows = [(one.ids, one.owners) for one in self.aligned]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def only(self, numbers: Sequence[int]) -> "WordText":
        """Some of the sentences, in the order given."""
        aligned = tuple(self.aligned[number] for number in numbers)
        places = [(number, word) for number, one in enumerate(aligned) for word, own in enumerate(one.own) if own]
        return WordText(aligned, tuple(places), {})

    def batches(self, most: int) -> Iterator[list[int]]:
        """Sentences of similar length, together up to `most` tokens with their pads; the shortest first."""
        order = sorted(range(len(self.aligned)), key=lambda number: (len(self.aligned[number].ids), number))
        batch: list[int] = []
        for number in order:
            if batch and (len(batch) + 1) * len(self.aligned[number].ids) > most:
                yield batch
                batch = []
            batch.append(number)
        if batch:
            yield batch


@dataclasses.dataclass(frozen=True, eq=False)
class WordBatch:
    """Some sentences of a text side by side."""

    tokens: TokenBatch
    words: Int[Tensor, " word"]
    """Which words of the text."""
    last: Int[Tensor, " word"]
    """Of each word, where its last token stands among all tokens of the batch, row by row."""
    places: Int[Tensor, " token"]
    """Every token that belongs to a word, row by row."""
    owners: Int[Tensor, " token"]
    """Which of `words` each of them belongs to."""

    @classmethod
    def of(cls, text: WordText, numbers: Sequence[int], device: torch.device) -> "WordBatch":
        """These sentences."""
        tokens = TokenBatch.from_rows([list(text.aligned[number].ids) for number in numbers]).to(device)
        width, row_of = tokens.ids.shape[1], {number: row for row, number in enumerate(numbers)}
        words = [place for place, (number, _) in enumerate(text.places) if number in row_of]
        index = {text.places[place]: at for at, place in enumerate(words)}
        places, owners, last = [], [], [0] * len(words)
        for number, row in row_of.items():
            for column, word in enumerate(text.aligned[number].owners):
                at = index.get((number, word))
                if at is not None:
                    places.append(row * width + column)
                    owners.append(at)
                    last[at] = row * width + column
        found = (torch.tensor(values, dtype=torch.long, device=device) for values in (last, places, owners))
        return cls(tokens, torch.tensor(words), *found)

    def pooled(self, x: Float[Tensor, "prompt position *size"], how: Pooling) -> Float[Tensor, "word width"]:
        """One vector a word."""
        rows = x.reshape(x.shape[0] * x.shape[1], -1)
        if how == "last":
            return rows[self.last]
        sums = torch.zeros(len(self.last), rows.shape[1], dtype=rows.dtype, device=rows.device)
        sums.index_add_(0, self.owners, rows[self.places])
        return sums / self.owners.bincount(minlength=len(self.last))[:, None]


@torch.no_grad()
def layer_by_layer(
    model: Model, tokens: TokenBatch, family: SiteKind, *, only: Collection[int] | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Every array of a family in a run (`only`: of these layers, and the final residual stream), one layer at a time, each
    dropped when the next is asked for; nothing is unembedded."""
    x = embed(model.weights, tokens)
    wanted = range(model.n_layers + 1) if only is None else {*only, model.n_layers}
    if family == "residual" and 0 in wanted:
        yield 0, x
    for layer, run in enumerate(_runs(model, tokens, 0, x, factors=family != "residual")):
        parts = {"residual": run.residuals[-1:], "middle": run.middles, "heads": run.z, "neurons": run.neurons}
        at = layer + (family == "residual")
        if at in wanted:
            yield at, looks(run.pattern(0)) if family == "patterns" else parts[family][0]


def looks(pattern: Float[Tensor, "prompt head query key"]) -> Float[Tensor, "prompt query head offset"]:
    """Where each head looks from each token, of prompts without pads in front: its weight on the first token, then on the token
    itself and the 15 before it, the first one left out."""
    size = pattern.shape[2]
    columns = torch.arange(size, device=pattern.device)[:, None] - torch.arange(REACH, device=pattern.device)
    near = pattern.gather(3, columns.clamp(min=0).expand(*pattern.shape[:2], -1, -1)) * (columns > 0)
    return torch.cat([pattern[..., :1], near], dim=3).transpose(1, 2)


@torch.no_grad()
def final_stream(
    model: Model, tokens: TokenBatch, layer: int, x: Float[Tensor, "prompt position d_model"]
) -> Float[Tensor, "prompt position d_model"]:
    """The final residual stream of a run that goes on from the stream before a layer."""
    for run in _runs(model, tokens, layer, x, factors=False):
        x = run.residuals[-1]
    return x


def _runs(model: Model, tokens: TokenBatch, layer: int, x: Tensor, *, factors: bool) -> Iterator[Run]:
    """Each layer from one on, run by itself on what the one before it left."""
    for at in range(layer, model.n_layers):
        given: Compiled = {("input", 0): [(None, Edit("input", x))]}
        only = model.weights.of_layers(at, at + 1)
        run = forward(only, tokens, edits=given, keep="factors" if factors else "writes", logits=False)
        x = run.residuals[-1]
        yield run


def require_finite(values: Tensor, name: str) -> Tensor:
    """The values. Raises NonFiniteError, with the name of where they stand, for NaN and infinity."""
    if not bool(values.isfinite().all()):
        raise NonFiniteError(f"the activations at {name} hold NaN or infinity: try --dtype float32")
    return values
