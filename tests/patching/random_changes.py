"""Random changes of every kind, each both as the package's `Change` and as changes of the reference's single prompts."""

import dataclasses
import random

import numpy as np
import torch
from torch import Tensor

from circuits.models import Model, TokenBatch
from circuits.patching.engine.change import ADDED, STAGE, Change, Kind
from tests.models.reference import Array, Change as SlowChange, Node


@dataclasses.dataclass(frozen=True)
class RandomChange:
    """One change of a batch, and for each prompt what it does there."""

    change: Change
    slow: list[tuple[Node, SlowChange]]


def kinds_of(model: Model) -> list[Kind]:
    """The kinds that a model can be changed at."""
    return [kind for kind in STAGE if model.d_mlp or not kind.startswith(("mlp", "neuron"))]


def random_change(rng: random.Random, model: Model, batch: TokenBatch, kind: Kind | None = None) -> RandomChange:
    """A change at a random site, with a random mask."""
    kind = kind or rng.choice(kinds_of(model))
    layer = rng.randrange(model.n_layers + (kind == "residual"))
    sizes = {"q": model.n_heads, "k": model.n_key_value_heads, "v": model.n_key_value_heads}
    many = {**sizes, **{f"{slot}_in": size for slot, size in sizes.items()}}
    many |= {"head": model.n_heads, "pattern": model.n_heads, "knockout": model.n_heads}
    many |= {"neuron": model.d_mlp, "neuron_in": model.d_mlp}
    index = rng.randrange(many[kind]) if kind in many else None
    if kind == "knockout" and rng.random() < 0.5:
        index = None
    noise = torch.Generator().manual_seed(rng.randrange(2**32))
    count, width = batch.ids.shape
    mask = torch.rand(count, width, generator=noise) < rng.choice([0.2, 0.6, 1.1])
    value = random_value(kind, rng, noise, model, (rng.choice([1, count]), width))
    add = kind in ADDED or (kind in ("residual", "attention", "middle", "mlp") and rng.random() < 0.3)
    change = Change(kind, layer, index, value, mask, add)
    return RandomChange(change, [slow_change(change, batch, prompt) for prompt in range(count)])


def random_value(kind: Kind, rng: random.Random, noise: torch.Generator, model: Model, shape: tuple[int, int]) -> Tensor:
    """A value of the right shape for a kind of site."""
    width = shape[1]
    if kind == "knockout":
        own = torch.eye(width, dtype=torch.bool)
        return (torch.rand(*shape, width, generator=noise) < rng.choice([0.3, 0.8])) & ~own
    if kind == "pattern":
        return torch.rand(*shape, width, generator=noise, dtype=torch.float64)
    size = {"neuron": ()}.get(kind, (model.d_head,) if kind in ("q", "k", "v", "head") else (model.d_model,))
    return torch.randn(*shape, *size, generator=noise, dtype=torch.float64)


def slow_change(change: Change, batch: TokenBatch, prompt: int) -> tuple[Node, SlowChange]:
    """What a change does to one prompt without its pads."""
    columns = batch.mask[prompt].nonzero()[:, 0].tolist()
    values = change.value.expand(len(batch), *change.value.shape[1:])[prompt]
    masked = change.mask[prompt].tolist()

    def at(position: int, current: Array) -> Array:
        column = columns[position]
        if not masked[column]:
            return current
        new = values[column].numpy()
        if change.kind == "knockout":
            return current | new[columns]
        if change.kind == "pattern":
            return new[columns]
        if change.add:
            return current + new
        return np.broadcast_to(new, current.shape)

    return Node(change.kind, change.layer, change.index), at
