"""How exactly a model is checked: originals held in float64 compute in float64 (they would do norms, scores and softmax in
float32), and weights are compared bit by bit."""

import contextlib
from collections.abc import Iterable
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


_AT_A_TIME = 2**18  # in the processor's cache
_ODD = 0x1CE4E5B9BF58476D
_KINDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits_of(tensors: Iterable[Tensor]) -> int:
    """A number made of the bits of all weights, whatever their order and shape: it stays the same where tensors are split,
    joined or transposed, and changes where one weight does. Weights that two names share count once, zeros not at all."""
    seen: set[tuple[int, torch.Size]] = set()
    total = 0
    for tensor in tensors:
        place = (tensor.data_ptr(), tensor.shape)
        if place not in seen:
            seen.add(place)
            flat = tensor.detach().reshape(-1)
            for part in flat.split(_AT_A_TIME):
                mixed = part.contiguous().view(_KINDS[part.element_size()]).to(torch.int64, copy=True).mul_(_ODD)
                mixed.bitwise_xor_(mixed >> 31).mul_(_ODD)  # so that two changed signs do not make up for each other
                total += int(mixed.bitwise_xor_(mixed >> 29).sum())
    return total % 2**64
