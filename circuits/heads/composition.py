"""What heads do by their weights alone: copying and matching eigenvalues, and composition between heads.

Everything works on products of width d_head; nothing of vocabulary × vocabulary or d_model × d_model a head is held.
Norm gains are folded into the matrices that read behind them and LayerNorm's centring is applied; norm scales, biases
and rotary positions (queries and keys stand at the same place) are left out.
"""

import dataclasses
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.files.results import Result
from circuits.graph import Node
from circuits.models import Model
from circuits.models.folding import behind_norm, through_norm
from circuits.models.weights import Block, Weights

if TYPE_CHECKING:
    import pandas


def folded_unembedding(weights: Weights) -> Float[Tensor, "d_model d_vocab_out"]:
    """W_U with the final norm's gain and centring folded in: logits are the residual stream, over the final norm's scale,
    times this (and a bias)."""
    return behind_norm(weights.W_U, weights.final_norm)


def token_to_token(weights: Weights) -> Float[Tensor, "d_model d_model"]:
    """W_U W_E, with the final norm's gain and centring folded in, over the tokens that the model both reads and predicts."""
    count = min(weights.W_U.shape[1], weights.W_E.shape[0])
    return folded_unembedding(weights)[:, :count] @ weights.W_E[:count]


def reading_matrices(block: Block, name: Literal["W_Q", "W_K", "W_V"]) -> Float[Tensor, "head d_model d_head"]:
    """W_Q, W_K or W_V of each head, with the gain and centring of the norm in front of attention folded in."""
    return behind_norm(block.attention.per_head(name), block.attention_norm)


def output_matrices(block: Block) -> Float[Tensor, "head d_head d_model"]:
    """W_O of each head, with the gain and centring of a norm after attention folded in."""
    return through_norm(block.attention.per_head("W_O"), block.attention_post_norm)


def _positive_share(products: Float[Tensor, "head d_head d_head"]) -> Float[Tensor, " head"]:
    """sum(eigenvalues) / sum |eigenvalues|: 1 if all are positive reals, -1 if all are negative."""
    values = torch.linalg.eigvals(products.double())
    return (values.sum(dim=-1).real / values.abs().sum(dim=-1).clamp(min=1e-30)).cpu()


def copying_eigenvalue_scores(model: Model) -> Float[Tensor, "layer head"]:
    """How much each head's OV circuit W_E W_V W_O W_U copies: the share of positive eigenvalues, from -1 to 1.

    1: attending to a token raises that same token's logit, in every direction (Elhage et al. 2021). The eigenvalues of
    the vocabulary-wide matrix are those of the d_head × d_head product W_O W_U W_E W_V.
    """
    through_tokens = token_to_token(model.weights)
    rows = []
    for block in model.weights.blocks:
        W_V, W_O = reading_matrices(block, "W_V"), output_matrices(block)
        rows.append(_positive_share(torch.einsum("hdm,mn,hne->hde", W_O, through_tokens, W_V)))
    return torch.stack(rows)


def matching_eigenvalue_scores(model: Model) -> Float[Tensor, "layer head"]:
    """How much each head's QK circuit W_E W_Q W_K^T W_E^T makes tokens attend to the same token, from -1 to 1, by the
    share of positive eigenvalues."""
    W_E = model.weights.W_E
    gram = W_E.T @ W_E
    rows = []
    for block in model.weights.blocks:
        W_Q, W_K = reading_matrices(block, "W_Q"), reading_matrices(block, "W_K")
        rows.append(_positive_share(torch.einsum("hmd,mn,hne->hde", W_K, gram, W_Q)))
    return torch.stack(rows)


