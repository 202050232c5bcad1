"""The run that patches start from, and its values at every site."""

import dataclasses
import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from circuits.errors import GraphError, NonFiniteError
from circuits.graph import Node
from circuits.models import Edit, Model, Run, TokenBatch
from circuits.models.edits import compile_edits
from circuits.models.forward import Keep, forward
from circuits.models.geometry import Geometry
from circuits.models.layers import attention_output, mlp_output
from circuits.models.weights import all_finite

_FACTORS = (("q", "q"), ("k", "k"), ("v", "v"), ("z", "z"), ("middles", "middle"), ("neurons", "neurons"))


@dataclasses.dataclass(frozen=True, eq=False)
class Base:
    """A run with its factors, all finite, and what follows from them."""

    model: Model
    run: Run
    _patterns: dict[int, Tensor] = dataclasses.field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.run.require_factors()
        refuse_non_finite(self.run)

    @functools.cached_property
    def geometry(self) -> Geometry:
        """Masks and rotary tables of the run's prompts."""
        return Geometry(self.run.weights, self.run.tokens, self.model.dtype)

    def pattern(self, layer: int) -> Tensor:
        """The attention pattern of a layer, `[prompt head query key]`; that of the last layer asked for is kept."""
        if layer not in self._patterns:
            # One layer at a time: all patterns of a run are layers x heads x tokens², and sites are asked for in order of
            # layers.
            self._patterns.clear()
            self._patterns[layer] = self.run.pattern(layer)
        return self._patterns[layer]

    def attention(self, layer: int) -> Tensor:
        """What the attention of a layer wrote, `[prompt position d_model]`."""
        block = self.run.weights.blocks[layer]
        return attention_output(self.run.z[layer], block.attention, block.attention_post_norm)

    def mlp(self, layer: int) -> Tensor:
        """What the MLP of a layer wrote, `[prompt position d_model]`; zero where there is none."""
        block = self.run.weights.blocks[layer]
        if block.mlp is None:
            return torch.zeros_like(self.run.residuals[0])
        if layer in self.run.edited_mlps:
            # Where an edit set the MLP's output, the neurons no longer say what was written.
            return self.run.edited_mlps[layer]
        return mlp_output(self.run.neurons[layer], block.mlp, block.mlp_post_norm)


@torch.no_grad()
def plain_run(model: Model, tokens: TokenBatch, edits: Sequence[Edit] = (), *, keep: Keep = "factors") -> Run:
    """A run with its factors and without logits. Raises NonFiniteError with the first site."""
    compiled = compile_edits(edits, model.graph())
    run = forward(model.weights, model.prepare(tokens), edits=compiled, keep=keep, logits=False)
    refuse_non_finite(run)
    return run


def some_prompts(run: Run, rows: slice | Tensor, width: int | None = None) -> Run:
    """The same run of some of its prompts, up to a column (default: the last): views of its values, or for a list of prompts
    copies. What is left out to the right must be pads, or what is kept must not look there."""
    names, columns = ("residuals", "middles", "q", "k", "v", "z", "neurons"), slice(width)
    parts = {name: tuple(value[rows, columns] for value in getattr(run, name)) for name in names}
    parts["patterns"] = tuple(value[rows, :, columns, columns] for value in run.patterns)
    edited = {layer: value[rows, columns] for layer, value in run.edited_mlps.items()}
    tokens = TokenBatch(run.tokens.ids[rows, columns], run.tokens.mask[rows, columns])
    return dataclasses.replace(run, tokens=tokens, logits=run.logits[rows, columns], edited_mlps=edited, reads=(), **parts)


def held_nodes(other: Run, nodes: Sequence[Node]) -> tuple[Edit, ...]:
    """Edits that hold heads and MLPs at their values in the other run. Raises GraphError for other kinds of nodes."""
    edits = []
    for node in nodes:
        layer, block = node.layer or 0, other.weights.blocks[node.layer or 0]
        if node.kind == "head":
            edits.append(Edit(node, other.z[layer][:, :, node.index]))
        elif node.kind == "mlp" and block.mlp is not None:
            edits.append(Edit(node, mlp_output(other.neurons[layer], block.mlp, block.mlp_post_norm)))
        else:
            raise GraphError(f"{node} cannot be left out: only heads and whole MLPs can")
    return tuple(edits)


def refuse_non_finite(run: Run) -> None:
    """Raise NonFiniteError with the first site, in the order of computation, that holds NaN or infinity in a run."""
    for layer in range(len(run.weights.blocks) + 1):
        _check(run.residuals[layer], run, f"the residual stream before layer {layer}")
        for field, said in _FACTORS:
            values = getattr(run, field)
            if layer < len(values):
                _check(values[layer], run, f"{said} of layer {layer}")
    _check(run.logits, run, "the logits")


def _check(value: Tensor, run: Run, what: str) -> None:
    if all_finite(value.detach()):
        return
    # Pads may hold anything (nothing reads them); a run without logits has logits of no column, hence the slice.
    finite = value.isfinite().flatten(2).all(dim=2) | ~run.tokens.mask[:, : value.shape[1]]
    if not bool(finite.all()):
        prompt, position = (~finite).nonzero()[0].tolist()
        raise NonFiniteError(f"{what} holds NaN or infinity at prompt {prompt}, position {position}")
