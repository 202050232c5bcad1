"""What toy models have packed into their dimensions."""

import dataclasses
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.results import Result

if TYPE_CHECKING:
    import pandas

KINDS: tuple[Literal["relu", "linear"], ...] = ("relu", "linear")
_TINY = 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class Superposition(Result, format="circuits-superposition"):
    """Toy models of superposition (Elhage et al. 2022), x' = W^T W x + b with and without a ReLU around it, over chances that
    a feature is zero. Of each the start of the smallest loss counts."""

    kinds: tuple[Literal["relu", "linear"], ...]
    sparsity: Float[Tensor, " sparsity"]
    """The chance that a feature is zero."""
    importance: Float[Tensor, " feature"]
    """What a feature's squared error counts."""
    W: Float[Tensor, "kind sparsity seed hidden feature"]
    b: Float[Tensor, "kind sparsity seed feature"]
    loss: Float[Tensor, "kind sparsity seed"]
    """On examples that were not trained on, the mean over examples of the weighted squared error."""
    steps: int
    batch: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.kinds) != len(self.W) or not self.W.numel():
            raise CircuitsError(f"{len(self.kinds)} kinds of toy models, but weights of {len(self.W)}")

    @property
    def best(self) -> Float[Tensor, "kind sparsity hidden feature"]:
        """The weights of the starts of smallest loss."""
        chosen = self.loss.argmin(dim=-1)[:, :, None, None, None]
        return self.W.take_along_dim(chosen, dim=2).squeeze(2)

    @property
    def norms(self) -> Float[Tensor, "kind sparsity feature"]:
        """How much of itself each feature gives back, |W_i|^2: 0 for one that is left out, 1 for one that is kept."""
        return self.best.square().sum(dim=-2)

    @property
    def packed(self) -> Float[Tensor, "kind sparsity"]:
        """How many features are packed, |W|^2 (Frobenius): the sum of the squared norms. Above the number of features where a
        ReLU's losses from overlap are made up for by longer columns."""
        return self.norms.sum(dim=-1)

    @property
    def represented(self) -> Int[Tensor, "kind sparsity"]:
        """How many features are given back by at least half."""
        return (self.norms >= 0.5).sum(dim=-1)

    @property
    def dimensionality(self) -> Float[Tensor, "kind sparsity feature"]:
        """What share of a dimension each feature has, D_i = |W_i|^2 / sum_j (Ŵ_i · W_j)^2: 1 where it has one of its own, 1/2
        in an antipodal pair, 2/5 in a pentagon, 0 where it is left out."""
        W, norms = self.best, self.norms
        overlap = torch.einsum("k s h i, k s h j -> k s i j", W / norms.sqrt().clamp(min=_TINY)[:, :, None], W)
        return norms / overlap.square().sum(dim=-1).clamp(min=_TINY)

    @property
    def summary(self) -> str:
        """How many features are packed where they are seldom zero, and where they are most often."""
        hidden, features = self.W.shape[-2:]
        first, last = int(self.sparsity.argmin()), int(self.sparsity.argmax())
        ends = [(name, float(row[first]), float(row[last])) for name, row in zip(self.kinds, self.packed, strict=True)]
        words = ", ".join(f"{one:.3g} to {other:.3g} ({name})" for name, one, other in ends)
        zero = f"{float(self.sparsity[first]):.0%} to {float(self.sparsity[last]):.0%} zero"
        return f"{features} features in {hidden} dimensions, {zero}: packed (|W|²) {words}."

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a kind, a sparsity and a feature: its importance, squared norm and dimensionality, and of its model |W|^2
        (`packed`), how many features are `represented`, and the loss."""
        import pandas

        rows = []
        packed, norms, shares = self.packed, self.norms, self.dimensionality
        for kind, name in enumerate(self.kinds):
            for place, chance in enumerate(self.sparsity.tolist()):
                of = {"kind": name, "sparsity": chance, "packed": float(packed[kind, place])}
                of |= {"represented": int(self.represented[kind, place])}
                of |= {"loss": float(self.loss[kind, place].min())}
                for feature, weight in enumerate(self.importance.tolist()):
                    own = {"feature": feature, "importance": weight, "squared_norm": float(norms[kind, place, feature])}
                    rows.append({**of, **own, "dimensionality": float(shares[kind, place, feature])})
        return pandas.DataFrame(rows)
