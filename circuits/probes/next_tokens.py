"""What changes of a model cost on the tokens that follow words with a property, and apart from them on all others."""

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.heads.text_loss import losses_of, predicted
from circuits.models import Model
from circuits.probes.question import Question
from circuits.probes.reading import Pooling, WordBatch
from circuits.statistics import clustered_errors

SENTENCES = 48
"""Sentences that losses are measured on, unless another number is asked for."""


def judged_sentences(question: Question, count: int) -> list[int]:
    """Some of the sentences that nothing was fitted to, drawn with seed 0."""
    judged = question.asked.sentence[question.split.judge].unique()
    return judged[torch.randperm(len(judged), generator=torch.Generator().manual_seed(0))][:count].tolist()


@dataclasses.dataclass(frozen=True, eq=False)
class LossBatch:
    """Some sentences, and which of their tokens losses are of."""

    numbers: tuple[int, ...]
    """The sentences, by their place among those chosen."""
    words: WordBatch
    at: Int[Tensor, " place"]
    """Where tokens stand that stand for a word with the property, among all tokens, row by row."""
    own: Int[Tensor, " place"]
    """The class of each of these words."""
    other: Int[Tensor, " place"]
    """Another class, drawn as often as words have it."""
    counted: Bool[Tensor, "prompt before"]
    """Tokens, the last of a row left out, whose next token there is."""
    needed: Bool[Tensor, " token"]
    """Of the counted ones, whether they end a word with the property."""

    @property
    def sentence(self) -> Int[Tensor, " token"]:
        """Of each counted token."""
        return torch.tensor(self.numbers).repeat_interleave(self.counted.sum(dim=1).cpu())

    def losses(self, model: Model, x: Float[Tensor, "row position d_model"], *, budget: int) -> Float[Tensor, "variant token"]:
        """Of the next tokens, from the final residual stream of variants of the sentences, one after the other."""
        wanted = self.words.tokens.ids[:, 1:][self.counted]
        found = x.unflatten(0, (-1, len(self.counted)))[:, :, :-1][:, self.counted]
        return losses_of(model.weights, found.flatten(0, 1), wanted.repeat(len(found)), budget=budget).view(len(found), -1)

    def measured(self, whole: Float[Tensor, " token"], changed: Float[Tensor, "*variant token"]) -> "NextTokens":
        """Losses of the whole model and of changed ones, on the CPU in float64."""
        return NextTokens(self.sentence, self.needed.cpu(), whole.double().cpu(), changed.double().cpu())


def loss_batches(
    model: Model, question: Question, chosen: Sequence[int], *, pooling: Pooling, most: int
) -> Iterator[LossBatch]:
    """Sentences of a text by number, some at a time: up to `most` tokens, or one sentence."""
    text, device = question.text.only(chosen), model.device
    shares = question.labels.labels[question.split.train].bincount(minlength=question.asked.classes).double().clamp(min=1e-9)
    generator = torch.Generator().manual_seed(0)
    for numbers in text.batches(max(most, max(len(one.ids) for one in text.aligned))):
        words = WordBatch.of(text, numbers, device)
        labels = question.labels_of(text, words.words, chosen)
        counted, follows = predicted(words.tokens), torch.zeros_like(words.tokens.mask)
        follows.view(-1)[words.last[labels.to(device) >= 0]] = True
        moves = _moves(words, labels, shares, pooling, generator)
        yield LossBatch(tuple(numbers), words, *moves, counted, follows[:, :-1][counted])


def _moves(
    batch: WordBatch, labels: Tensor, shares: Tensor, pooling: Pooling, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Where tokens that stand for a labelled word stand, the class of each, and another one."""
    others = shares.repeat(len(labels), 1)
    others[torch.arange(len(labels)), labels.clamp(min=0)] = 0
    other = torch.multinomial(others, 1, generator=generator)[:, 0]
    owner = torch.arange(len(labels)) if pooling == "last" else batch.owners.cpu()
    at = (batch.last if pooling == "last" else batch.places).cpu()
    used = labels[owner] >= 0
    found = (at[used], labels[owner][used], other[owner][used])
    return tuple(part.to(batch.last.device) for part in found)  # type: ignore[return-value]


@dataclasses.dataclass(frozen=True, eq=False)
class NextTokens:
    """Losses of the next tokens of some sentences, in nats."""

    sentence: Int[Tensor, " token"]
    needed: Bool[Tensor, " token"]
    """Whether a token follows a word with the property."""
    whole: Float[Tensor, " token"]
    changed: Float[Tensor, "*variant token"]

    @classmethod
    def joined(cls, parts: Sequence["NextTokens"]) -> "NextTokens":
        """Those of several batches."""
        names = ("sentence", "needed", "whole", "changed")
        return cls(*(torch.cat([getattr(one, name) for one in parts], dim=-1) for name in names))

    @property
    def lost(self) -> Float[Tensor, "*variant token"]:
        """By how much the loss of each token rises."""
        return self.changed - self.whole

    @property
    def counts(self) -> Int[Tensor, " part"]:
        """Tokens that follow a word with the property, and others."""
        return torch.stack([mask.sum() for mask in self._masks])

    @property
    def whole_losses(self) -> Float[Tensor, " part"]:
        """Of the whole model; NaN where there are no such tokens."""
        return torch.stack([self.whole[mask].mean() for mask in self._masks])

    def by_part(
        self, values: Float[Tensor, "*variant token"]
    ) -> tuple[Float[Tensor, "*variant part"], Float[Tensor, "*variant part"]]:
        """Means over the tokens that follow a word with the property and over others, and their standard errors, tokens of one
        sentence taken together; NaN where there are none."""
        rows = values.reshape(-1, values.shape[-1])
        means = torch.stack([rows[:, mask].mean(dim=1) for mask in self._masks], dim=1)
        errors = torch.full_like(means, torch.nan)
        for part, mask in enumerate(self._masks):
            if bool(mask.any()):
                errors[:, part] = clustered_errors(rows[:, mask].T, self.sentence[mask])
        shape = (*values.shape[:-1], len(self._masks))
        return means.view(shape), errors.view(shape)

    @property
    def _masks(self) -> tuple[Tensor, Tensor]:
        return self.needed, ~self.needed
