"""The tuned lens (Belrose et al. 2023): an affine translator a layer, so that a residual stream on the way is read in the
coordinates of the last one."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError, ModelError
from circuits.files.results import Result
from circuits.files.tensors import load_tensors, save_tensors
from circuits.lenses.streaming import wide
from circuits.models import Model

if TYPE_CHECKING:
    import pandas

PARTS = ("A", "b", "losses")
"""The tensors of a lens."""


@dataclasses.dataclass(frozen=True, eq=False)
class TunedLens(Result, format="circuits-tuned-lens", tensors=True):
    """Translators `x -> x + x A[layer] + b[layer]` of the residual stream before each layer. The stream after the last
    layer has none: it is read as it is."""

    model: str
    sha256: str
    """Of the unembedding and the final norm that it was trained with (`unembedding_sha256`)."""
    A: Float[Tensor, "layer d_model d_model"]
    b: Float[Tensor, "layer d_model"]
    losses: Float[Tensor, "step layer"]
    """KL(final ‖ lens) in nats on each step's batch, before the step."""
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """How it was trained."""

    def __post_init__(self) -> None:
        layers, width = self.b.shape
        if self.A.shape != (layers, width, width) or self.losses.ndim != 2 or self.losses.shape[1] != layers:
            raise CircuitsError(f"translators of shapes {tuple(self.A.shape)} and {tuple(self.b.shape)} do not fit together")
        if not all(bool(getattr(self, name).isfinite().all()) for name in PARTS):
            raise CircuitsError("a tuned lens holds NaN or infinity")

    @classmethod
    def identity(cls, model: Model) -> "TunedLens":
        """Translators that change nothing: the logit lens."""
        zeros = torch.zeros(model.n_layers, model.d_model, model.d_model, dtype=wide(model.dtype), device=model.device)
        return cls(
            model.name, unembedding_sha256(model), zeros, zeros[:, 0].clone(), zeros[:0, :, 0].T.new_zeros(0, len(zeros))
        )

    @property
    def summary(self) -> str:
        """How far the training came, layer by layer."""
        layers, width = self.b.shape
        went = f"{layers} layers of width {width}, {len(self.losses)} steps"
        if not len(self.losses):
            return f"tuned lens of {self.model}: {went}."
        first, last = (", ".join(f"{loss:.3g}" for loss in row.tolist()) for row in (self.losses[0], self.losses[-1]))
        return f"tuned lens of {self.model}: {went}; KL to the output from {first} to {last} nats."

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a step of the training and layer: KL(final ‖ lens) in nats on the step's batch."""
        import pandas

        steps, layers = self.losses.shape
        places = {"step": torch.arange(steps).repeat_interleave(layers).tolist(), "layer": list(range(layers)) * steps}
        return pandas.DataFrame({**places, "loss": self.losses.flatten().tolist()})

    def translate(self, x: Float[Tensor, "*batch d_model"], layer: int) -> Float[Tensor, "*batch d_model"]:
        """The residual stream before a layer, translated; that after the last layer as it is."""
        if layer == len(self.A):
            return x
        A, b = self.A[layer].to(x.device), self.b[layer].to(x.device)
        return translated(x, A.to(wide(x.dtype)), b.to(wide(x.dtype)))

    def require_model(self, model: Model) -> None:
        """Raise ModelError unless it was trained with this model's unembedding and final norm."""
        shape = (model.n_layers, model.d_model)
        if tuple(self.b.shape) != shape or self.sha256 != unembedding_sha256(model):
            layers, width = self.b.shape
            raise ModelError(
                f"this tuned lens was trained for {self.model} ({layers} layers of width {width}, unembedding "
                f"{self.sha256[:12]}…), not for {model.name} ({shape[0]} layers of width {shape[1]}, unembedding "
                f"{unembedding_sha256(model)[:12]}…): train one for it with train_tuned_lens"
            )

    @classmethod
    def load(cls, path: str | Path, model: Model | None = None) -> "TunedLens":
        """A saved tuned lens; `model`: refuse it (ModelError) unless it was trained
        for this one. Raises FileFormatError for any other file."""
        lens, _ = read_lens_file(Path(path))
        if model is not None:
            lens.require_model(model)
        return lens


def translated(
    x: Float[Tensor, "*batch d_model"], A: Float[Tensor, "d_model d_model"], b: Float[Tensor, " d_model"]
) -> Float[Tensor, "*batch d_model"]:
    """x + x A + b, computed in the format of A and b and given back in that of x."""
    same = x.to(A.dtype)
    return (same + same @ A + b).to(x.dtype)


def unembedding_sha256(model: Model) -> str:
    """SHA-256 over the unembedding and the final norm: shapes, and values as float32, so that it does not depend on the
    number format that a float32 checkpoint is loaded in, unless that is a shorter one."""
    weights, norm = model.weights, model.weights.final_norm
    digest = hashlib.sha256(f"{weights.logit_soft_cap} {None if norm is None else (norm.kind, norm.eps)}".encode())
    parts = {"W_U": weights.W_U, "b_U": weights.b_U}
    parts |= {} if norm is None else {"weight": norm.weight, "bias": norm.bias}
    for name, tensor in parts.items():
        digest.update(f"{name}{None if tensor is None else tuple(tensor.shape)}".encode())
        if tensor is not None:
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_lens_file(path: Path, lens: TunedLens) -> None:
    """Write a lens whole or not at all; equal contents are equal bytes."""
    save_tensors(path, TunedLens.FORMAT, lens, beside={})


def read_lens_file(path: Path) -> tuple[TunedLens, dict[str, Tensor]]:
    """A lens, and the rest of its file. Raises FileFormatError for anything else."""
    return load_tensors(path, TunedLens.FORMAT, TunedLens)
