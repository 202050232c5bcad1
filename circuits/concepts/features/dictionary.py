"""A dictionary of what an MLP writes: features, more of them than dimensions, few of which are active at a time."""

import dataclasses
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError, GraphError
from circuits.files.tensors import load_tensors, save_tensors
from circuits.graph import Node
from circuits.models import Model

FORMAT = "circuits-dictionary"
DictionaryKind = Literal["relu", "topk", "jumprelu"]


@dataclasses.dataclass(frozen=True, eq=False)
class Dictionary:
    """A sparse autoencoder: z = act(W_enc y + b_enc), y ≈ z W_dec + b_dec, where y is what an MLP adds to the residual stream.

    What libraries do besides, such as taking the decoder's bias off before encoding, is folded into these when they are read.
    """

    name: str
    site: str
    """The MLP whose output it takes apart (`m2`); empty where its file does not say."""
    kind: DictionaryKind
    k: int
    """Features that are active at most, of `topk`; 0 for others."""
    W_enc: Float[Tensor, "feature d_model"]
    b_enc: Float[Tensor, " feature"]
    W_dec: Float[Tensor, "feature d_model"]
    b_dec: Float[Tensor, " d_model"]
    threshold: Float[Tensor, " feature"]
    """Up to which a feature is 0: 0 but for `jumprelu`."""
    made_by: str = ""
    """The library, and how it was trained."""

    def __post_init__(self) -> None:
        if self.W_enc.shape != self.W_dec.shape or self.b_enc.shape != self.W_enc.shape[:1]:
            raise CircuitsError("a dictionary needs W_enc and W_dec of shape [feature d_model], and b_enc one number a feature")
        if self.b_dec.shape != self.W_dec.shape[1:] or self.threshold.shape != self.b_enc.shape:
            raise CircuitsError("a dictionary needs b_dec of width d_model, and a threshold a feature")
        if self.kind != "jumprelu" and bool((self.threshold != 0).any()):
            raise CircuitsError(f"a dictionary of kind {self.kind} with thresholds: expected none but 0")
        if (self.kind == "topk") != (self.k > 0) or self.k > len(self):
            raise CircuitsError(f"a dictionary of kind {self.kind} with k={self.k}: topk needs 1 to {len(self)}, others 0")

    def __len__(self) -> int:
        return len(self.W_enc)

    def encode(self, y: Float[Tensor, "*place d_model"]) -> Float[Tensor, "*place feature"]:
        """The features' activations."""
        pre = y @ self.W_enc.T + self.b_enc
        z = pre.relu() * (pre > self.threshold)
        if not self.k:
            return z
        values, indices = z.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(z).scatter_(-1, indices, values)

    def decode(self, z: Float[Tensor, "*place feature"]) -> Float[Tensor, "*place d_model"]:
        """What the features say that the MLP writes."""
        return z @ self.W_dec + self.b_dec

    def fitting(self, model: Model, at: str | None = None) -> tuple["Dictionary", int]:
        """On the model's device and in its number format, and the layer of the MLP (`at`: its name, where the file does not
        say). Raises GraphError where it does not fit the model."""
        name = at or self.site
        if not name:
            raise GraphError(f"{self.name} does not say of which MLP it is: name it, such as m2")
        node = Node.parse(name)
        if node.kind != "mlp" or (node.layer or 0) >= model.n_layers or model.weights.blocks[node.layer or 0].mlp is None:
            raise GraphError(f"{model.name} has no MLP {name}: expected m0 to m{model.n_layers - 1}")
        if self.W_dec.shape[1] != model.d_model:
            raise GraphError(f"{self.name} is of a model {self.W_dec.shape[1]} wide, {model.name} is {model.d_model} wide")
        tensors = {field: getattr(self, field) for field in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")}
        moved = {field: value.to(model.device, model.dtype) for field, value in tensors.items()}
        return dataclasses.replace(self, site=name, **moved), node.layer or 0

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file; `read_dictionary` reads it."""
        save_tensors(Path(path), FORMAT, self)


def load_dictionary(path: Path) -> Dictionary:
    """A dictionary that was saved here. Raises FileFormatError for any other file."""
    return load_tensors(path, FORMAT, Dictionary)[0]
