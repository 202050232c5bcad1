"""Names of what can be patched, and the values that stand there in a run."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from circuits.errors import GraphError, PromptError
from circuits.graph.named import node_of
from circuits.models import Model
from circuits.models.choosing import Positions, layer_part
from circuits.patching.engine.base import Base
from circuits.patching.engine.change import Kind
from circuits.tasks import PromptPairs

GROUPS = ("nodes", "heads", "mlps", "residual", "attention", "middle", "q", "k", "v", "patterns", "neurons")

_SLOT = re.compile(r"(a\d+\.h\d+)<(q|k|v|pattern)>", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Site:
    """One value of a run that can be patched."""

    name: str
    kind: Kind
    layer: int
    index: int | None = None


def find_sites(model: Model, names: str | Sequence[str] | None) -> list[Site]:
    """Sites by name: nodes (`input`, `a0.h1`, `m3`, `m3.n5`), a head's `a0.h1<q>`, `<k>`, `<v>` (with grouped keys the
    number is the group's, as on edges) or `<pattern>`, `resid3` (the residual stream before layer 3), `attn3`, `mid3`; or a
    group of `GROUPS`. None: every node (`input`, heads, MLPs). Raises GraphError for a name that is none."""
    given = ["nodes"] if names is None else [names] if isinstance(names, str) else list(names)
    if not given:
        raise GraphError("there is nothing to patch: the list of names is empty")
    found = [site for name in given for site in (_group(model, name) if name in GROUPS else [_site(model, name)])]
    return list(dict.fromkeys(found))


def _group(model: Model, name: str) -> list[Site]:
    layers = range(model.n_layers)
    heads = [f"a{layer}.h{head}" for layer in layers for head in range(model.n_heads)]
    mlps = [f"m{layer}" for layer in layers] if model.d_mlp else []
    groups = [f"a{layer}.h{group}" for layer in layers for group in range(model.n_key_value_heads)]
    names = {
        "nodes": [str(node) for node in model.graph().nodes() if node.kind != "logits"],
        "heads": heads,
        "mlps": mlps,
        "residual": [f"resid{layer}" for layer in range(model.n_layers + 1)],
        "attention": [f"attn{layer}" for layer in layers],
        "middle": [f"mid{layer}" for layer in layers],
        "q": [f"{head}<q>" for head in heads],
        "k": [f"{head}<k>" for head in groups],
        "v": [f"{head}<v>" for head in groups],
        "patterns": [f"{head}<pattern>" for head in heads],
        "neurons": [f"{mlp}.n{neuron}" for mlp in mlps for neuron in range(model.d_mlp)],
    }[name]
    if not names:
        raise GraphError(f"{model.name} has no {name}")
    return [_site(model, name) for name in names]


def _site(model: Model, name: str) -> Site:
    if part := layer_part(model, name):
        return Site(name, *part)
    slot = None
    if match := _SLOT.fullmatch(name):
        name, slot = match[1], match[2]
    node = node_of(model.graph(), name)
    layer, index = node.layer or 0, node.index
    if node.kind == "input":
        return Site("input", "residual", 0)
    if node.kind == "logits":
        raise GraphError("logits cannot be patched: patch what feeds them")
    if node.kind == "neuron":
        return Site(name, "neuron", layer, index)
    if slot is None:
        return Site(name, "head", layer, index)
    if slot in ("k", "v") and (index or 0) >= model.n_key_value_heads:
        raise GraphError(f"{model.name} has no {name}<{slot}>: a layer has {model.n_key_value_heads} groups of keys and values")
    kinds: dict[str, Kind] = {"q": "q", "k": "k", "v": "v", "pattern": "pattern"}
    return Site(f"{name}<{slot}>", kinds[slot], layer, index)


def value_at(base: Base, site: Site) -> Tensor:
    """What stands at a site in a run, `[prompt position …]`."""
    run, layer = base.run, site.layer
    match site.kind:
        case "residual":
            return run.residuals[layer]
        case "middle":
            return run.middles[layer]
        case "attention":
            return base.attention(layer)
        case "mlp":
            return base.mlp(layer)
        case "pattern":
            return base.pattern(layer)[:, site.index]
        case "neuron":
            return run.neurons[layer][:, :, site.index]
        case "head":
            return run.z[layer][:, :, site.index]
        case "q" | "k" | "v":
            return getattr(run, site.kind)[layer][:, :, site.index]
    raise GraphError(f"{site.name} has no value of its own")


def position_masks(pairs: PromptPairs, positions: Positions) -> dict[str, Tensor]:
    """Label → mask `[prompt position]` of each way to patch a site; "" where all positions go together. A prompt that lacks a
    position has no column there (`having`). Raises PromptError for a position that the pairs lack."""
    mask = pairs.clean.mask
    if positions is None:
        return {"": mask}
    if positions == "each":
        wanted: Sequence[str | int] = range(int(mask.sum(dim=1).max()))
    else:
        wanted = [positions] if isinstance(positions, str | int) else list(positions)
    if not wanted:
        raise PromptError("no positions are given: name at least one, or leave them out for all together")
    return {str(name): _mask_of(pairs, name) for name in wanted}


def having(masks: Mapping[str, Tensor]) -> Bool[Tensor, "label prompt"] | None:
    """Which prompts have each of some positions; None where all have all of them."""
    there = torch.stack([mask.any(dim=1) for mask in masks.values()]).cpu()
    return None if bool(there.all()) else there


def _mask_of(pairs: PromptPairs, name: str | int) -> Tensor:
    mask, width = pairs.clean.mask, pairs.clean.mask.shape[1]
    if isinstance(name, int):
        columns = pairs.clean.required_columns(name)
    elif name in ("last", *pairs.positions):
        columns = pairs.clean.last if name == "last" else pairs.positions[name]
    else:
        raise PromptError(f"no position {name!r}: there are {', '.join(('last', *pairs.positions))}, each, and columns")
    found = mask & (torch.arange(width, device=mask.device) == columns[:, None])
    if not bool(found.any()):
        raise PromptError(f"no prompt has the position {name!r}")
    return found


def differing(pairs: PromptPairs, *, causal: bool) -> Tensor:
    """Mask `[prompt position]` of the tokens that can differ between a clean run and its corrupt one: in a causal model
    those from the first differing token on."""
    changed = pairs.clean.ids != pairs.corrupt.ids
    return pairs.clean.mask & (changed.long().cumsum(dim=1) > 0 if causal else torch.ones_like(changed))
