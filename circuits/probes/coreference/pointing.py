"""A pointer from pronouns to the words before them (Sorodoc et al. 2020)."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.probes.coreference.mentions import Referring
from circuits.probes.regression import Scale

RATE = 1e-2
PATIENCE = 10
"""Epochs without a smaller loss after which training stops."""


@dataclasses.dataclass(frozen=True, eq=False)
class Choices:
    """Pronouns with what each may refer to, padded behind."""

    pronoun: Int[Tensor, " pronoun"]
    candidates: Int[Tensor, "pronoun candidate"]
    there: Bool[Tensor, "pronoun candidate"]
    right: Bool[Tensor, "pronoun candidate"]

    @classmethod
    def of(cls, rows: Sequence[Referring]) -> "Choices":
        """These pronouns. Raises CircuitsError where there is none."""
        if not rows:
            raise CircuitsError("there is no pronoun to point from: expected at least one")
        width = max(len(row.candidates) for row in rows)
        shape = (len(rows), width)
        candidates = torch.zeros(shape, dtype=torch.long)
        there, right = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
        for number, row in enumerate(rows):
            size = len(row.candidates)
            candidates[number, :size], there[number, :size] = torch.tensor(row.candidates), True
            right[number, :size] = torch.tensor(row.right)
        return cls(torch.tensor([row.pronoun for row in rows]), candidates, there, right)


@dataclasses.dataclass(frozen=True, eq=False)
class Pointer:
    """Two maps, of pronouns and of the words before them; how like a pronoun is to a word is the product of what they give."""

    scale: Scale
    A: Float[Tensor, "width rank"]
    B: Float[Tensor, "width rank"]

    def scores(self, x: Float[Tensor, "word width"], choices: Choices) -> Float[Tensor, "pronoun candidate"]:
        """How like each pronoun is to each of its candidates; minus infinity for pads."""
        return _scores(self.scale.apply(x), choices, self.A, self.B)

    def is_right(self, x: Float[Tensor, "word width"], choices: Choices) -> Bool[Tensor, " pronoun"]:
        """Whether the likest candidate is an antecedent."""
        likest = self.scores(x, choices).argmax(dim=1, keepdim=True)
        return choices.right.gather(1, likest)[:, 0]


def fit_pointer(
    x: Float[Tensor, "word width"],
    train: Sequence[Referring],
    develop: Sequence[Referring],
    *,
    rank: int = 32,
    epochs: int = 100,
    seed: int = 0,
) -> Pointer:
    """Maps A and B with the least mean of -log sum over antecedents c of softmax_c((A h) . (B h_c)) over pronouns h: any
    antecedent is right. By Adam on all pronouns at once, until 10 epochs lower the loss of others no more.

    Raises CircuitsError without pronouns, and for numbers below 1.

    Args:
        x: a vector a word of the text.
        train: pronouns to train on.
        develop: those that say when to stop.
        rank: directions of the maps at most.
        epochs: how often each pronoun is seen at most.
        seed: that of the first maps.
    """
    if rank < 1 or epochs < 1:
        raise CircuitsError(f"rank={rank}, epochs={epochs}: expected at least 1 of each")
    known, other = Choices.of(train), Choices.of(develop)
    used = torch.cat([known.pronoun, known.candidates[known.there]]).unique()
    scale = Scale.of(x[used])
    scaled, width = scale.apply(x), x.shape[1]
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, width, min(rank, width), generator=generator) / width**0.5
    maps = [one.to(scaled).requires_grad_() for one in drawn]
    optimiser = torch.optim.Adam(maps, lr=RATE)
    best, least, since = [one.detach().clone() for one in maps], torch.inf, 0
    for _ in range(epochs):
        with torch.enable_grad():
            _loss(scaled, known, *maps).backward()
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():
            loss = float(_loss(scaled, other, *maps))
        if loss < least:
            best, least, since = [one.detach().clone() for one in maps], loss, 0
        else:
            since += 1
        if since >= PATIENCE:
            break
    return Pointer(scale, *best)


def _scores(scaled: Tensor, choices: Choices, A: Tensor, B: Tensor) -> Tensor:
    words, place = choices.candidates.unique(return_inverse=True)
    found = torch.einsum("pr,pcr->pc", scaled[choices.pronoun] @ A, (scaled[words] @ B)[place])
    return found.masked_fill(~choices.there, -torch.inf)


def _loss(scaled: Tensor, choices: Choices, A: Tensor, B: Tensor) -> Tensor:
    scores = _scores(scaled, choices, A, B)
    return (scores.logsumexp(dim=1) - scores.masked_fill(~choices.right, -torch.inf).logsumexp(dim=1)).mean()
