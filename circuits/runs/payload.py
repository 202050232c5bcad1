"""What a shard found, as bytes: plain values and tensors, bit for bit."""

import json
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from circuits.errors import CircuitsError, FileFormatError

_HEAD = 8
"""Bytes that say how long the description is."""


def encoded(value: Any) -> bytes:
    """None, truth values, numbers, texts, tensors, and lists, tuples and dicts by text of them. Tensors come back on the CPU.
    Raises CircuitsError for anything else."""
    tensors: dict[str, Tensor] = {}
    described = json.dumps(_described(value, tensors)).encode()
    return len(described).to_bytes(_HEAD, "little") + described + safetensors.torch.save(tensors)


def decoded(data: bytes) -> Any:
    """The value again. Raises FileFormatError for bytes that `encoded` did not make."""
    try:
        end = _HEAD + int.from_bytes(data[:_HEAD], "little")
        described = json.loads(data[_HEAD:end])
        return _value(described, safetensors.torch.load(bytes(data[end:])))
    except (ValueError, KeyError, IndexError, TypeError, safetensors.SafetensorError) as error:
        raise FileFormatError(f"not what a shard leaves: {error}") from None


def _described(value: Any, tensors: dict[str, Tensor]) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # One of its own: views of one storage are refused there, and a view would be written with all behind it.
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return ["tensor", name]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, [_described(one, tensors) for one in value]]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return ["dict", {name: _described(one, tensors) for name, one in value.items()}]
    raise CircuitsError(f"a shard cannot leave a {type(value).__name__}; expected plain values and tensors")


def _value(described: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(described, list):
        return described
    kind, inside = described
    if kind == "tensor":
        return tensors[inside]
    if kind == "dict":
        return {name: _value(one, tensors) for name, one in inside.items()}
    return {"list": list, "tuple": tuple}[kind](_value(one, tensors) for one in inside)
