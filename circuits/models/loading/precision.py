"""Originals held in float64 compute in float64: they would do norms, scores and softmax in float32."""

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _Float64Kept(TorchFunctionMode):
    """Inside, a float64 tensor is not cast to float32, by whatever function asks for it; all else is as it was. What is
    float32 from the start stays so (tables of rotary positions, ALiBi's slopes)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if args and isinstance(args[0], Tensor) and args[0].dtype is torch.float64:
            if func is Tensor.float:
                return args[0]
            if options.get("dtype") is torch.float32:
                del options["dtype"]
            if func in (Tensor.to, Tensor.type):
                args = (args[0], *(one for one in args[1:] if one is not torch.float32))
                if len(args) == 1 and not options:
                    return args[0]
        return func(*args, **options)


def whole_precision(dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """For a model of that type: a block in which float64 is kept; one that changes nothing for other types."""
    return _Float64Kept() if dtype is torch.float64 else contextlib.nullcontext()
