"""Integrated gradients (Sundararajan et al. 2017) of a classifier's margin by its embeddings, to a stated completeness."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.attribution.points import shares as middles
from circuits.errors import PromptError
from circuits.models import Model, TokenBatch
from circuits.models.layers import embed
from circuits.models.memory import BUDGET
from circuits.progress import Progress, silent
from circuits.uses.attributing.gradients import baseline_stream, margins
from circuits.uses.classifying.classifier import Classifier
from circuits.uses.classifying.words import SpeltText, word_places

Quadrature = Literal["gauss-legendre", "middle"]
"""Where on a piece of the way gradients are taken: Gauss and Legendre's points, or the middles of equal parts (Riemann)."""
PathBaseline = Literal["blank", "mean", "zero", "pad"]
"""What stands for no text: a blank page (what opens a text, then line breaks), the mean embedding over the vocabulary, zeros,
or the token that pads.

Where every token is the same, from the first on, each is what the first one is: to many models a place that the others attend
to when there is nothing to attend to. On the way from there to a text one token after the other turns from such a sink into a
word, the margin jumps every time, and no number of gradients that one would pay for sums up to it. On a blank page the first
token alone is a sink, as in a text."""
STEPS, PIECES, MOST, COMPLETE = 24, 3, 256, 0.01
"""Gradients and pieces of the way at first, gradients at most; the completeness error that is asked for."""
LEAST_GAP = 0.1
"""Errors are shares of the margin's difference between text and baseline; of one below that (in logits), of so much."""


@dataclasses.dataclass(frozen=True, eq=False)
class PathIntegrals:
    """Integrated gradients of texts, one number a token: towards the class, positive = the token speaks for it."""

    numbers: Float[Tensor, "text position"]
    """0 at pads and at tokens that belong to no word, which stay as they are on the whole way."""
    starts: Float[Tensor, " text"]
    """The margin at the baseline."""
    ends: Float[Tensor, " text"]
    """The margin of the text."""
    errors: Float[Tensor, " text"]
    """How far the sums of the pieces of the way miss what the margin changes along each, together, as a share of
    `ends - starts`: at least how far all numbers miss that. Errors of pieces do not make up for each other."""
    steps: tuple[int, ...]
    """Gradients that were taken on each text's way."""

    @property
    def runs(self) -> int:
        """Rows that went through the model forwards and backwards, together."""
        return sum(self.steps)


def points_of(count: int, rule: Quadrature) -> list[tuple[float, float]]:
    """How far each point is on the way along a piece, and its weight in the mean."""
    if rule == "middle":
        return middles(count)
    at, weights = np.polynomial.legendre.leggauss(count)
    return [((1 + float(place)) / 2, float(weight) / 2) for place, weight in zip(at, weights, strict=True)]


