"""The bundled model, loaded once a process: no test changes it."""

import functools

import torch

from circuits.models import Model, load_model


@functools.cache
def mini(dtype: torch.dtype = torch.float32) -> Model:
    """`mini`, the same one at every call."""
    return load_model("mini", dtype=dtype)
