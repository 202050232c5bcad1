"""The tuned lens (Belrose et al. 2023): an affine translator a layer, so that a residual stream on the way is read in the
coordinates of the last one."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from circuits.errors import CircuitsError, FileFormatError, ModelError
from circuits.files.reading import LARGEST_FILE
from circuits.files.writing import write_whole
from circuits.lenses.streaming import wide
from circuits.models import Model

FORMAT = "circuits-tuned-lens"
"""The one metadata key of a file: several would be written in any order, and equal lenses as different bytes."""
_PARTS = ("A", "b", "losses")


@dataclasses.dataclass(frozen=True, eq=False)
class TunedLens:
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
        if not all(bool(getattr(self, name).isfinite().all()) for name in _PARTS):
            raise CircuitsError("a tuned lens holds NaN or infinity")

    @classmethod
    def identity(cls, model: Model) -> "TunedLens":
        """Translators that change nothing: the logit lens."""
        zeros = torch.zeros(model.n_layers, model.d_model, model.d_model, dtype=wide(model.dtype), device=model.device)
        return cls(
            model.name, unembedding_sha256(model), zeros, zeros[:, 0].clone(), zeros[:0, :, 0].T.new_zeros(0, len(zeros))
        )

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

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file; `TunedLens.load` reads it."""
        write_lens_file(Path(path), self, {})

    @classmethod
    def load(cls, path: str | Path, model: Model | None = None) -> "TunedLens":
        """A saved tuned lens, or the state of an unfinished training; `model`: refuse it (ModelError) unless it was trained
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


def write_lens_file(path: Path, lens: TunedLens, state: Mapping[str, Tensor]) -> None:
    """Write a lens, and what its training needs to go on, whole or not at all; equal contents are equal bytes."""
    tensors = {**{name: getattr(lens, name) for name in _PARTS}, **state}
    about = {"version": 1, "model": lens.model, "sha256": lens.sha256, "training": dict(lens.training)}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, save(plain, metadata={FORMAT: json.dumps(about, sort_keys=True, allow_nan=False)}))


def read_lens_file(path: Path) -> tuple[TunedLens, dict[str, Tensor]]:
    """A lens, and the rest of its file. Raises FileFormatError for anything else."""
    try:
        with path.open("rb") as file:  # for the plain message where it is missing
            file.read(1)
        with safe_open(path, framework="pt") as file:
            about = _metadata((file.metadata() or {}).get(FORMAT))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        texts = {name: about[name] for name in ("model", "sha256")}
        if not all(isinstance(text, str) for text in texts.values()) or not isinstance(about["training"], dict):
            raise CircuitsError("its metadata is not that of a tuned lens")
        (layers, *width), history = tensors["b"].shape, tensors["losses"].shape
        fitting = len(width) == 1 and tensors["A"].shape == (layers, *width, *width) and history[1:] == (layers,)
        if not fitting or not all(tensor.is_floating_point() for tensor in tensors.values()):
            raise CircuitsError("its tensors are not those of a tuned lens")
        lens = TunedLens(**texts, **{name: tensors.pop(name) for name in _PARTS}, training=about["training"])
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror or 'no file of tensors'}") from None
    except KeyError as error:
        raise FileFormatError(f"{path}: no tuned lens: it lacks {error}") from None
    except (SafetensorError, CircuitsError, ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: no tuned lens: {' '.join(str(error).split())[:150]}") from None
    return lens, tensors


def _metadata(text: str | None) -> dict[str, Any]:
    """The metadata of a file, which holds nothing but JSON."""
    if text is None or len(text) > LARGEST_FILE:
        raise CircuitsError(f"it has no metadata {FORMAT!r}")
    about = json.loads(text)
    if not isinstance(about, dict) or about.get("version") != 1:
        raise CircuitsError("it is of another version")
    return about
