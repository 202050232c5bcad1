"""Changes of a model's weights that are small enough to save, to put on and to take off: sums of rank-one products, added to
the output weights of MLPs."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import einops
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError, FileFormatError, ModelError, shown
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.files.words import counted
from circuits.models.weights import Weights


@dataclasses.dataclass(frozen=True, eq=False)
class WeightEdit(Result, format="circuits-weight-edit", tensors=True):
    """What is added to `W_out` of some layers: the sum over facts of `keys[layer, fact]` times `changes[layer, fact]`, the
    first along the neurons, the second along the residual stream. It belongs to the model whose fingerprint it names."""

    model: str
    weights_sha256: str
    """The fingerprint of the model that the edit was made for."""
    method: str
    layers: tuple[int, ...] = dataclasses.field(metadata=stored(axis="layer"))
    prompts: tuple[str, ...] = dataclasses.field(metadata=stored(axis="fact"))
    """The prompt of each fact that is changed."""
    subjects: tuple[str, ...] = dataclasses.field(metadata=stored(axis="fact"))
    old: tuple[str, ...] = dataclasses.field(metadata=stored(axis="fact"))
    """What the model said before."""
    new: tuple[str, ...] = dataclasses.field(metadata=stored(axis="fact"))
    """What it is to say."""
    keys: Float[Tensor, "layer fact d_mlp"]
    changes: Float[Tensor, "layer fact d_model"]

    def __post_init__(self) -> None:
        if not self.layers or not self.prompts or sorted({*self.layers}) != [*self.layers] or self.layers[0] < 0:
            raise CircuitsError(
                f"an edit of layers {self.layers} for {len(self.prompts)} facts: expected layers in order, and a fact"
            )
        if len({len(self.prompts), len(self.subjects), len(self.old), len(self.new), self.keys.shape[1]}) > 1:
            raise CircuitsError("an edit needs a prompt, a subject, an old and a new answer for each of its facts")
        if self.keys.dtype != self.changes.dtype:
            raise CircuitsError(
                f"an edit with keys of {self.keys.dtype} and changes of {self.changes.dtype}: expected one type"
            )

    @property
    def name(self) -> str:
        """By which it is taken off again: subject, new answer and layers, and for several facts how many more there are."""
        more = "" if len(self.prompts) == 1 else f" and {len(self.prompts) - 1} more"
        where = f"layer {self.layers[0]}" if len(self.layers) == 1 else f"layers {', '.join(map(str, self.layers))}"
        return f"{self.subjects[0].strip()}: {self.new[0].strip()}{more} ({where})"

    @property
    def summary(self) -> str:
        """What it changes, and how large the change is."""
        rank = counted(len(self.prompts), "fact")
        sizes = ", ".join(f"{float(self.delta(layer).norm()):.3g} in layer {layer}" for layer in self.layers)
        return f"{self.name}: {self.method}, {rank}, for {self.model}; norm of the change {sizes}."

    @property
    def sha256(self) -> str:
        """What it adds and where, in one word: two edits with the same one do the same."""
        digest = hashlib.sha256(str((self.layers, self.keys.dtype)).encode())
        for tensor in (self.keys, self.changes):
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def delta(self, layer: int) -> Float[Tensor, "d_mlp d_model"]:
        """What is added to the output weights of a layer. Raises ModelError for a layer that it leaves as it is."""
        if layer not in self.layers:
            raise ModelError(f"{self.name} does not change layer {layer}")
        place = self.layers.index(layer)
        return einops.einsum(self.keys[place], self.changes[place], "fact d_mlp, fact d_model -> d_mlp d_model")

    def to_dataframe(self) -> pd.DataFrame:
        """One row a layer and fact, with the norms of both factors."""
        rows = [
            {
                "layer": layer,
                "subject": subject,
                "prompt": self.prompts[fact],
                "old": self.old[fact],
                "new": self.new[fact],
                "key_norm": float(self.keys[place, fact].norm()),
                "change_norm": float(self.changes[place, fact].norm()),
            }
            for place, layer in enumerate(self.layers)
            for fact, subject in enumerate(self.subjects)
        ]
        return pd.DataFrame(rows)


def read_edits(edits: Sequence["WeightEdit | str | Path"]) -> tuple[WeightEdit, ...]:
    """Edits, those that are named by their files read. Raises FileFormatError for a file that holds none, ModelError for one
    that is given twice."""
    found = tuple(one if isinstance(one, WeightEdit) else WeightEdit.load(_file(Path(one))) for one in edits)
    names = [edit.sha256 for edit in found]
    twice = next((edit for place, edit in enumerate(found) if names[place] in names[:place]), None)
    if twice is not None:
        raise ModelError(f"the edit {shown(twice.name)} is given twice: leave one out")
    return found


def _file(path: Path) -> Path:
    """A file that may hold an edit. Raises FileFormatError for a folder, and for the scores of an edit."""
    if path.is_dir():
        raise FileFormatError(f"{path}: is a folder; an edit is a file, edit.safetensors of circuits edit")
    if path.suffix == ".json" and path.is_file():
        raise FileFormatError(f"{path}: holds no weights; an edit is {path.with_suffix('.safetensors').name} beside it")
    return path


def check_edit(edit: WeightEdit, weights: Weights, name: str) -> None:
    """Raise ModelError where an edit does not fit the shape of a model: a layer that is not there, has no MLP, or has one of
    another width."""
    for layer in edit.layers:
        require_mlp(weights, layer, name)
        mlp = weights.blocks[layer].mlp
        assert mlp is not None
        there, asked = tuple(mlp.W_out.shape), (edit.keys.shape[2], edit.changes.shape[2])
        if there != asked:
            raise ModelError(f"the edit {shown(edit.name)} is for output weights of shape {asked}; those of {name} are {there}")


def require_mlp(weights: Weights, layer: int, name: str) -> None:
    """Raise ModelError for a layer that a model does not have, or that has no MLP."""
    count = len(weights.blocks)
    if not 0 <= layer < count:
        raise ModelError(f"{name} has no layer {layer}: expected one from 0 to {count - 1}")
    if weights.blocks[layer].mlp is None:
        raise ModelError(f"layer {layer} of {name} has no MLP, whose output weights an edit changes")


def edited_weights(weights: Weights, edits: Sequence[WeightEdit]) -> Weights:
    """Weights with edits added, one after the other; those of all other layers are shared. Each product is added by itself and
    entry by entry, so that the sum is the same bits on every machine."""
    for edit in edits:
        blocks = list(weights.blocks)
        for place, layer in enumerate(edit.layers):
            mlp = blocks[layer].mlp
            assert mlp is not None
            wide = mlp.W_out.to(torch.promote_types(mlp.W_out.dtype, torch.float32), copy=True)
            for key, change in zip(edit.keys[place].to(wide), edit.changes[place].to(wide), strict=True):
                wide += key[:, None] * change
            wide = wide.as_subclass(type(mlp.W_out))  # one of a spread model is known for a weight
            blocks[layer] = dataclasses.replace(blocks[layer], mlp=dataclasses.replace(mlp, W_out=wide.to(mlp.W_out.dtype)))
        weights = dataclasses.replace(weights, blocks=tuple(blocks))
    return weights
