"""From the options `--model --device --dtype` to a loaded model."""

import torch

from circuits.errors import ModelError
from circuits.models import Model, load_model

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def load(model: str, *, device: str, dtype: str) -> Model:
    """Load a model; raises ModelError where it or the device cannot be had."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ModelError(f"the device {device!r} cannot be used: {reason}") from None
    return load_model(model, device=device, dtype=_DTYPES[dtype])
