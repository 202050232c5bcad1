"""Skip-trigrams "source … destination → output" of a head, and the wrong ones that its factors force (Elhage et al. 2021)."""

import dataclasses
import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import PromptError
from circuits.graph import Node
from circuits.heads.weight_tables.ranking import BLOCK, best_of_rows
from circuits.heads.weight_tables.table import WeightTable, ov_table, qk_table
from circuits.models import Model
from circuits.models.choosing import head_of

CONTEXT = 64
"""Tokens that a skip-trigram's destination sees, the source and itself among them, where nothing else is asked for."""


@dataclasses.dataclass(frozen=True)
class SkipTrigram:
    """After `source … destination`, this head raises `output`: by `score` logits (against the mean token) in a context where
    all other tokens get the destination's average score.

    score = attention × logits, where attention = e^qk / (e^qk + context − 1), qk the entry of `qk_table`, and logits the
    entry of `ov_table`.
    """

    head: str
    source: int
    destination: int
    output: int
    score: float
    attention: float
    logits: float


@dataclasses.dataclass(frozen=True, eq=False)
class HeadFactors:
    """A head's tables, by source: who attends to it, and what it raises when attended to."""

    head: str
    attended: WeightTable
    raised: WeightTable
    context: int

    def attention(self, qk: Tensor) -> Tensor:
        """The share that a key gets whose score lies so much above those of the other `context` − 1."""
        return torch.sigmoid(qk - math.log(self.context - 1))

    def trigram(self, source: int, destination: int, output: int) -> SkipTrigram:
        """One skip-trigram with its score."""
        share = float(self.attention(self.attended.row(source)[0, destination]))
        logits = float(self.raised.row(source)[0, output])
        return SkipTrigram(self.head, source, destination, output, share * logits, share, logits)


def head_factors(
    model: Model,
    head: str | Node,
    *,
    context: int = CONTEXT,
    offset: int = 0,
    scale: float | None = None,
    through_mlp0: bool = False,
) -> HeadFactors:
    """The tables that skip-trigrams of a head are made of. Options as in `qk_table`, `ov_table`. Raises PromptError for a
    context of fewer than two tokens."""
    if context < 2:
        raise PromptError(f"a context of {context} tokens holds no skip-trigram: give 2 or more")
    if model.max_positions is not None and context > max(model.max_positions, CONTEXT):
        raise PromptError(f"a context of {context} tokens is longer than the {model.max_positions} that {model.name} takes")
    layer, index = head_of(model, head)
    attended = qk_table(model, head, offset=offset, rows="source", through_mlp0=through_mlp0)
    raised = ov_table(model, head, scale=scale, through_mlp0=through_mlp0)
    return HeadFactors(f"a{layer}.h{index}", attended, raised, context)


def skip_trigrams(
    model: Model,
    head: str | Node,
    k: int = 20,
    *,
    per_source: int | None = None,
    context: int = CONTEXT,
    offset: int = 0,
    scale: float | None = None,
    through_mlp0: bool = False,
) -> list[SkipTrigram]:
    """The k strongest skip-trigrams of a head, best first, exact over all vocabulary³ of them. Only positive scores count;
    there may be fewer than k.

    Exact for a model of one layer without MLP, up to positions and norm scales as `qk_table` and `ov_table` say; elsewhere
    it is the head's part when it reads the embedding alone. Of equal scores, that of the earlier source, then of the
    better attended destination, comes first. Raises GraphError for what is no head, PromptError for k under 1.

    Args:
        model: the model whose weights are read.
        head: the head, such as `a0.h3`.
        k: how many.
        per_source: how many of one source token at most (None: any number).
        context: tokens that a destination sees, the source and itself among them.
        offset: how far the destination stands behind the source, as in `qk_table`.
        scale: by what the final norm divides what the head writes, as in `ov_table`.
        through_mlp0: tokens are what the first MLP makes of their embedding.
    """
    options = {"context": context, "offset": offset, "scale": scale, "through_mlp0": through_mlp0}
    return strongest(head_factors(model, head, **options), k, per_source=per_source)


def strongest(factors: HeadFactors, k: int, *, per_source: int | None = None) -> list[SkipTrigram]:
    """`skip_trigrams` of factors that are at hand.

    Sources are taken in the order of what their best skip-trigram scores at most, the best attended destination with the most
    raised output, until that falls below the k-th best score.
    """
    if k < 1 or (per_source is not None and per_source < 1):
        raise PromptError(f"{k} skip-trigrams, {per_source} a source, were asked for: ask for at least one")
    # No source can have more among the best k.
    most = min(k, per_source or k)
    found: list[tuple[float, int, int, SkipTrigram]] = []
    for bound, sources in _by_bound(factors):
        # Below by more than rounding: at the bound a later source may tie with the k-th, and the earlier one is taken.
        if len(found) >= k and bound < -found[k - 1][0] * (1 - factors.raised.slack):
            break
        found += _of_sources(factors, sources, most)
        found = sorted(found, key=lambda one: one[:3])[:k]
    return [trigram for _, _, _, trigram in found]


def _by_bound(factors: HeadFactors) -> Iterator[tuple[float, Int[Tensor, " source"]]]:
    """Sources in the order of what their best skip-trigram scores, highest first, some at a time, with the highest of each
    part; those that raise nothing are left out."""
    size = max(1, BLOCK // factors.raised.columns)
    bounds = factors.attention(factors.attended.peaks) * factors.raised.peaks
    order = bounds.argsort(descending=True, stable=True)
    order = order[: int((bounds > 0).sum())].cpu()
    # Few sources first, then twice as many: most searches end among the first, others should not pay for small blocks.
    taken, width = 0, 16
    while taken < len(order):
        part = order[taken : taken + min(width, size)]
        yield float(bounds[part[0]]), part.sort().values
        taken, width = taken + len(part), 2 * width


def _of_sources(factors: HeadFactors, sources: Int[Tensor, " source"], most: int) -> list[tuple[float, int, int, SkipTrigram]]:
    """The `most` best skip-trigrams of each source, with what they are sorted by. The i-th destination with the j-th output
    is beaten by i × j others, so that few pairs need a look."""
    scores, destinations = best_of_rows(factors.attended.row(sources), most)
    logits, outputs = best_of_rows(factors.raised.row(sources), most)
    shares = factors.attention(scores)
    # Both lists fall, so (i, j) is beaten by every pair with both numbers smaller or equal: with (i + 1)(j + 1) > most of them
    # it cannot be among the best. About most x log(most) pairs are left of most².
    pairs = [(i, j) for i in range(shares.shape[1]) for j in range(logits.shape[1]) if (i + 1) * (j + 1) <= most]
    first, second = torch.tensor(pairs).T.to(shares.device)
    products: Float[Tensor, "source pair"] = shares[:, first] * logits[:, second]
    best, chosen = best_of_rows(products, most)
    found = []
    for row, source in enumerate(sources.tolist()):
        for rank, pair in enumerate(chosen[row].tolist()):
            score, (i, j) = float(best[row, rank]), pairs[pair]
            if score > 0:
                share, logit = float(shares[row, i]), float(logits[row, j])
                ends = int(destinations[row, i]), int(outputs[row, j])
                found.append((-score, source, rank, SkipTrigram(factors.head, source, *ends, score, share, logit)))
    return found
