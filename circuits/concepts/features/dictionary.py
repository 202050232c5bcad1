"""A dictionary: features, more of them than dimensions and few of which are active at a time, that what stands at a place of
the model is made of (a sparse autoencoder), or that one part's output is computed by from what it reads (a transcoder)."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.concepts.features.places import FeaturePlace, check_hook
from circuits.errors import CircuitsError, GraphError
from circuits.files.fields import stored
from circuits.files.tensors import load_tensors, save_tensors
from circuits.models import Model

FORMAT = "circuits-dictionary"
DictionaryKind = Literal["relu", "topk", "jumprelu"]
MODULES = "sparsify"
"""What a dictionary of another library's hooks on modules says that made it: modules write before any norm behind them."""
BLOCK = 4096
"""Features whose activations are held at a time, where not told otherwise."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dictionary:
    """z = act(W_enc r + b_enc), y ≈ z W_dec + b_dec (+ r W_skip): y is what stands where it writes, r what it reads; of
    a sparse autoencoder the same.

    What libraries do besides, such as taking the decoder's bias off before encoding, or gates that share the encoder's weights,
    is folded into these when they are read.
    """

    name: str
    site: str
    """Where it writes, what it takes apart (`m2`, `resid3`); empty where its file does not say."""
    kind: DictionaryKind
    k: int
    """Features that are active at most, of `topk`; 0 for others."""
    W_enc: Float[Tensor, "feature d_in"]
    b_enc: Float[Tensor, " feature"]
    W_dec: Float[Tensor, "feature d_out"]
    b_dec: Float[Tensor, " d_out"]
    threshold: Float[Tensor, " feature"]
    """Up to which a feature is 0: 0 but for `jumprelu`."""
    made_by: str = ""
    """The library, and how it was trained."""
    reads: str = dataclasses.field(default="", metadata=stored(optional=True))
    """Where a transcoder reads (`in2`, `mid2`); empty for a sparse autoencoder, which reads what it takes apart."""
    W_skip: Float[Tensor, "d_in d_out"] | None = dataclasses.field(default=None, metadata=stored(optional=True))
    """What a transcoder adds in a straight line from what it reads."""
    hooks: str = dataclasses.field(default="", metadata=stored(optional=True))
    """What TransformerLens calls the places, where it was made there, with a space between."""

    def __post_init__(self) -> None:
        if self.W_enc.ndim != 2 or self.W_dec.ndim != 2 or len(self.W_enc) != len(self.W_dec):
            raise CircuitsError("a dictionary needs W_enc and W_dec with a row a feature")
        if self.b_enc.shape != self.W_enc.shape[:1] or (not self.reads and self.W_enc.shape != self.W_dec.shape):
            raise CircuitsError("a dictionary needs W_enc and W_dec of shape [feature d_model], and b_enc one number a feature")
        if self.b_dec.shape != self.W_dec.shape[1:] or self.threshold.shape != self.b_enc.shape:
            raise CircuitsError("a dictionary needs b_dec of width d_model, and a threshold a feature")
        if self.W_skip is not None and self.W_skip.shape != (self.W_enc.shape[1], self.W_dec.shape[1]):
            raise CircuitsError("a dictionary needs W_skip from the width that it reads to that which it writes")
        if self.kind != "jumprelu" and bool((self.threshold != 0).any()):
            raise CircuitsError(f"a dictionary of kind {self.kind} with thresholds: expected none but 0")
        if (self.kind == "topk") != (self.k > 0) or self.k > len(self):
            raise CircuitsError(f"a dictionary of kind {self.kind} with k={self.k}: topk needs 1 to {len(self)}, others 0")

    def __len__(self) -> int:
        return len(self.W_enc)

    def encode(self, r: Float[Tensor, "*place d_in"]) -> Float[Tensor, "*place feature"]:
        """The features' activations, of all at once; `blocks` gives some at a time."""
        return torch.cat([z for _, z in self.blocks(r, size=len(self))], dim=-1)

    def blocks(self, r: Float[Tensor, "*place d_in"], *, size: int = BLOCK) -> Iterator[tuple[slice, Tensor]]:
        """The activations `[*place feature]` of so many features at a time, with which these are."""
        most = self._most(r, size) if self.k else None
        for first in range(0, len(self), size):
            some = slice(first, min(first + size, len(self)))
            yield some, self._active(r, some) if most is None else _within(some, *most)

    def some(self, r: Float[Tensor, "*place d_in"], features: Int[Tensor, " some"]) -> Float[Tensor, "*place some"]:
        """The activations of some features."""
        if not self.k:
            return self._active(r, features)
        values, indices = self._most(r, BLOCK)
        found = torch.zeros(*r.shape[:-1], len(features), dtype=r.dtype, device=r.device)
        for place, feature in enumerate(features.tolist()):
            found[..., place] = (values * (indices == feature)).sum(dim=-1)
        return found

    def pre_activation(self, r: Float[Tensor, "*place d_in"], feature: int) -> Float[Tensor, "*place"]:
        """What a feature's activation is computed from."""
        return r @ self.W_enc[feature] + self.b_enc[feature]

    def decode(self, z: Float[Tensor, "*place feature"]) -> Float[Tensor, "*place d_out"]:
        """What the features say that stands there (a transcoder's skip connection aside)."""
        return z @ self.W_dec + self.b_dec

    def given(self, r: Float[Tensor, "*place d_in"], *, size: int = BLOCK) -> Float[Tensor, "*place d_out"]:
        """What it makes of what it reads, so many features at a time, its skip connection included."""
        made = self.skipped(r) + self.b_dec
        for some, z in self.blocks(r, size=size):
            made = made + z @ self.W_dec[some]
        return made

    def skipped(self, r: Float[Tensor, "*place d_in"]) -> Float[Tensor, "*place d_out"]:
        """What goes through the skip connection; zero without one."""
        if self.W_skip is None:
            return torch.zeros(*r.shape[:-1], self.W_dec.shape[1], dtype=r.dtype, device=r.device)
        return r @ self.W_skip

    def _active(self, r: Tensor, some: slice | Tensor) -> Tensor:
        """Activations without regard to k."""
        pre = r @ self.W_enc[some].T + self.b_enc[some]
        return pre.relu() * (pre > self.threshold[some])

    def _most(self, r: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """The k largest activations at each place, and which features they are of, from so many at a time."""
        values, indices = r.new_zeros(*r.shape[:-1], 0), r.new_zeros(*r.shape[:-1], 0, dtype=torch.long)
        for first in range(0, len(self), size):
            z = self._active(r, slice(first, first + size))
            top, at = z.topk(min(self.k, z.shape[-1]), dim=-1, sorted=False)
            values, indices = torch.cat([values, top], dim=-1), torch.cat([indices, at + first], dim=-1)
            if values.shape[-1] > self.k:
                values, kept = values.topk(self.k, dim=-1, sorted=False)
                indices = indices.gather(-1, kept)
        return values, indices

    def fitting(self, model: Model, at: str | None = None) -> tuple["Dictionary", int]:
        """On the model's device and in its number format, and the layer where it writes (`at`: the place, where the file does
        not say). Raises GraphError where it does not fit the model."""
        name = at or self.site
        if not name:
            raise GraphError(f"{self.name} does not say of which place it is: name it, such as m2 or resid3")
        place, read = FeaturePlace.parse(name), FeaturePlace.parse(self.reads or name)
        place.check(model, writes=True)
        read.check(model, writes=False)
        if read.rank > place.rank:
            raise GraphError(f"{self.name} reads {read.name}, which is computed after {place.name}, where it writes")
        for one, width in ((place, self.W_dec.shape[1]), (read, self.W_enc.shape[1])):
            if width != one.width(model):
                where = "" if one.width(model) == model.d_model else f" at {one.name}"
                said = f"is of a model {width} wide, {model.name} is {one.width(model)} wide{where}"
                raise GraphError(f"{self.name} {said}")
        for hook in self.hooks.split():
            check_hook(hook, model)
        block = model.weights.blocks[min(place.layer, model.n_layers - 1)]
        post = block.mlp_post_norm if place.kind == "mlp" else block.attention_post_norm
        if self.made_by == MODULES and place.kind in ("mlp", "attention") and post is not None:
            raise GraphError(f"{self.name} is of a module in front of a norm, which {model.name} has behind {place.name}")
        tensors = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved = {key: value.to(model.device, model.dtype) for key, value in tensors.items() if isinstance(value, Tensor)}
        fitted = dataclasses.replace(self, site=name, **moved)
        return (fitted._behind_gain(model, read) if read.kind == "unit" else fitted), place.layer

    def _behind_gain(self, model: Model, read: FeaturePlace) -> "Dictionary":
        """One that reads in front of an RMS norm's gain as one that reads behind it."""
        norm = model.weights.blocks[read.layer].mlp_norm
        gain = None if norm is None or norm.kind == "layer" else norm.weight
        if gain is None:
            return dataclasses.replace(self, reads=f"in{read.layer}")
        if bool((gain == 0).any()):
            raise GraphError(f"{self.name} reads in front of a gain of 0: {model.name} does not let it be seen behind")
        skip = None if self.W_skip is None else self.W_skip / gain[:, None]
        return dataclasses.replace(self, reads=f"in{read.layer}", W_enc=self.W_enc / gain, W_skip=skip)

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file; `read_dictionary` reads it."""
        save_tensors(Path(path), FORMAT, self)


def _within(some: slice, values: Tensor, indices: Tensor) -> Tensor:
    """Of the largest activations those of some features, each at its place."""
    inside = (indices >= some.start) & (indices < some.stop)
    z = values.new_zeros(*values.shape[:-1], some.stop - some.start)
    return z.scatter_add_(-1, (indices - some.start).clamp(0, z.shape[-1] - 1), values * inside)


def load_dictionary(path: Path) -> Dictionary:
    """A dictionary that was saved here. Raises FileFormatError for any other file."""
    return load_tensors(path, FORMAT, Dictionary)[0]