@dataclasses.dataclass(frozen=True, eq=False)
class Composition(Result, format="circuits-composition"):
    """How strongly later heads read what earlier heads write, `[layer head layer head]` (writer, then reader), zero where
    the reader is not later: Frobenius norm of the product over the product of norms, from 0 to 1, less `random`, the mean
    for random matrices of these shapes. Positive: more than chance."""

    q: Float[Tensor, "layer head layer head"]
    k: Float[Tensor, "layer head layer head"]
    v: Float[Tensor, "layer head layer head"]
    random: float

    def of(self, slot: Literal["q", "k", "v"], writer: Node, reader: Node) -> float:
        """The composition of one pair of heads, less the random mean."""
        return float(getattr(self, slot)[writer.layer, writer.index, reader.layer, reader.index])

    @property
    def summary(self) -> str:
        """The strongest composition of each slot, less the random mean."""
        parts = []
        for slot in ("q", "k", "v"):
            values = getattr(self, slot)
            early, a, late, b = (int(place) for place in torch.unravel_index(values.argmax(), values.shape))
            parts.append(f"{slot} a{early}.h{a} to a{late}.h{b} {float(values.max()):+.3f}")
        return f"strongest composition, less {self.random:.3f} by chance: {', '.join(parts)}."

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a pair of heads: writer, reader, q, k, v."""
        import pandas

        layers, heads = self.q.shape[:2]
        rows = []
        for late in range(layers):
            for early in range(late):
                for a in range(heads):
                    for b in range(heads):
                        values = {slot: float(getattr(self, slot)[early, a, late, b]) for slot in ("q", "k", "v")}
                        rows.append({"writer": f"a{early}.h{a}", "reader": f"a{late}.h{b}", **values})
        return pandas.DataFrame(rows, columns=["writer", "reader", "q", "k", "v"])


def composition_scores(model: Model, *, seed: int = 0) -> Composition:
    """Q-, K- and V-composition of every pair of heads in different layers (Elhage et al. 2021).

    Q: |W_OV1 W_QK2|, K: |W_QK2 W_OV1^T|, V: |W_OV1 W_OV2| (matrices acting on rows), over the product of the two norms,
    less the mean for random matrices. Raises NonFiniteError for weights that hold NaN or infinity.
    """
    model.require_finite()
    blocks, heads = model.weights.blocks, model.n_heads
    zeros = torch.zeros(len(blocks), heads, len(blocks), heads, dtype=torch.float64)
    scores: dict[str, Tensor] = {slot: zeros.clone() for slot in ("q", "k", "v")}
    chance = random_composition(model.d_model, model.d_head, seed=seed)
    for late, reader in enumerate(blocks):
        read = {
            "q": reading_matrices(reader, "W_Q").double(),
            "k": reading_matrices(reader, "W_K").double(),
            "v": reading_matrices(reader, "W_V").double(),
        }
        other = {"q": read["k"], "k": read["q"], "v": output_matrices(reader).double().transpose(1, 2)}
        for early in range(late):
            W_V, W_O = reading_matrices(blocks[early], "W_V").double(), output_matrices(blocks[early]).double()
            for slot, values in scores.items():
                values[early, :, late] = composition(W_V, W_O, read[slot], other[slot]).cpu() - chance
    return Composition(q=scores["q"], k=scores["k"], v=scores["v"], random=chance)


def composition(
    W_V: Float[Tensor, "writer d_model d_head"],
    W_O: Float[Tensor, "writer d_head d_model"],
    read: Float[Tensor, "reader d_model d_head"],
    other: Float[Tensor, "reader d_model d_head"],
) -> Float[Tensor, "writer reader"]:
    """|W_V (W_O read) other^T| / (|W_V W_O| |read other^T|), all norms from d_head × d_head Gram matrices."""
    inner = torch.einsum("wdm,rme->wrde", W_O, read)
    left = torch.einsum("wmd,wme->wde", W_V, W_V)
    right = torch.einsum("rmd,rme->rde", other, other)
    product = torch.einsum("wrde,wdf,wrfg,reg->wr", inner, left, inner, right)
    wrote = torch.einsum("wde,wdm,wem->w", left, W_O, W_O)
    reads = torch.einsum("rde,rmd,rme->r", right, read, read)
    return (product.clamp(min=0) / (wrote[:, None] * reads).clamp(min=1e-60)).sqrt()


def random_composition(d_model: int, d_head: int, *, seed: int = 0, draws: int = 8) -> float:
    """The mean composition of independent normal matrices of these shapes."""
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: int, columns: int) -> Tensor:
        """Random matrices, one a draw."""
        return torch.randn(draws, rows, columns, generator=generator, dtype=torch.float64)

    drawn = composition(draw(d_model, d_head), draw(d_head, d_model), draw(d_model, d_head), draw(d_model, d_head))
    return float(drawn.mean())