def integrated_gradients(
    classifier: Classifier,
    texts: Sequence[SpeltText],
    labels: Int[Tensor, " text"],
    *,
    baseline: PathBaseline = "blank",
    rule: Quadrature = "gauss-legendre",
    steps: int = STEPS,
    pieces: int = PIECES,
    most: int = MOST,
    complete: float = COMPLETE,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> PathIntegrals:
    """(embedding - baseline) · the mean of d margin / d embedding on the straight way between the two.

    What stands in front of every text stays as it is on the way, so that the words' numbers sum to the margin of the text less
    that of its baseline. The way is taken in pieces, since what is to come out is known of each: the margin at its end less
    that at its beginning. Where a text misses by more than `complete`, the pieces that miss most are halved, until it does not
    or `most` gradients were taken: they go where the margin bends, which in deep models is a small part of the way. Raises
    PromptError for numbers out of range.

    Args:
        classifier: whose margins are explained.
        texts: what it reads.
        labels: the class of each text whose margin over the mean of the others is explained.
        baseline: what stands for no token.
        rule: where on a piece gradients are taken.
        steps: gradients a text at first, an equal number a piece.
        pieces: pieces of the way at first, at most as many as steps.
        most: gradients a text at most.
        complete: the error, as a share of the difference, below which a text is done.
        budget: bytes that a pass may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if not 1 <= steps <= most or pieces < 1 or not complete > 0 or rule not in ("gauss-legendre", "middle"):
        raise PromptError(f"{rule} with {steps} to {most} steps, complete to {complete}: expected 1 or more, and above 0")
    tokens = TokenBatch.from_rows([list(one.ids) for one in texts]).to(classifier.model.device)
    moved = word_places(texts, tokens.ids.shape[1]).to(tokens.ids.device) >= 0
    way, report = _Way(classifier.model, tokens, labels.to(tokens.ids.device), moved, baseline, budget), progress or silent
    pieces = min(pieces, steps)
    points, cuts = points_of(steps // pieces, rule), [place / pieces for place in range(pieces + 1)]
    at = way.margins_at([(row, cut) for row in range(len(texts)) for cut in cuts]).unflatten(0, (len(texts), len(cuts)))
    new = [
        _Piece(row, cuts[place], cuts[place + 1], float(at[row, place]), float(at[row, place + 1]))
        for row in range(len(texts))
        for place in range(pieces)
    ]
    gaps = (at[:, -1] - at[:, 0]).abs().clamp(min=LEAST_GAP)
    taken, done = [0] * len(texts), list[_Piece]()
    while new:
        for piece in new:
            taken[piece.row] += len(points)
        done += way.integrals(new, points, report)
        halved = _worst(done, gaps.tolist(), taken, 2 * len(points), most, complete)
        gone = set(halved)
        done, new = [piece for piece in done if piece not in gone], way.halves(halved)
    numbers, errors = torch.zeros(tokens.ids.shape, dtype=torch.float64, device=gaps.device), torch.zeros_like(gaps)
    for piece in done:
        assert piece.numbers is not None
        numbers[piece.row] += piece.numbers
        errors[piece.row] += piece.error
    return PathIntegrals(numbers, at[:, 0], at[:, -1], errors / gaps, tuple(taken))


@dataclasses.dataclass(frozen=True, eq=False)
class _Piece:
    """A piece of a text's way: where it begins and ends, and the margins there."""

    row: int
    begin: float
    end: float
    before: float
    after: float
    numbers: Float[Tensor, " position"] | None = None

    @property
    def error(self) -> float:
        """How far its numbers sum beside what the margin changes."""
        assert self.numbers is not None
        return abs(float(self.numbers.sum()) - (self.after - self.before))


def _worst(
    done: Sequence[_Piece], gaps: Sequence[float], taken: Sequence[int], cost: int, most: int, complete: float
) -> list[_Piece]:
    """The pieces to halve: of each text that misses too much those that miss most, as many as its gradients are left for."""
    found, pieces = list[_Piece](), [list[_Piece]() for _ in gaps]
    for piece in done:
        pieces[piece.row].append(piece)
    for row, gap in enumerate(gaps):
        own, allowed = sorted(pieces[row], key=lambda piece: -piece.error), complete * gap
        if sum(piece.error for piece in own) > allowed:
            far = [piece for piece in own if piece.error > allowed / len(own)]
            found += far[: (most - taken[row]) // cost]
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class _Way:
    """From the baseline of some texts to the texts."""

    model: Model
    tokens: TokenBatch
    labels: Int[Tensor, " text"]
    moved: Bool[Tensor, "text position"]
    baseline: PathBaseline
    budget: int

    def streams(
        self, jobs: Sequence[tuple[int, float]], width: int
    ) -> tuple[Float[Tensor, "job position d_model"], Float[Tensor, "job position d_model"], TokenBatch]:
        """The residual stream of some texts somewhere on their ways, the whole ways, and their tokens."""
        rows = [row for row, _ in jobs]
        tokens = TokenBatch(self.tokens.ids[rows, :width], self.tokens.mask[rows, :width])
        text = embed(self.model.weights, tokens)
        none = torch.where(self.moved[rows, :width, None], _blank(self.model, tokens, self.baseline), text)
        share = torch.tensor([share for _, share in jobs], dtype=text.dtype, device=text.device)
        return torch.lerp(none, text, share[:, None, None]), text - none, tokens

    def passes(self, jobs: Sequence[tuple[int, float]], *, gradients: bool) -> list[list[int]]:
        """Places of jobs in batches of similar length that fit the budget."""
        lengths = self.tokens.mask.sum(dim=1).tolist()
        found: list[list[int]] = []
        for place in sorted(range(len(jobs)), key=lambda place: lengths[jobs[place][0]]):
            size = _bytes_of_a_row(self.model, lengths[jobs[place][0]], gradients=gradients)
            if found and (len(found[-1]) + 1) * size <= self.budget:
                found[-1].append(place)
            else:
                found.append([place])
        return found

    @torch.no_grad()
    def margins_at(self, jobs: Sequence[tuple[int, float]]) -> Float[Tensor, " job"]:
        """The margins of texts somewhere on their ways."""
        found = torch.zeros(len(jobs), dtype=torch.float64, device=self.tokens.ids.device)
        for places in self.passes(jobs, gradients=False):
            some = [jobs[place] for place in places]
            x, _, tokens = self.streams(some, self.width(some))
            labels = self.labels[[row for row, _ in some]]
            found[places] = margins(self.model.weights, tokens, labels, x, keep="logits").double()
        return found

    def integrals(self, pieces: Sequence[_Piece], points: Sequence[tuple[float, float]], report: Progress) -> list[_Piece]:
        """The pieces with their numbers: every point of every piece is a row of a batch."""
        jobs = [(one.row, one.begin + (one.end - one.begin) * share) for one in pieces for share, _ in points]
        shares = [(one.end - one.begin) * weight for one in pieces for _, weight in points]
        owner = [place for place in range(len(pieces)) for _ in points]
        found = torch.zeros(len(pieces), self.tokens.ids.shape[1], dtype=torch.float64, device=self.tokens.ids.device)
        done = 0
        for places in self.passes(jobs, gradients=True):
            some = [jobs[place] for place in places]
            width = self.width(some)
            x, whole, tokens = self.streams(some, width)
            labels = self.labels[[row for row, _ in some]]
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                (slope,) = torch.autograd.grad(margins(self.model.weights, tokens, labels, x, keep="logits").sum(), x)
            weights = torch.tensor([shares[place] for place in places], dtype=torch.float64, device=found.device)
            parts = (whole * slope).sum(dim=-1).double() * weights[:, None]
            found[:, :width].index_add_(0, torch.tensor([owner[place] for place in places], device=found.device), parts)
            done += len(places)
            report("integrating gradients", done, len(jobs))
        return [dataclasses.replace(one, numbers=numbers) for one, numbers in zip(pieces, found, strict=True)]

    def halves(self, pieces: Sequence[_Piece]) -> list[_Piece]:
        """Both halves of every piece."""
        middles = [(one.begin + one.end) / 2 for one in pieces]
        margins = self.margins_at([(one.row, middle) for one, middle in zip(pieces, middles, strict=True)]).tolist()
        found = []
        for one, middle, margin in zip(pieces, middles, margins, strict=True):
            found += [
                _Piece(one.row, one.begin, middle, one.before, margin),
                _Piece(one.row, middle, one.end, margin, one.after),
            ]
        return found

    def width(self, jobs: Sequence[tuple[int, float]]) -> int:
        """Tokens of the longest of some texts."""
        return int(self.tokens.mask[[row for row, _ in jobs]].sum(dim=1).max())


def _blank(model: Model, tokens: TokenBatch, kind: PathBaseline) -> Float[Tensor, "text position d_model"]:
    """The residual stream before layer 0 with the baseline in place of every token, positions as they are."""
    if kind in ("zero", "mean"):
        return baseline_stream(model.weights, tokens, kind)
    pad, break_ = _token(model, "pad", "eos", "bos"), _line_break(model)
    filling = break_ if kind == "blank" and break_ is not None else pad
    if filling is None:
        raise PromptError(f"{model.name} has no token that pads: take the baseline mean or zero")
    ids = torch.full_like(tokens.ids, filling)
    if kind == "blank":
        ids[:, 0] = filling if (opening := _token(model, "bos", "eos")) is None else opening
    return embed(model.weights, TokenBatch(ids, tokens.mask))


def _token(model: Model, *names: str) -> int | None:
    """The first of some special tokens that there is."""
    ids = (getattr(model.tokenizer, f"{name}_token_id", None) for name in names)
    return next((int(one) for one in ids if one is not None), None)


def _line_break(model: Model) -> int | None:
    """The token of a line break; None for a tokenizer that reads none."""
    if model.tokenizer is None:
        return None
    ids = model.tokenizer("\n", add_special_tokens=False).input_ids
    return int(ids[-1]) if len(ids) and ids[-1] != model.tokenizer.unk_token_id else None


def _bytes_of_a_row(model: Model, width: int, *, gradients: bool) -> int:
    """What one text takes on its way through the model: with gradients what every layer keeps of it."""
    heads = model.n_heads * (4 * model.d_head + 3 * width)
    layer = 10 * model.d_model + 5 * model.d_mlp + heads
    return width * layer * (model.n_layers if gradients else 1) * model.weights.W_E.element_size()
