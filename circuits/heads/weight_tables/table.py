"""Tables of tokens against tokens, read from the weights and kept as factors (Elhage et al. 2021).

A table has as many rows and columns as the vocabulary. What is held is a matrix of `rank` columns-to-be; rows are made
when they are asked for, and searched a block at a time.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import NonFiniteError, PromptError
from circuits.graph import Node
from circuits.heads.weight_tables.embedded import (
    embedded,
    projected_tokens,
    stacked,
    typical_scale,
    written_logits,
)
from circuits.heads.weight_tables.ranking import best_of_all, best_of_rows, blocks, peaks
from circuits.models import Model
from circuits.models.choosing import head_of
from circuits.models.folding import through_norm
from circuits.models.layers import normalise
from circuits.progress import Progress, silent


@dataclasses.dataclass(frozen=True, eq=False)
class WeightTable:
    """One table: an entry is a row token's left factor times a column token's right factor, plus the column's offset; with
    `log_probabilities`, rows are log softmax of that. What rows and columns are, `about` says."""

    about: str
    rows: int
    left: Callable[[Int[Tensor, " row"]], Float[Tensor, "row rank"]] = dataclasses.field(repr=False)
    right: Float[Tensor, "rank column"] = dataclasses.field(repr=False)
    offset: Float[Tensor, " column"] | None = dataclasses.field(default=None, repr=False)
    log_probabilities: bool = False

    @property
    def columns(self) -> int:
        """Tokens that a row has an entry for."""
        return self.right.shape[1]

    def row(self, ids: Int[Tensor, " row"] | list[int] | int) -> Float[Tensor, "row column"]:
        """These rows in full. Raises PromptError for ids outside the vocabulary, NonFiniteError for what is no number."""
        wanted = torch.as_tensor([ids] if isinstance(ids, int) else ids, dtype=torch.long)
        if wanted.numel() and (int(wanted.min()) < 0 or int(wanted.max()) >= self.rows):
            raise PromptError(f"a token of {wanted.tolist()[:5]} is outside the vocabulary of {self.rows} tokens")
        values = self.left(wanted) @ self.right
        values = values if self.offset is None else values + self.offset
        values = values.log_softmax(dim=-1) if self.log_probabilities else values
        if not bool(values.sum().isfinite()) and not bool(values.isfinite().all()):
            bad = int((~values.isfinite()).any(dim=1).nonzero()[0])
            raise NonFiniteError(f"{self.about}: the row of token {int(wanted[bad])} holds NaN or infinity")
        return values

    def top(self, token: int, k: int = 10, *, largest: bool = True) -> list[tuple[int, float]]:
        """The k largest (or smallest) entries of a token's row with their column tokens, best first; of equal ones the
        earlier token."""
        _check_count(k)
        sign = 1.0 if largest else -1.0
        values, ids = best_of_rows(sign * self.row(token), k)
        return [(int(i), sign * float(v)) for v, i in zip(values[0], ids[0], strict=True)]

    @functools.cached_property
    def peaks(self) -> Float[Tensor, " row"]:
        """The largest entry of each row, as near as rounding lets products of other blocks be the same (`slack`). Raises
        NonFiniteError as `row`."""
        assert not self.log_probabilities, "the sum over a row needs the row"
        parts = [peaks(self.left(ids), self.right, self.offset) for ids in blocks(self.rows, self.right.shape[0])]
        found = torch.cat(parts)
        for ids in (~found.isfinite()).nonzero()[:1, 0]:
            self.row(int(ids))  # says what is wrong
        return found

    @property
    def slack(self) -> float:
        """By what share a peak may miss the row's largest entry."""
        return max(1e-4, 4 * torch.finfo(self.right.dtype).eps)

    def largest(self, k: int = 10, *, progress: Progress | None = None) -> list[tuple[int, int, float]]:
        """The k largest entries of the whole table, as (row token, column token, value), best first; of equal ones the
        earlier. Every entry is computed, a block at a time."""
        _check_count(k)
        report = functools.partial(progress or silent, self.about)
        if self.log_probabilities:
            values, rows, columns = best_of_all(self.rows, self.columns, self.row, k, report)
        else:  # they stand in rows whose peaks are among the k largest
            least = float(self.peaks.topk(min(k, self.rows)).values[-1])
            wanted = (self.peaks >= least - self.slack * abs(least)).nonzero()[:, 0].cpu()
            made = best_of_all(len(wanted), self.columns, lambda ids: self.row(wanted[ids]), k, report)
            values, rows, columns = made[0], wanted.to(made[1].device)[made[1]], made[2]
        return [(int(r), int(c), float(v)) for v, r, c in zip(values, rows, columns, strict=True)]


