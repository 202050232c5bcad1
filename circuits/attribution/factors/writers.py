"""How far each writer's output differs between two runs, as factors: coordinates times output weights."""

import dataclasses
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.models import Run
from circuits.models.folding import through_norm
from circuits.models.layers import mlp_output
from circuits.patching.subgraphs.outside import scaled_heads, scaled_neurons


@dataclasses.dataclass(frozen=True, eq=False)
class Writing:
    """Writers of one layer's attention or MLP: writer w's output differs by the sum over its `width` coordinates of
    `change * W`."""

    change: Float[Tensor, "prompt position coordinate"]
    W: Float[Tensor, "coordinate d_model"]
    width: int
    """Coordinates of one writer: d_head for heads, 1 for neurons."""


def head_writing(own: Run, other: Run, layer: int) -> Writing:
    """The heads of a layer: the other run's minus this one's."""
    block = own.weights.blocks[layer]
    change = scaled_heads(other.z[layer], block) - scaled_heads(own.z[layer], block)
    return Writing(change.flatten(2), through_norm(block.attention.W_O, block.attention_post_norm), block.attention.d_head)


def neuron_writing(own: Run, other: Run, layer: int) -> Writing:
    """The neurons of a layer: the other run's minus this one's."""
    block = own.weights.blocks[layer]
    assert block.mlp is not None
    change = scaled_neurons(other.neurons[layer], block) - scaled_neurons(own.neurons[layer], block)
    return Writing(change, through_norm(block.mlp.W_out, block.mlp_post_norm), 1)


Pick = Callable[[Tensor], Tensor]
"""Takes some columns of a tensor `[prompt position ...]`, or its tokens in another order."""


def deltas(own: Run, other: Run, pick: Pick, first: int, last: int) -> Float[Tensor, "prompt writer position d_model"]:
    """How far writers' outputs differ at some columns: those of places `first` up to `last` in the order of computation (input,
    then a layer's heads and its MLP)."""
    start = pick(other.residuals[0] - own.residuals[0])
    # Into one array: at many layers it is the largest of all, and parts joined afterwards would be held twice.
    found = start.new_empty(len(start), last - first, *start.shape[1:])
    place = 0
    for count, change in _changes(own, other, pick, start):
        if first <= place and place + count <= last:
            found[:, place - first : place - first + count] = change()
        place += count
    return found


def _changes(own: Run, other: Run, pick: Pick, start: Tensor) -> Iterator[tuple[int, Callable[[], Tensor]]]:
    """For the input, and each layer's heads and MLP, how many writers they are and what computes how far they differ."""
    yield 1, lambda: start[:, None]
    for layer, block in enumerate(own.weights.blocks):
        yield block.attention.n_heads, lambda layer=layer: _heads_change(own, other, layer, pick)
        if block.mlp is not None:
            yield 1, lambda layer=layer: mlp_change(own, other, layer, pick)[:, None]


def _heads_change(own: Run, other: Run, layer: int, pick: Pick) -> Float[Tensor, "prompt head position d_model"]:
    writing = head_writing(own, other, layer)
    change = pick(writing.change).unflatten(-1, (-1, writing.width))
    return torch.einsum("pche,hed->phcd", change, writing.W.unflatten(0, (-1, writing.width)))


def mlp_change(own: Run, other: Run, layer: int, pick: Pick) -> Float[Tensor, "prompt position d_model"]:
    """How far the output of a whole MLP differs."""
    return pick(written_by_mlp(other, layer)) - pick(written_by_mlp(own, layer))


def written_by_mlp(run: Run, layer: int) -> Float[Tensor, "prompt position d_model"]:
    """What the MLP of a layer wrote: as the run kept it, or from its neurons."""
    if run.mlps:
        return run.mlps[layer]
    if layer in run.edited_mlps:
        return run.edited_mlps[layer]
    block = run.weights.blocks[layer]
    assert block.mlp is not None
    return mlp_output(run.neurons[layer], block.mlp, block.mlp_post_norm)


def writes_alone(run: Run) -> Run:
    """A run without what `deltas` does not read, so that it need not be held: residual streams, heads and MLPs are left."""
    if run.weights.blocks and not run.mlps and run.neurons:
        run = dataclasses.replace(run, mlps=tuple(written_by_mlp(run, layer) for layer in range(len(run.neurons))))
    return dataclasses.replace(run, middles=(), q=(), k=(), v=(), neurons=(), patterns=(), reads=(), edited_mlps={})
