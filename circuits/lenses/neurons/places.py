"""What was found in a text for each neuron: the places of its largest activations, and how active it was."""

import dataclasses

import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError, GraphError
from circuits.files.results import Result
from circuits.graph.named import NodeName, parsed

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
class Triggers(Result, format="circuits-triggers", tensors=True):
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
        whole = [self.layers, self.indices, *(part for places in found for part in (places.prompts, places.positions))]
        if any(bool((part < 0).any()) for part in whole):
            raise CircuitsError("layers, indices and places are counted from 0")

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

    @property
    def summary(self) -> str:
        """How many neurons and places were looked at, and how active the neurons are."""
        often = f"active at {float(self.active.mean()):.1%} of them on average"
        return f"{self.model}: {len(self.layers):,} neurons over {self.count:,} tokens, {often}."

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