def _check_count(k: int) -> None:
    if k < 1:
        raise PromptError(f"{k} entries of a table were asked for: ask for at least one")


def bigram_table(model: Model, *, scale: float | Literal["own"] = "own", through_mlp0: bool = False) -> WeightTable:
    """The direct path W_E W_U: row = the current token, column = the next one, as log-probabilities (nats, at most 0).

    Counted in: scale and norm of the embedding, the final norm's gain, centring and bias, the unembedding's bias. Left
    out: positions, all that heads and MLPs add, a cap of the logits.

    Args:
        model: the model whose weights are read.
        scale: by what the final norm divides; "own": the scale of the embedding itself, so that the table is what the model
            says when all its layers are taken away; or a number, such as one measured in a run.
        through_mlp0: tokens are what the first MLP makes of their embedding.
    """
    weights = model.weights
    norm = weights.final_norm

    def left(ids: Tensor) -> Tensor:
        """What tokens bring to the unembedding, `[token d_model]`."""
        x = embedded(weights, ids, through_mlp0=through_mlp0)
        if norm is None or scale == "own":
            return normalise(x, norm)
        x = through_norm(x, norm, scale)
        return x if norm.bias is None else x + norm.bias

    name = "next tokens by the direct path" + (" and the first MLP" if through_mlp0 else "")
    return WeightTable(name, model.d_vocab, left, weights.W_U, weights.b_U, log_probabilities=True)


def qk_table(
    model: Model,
    head: str | Node,
    *,
    offset: int = 0,
    rows: Literal["destination", "source"] = "destination",
    through_mlp0: bool = False,
) -> WeightTable:
    """W_E W_Q W_K^T W_E^T of a head: how much a destination token attends to a source token, as attention scores (times the
    head's scale, so that their exponentials are odds), less the destination's mean over all sources.

    `rows`: whether a row is a destination (whom does it attend to?) or a source (who attends to it?). Biases, norms of
    queries and keys, and norms' gains are counted in, with each token's own norm scale; rotary positions with the query
    `offset` places after the key (0: the same place, as in `composition_scores`). Learned positions, ALiBi and a cap of
    the scores are left out. Exact, up to these, for heads of layer 0; for later heads, what the embedding alone would do.
    Raises GraphError for what is no head.
    """
    place = head_of(model, head)
    attention = model.weights.blocks[place[0]].attention
    keys = stacked(model, place, "k", through_mlp0=through_mlp0)
    middle = keys.mean(dim=0)
    if rows == "destination":

        def queries(ids: Tensor) -> Tensor:
            """Scaled queries of tokens."""
            return projected_tokens(model, place, "q", ids, offset=offset, through_mlp0=through_mlp0) * attention.scale

        return WeightTable(f"sources that a{place[0]}.h{place[1]} attends to", model.d_vocab, queries, (keys - middle).T)
    right = stacked(model, place, "q", offset=offset, through_mlp0=through_mlp0).T * attention.scale

    def centred(ids: Tensor) -> Tensor:
        """Keys of tokens less their mean."""
        return keys[ids.to(keys.device)] - middle

    return WeightTable(f"destinations that attend to a source in a{place[0]}.h{place[1]}", model.d_vocab, centred, right)


def ov_table(model: Model, head: str | Node, *, scale: float | None = None, through_mlp0: bool = False) -> WeightTable:
    """W_E W_V W_O W_U of a head: row = the source token, column = an output token, entry = what full attention to the source
    adds to the output's logit, less the mean over all outputs (positive: raises it).

    Norms' gains and centring are counted in, the norm in front of the head with each token's own scale. `scale`: by what
    the final norm divides; None: as it would divide embeddings alone, on average (`typical_scale`). Biases, which are the
    same for every source, and the scale of a norm after attention are left out. Raises GraphError for what is no head.
    """
    place = head_of(model, head)
    chosen = typical_scale(model.weights, through_mlp0=through_mlp0) if scale is None else scale

    def values(ids: Tensor) -> Tensor:
        """Values of tokens."""
        return projected_tokens(model, place, "v", ids, through_mlp0=through_mlp0)

    return WeightTable(
        f"tokens that a{place[0]}.h{place[1]} raises", model.d_vocab, values, written_logits(model, place, chosen)
    )
