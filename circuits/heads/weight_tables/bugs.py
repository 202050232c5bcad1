"""Skip-trigrams that a head cannot help to have: its attention does not know the output, its output not the destination."""

import dataclasses
import itertools
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import GraphError
from circuits.graph import Node
from circuits.heads.weight_tables.ranking import best_of_rows, blocks
from circuits.heads.weight_tables.skip_trigrams import CONTEXT, HeadFactors, SkipTrigram, head_factors, strongest
from circuits.heads.weight_tables.table import WeightTable, bigram_table
from circuits.models import Model


@dataclasses.dataclass(frozen=True)
class SkipTrigramBug:
    """Two skip-trigrams of one source that make sense, and the two that come with them: "keep … in mind" and "keep … at
    bay" force "keep … in bay" and "keep … at mind".

    The products of scores are equal, wanted and forced. `distinction` (nats): by how much the direct path tells which
    output belongs to which destination, b(B, C) + b(B', C') − b(B, C') − b(B', C) with b its log-probabilities.
    `severity` (nats): the smaller of the two forced scores, at most the distinction.
    """

    wanted: tuple[SkipTrigram, SkipTrigram]
    forced: tuple[SkipTrigram, SkipTrigram]
    distinction: float
    severity: float


def crossed_trigrams(model: Model, first: SkipTrigram, second: SkipTrigram, **options: Any) -> list[SkipTrigram]:
    """The skip-trigrams with parts of both, and neither of the two themselves, best first: what the head also does because it
    does these two. With one source there are two, with two sources six (of these, four exist only as far as destinations
    attend to the other source). Options as in `skip_trigrams`. Raises GraphError for skip-trigrams of two heads."""
    if first.head != second.head:
        raise GraphError(f"{first.head} and {second.head} are two heads: nothing of one forces anything of the other")
    factors = head_factors(model, first.head, **options)
    names = ("source", "destination", "output")
    mixed = set(itertools.product(*({getattr(first, name), getattr(second, name)} for name in names)))
    given = {tuple(getattr(one, name) for name in names) for one in (first, second)}
    found = [factors.trigram(*parts) for parts in sorted(mixed - given)]
    return sorted(found, key=lambda one: (-one.score, one.source, one.destination, one.output))


def skip_trigram_bugs(
    model: Model,
    head: str | Node,
    k: int = 10,
    *,
    sources: int = 64,
    width: int = 12,
    context: int = CONTEXT,
    offset: int = 0,
    scale: float | None = None,
    through_mlp0: bool = False,
) -> list[SkipTrigramBug]:
    """The k worst bugs of a head, at most one a source, worst first.

    Looked for among the `sources` source tokens with the strongest skip-trigrams, each with the `width` destinations that
    attend to it most and the `width` outputs it raises most. Options as in `skip_trigrams`.
    """
    options = {"context": context, "offset": offset, "scale": scale, "through_mlp0": through_mlp0}
    factors = head_factors(model, head, **options)
    direct = bigram_table(model, scale="own", through_mlp0=through_mlp0)
    return worst_bugs(factors, direct, k, sources=sources, width=width)


def worst_bugs(
    factors: HeadFactors, direct: WeightTable, k: int, *, sources: int = 64, width: int = 12
) -> list[SkipTrigramBug]:
    """`skip_trigram_bugs` of tables that are at hand."""
    ids = torch.tensor([top.source for top in strongest(factors, sources, per_source=1)], dtype=torch.long)
    if not len(ids):
        return []
    attended, raised = (best_of_rows(table.row(ids), width) for table in (factors.attended, factors.raised))
    likely = _entries(direct, attended[1], raised[1])
    found = []
    for place, source in enumerate(ids.tolist()):
        ends = [(values[place], tokens[place]) for values, tokens in (attended, raised)]
        found += [bug] if (bug := _worst_of(factors, likely[place], source, *ends)) is not None else []
    return sorted(found, key=lambda bug: (-bug.severity, bug.wanted[0].source))[:k]


def _entries(
    direct: WeightTable, rows: Int[Tensor, "source destination"], columns: Int[Tensor, "source output"]
) -> Float[Tensor, "source destination output"]:
    """Those entries of a table; a row that several sources ask for is made once."""
    wanted, places = rows.cpu().unique(return_inverse=True)
    found = direct.right.new_empty(*rows.shape, columns.shape[1])
    for some in blocks(len(wanted), direct.columns):
        made = direct.row(wanted[some])
        source, destination = ((places >= some[0]) & (places <= some[-1])).nonzero(as_tuple=True)
        found[source, destination] = made[(places - some[0])[source, destination][:, None], columns[source]]
    return found


def _worst_of(
    factors: HeadFactors,
    likely: Float[Tensor, "destination output"],
    source: int,
    attended: tuple[Tensor, Tensor],
    raised: tuple[Tensor, Tensor],
) -> SkipTrigramBug | None:
    """The worst bug of one source, over all pairs of two of its destinations (with scores) and two of its outputs. `likely`:
    log-probabilities of these outputs after these destinations."""
    (scores, destinations), (logits, outputs) = attended, raised
    shares = factors.attention(scores)
    product: Float[Tensor, "destination output"] = torch.einsum("d,o->do", shares, logits).double()
    likely = likely.double()
    # own[d, o, e, p]: the direct path says o after d and p after e, rather than the other way round
    distinction = likely[:, :, None, None] + likely[None, None] - likely[:, None, None, :] - likely.T[None, :, :, None]
    forced = torch.minimum(product[:, None, None, :], product.T[None, :, :, None])
    severity = torch.minimum(distinction, forced.expand_as(distinction)).flatten(2).flatten(0, 1)
    n = len(outputs)
    value = severity.max()
    if not float(value) > 0:
        return None
    row, column = (severity == value).nonzero()[0].tolist()
    (d, o), (e, p) = divmod(row, n), divmod(column, n)

    def made(i: int, j: int) -> SkipTrigram:
        """The skip-trigram of a destination and an output."""
        ends = int(destinations[i]), int(outputs[j])
        return SkipTrigram(factors.head, source, *ends, float(product[i, j]), float(shares[i]), float(logits[j]))

    pairs = (made(d, o), made(e, p)), (made(d, p), made(e, o))
    return SkipTrigramBug(*pairs, float(distinction[d, o, e, p]), float(value))
