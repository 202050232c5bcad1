"""The same architecture with nothing learnt: what of a finding comes from the architecture alone."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from circuits.models.model import Model


def with_random_weights(model: Model, *, seed: int = 0) -> Model:
    """The model with weights drawn anew, decided by `seed`: every matrix normal, with mean 0 and the root mean square of the
    one it replaces; the gains of a norm all alike, their root mean square, or streams would grow as no trained one does; biases
    0. Embedding and unembedding stay one matrix where they were one. Switches, positions that are computed, tokenizer and BOS
    are the model's own."""
    generator = torch.Generator().manual_seed(seed)
    weights = _drawn(model.weights, generator)
    if model.weights.W_U.data_ptr() == model.weights.W_E.data_ptr():
        weights = dataclasses.replace(weights, W_U=weights.W_E.T)
    return dataclasses.replace(model, name=f"{model.name} with random weights", weights=weights, make_bridge=None)


def with_random_embeddings(model: Model, *, seed: int = 0) -> Model:
    """The model with embeddings of tokens drawn anew, decided by `seed`, as `with_random_weights` draws them; all else is the
    model's own, the unembedding too where the two were one matrix."""
    generator = torch.Generator().manual_seed(seed)
    drawn = dataclasses.replace(model.weights, W_E=_replaced(model.weights.W_E, "W_E", generator))
    return dataclasses.replace(model, name=f"{model.name} with random embeddings", weights=drawn, make_bridge=None)


def _drawn(record: Any, generator: torch.Generator) -> Any:
    """A record with its tensors replaced, and those of records inside."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Tensor) and not _computed(field.name):
            changes[field.name] = _replaced(value, field.name, generator)
        elif isinstance(value, tuple) and field.name == "blocks":
            changes[field.name] = tuple(_drawn(one, generator) for one in value)
        elif dataclasses.is_dataclass(value) and field.name != "rotary":
            changes[field.name] = _drawn(value, generator)
    return dataclasses.replace(record, **changes)


def _computed(name: str) -> bool:
    """Whether a tensor is no weight but follows from the architecture."""
    return name in ("inverse_frequencies", "alibi_slopes")


def _replaced(value: Tensor, name: str, generator: torch.Generator) -> Tensor:
    size = value.double().square().mean().sqrt()
    if value.ndim == 1:
        return torch.full_like(value, float(size) if name == "weight" else 0.0)
    normal = torch.randn(value.shape, generator=generator, dtype=torch.float32)
    return normal.mul_(float(size)).to(value)
