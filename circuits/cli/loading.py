"""From the options `--model --device --dtype` to a loaded model."""

import torch

from circuits.errors import ModelError
from circuits.models import Model, load_model

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
_DEVICES = ("cpu", "cuda", "mps", "xpu")


def load(model: str, *, device: str, dtype: str) -> Model:
    """Load a model; raises ModelError where it, the device or the number format cannot be had."""
    if dtype not in _DTYPES:
        raise ModelError(f"unknown number format {dtype!r}: expected {', '.join(_DTYPES)}")
    try:
        kind = torch.empty(0, device=device).device.type
    except (RuntimeError, AssertionError):
        kind = "missing"
    if kind not in _DEVICES:
        raise ModelError(f"the device {device!r} cannot be used here: expected cpu, or where there is one cuda, cuda:1 or mps")
    return load_model(model, device=device, dtype=_DTYPES[dtype])
