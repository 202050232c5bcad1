"""What was found in a text for each neuron: the places of its largest activations, and how active it was."""

import dataclasses
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError, FileFormatError, GraphError
from circuits.files.writing import write_whole
from circuits.graph.named import NodeName, parsed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = "circuits-triggers"
_ARRAYS = ("layers", "indices", "mean", "active")
_PLACES = ("values", "prompts", "positions")


@dataclasses.dataclass(frozen=True, eq=False)
class Places:
    """Places in a text, for each neuron from the most extreme activation on."""

    values: Float[Tensor, "neuron place"]
    prompts: Int[Tensor, "neuron place"]
    """The place's prompt, counted through the whole text."""
    positions: Int[Tensor, "neuron place"]
    """Its column in that prompt."""


@dataclasses.dataclass(frozen=True, eq=False)
class Triggers:
    """Neurons in the order of computation, what each answered to most in a text, and how often.

    `count`: places that were looked at (pads and the opening BOS are none). `mean`: the mean activation over these;
    `active`: the share of them with an activation above 0.
    """

    model: str
    weights_sha256: str
    layers: Int[Tensor, " neuron"]
    indices: Int[Tensor, " neuron"]
    highest: Places
    lowest: Places | None
    """The smallest activations, smallest first, where they were asked for."""
    count: int
    mean: Float[Tensor, " neuron"]
    active: Float[Tensor, " neuron"]

    def __post_init__(self) -> None:
        neurons, top = self.highest.values.shape
        found = [self.highest] if self.lowest is None else [self.highest, self.lowest]
        wide = {tuple(getattr(places, name).shape) for places in found for name in _PLACES}
        if wide != {(neurons, top)} or {tuple(getattr(self, name).shape) for name in _ARRAYS} != {(neurons,)} or not top:
            raise CircuitsError("the arrays of these triggers do not have one entry a neuron each")

    @property
    def largest(self) -> Float[Tensor, " neuron"]:
        """Each neuron's largest activation."""
        return self.highest.values[:, 0]

    @property
    def names(self) -> list[str]:
        """The neurons' names."""
        return [f"m{layer}.n{index}" for layer, index in zip(self.layers.tolist(), self.indices.tolist(), strict=True)]

    def row(self, neuron: NodeName) -> int:
        """Where a neuron stands in the arrays. Raises GraphError for one that was not looked at."""
        node = parsed(neuron)
        if node.kind == "neuron":
            found = ((self.layers == node.layer) & (self.indices == node.index)).nonzero()
            if len(found):
                return int(found[0])
        raise GraphError(f"{node} is not among the {len(self.layers)} neurons whose triggers were looked for")

    def to_dataframe(self) -> pd.DataFrame:
        """One row a neuron and rank: its name, layer, rank from 1, activation, prompt, position, and its mean and active
        share; the smallest activations have ranks from -1 downwards."""
        top = self.highest.values.shape[1]
        parts = [(self.highest, 1)] if self.lowest is None else [(self.highest, 1), (self.lowest, -1)]
        tables = []
        for places, sign in parts:
            columns = {
                "neuron": [name for name in self.names for _ in range(top)],
                "layer": self.layers.repeat_interleave(top).numpy(),
                "rank": [sign * rank for _ in range(len(self.layers)) for rank in range(1, top + 1)],
                "activation": places.values.flatten().numpy(),
                "prompt": places.prompts.flatten().numpy(),
                "position": places.positions.flatten().numpy(),
                "mean": self.mean.repeat_interleave(top).numpy(),
                "active": self.active.repeat_interleave(top).numpy(),
            }
            tables.append(pd.DataFrame(columns))
        return pd.concat(tables, ignore_index=True)

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file; `Triggers.load` reads it."""
        from safetensors.torch import save

        arrays = {name: getattr(self, name).contiguous() for name in _ARRAYS}
        for part in ("highest", "lowest") if self.lowest is not None else ("highest",):
            arrays |= {f"{part}.{name}": getattr(getattr(self, part), name).contiguous() for name in _PLACES}
        about = {"format": FORMAT, "version": "1", "model": self.model, "weights_sha256": self.weights_sha256}
        write_whole(Path(path), save(arrays, {**about, "count": str(self.count)}))

    @classmethod
    def load(cls, path: str | Path) -> "Triggers":
        """Saved triggers. Raises FileFormatError for anything else."""
        about, arrays = _read(Path(path))
        try:
            if about.pop("format", None) != FORMAT or about.pop("version", None) != "1":
                raise FileFormatError(f"not a file of format {FORMAT}, version 1")
            parts = {
                part: Places(**{name: arrays.pop(f"{part}.{name}") for name in _PLACES})
                for part in ("highest", "lowest")
                if f"{part}.values" in arrays
            }
            count = int(about.pop("count"))
            whole: dict[str, Any] = {**about, **arrays, "lowest": None, **parts, "count": count}
            made = cls(**whole)
            for held in (arrays, *(vars(places) for places in parts.values())):
                if bad := [name for name, tensor in held.items() if not _fits(name, tensor)]:
                    raise FileFormatError(f"{bad[0]} holds wrong values")
        except (CircuitsError, KeyError, TypeError, ValueError, IndexError) as error:
            raise FileFormatError(f"{path}: these triggers do not fit together: {' '.join(str(error).split())[:150]}") from None
        return made

    def plot(self) -> "Figure":
        """How often each neuron is active, against its largest activation, a panel a layer."""
        return importlib.import_module("circuits.plots").triggers_figure(self)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise FileFormatError(f"{path}: cannot be read: {' '.join(str(error).split())[:150]}") from None


def _fits(name: str, tensor: Tensor) -> bool:
    """Whether an array's numbers are of the kind that belongs there."""
    if name in ("values", "mean", "active"):
        return tensor.is_floating_point() and bool(tensor.isfinite().all())
    return not tensor.is_floating_point() and bool((tensor >= 0).all())
