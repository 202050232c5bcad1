"""Where in a model a dictionary reads and writes, and what other libraries call these places."""

import dataclasses
import re
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from circuits.errors import GraphError, shown
from circuits.models import Model
from circuits.models.edits import Site

PlaceKind = Literal["residual", "heads", "attention", "middle", "reading", "unit", "mlp"]
_PREFIXES: dict[str, PlaceKind] = {
    "resid": "residual",
    "a": "heads",
    "attn": "attention",
    "mid": "middle",
    "in": "reading",
    "unit": "unit",
    "m": "mlp",
}
_ORDER: tuple[PlaceKind, ...] = ("residual", "heads", "attention", "middle", "unit", "reading", "mlp")
_NAME = re.compile(r"(resid|attn|mid|unit|in|a|m)(0|[1-9][0-9]{0,5})", re.ASCII)
_READ_ALONE = ("reading", "unit")
PLACES = "resid3 (the residual stream before layer 3), mid3, attn3, a3 (its heads), m3, and for what is read alone in3"
"""The names, in words."""

_HOOKS = {
    "hook_resid_pre": "resid{0}",
    "hook_in": "resid{0}",
    "hook_resid_mid": "mid{0}",
    "hook_mlp_in": "mid{0}",
    "hook_resid_post": "resid{1}",
    "hook_out": "resid{1}",
    "hook_attn_out": "attn{0}",
    "attn.hook_out": "attn{0}",
    "attn.hook_z": "a{0}",
    "ln2.hook_normalized": "unit{0}",
    "ln2.hook_out": "in{0}",
    "mlp.hook_in": "in{0}",
    "hook_mlp_out": "m{0}",
    "mlp.hook_out": "m{0}",
}
"""Hooks of TransformerLens, old names and new, behind `blocks.L.`; {1}: the layer after."""
_WITHIN = ("Bloom", "Granite")
"""Architectures whose modules add the stream themselves, or whose output is scaled on its way into it."""
_HOOK = re.compile(r"blocks\.([0-9]{1,4})\.([A-Za-z0-9_.]+)", re.ASCII)
_MODULE = re.compile(r"(?:.+\.)?(?:layers|h|blocks)\.([0-9]{1,4})(?:\.(mlp|self_attn|attn|attention))?", re.ASCII)


@dataclasses.dataclass(frozen=True)
class FeaturePlace:
    """One place: what stands there is a vector at every token."""

    kind: PlaceKind
    layer: int

    @classmethod
    def parse(cls, name: str) -> "FeaturePlace":
        """Read a name: `resid3`, `mid3`, `attn3`, `a3`, `m3`, `in3` (what an MLP reads, behind its norm), or `unit3` (the same
        before an RMS norm's gain, which reads alone). Raises GraphError for others."""
        found = _NAME.fullmatch(name)
        if found is None:
            raise GraphError(f"{shown(name)} is no place of a dictionary: expected {PLACES}")
        return cls(_PREFIXES[found[1]], int(found[2]))

    @property
    def name(self) -> str:
        """As `parse` reads it."""
        prefix = next(prefix for prefix, kind in _PREFIXES.items() if kind == self.kind)
        return f"{prefix}{self.layer}"

    @property
    def rank(self) -> tuple[int, int]:
        """Its place in the order of computation."""
        return self.layer, _ORDER.index(self.kind)

    @property
    def site(self) -> Site:
        """Where the forward pass is edited to change it."""
        return ("head" if self.kind == "heads" else self.kind, self.layer)

    def check(self, model: Model, *, writes: bool) -> None:
        """Raise GraphError for a place that the model lacks, or that a dictionary cannot write to."""
        last = model.n_layers if self.kind == "residual" else model.n_layers - 1
        if self.layer > last:
            raise GraphError(f"{model.name} has no {self.name}: it has {model.n_layers} layers")
        if self.kind in ("mlp", *_READ_ALONE) and model.weights.blocks[self.layer].mlp is None:
            raise GraphError(f"{model.name} has no MLP {self.name}: it is of attention alone")
        if writes and self.kind in _READ_ALONE:
            raise GraphError(f"{self.name} is only read: a dictionary writes to {PLACES}")

    def width(self, model: Model) -> int:
        """How wide the vectors are that stand here."""
        attention = model.weights.blocks[min(self.layer, model.n_layers - 1)].attention
        return attention.W_O.shape[0] if self.kind == "heads" else model.d_model

    def vectors(self, x: Tensor) -> Float[Tensor, "prompt position width"]:
        """What stands here, heads one behind the other."""
        return x.flatten(-2) if self.kind == "heads" else x

    def placed(self, vectors: Float[Tensor, "prompt position width"], like: Tensor) -> Tensor:
        """The reverse of `vectors`, shaped like what stands here."""
        return vectors.reshape(like.shape)


def place_of_hook(name: str) -> str:
    """The place that a hook of TransformerLens means; empty for one that is none of a dictionary."""
    found = _HOOK.fullmatch(name)
    layer = int(found[1]) if found else 0
    return _HOOKS[found[2]].format(layer, layer + 1) if found and found[2] in _HOOKS else ""


def check_hook(name: str, model: Model) -> None:
    """Raise GraphError where a hook holds, in a model of this family, something else than what `place_of_hook` says."""
    found = _HOOK.fullmatch(name)
    if found is None or int(found[1]) >= model.n_layers:
        return
    block, hook, why = model.weights.blocks[int(found[1])], found[2], ""
    post = {"attn.hook_out": block.attention_post_norm, "mlp.hook_out": block.mlp_post_norm}
    if hook in post and post[hook] is not None:
        why = "is in front of a norm there"
    elif hook in post and model.architecture.startswith(_WITHIN):
        why = "is not what is added to the residual stream there"
    elif hook == "ln2.hook_normalized" and block.mlp_norm is not None and block.mlp_norm.kind == "layer":
        why = "is in front of the norm's gain and bias in some versions of TransformerLens and behind them in others"
    elif hook in ("hook_resid_mid", "hook_mlp_in") and model.weights.parallel:
        why = "is not between attention and MLP there: both read the stream before the layer"
    if why:
        raise GraphError(f"of {model.name}, {name} {why}: train one at another hook")


def places_of_module(name: str) -> tuple[str, str]:
    """What a module of a model of Hugging Face reads and writes, by its name (`layers.2.mlp`, `layers.2`); empty where that is
    no place."""
    found = _MODULE.fullmatch(name)
    if found is None:
        return "", ""
    layer = int(found[1])
    if found[2] is None:
        return f"resid{layer}", f"resid{layer + 1}"
    return (f"in{layer}", f"m{layer}") if found[2] == "mlp" else ("", f"attn{layer}")
