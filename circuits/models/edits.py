"""Interventions on single nodes of a running model: set or change a head, a neuron, an MLP or the input."""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuits.errors import GraphError, NonFiniteError, PromptError
from circuits.graph import Graph
from circuits.graph.named import NodeName, node_of, parsed
from circuits.models.tokens import TokenBatch

Value = float | int | Tensor | Callable[[Tensor], Tensor]
Site = tuple[str, int]
"""What is edited where in the forward: ("input" | "head" | "neuron" | "mlp", layer), and beside these nodes the residual stream
before a layer ("residual"; after the last one it has the number of layers) and in its middle ("middle"), what attention writes
("attention"), and what the MLP reads behind its norm ("reading")."""


@dataclasses.dataclass(frozen=True)
class Edit:
    """Replace a node's value while the model runs.

    The value is what the node contributes: for a head its mixed values z `[prompt position d_head]` (before `W_O`), for a
    neuron its activation `[prompt position]`, for an MLP all it adds to the residual stream `[prompt position d_model]`,
    for `input` the embedded tokens `[prompt position d_model]`.

    `value` is a number or a tensor that broadcasts to the value at the edited positions, or a function from the node's
    current value (all positions) to its new one. `positions`: None for all, places in each prompt's own count (negative
    from its own end; a prompt without them stays as it is), or a Boolean mask `[prompt position]` of the batch (then a tensor
    must broadcast to all positions).

    >>> import circuits
    >>> model = circuits.load_model("mini")
    >>> run = model.run("The cat sat on the", edits=[circuits.Edit("a0.h1", 0.0, positions=[-1])])
    >>> run.z[0][0, :, 1].abs().amax(dim=-1).gt(0).tolist()
    [True, True, True, True, True, False]
    """

    node: NodeName
    value: Value
    positions: Sequence[int] | Bool[Tensor, "prompt position"] | None = None


Compiled = dict[Site, list[tuple[int | None, Edit]]]


def compile_edits(edits: Sequence[Edit], graph: Graph) -> Compiled:
    """Group edits by the place in the forward where they act. Raises GraphError for a node the model does not have."""
    compiled: Compiled = {}
    for edit in edits:
        node = parsed(edit.node)
        if node.kind == "logits":
            raise GraphError("logits cannot be edited: edit a node that feeds them (input, a0.h0, m0, m0.n0)")
        node_of(graph, node)
        layer = 0 if node.layer is None else node.layer
        compiled.setdefault((node.kind, layer), []).append((node.index, edit))
    return compiled


def apply_edits(compiled: Compiled, site: Site, value: Tensor, tokens: TokenBatch) -> Tensor:
    """The value at a site after its edits, in the order given. `value` is `[prompt position …]`; a head or a neuron is
    one entry of its third axis. The given tensor is left as it was. Raises NonFiniteError, with the node's name, where an
    edit puts in NaN or infinity, PromptError for a position that no prompt has."""
    edits = compiled.get(site)
    if not edits:
        return value
    value = value.clone()
    for index, edit in edits:
        if index is None:
            value = _edited(edit, value, tokens)
        else:
            value[:, :, index] = _edited(edit, value[:, :, index], tokens)
        changed = value if index is None else value[:, :, index]
        if not bool(changed.detach().isfinite().all()):
            raise NonFiniteError(f"the edit of {edit.node} leaves NaN or infinity there")
    return value


def _edited(edit: Edit, current: Tensor, tokens: TokenBatch) -> Tensor:
    if callable(edit.value):
        new = edit.value(current.clone())
        if not isinstance(new, Tensor) or new.shape != current.shape:
            got = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise GraphError(f"edit of {edit.node}: its function returned {got}, expected shape {tuple(current.shape)}")
        return _at_positions(edit, current, new, tokens)
    new = torch.as_tensor(edit.value, dtype=current.dtype, device=current.device)
    if isinstance(edit.positions, Sequence):
        return _placed(edit, current, new, tokens)
    return _at_positions(edit, current, _broadcast(edit, new, current), tokens)


def _placed(edit: Edit, current: Tensor, new: Tensor, tokens: TokenBatch) -> Tensor:
    """The value with another one, an entry a position, at the positions of an edit."""
    columns = _columns(edit, tokens)
    rows = torch.arange(len(current), device=current.device)
    new = _broadcast(edit, new, current[rows[:, None], torch.stack(columns, dim=1)]) if columns else new
    chosen = current.clone()
    for place, column in enumerate(columns):
        there = column >= 0
        chosen[rows[there], column[there]] = new[there, place]
    return chosen


def _broadcast(edit: Edit, new: Tensor, like: Tensor) -> Tensor:
    try:
        return new.expand_as(like)
    except RuntimeError:
        message = f"edit of {edit.node}: a value of shape {tuple(new.shape)} does not fit {tuple(like.shape)}"
        raise GraphError(message) from None


def _at_positions(edit: Edit, current: Tensor, new: Tensor, tokens: TokenBatch) -> Tensor:
    if edit.positions is None:
        return new
    if isinstance(edit.positions, Tensor):
        mask = edit.positions
        if mask.shape != current.shape[:2]:
            raise PromptError(
                f"edit of {edit.node}: the position mask has shape {tuple(mask.shape)}, the prompts {tuple(current.shape[:2])}"
            )
    else:
        at = torch.arange(current.shape[1], device=current.device)
        mask = torch.zeros(current.shape[:2], dtype=torch.bool, device=current.device)
        for column in _columns(edit, tokens):
            mask |= at == column[:, None]
    return torch.where(mask.reshape(*mask.shape, *[1] * (current.ndim - 2)), new, current)


def _columns(edit: Edit, tokens: TokenBatch) -> list[Int[Tensor, " prompt"]]:
    """For each position of an edit its column in every prompt, -1 where there is none."""
    return [tokens.required_columns(int(position), what=f"edit of {edit.node}: ") for position in edit.positions or ()]
