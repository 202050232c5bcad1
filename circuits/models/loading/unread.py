"""Which values of a configuration no switch of a family reads: what to suspect where a forward pass differs."""

import copy
import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import torch


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A Hugging Face configuration that notes the names of the values read from it."""

    config: Any
    read: set[str]

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.config, name)
        self.read.update((name, type(self.config).attribute_map.get(name, name)))
        return value

    def note(self, *names: str, values: Collection[float] = ()) -> None:
        """Count as read what came by another way: by name, or by a number that stands in a module (a norm's epsilon)."""
        self.read.update(type(self.config).attribute_map.get(name, name) for name in names)
        self.read.update(name for name, own in vars(self.config).items() if isinstance(own, float) and own in values)


def unread_values(config: Any, read: set[str], model_class: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of a configuration that are not among `read` and say something of the forward pass: those that differ from
    the default of the configuration's class, and those at their default.

    Left out are what every configuration has (file versions, labels), ids of tokens, and sizes: whole numbers that change
    the shapes of `model_class`'s tensors, all of which are read.
    """
    from transformers import PreTrainedConfig

    values, common = config.to_dict(), PreTrainedConfig().to_dict()
    own = {name: value for name, value in values.items() if name not in common and not name.startswith("_")}
    left = {name: value for name, value in own.items() if name not in read and not name.endswith("_token_id")}
    left = {name: value for name, value in left.items() if not _is_size(config, name, value, model_class)}
    defaults = _defaults(config)
    differing = {name: value for name, value in left.items() if name not in defaults or value != defaults[name]}
    return differing, {name: value for name, value in left.items() if name not in differing}


def suspects(config: Any, read: set[str], model_class: Any) -> str:
    """`unread_values` as words for an error."""
    differing, rest = unread_values(config, read, model_class)
    if differing:
        return f"values of its configuration that no switch read and that differ from their default: {_listed(differing)}"
    if rest:
        return f"every value of its configuration that no switch read has its default: {_listed(rest)}"
    return "every value of its configuration was read"


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def _defaults(config: Any) -> dict[str, Any]:
    try:
        return type(config)().to_dict()
    except Exception:  # a class that cannot be made without values has no defaults to differ from
        return {}


def _is_size(config: Any, name: str, value: Any, model_class: Any) -> bool:
    """Whether another number there gives tensors of other names or shapes (nothing is allocated)."""
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    changed = copy.deepcopy(config)
    try:
        setattr(changed, name, 2 * value)
        return _shapes(changed, model_class) != _shapes(copy.deepcopy(config), model_class)
    except Exception:  # a number that the other sizes do not admit, as hidden_size with a head_dim of its own
        return True


def _shapes(config: Any, model_class: Any) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in model_class(config).named_parameters()}
