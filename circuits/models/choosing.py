"""What of a model is meant by a name: a head, a neuron or several, a part of a layer; and where in prompts. Every function that
lets its caller choose reads names here, so that all take the same ones and refuse the rest in the same words."""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from circuits.errors import GraphError, PromptError
from circuits.graph import Node
from circuits.graph.named import NodeName, parsed
from circuits.models.model import Model

Neurons = Iterable[NodeName] | NodeName | None
"""Neurons by name (`m3.n7`), or those of whole layers (`m3`): one name or several. None: all of the model."""

Positions = str | int | Sequence[str | int] | None
"""Where in prompts. None: every position together; "each": every one by itself; the name of a position of the pairs, "last" or
a place in each prompt's own count (negative from its own end); or a list of names and places, each by itself. Functions on
text alone take such places (`TokenBatch.columns_at`)."""

LayerPart = Literal["residual", "middle", "attention", "mlp"]
"""The residual stream before a layer (`resid3`; after the last one it has the number of layers), in its middle (`mid3`), and
what its attention (`attn3`) and its MLP (`m3`) write."""

_PARTS: dict[str, LayerPart] = {"resid": "residual", "mid": "middle", "attn": "attention", "m": "mlp"}
_PART = re.compile(r"(resid|mid|attn|m)(0|[1-9][0-9]{0,5})", re.ASCII)


def head_of(model: Model, head: NodeName) -> tuple[int, int]:
    """Layer and number of a head (`a0.h1`). Raises GraphError for another node or a head that the model lacks."""
    node = parsed(head)
    if node.kind != "head":
        raise GraphError(f"{node} is no head: name one such as a0.h1")
    node = model.graph().node(node)
    assert node.layer is not None and node.index is not None
    return node.layer, node.index


def parse_neuron(model: Model, name: NodeName) -> Node:
    """The neuron of that name (`m3.n7`). Raises GraphError for another node or one that the model lacks, PromptError for a
    model without MLPs."""
    node = parsed(name)
    refuse_without_mlps(model)
    if node.kind != "neuron":
        raise GraphError(f"{node} is no neuron: expected a name such as m0.n7")
    return model.graph(neurons=True).node(node)


def chosen_neurons(model: Model, neurons: Neurons) -> dict[int, list[int]]:
    """Layer → indices of the chosen neurons, both ascending. Raises GraphError for names of other nodes, and where none is
    given, PromptError for a model without MLPs."""
    refuse_without_mlps(model)
    if neurons is None:
        return {layer: list(range(model.d_mlp)) for layer in range(model.n_layers)}
    found: dict[int, set[int]] = {}
    for name in [neurons] if isinstance(neurons, str | Node) else neurons:
        node = parsed(name)
        if node.kind == "mlp":
            layer = model.graph().node(node).layer
            found.setdefault(layer or 0, set()).update(range(model.d_mlp))
        else:
            node = parse_neuron(model, node)
            found.setdefault(node.layer or 0, set()).add(node.index or 0)
    if not found:
        raise GraphError("no neurons are named: give names such as m0.n7, or layers such as m0")
    return {layer: sorted(found[layer]) for layer in sorted(found)}


def refuse_without_mlps(model: Model) -> None:
    """Raise PromptError for an attention-only model."""
    if not model.d_mlp:
        raise PromptError(f"{model.name} has attention alone: there are no MLP neurons to read")


def layer_part(model: Model, name: str) -> tuple[LayerPart, int] | None:
    """Which part of which layer a name means (`resid3`, `mid3`, `attn3`, `m3`); None for a name of another form. Raises
    GraphError for a layer or MLP that the model lacks."""
    match = _PART.fullmatch(name)
    if match is None:
        return None
    part, layer = _PARTS[match[1]], int(match[2])
    if layer >= model.n_layers + (part == "residual") or (part == "mlp" and not model.d_mlp):
        raise GraphError(f"{model.name} has no {name}: it has {model.n_layers} layers")
    return part, layer
