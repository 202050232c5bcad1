"""Layers on several devices: where each lies, and how activations come to them.

A layer's weights meet activations in some two hundred places of this package, so the move stands in none of them: the weights
of a spread model are tensors that know that they may meet others of another device, and so is whatever is computed from them.
Where two meet, one is moved, differentiably, and gradients come back the same way. A model on one device has plain tensors.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.errors import ModelError, shown
from circuits.models.weights import Weights

_BY_THEMSELVES = {
    *("to", "type", "type_as", "copy_", "set_", "backward", "grad", "as_subclass", "is_set_to", "result_type"),
    *("__get__", "__set__", "__delete__"),
}
"""Functions that take tensors of several devices as they are: copies between them, properties, gradients."""
_IN_PLACE = {"__setitem__", *(f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "and", "or", "xor", "matmul", "pow"))}
_LOOKED_UP = {"__getitem__", "gather", "index_select", "take_along_dim", "masked_select", "take", "index_put", "scatter"}
"""Functions whose first tensor is looked up by others, whatever its type."""


class Spread(Tensor):
    """A tensor that may meet tensors of other devices: weights stay where they are, and activations come to them; where two
    activations meet, the one on the earlier device is moved; whole numbers and masks go where the numbers are. What is written
    into stays where it is."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of PyTorch with its tensors on one device; what it gives is `Spread` again."""
        options: dict[str, Any] = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            found = list(_tensors_in((args, options)))
            name = getattr(func, "__name__", "")
            if len(found) > 1 and name not in _BY_THEMSELVES and len({one.device for one in found}) > 1:
                device = _meeting_place(name, found, options)
                args = tuple(_moved(one, device) for one in args)
                options = {key: _moved(one, device) for key, one in options.items()}
            answer = func(*args, **options)
        if func in torch.overrides.get_default_nowrap_functions():
            return answer
        return _marked(answer, SpreadWeight if all(isinstance(one, SpreadWeight) for one in found) else Spread)


class SpreadWeight(Spread):
    """A weight, or what was made of weights alone."""


def _meeting_place(name: str, found: list[Tensor], options: dict[str, Any]) -> torch.device:
    """The device on which a function is computed."""
    if isinstance(options.get("out"), Tensor):
        return options["out"].device
    written = name in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))
    if written or name in _LOOKED_UP:
        return found[0].device
    numbers = [one for one in found if one.is_floating_point()] or found
    weights = [one for one in numbers if isinstance(one, SpreadWeight)]
    return max((one.device for one in weights or numbers), key=lambda device: (device.type != "cpu", device.index or 0))


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors_in(one)
    elif isinstance(value, dict):
        yield from _tensors_in(list(value.values()))


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value if value.device == device else value.to(device)
    if type(value) in (list, tuple):
        return type(value)(_moved(one, device) for one in value)
    return {key: _moved(one, device) for key, one in value.items()} if isinstance(value, dict) else value


def _marked(value: Any, kind: type[Spread]) -> Any:
    if isinstance(value, Tensor):
        return value if type(value) is kind else value.as_subclass(kind)
    if isinstance(value, list):
        return [_marked(one, kind) for one in value]
    if isinstance(value, tuple):  # a named one, as `max` gives, is made of a list
        made = [_marked(one, kind) for one in value]
        return tuple(made) if type(value) is tuple else type(value)(made)
    return value


def meeting() -> contextlib.AbstractContextManager[Any]:
    """For the body of an `autograd.Function`'s backward: PyTorch runs it inside the call that asked for gradients, in which
    `Spread` tensors are plain; inside this block they meet again."""
    return torch._C._EnableTorchFunction()


def placed_layers(weights: Weights, count: int) -> list[int]:
    """For each layer, on which of so many devices it goes: contiguous, in order, by equal shares of the bytes, with the
    embedding on the first and the unembedding on the last."""
    sizes = [0] * len(weights.blocks)
    first = last = 0
    for name, tensor in weights.tensors():
        size = tensor.numel() * tensor.element_size()
        if name.startswith("blocks."):
            sizes[int(name.split(".")[1])] += size
        elif _is_last(name):
            last += size
        else:
            first += size
    total, before, places = first + last + sum(sizes), first, []
    for size in sizes:
        places.append(min(count - 1, int((before + size / 2) / total * count)))
        before += size
    return places


def _is_last(name: str) -> bool:
    return name.startswith(("W_U", "b_U", "final_norm"))


def spread(weights: Weights, devices: Sequence[str | torch.device]) -> Weights:
    """The same weights with the layers on several devices, in order; the embedding is on the first, the unembedding on the
    last. Raises ModelError for more devices than layers."""
    if len(devices) > len(weights.blocks):
        raise ModelError(f"devices: {len(devices)} of them for {len(weights.blocks)} layers: expected one a layer at most")
    homes, places, made = [torch.device(one) for one in devices], placed_layers(weights, len(devices)), {}
    copies: dict[tuple[int, torch.device], Tensor] = {}
    for name, tensor in weights.tensors():
        parts = name.split(".")
        home = homes[places[int(parts[1])]] if parts[0] == "blocks" else homes[-1] if _is_last(name) else homes[0]
        made[name] = _copied(tensor.detach(), home, copies).as_subclass(SpreadWeight)
    return weights.with_tensors(made)


def _copied(tensor: Tensor, home: torch.device, copies: dict[tuple[int, torch.device], Tensor]) -> Tensor:
    """A tensor on a device. What shares storage (tied embeddings, joined queries, keys and values) shares it there too."""
    if tensor.device == home:
        return tensor
    storage = tensor.untyped_storage()
    if storage.nbytes() % tensor.element_size():  # a storage of other things too, such as a mapped file
        return tensor.to(home)
    place = (storage.data_ptr(), home)
    if place not in copies:
        copies[place] = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(storage).to(home)
    whole = copies[place]
    if whole.dtype != tensor.dtype:
        return tensor.to(home)
    return whole.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def named_devices(given: object, device: str | torch.device) -> list[torch.device]:
    """The devices of `devices=[...]`. Raises ModelError for what is none, or none of PyTorch's names, and where one `device`
    is named beside them."""
    if str(device) != "cpu":
        raise ModelError(f"device={str(device)!r} beside devices=...: give one of them")
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) < 2:
        what = given if isinstance(given, str) else list(given) if isinstance(given, Sequence) else given
        said = ", ".join(map(str, what)) if isinstance(what, list) else shown(what)
        raise ModelError(f"devices={said or 'nothing'}: expected a list of two or more, such as ['cuda:0', 'cuda:1']")
    homes = []
    for one in given:
        try:
            homes.append(torch.device(one))
        except (RuntimeError, TypeError):
            raise ModelError(f"devices: there is no device {shown(one)}") from None
    return homes
