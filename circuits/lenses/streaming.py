"""Distributions over tokens that are never held whole: their logits stream by in blocks of positions and of vocabulary, and
logarithms of sums, entropies, divergences and the best tokens are kept up to date (online softmax)."""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import MemoryBudgetError
from circuits.heads.weight_tables.ranking import best_of_rows
from circuits.models.weights import Weights

HELD = 6
"""Arrays of a block's size that are alive at once: final and lens logits, two of exponentials, two of intermediates."""
_NARROW, _FEW = 64, 16
"""The least tokens of a block, and the positions from which on a block takes the whole vocabulary."""


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Vectors whose logits are read: what stands after the final norm, and whether the unembedding's bias and the logit soft
    cap are applied (they are to a whole residual stream, not to a part of it)."""

    normed: Float[Tensor, "position d_model"]
    whole: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class Blocks:
    """How many positions and how many tokens of the vocabulary are read at once."""

    positions: int
    tokens: int

    @classmethod
    def within(cls, budget: int, positions: int, d_vocab: int, top: int, dtype: torch.dtype) -> "Blocks":
        """Blocks of which HELD arrays fit `budget`: the whole vocabulary, unless that leaves room for few positions.
        Raises MemoryBudgetError where not even one position by 64 (or `top`) tokens fits."""
        each = HELD * wide(dtype).itemsize
        room, least = budget // each, min(d_vocab, max(_NARROW, top))
        if room < least:
            raise MemoryBudgetError(
                f"one position by {least:,} tokens of logits takes {each * least:,} bytes, budget is {budget:,}: "
                f"give budget={each * least} or more" + (f", or a smaller top than {top}" if top > _NARROW else "")
            )
        tokens = max(least, min(d_vocab, room // min(_FEW, positions)))
        return cls(max(1, min(positions, room // tokens)), tokens)


@dataclasses.dataclass(frozen=True, eq=False)
class SourceStatistics:
    """What one source's distributions say at each position; all in float of at least 32 bits, probabilities from 0 to 1."""

    entropy: Float[Tensor, " position"]
    """In nats."""
    divergence: Float[Tensor, " position"]
    """KL(final ‖ this), in nats."""
    logits: Float[Tensor, "position aim"]
    log_probabilities: Float[Tensor, "position aim"]
    """Of the tokens asked for."""
    ranks: Int[Tensor, "position aim"]
    """How many tokens come before them: 0 = the top one. Of equal ones the earlier id comes first."""
    top_probabilities: Float[Tensor, "position top"]
    top_ids: Int[Tensor, "position top"]


