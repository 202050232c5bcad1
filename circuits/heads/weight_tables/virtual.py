"""Virtual heads: what a head copies from what an earlier head copied (Elhage et al. 2021)."""

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import GraphError, PromptError
from circuits.graph import Node
from circuits.heads.composition import output_matrices, reading_matrices, token_to_token
from circuits.heads.weight_tables.embedded import projected_tokens, typical_scale, written_logits
from circuits.heads.weight_tables.table import WeightTable
from circuits.models import Model
from circuits.models.choosing import head_of
from circuits.models.folding import through_norm
from circuits.progress import Progress, silent


@dataclasses.dataclass(frozen=True)
class VirtualHead:
    """Two heads in a row, as one: W_OV of the first times W_OV of the second, of rank d_head.

    `norm`: its Frobenius norm, norms' gains and centring folded in. `composition`: that over the product of the two heads'
    own norms, from 0 to 1. `share`: the norm over the sum of those of all virtual heads. `copying`: the share of positive
    eigenvalues of W_E W_OV1 W_OV2 W_U, from -1 to 1 (1: copies the token).
    """

    first: str
    second: str
    norm: float
    composition: float
    share: float
    copying: float
    source: int | None = None
    output: int | None = None
    """Where it was looked for: the largest entry of `virtual_table`, tokens of its row and its column."""


def virtual_heads(model: Model, k: int = 20, *, progress: Progress | None = None) -> list[VirtualHead]:
    """The k virtual heads of largest norm, largest first; of equal ones the earlier. None for a model of one layer."""
    if k < 1:
        raise PromptError(f"{k} virtual heads were asked for: ask for at least one")
    model.require_finite()
    values = [reading_matrices(block, "W_V").double() for block in model.weights.blocks]
    outputs = [output_matrices(block).double() for block in model.weights.blocks]
    halves = [_triangular(*pair) for pair in zip(values, outputs, strict=True)]
    sizes = [write.flatten(1).norm(dim=1) for write, _ in halves]
    report, found = progress or silent, list[tuple[float, float, tuple[int, int], tuple[int, int]]]()
    for late in range(1, model.n_layers):
        report("comparing virtual heads", late, model.n_layers)
        read = halves[late][1].transpose(0, 1).flatten(1)
        for early in range(late):
            inner = (halves[early][0].flatten(0, 1) @ read).unflatten(1, (model.n_heads, -1)).unflatten(0, (model.n_heads, -1))
            norms = inner.square().sum(dim=(1, 3)).sqrt().tolist()
            own = (sizes[early][:, None] * sizes[late]).tolist()
            for a in range(model.n_heads):
                for b in range(model.n_heads):
                    found.append((norms[a][b], own[a][b], (early, a), (late, b)))
    total = sum(norm for norm, *_ in found) or 1.0
    found = sorted(found, key=lambda one: (-one[0], one[2], one[3]))[:k]
    through_tokens = token_to_token(model.weights).double() if found else torch.zeros(0, 0)
    rows = []
    for norm, own, (early, a), (late, b) in found:
        inner = outputs[early][a] @ values[late][b]
        product = inner @ outputs[late][b] @ through_tokens @ values[early][a]
        eigenvalues = torch.linalg.eigvals(product)
        copying = float(eigenvalues.sum().real / eigenvalues.abs().sum().clamp(min=1e-30))
        composition = norm / own if own else 0.0
        rows.append(VirtualHead(f"a{early}.h{a}", f"a{late}.h{b}", norm, composition, norm / total, copying))
    return rows


def virtual_table(
    model: Model, first: str | Node, second: str | Node, *, scale: float | None = None, through_mlp0: bool = False
) -> WeightTable:
    """What a virtual head makes of tokens: row = the token at the first head's source, column = an output token, entry = what
    full attention of both adds to its logit, less the mean over outputs. As `ov_table`; `scale` also divides in the norm
    between the heads. Raises GraphError where the second is not in a later layer."""
    early, late = head_of(model, first), head_of(model, second)
    if early[0] >= late[0]:
        raise GraphError(f"{second} does not read {first}: name a head of a later layer second")
    chosen = typical_scale(model.weights, through_mlp0=through_mlp0) if scale is None else scale
    block = model.weights.blocks[late[0]]
    written = through_norm(output_matrices(model.weights.blocks[early[0]])[early[1]], block.attention_norm, chosen)
    middle = written @ block.attention.per_head("W_V")[late[1]]

    def values(ids: Int[Tensor, " token"]) -> Tensor:
        """The early head's values of tokens."""
        return projected_tokens(model, early, "v", ids, through_mlp0=through_mlp0)

    about = f"tokens that a{early[0]}.h{early[1]} and then a{late[0]}.h{late[1]} raise"
    return WeightTable(about, model.d_vocab, values, middle @ written_logits(model, late, chosen))


def _triangular(
    values: Float[Tensor, "head d_model d_head"], outputs: Float[Tensor, "head d_head d_model"]
) -> tuple[Float[Tensor, "head d_head d_model"], Float[Tensor, "head d_model d_head"]]:
    """R O and V S^T, of values V = Q R and outputs O^T = P S with Q and P orthonormal: for any X the norm of V O X is that of
    R O X, and the norm of X V O that of X V S^T, which have d_head rows or columns."""
    R, S = torch.linalg.qr(values, mode="r").R, torch.linalg.qr(outputs.mT, mode="r").R
    return R @ outputs, values @ S.mT
