"""One number for a text: what a module of the model does there, at the token where it does most."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import GraphError, NonFiniteError, PromptError
from circuits.graph import Node
from circuits.graph.named import node_of
from circuits.lenses.neurons.activations import neuron_layers
from circuits.models import Model, TokenBatch, node_output
from circuits.models.choosing import layer_part, parse_neuron
from circuits.progress import Progress, silent
from circuits.runs.runner import shards

Values = Callable[[TokenBatch], Float[Tensor, "prompt position"]]
"""What a module does at each token."""
_BATCH = 256
"""Texts that run together."""


def module_values(model: Model, module: str, direction: Float[Tensor, " d_model"] | None = None) -> tuple[Values, str]:
    """What a module does at each token, as a function and in words: a neuron's activation; of a head, an MLP or a residual
    stream (`resid3`) how far it lies along `direction`, without one its length. Raises GraphError for names that the model
    lacks, PromptError for a direction of another length or beside a neuron."""
    part = layer_part(model, module)
    node = None if part is not None and part[0] != "mlp" else Node.parse(module)
    if node is not None and node.kind == "neuron":
        if direction is not None:
            raise PromptError(f"{node} is one number by itself: a direction is for heads, MLPs and residual streams")
        return _neuron(model, parse_neuron(model, node)), "activation"
    if part is not None and part[0] not in ("residual", "mlp"):
        raise GraphError(f"{module} is no module to explain: expected a neuron, a head, an MLP, or a residual stream (resid3)")
    if node is not None and node_of(model.graph(), node).kind in ("input", "logits"):
        raise GraphError(f"{node} is no module to explain: expected a neuron, a head, an MLP, or a residual stream (resid3)")
    if direction is not None and direction.shape != (model.d_model,):
        raise PromptError(f"a direction of shape {tuple(direction.shape)}: expected one of {model.d_model} numbers")
    along = None if direction is None else direction.to(model.device, model.dtype)

    def values(prompts: TokenBatch) -> Float[Tensor, "prompt position"]:
        """Along the direction, or the length."""
        run = model.run(prompts)
        vectors = run.residuals[part[1]] if node is None and part is not None else node_output(run, module)
        return vectors.norm(dim=-1) if along is None else vectors @ along

    return values, "length of its output" if along is None else "its output along a direction"


def _neuron(model: Model, node: Node) -> Values:
    def values(prompts: TokenBatch) -> Float[Tensor, "prompt position"]:
        """The neuron's activations."""
        for layer, found in neuron_layers(model.weights, model.prepare(prompts), last=node.layer or 0):
            if layer == node.layer:
                return found[:, :, node.index or 0]
        raise AssertionError(f"layer {node.layer} has no neurons")

    return values


def largest_values(
    model: Model, values: Values, texts: Sequence[list[int]], *, progress: Progress | None = None
) -> tuple[Float[Tensor, " text"], list[tuple[float, ...]]]:
    """For each text, as token ids without what opens prompts, the largest value over its tokens; and the value at each token.
    Raises NonFiniteError for NaN and infinity."""
    opening = model.opening() or ([] if model.tokenizer is not None or model.bos_id is None else [model.bos_id])
    each, report = list[tuple[float, ...]](), progress or silent

    @torch.no_grad()
    def read(number: int) -> list[tuple[float, ...]]:
        """The values of some texts."""
        part = texts[number * _BATCH : (number + 1) * _BATCH]
        batch = model.prepare(TokenBatch.from_rows([[*opening, *ids] for ids in part], pad_id=model.bos_id or 0))
        found = values(batch).double().cpu()
        return [tuple(found[row, len(opening) : len(opening) + len(ids)].tolist()) for row, ids in enumerate(part)]

    report("reading texts", 0, len(texts))
    for some in shards("reading texts", -(-len(texts) // _BATCH), read):
        each += some
        report("reading texts", len(each), len(texts))
    largest = torch.tensor([max(one) for one in each], dtype=torch.float64)
    if not bool(largest.isfinite().all()):
        raise NonFiniteError("the module gives NaN or infinity on a text")
    return largest, each