def wide(dtype: torch.dtype) -> torch.dtype:
    """The format in which distributions are read: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def block_logits(weights: Weights, source: Source, start: int, stop: int) -> Float[Tensor, "position token"]:
    """Logits of the tokens from `start` to before `stop`, computed as the model does, then in at least float32."""
    matrix = weights.W_U[:, start:stop]
    if not source.whole:
        return (source.normed @ matrix).to(wide(matrix.dtype))
    bias = None if weights.b_U is None else weights.b_U[start:stop]
    logits = source.normed @ matrix if bias is None else torch.addmm(bias, source.normed, matrix)
    if weights.logit_soft_cap is not None:
        logits = weights.logit_soft_cap * torch.tanh(logits / weights.logit_soft_cap)
    return logits.to(wide(matrix.dtype))


@torch.no_grad()
def read_sources(
    weights: Weights,
    final: Source,
    sources: Sequence[Source],
    aims: Int[Tensor, "position aim"],
    *,
    top: int,
    budget: int,
    advance: Callable[[int], None] = lambda positions: None,
) -> list[SourceStatistics]:
    """Read every source's distributions, beside the final ones, in one pass over blocks that hold at most `budget`.

    `aims` are token ids to find in them. Where a block does not take the whole vocabulary, the aims' logits are found in a
    pass before. A source that is `final` itself diverges by exactly 0. `advance` hears how many positions were read.
    """
    positions, d_vocab = final.normed.shape[0], weights.W_U.shape[1]
    top = min(top, d_vocab)
    blocks = Blocks.within(budget, positions, d_vocab, top, final.normed.dtype)
    parts: list[list[SourceStatistics]] = [[] for _ in sources]
    for begin in range(0, positions, blocks.positions):
        chunk = slice(begin, begin + blocks.positions)
        base = _Tally(Source(final.normed[chunk]), aims[chunk], 0)
        tallies = [base if one is final else _Tally(Source(one.normed[chunk], one.whole), aims[chunk], top) for one in sources]
        base.top = top if any(tally is base for tally in tallies) else 0
        _stream(weights, base, tallies, blocks.tokens)
        for part, tally in zip(parts, tallies, strict=True):
            part.append(tally.finish(base))
        advance(len(base.aims))
    return [_joined(part) for part in parts]


def _stream(weights: Weights, base: "_Tally", tallies: Sequence["_Tally"], width: int) -> None:
    """Run the vocabulary past the final distribution and the others."""
    d_vocab = weights.W_U.shape[1]
    starts = range(0, d_vocab, width)
    others = [tally for tally in tallies if tally is not base]
    # A rank counts the tokens above an aim, so an aim's logit must be known before the first block passes.
    if len(starts) > 1:
        for tally in (base, *others):
            for start in starts:
                tally.find(block_logits(weights, tally.source, start, min(start + width, d_vocab)), start)
    for start in starts:
        stop = min(start + width, d_vocab)
        logits = block_logits(weights, base.source, start, stop)
        mass, kept = base.add(logits, start, known=len(starts) > 1)
        for tally in others:
            theirs = block_logits(weights, tally.source, start, stop)
            tally.add(theirs, start, known=len(starts) > 1)
            # KL is the mean under the final distribution of the difference of logits, plus that of the two logarithms of sums:
            # all three stream, each scaled to the peak so far.
            tally.gap = tally.gap * kept + torch.sub(logits, theirs, out=theirs).mul_(mass).sum(dim=-1)


class _Tally:
    """Running sums of one source's distributions at some positions."""

    def __init__(self, source: Source, aims: Int[Tensor, "position aim"], top: int) -> None:
        self.source, self.aims, self.top = source, aims, top
        self.zeros = torch.zeros_like(source.normed[:, 0], dtype=wide(source.normed.dtype))
        self.peak, self.sum, self.moment, self.gap = self.zeros - torch.inf, self.zeros, self.zeros, self.zeros
        self.found = torch.zeros_like(aims, dtype=self.zeros.dtype)
        self.before = torch.zeros_like(aims)
        self.best: tuple[Tensor, Tensor] | None = None

    def find(self, logits: Float[Tensor, "position token"], start: int) -> None:
        """Take those aims' logits that are in this block."""
        inside = (self.aims >= start) & (self.aims < start + logits.shape[1])
        places = (self.aims - start).clamp(0, logits.shape[1] - 1)
        self.found = torch.where(inside, logits.gather(1, places), self.found)

    def add(self, logits: Float[Tensor, "position token"], start: int, *, known: bool) -> tuple[Tensor, Tensor]:
        """Take in a block; returns exp(logits - the peak so far) and the factor by which older sums shrink."""
        if not known:
            self.find(logits, start)
        peak = torch.maximum(self.peak, logits.amax(dim=-1))
        # The first time the old peak is minus infinity and `kept` 0; the sums it multiplies are 0, not NaN.
        kept = (self.peak - peak).exp()
        mass = (logits - peak[:, None]).exp_()
        self.sum = self.sum * kept + mass.sum(dim=-1)
        self.moment = self.moment * kept + (mass * logits).sum(dim=-1)
        self.peak = peak
        columns = torch.arange(start, start + logits.shape[1], device=self.aims.device)
        for place in range(self.aims.shape[1]):
            aim = self.found[:, place, None]
            ahead = (logits > aim).logical_or_((logits == aim) & (columns < self.aims[:, place, None]))
            self.before[:, place] += ahead.sum(dim=-1)
        if self.top:
            values, ids = best_of_rows(logits, min(self.top, logits.shape[1]))
            self._keep(values, ids + start)
        return mass, kept

    def _keep(self, values: Tensor, ids: Tensor) -> None:
        """Join a block's best with the best so far; those of earlier blocks have earlier ids, so they win ties."""
        if self.best is not None:
            values, ids = torch.cat([self.best[0], values], dim=-1), torch.cat([self.best[1], ids], dim=-1)
            values, order = values.sort(dim=-1, descending=True, stable=True)
            ids = ids.gather(1, order)
        self.best = values[:, : self.top], ids[:, : self.top]

    def finish(self, final: "_Tally") -> SourceStatistics:
        """The numbers, when the whole vocabulary has passed."""
        total = self.peak + self.sum.log()
        divergence = self.gap / final.sum + (total - (final.peak + final.sum.log()))
        empty = (self.found[:, :0], self.aims[:, :0])
        values, ids = empty if self.best is None else self.best
        return SourceStatistics(
            # None of these can be negative (a log-probability: positive); what is below zero is rounding.
            entropy=(total - self.moment / self.sum).clamp(min=0),
            divergence=divergence.clamp(min=0),
            logits=self.found,
            log_probabilities=(self.found - total[:, None]).clamp(max=0),
            ranks=self.before,
            top_probabilities=(values - total[:, None]).exp(),
            top_ids=ids,
        )


def _joined(parts: Sequence[SourceStatistics]) -> SourceStatistics:
    names = [field.name for field in dataclasses.fields(SourceStatistics)]
    return SourceStatistics(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})
