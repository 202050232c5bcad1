"""Where in a model activations are taken: residual streams, heads, where they look, neurons."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal, get_args

from circuits.errors import GraphError
from circuits.models import Model

SiteKind = Literal["residual", "middle", "heads", "patterns", "neurons"]
"""What is stored together: the residual stream before each layer and after the last (resid0 …), in the middle of each (mid0 …),
what the heads of each layer have mixed (a0 …; a0.h1 is one of them), where they look (p0 …, p0.h1), the neurons of each
(m0 …)."""
REACH = 16
"""Where a head looks from a token is told of so many tokens one by one, from the token itself backwards; the first token of the
prompt is told by itself."""
_NAME = re.compile(r"(resid|mid|a|p|m)(0|[1-9][0-9]{0,5})(?:\.h(0|[1-9][0-9]{0,5}))?", re.ASCII)
_FAMILIES: dict[str, SiteKind] = {"resid": "residual", "mid": "middle", "a": "heads", "p": "patterns", "m": "neurons"}
_OF_HEADS: tuple[SiteKind, ...] = ("heads", "patterns")
PREFIXES = {family: prefix for prefix, family in _FAMILIES.items()}


@dataclasses.dataclass(frozen=True)
class ActivationSite:
    """One place: its family, the layer (of a residual stream: the one that reads it) and, for a head by itself, its number."""

    name: str
    family: SiteKind
    layer: int
    head: int | None = None

    @property
    def stored(self) -> str:
        """The name of the array that holds it: all heads of a layer are one."""
        return self.name.partition(".")[0]


def layers_of(model: Model, family: SiteKind) -> range:
    """The numbers that places of a family have."""
    return range(model.n_layers + (family == "residual"))


def parse_site(model: Model, name: str) -> ActivationSite:
    """A place by its name: resid0, mid0, a0, a0.h1, p0, p0.h1, m0. Raises GraphError for one that the model lacks."""
    found = _NAME.fullmatch(name)
    family = None if found is None else _FAMILIES[found[1]]
    if found is None or family is None or (found[3] is not None and family not in _OF_HEADS):
        raise GraphError(
            f"{name!r} is no place to probe; expected resid3, mid3, a3 (all heads of a layer), a3.h1, p3 (where they look), "
            "p3.h1 or m3"
        )
    layer = int(found[2])
    known = layers_of(model, family)
    if layer not in known or (family == "neurons" and not model.d_mlp):
        raise GraphError(f"{model.name} has no {name}: {_there(model, family)}")
    head = None if found[3] is None else int(found[3])
    if head is not None and head >= model.n_heads:
        raise GraphError(f"{model.name} has no {name}: it has {model.n_heads} heads a layer")
    return ActivationSite(name, family, layer, head)


def sites_of(model: Model, names: str | Sequence[str] = "residual") -> list[ActivationSite]:
    """Places by name, or all of a family: residual, middle, heads and patterns (each layer's together), neurons. Each once, in
    the order given. Raises GraphError for what the model lacks, and where nothing is named."""
    found: list[ActivationSite] = []
    for name in [names] if isinstance(names, str) else names:
        if name in get_args(SiteKind):
            family: SiteKind = name  # type: ignore[assignment]
            if family == "neurons" and not model.d_mlp:
                raise GraphError(f"{model.name} has no neurons: its layers are attention alone")
            found += [ActivationSite(f"{PREFIXES[family]}{layer}", family, layer) for layer in layers_of(model, family)]
        else:
            found.append(parse_site(model, name))
    if not found:
        raise GraphError(
            "no place to probe is named; expected residual, middle, heads, patterns, neurons, or names such as resid3"
        )
    return list(dict.fromkeys(found))


def width_of(model: Model, family: SiteKind) -> int:
    """How many numbers a word has at each place of a family."""
    if family in _OF_HEADS:
        return model.n_heads * (model.d_head if family == "heads" else REACH + 1)
    return model.d_mlp if family == "neurons" else model.d_model


def _there(model: Model, family: SiteKind) -> str:
    if family == "neurons" and not model.d_mlp:
        return "its layers are attention alone"
    last = layers_of(model, family)[-1]
    return f"it has {PREFIXES[family]}0 to {PREFIXES[family]}{last}"
