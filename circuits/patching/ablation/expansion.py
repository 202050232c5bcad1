"""The residual stream of a run as a sum of terms by order: how many heads each term has gone through.

Attention patterns and the scales of all norms are held at the run's own; what is left is linear. Order 0 is the direct
path: the embedding and every constant that a layer adds (biases). A head's term of order n is what it makes of the terms
of order n − 1 that it reads: order 1 is single heads on the direct path, order 2 virtual heads, and so on.
"""

import dataclasses
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.models import Run, attention_bias
from circuits.models.folding import through_norm
from circuits.models.layers import attention_output, mix, mlp_output, norm_scale
from circuits.models.weights import Block

MLPs = Literal["frozen", "zero"]


@dataclasses.dataclass(frozen=True, eq=False)
class Expansion:
    """The final residual stream's terms by order, `[prompt position d_model]` each, and what each layer's heads mixed from
    the terms of each order that was kept (z, before W_O; a term of order n comes from entry n − 1)."""

    run: Run
    terms: tuple[Tensor, ...]
    mixed: tuple[tuple[Tensor, ...], ...]

    def up_to(self, order: int) -> Float[Tensor, "prompt position d_model"]:
        """The sum of the terms up to an order."""
        return torch.stack(self.terms[: order + 1]).sum(dim=0)

    def head_term(self, order: int, layer: int, head: int) -> Float[Tensor, "prompt position d_model"]:
        """One head's term of an order (1 or more); zero where what the head reads has no term of the order before."""
        if order > len(self.mixed[layer]):
            return torch.zeros_like(self.terms[0])
        block = self.run.weights.blocks[layer]
        written = self.mixed[layer][order - 1][:, :, head] @ block.attention.per_head("W_O")[head]
        return _through_post_norm(self.run, layer, block, written)


def expand(run: Run, *, mlps: MLPs = "frozen", heads: int = 0) -> Expansion:
    """Terms of a run that kept its patterns, one order a layer and order 0; those of single heads up to the order `heads`.

    With MLPs "frozen", what each MLP wrote in the run counts as order 0 and the terms sum to the final residual stream; with
    "zero" MLPs write nothing.
    """
    weights = run.weights
    terms = [run.residuals[0]]
    mixed = []
    for layer, block in enumerate(weights.blocks):
        attention = block.attention
        scale, pattern = norm_scale(run.residuals[layer], block.attention_norm), run.pattern(layer)
        z = []
        for term in terms:
            values = through_norm(term, block.attention_norm, scale) @ attention.W_V
            z.append(mix(pattern, values.unflatten(-1, (attention.n_key_value_heads, -1)), attention))
        written = [_through_post_norm(run, layer, block, one.flatten(-2) @ attention.W_O) for one in z]
        mixed.append(tuple(z[:heads]))
        terms = [*terms, torch.zeros_like(terms[0])]
        terms = [term + (0 if order == 0 else written[order - 1]) for order, term in enumerate(terms)]
        terms[0] = terms[0] + _constant(run, layer, block)
        if block.mlp is not None and mlps == "frozen":
            terms[0] = terms[0] + mlp_output(run.neurons[layer], block.mlp, block.mlp_post_norm)
    return Expansion(run, tuple(terms), tuple(mixed))


def frozen_final(run: Run, x: Float[Tensor, "prompt position d_model"]) -> Float[Tensor, "prompt position d_model"]:
    """A residual stream through the final norm with the run's own scale; the unembedding follows without a norm."""
    norm = run.weights.final_norm
    x = through_norm(x, norm, run.final_scale)
    return x if norm is None or norm.bias is None else x + norm.bias


def _constant(run: Run, layer: int, block: Block) -> Tensor:
    """What attention adds whatever it reads: the norm's bias and the values' bias through W_V and W_O, and the output's."""
    attention, norm = block.attention, block.attention_norm
    values = torch.zeros_like(attention.W_V[0])
    if norm is not None and norm.bias is not None:
        values = values + norm.bias @ attention.W_V
    values = values if attention.b_V is None else values + attention.b_V
    groups = attention.n_heads // attention.n_key_value_heads
    z = values.unflatten(-1, (attention.n_key_value_heads, -1)).repeat_interleave(groups, dim=0)
    written = (z.flatten() @ attention.W_O).expand_as(run.residuals[0])
    return _through_post_norm(run, layer, block, written) + attention_bias(run, layer)


def _through_post_norm(run: Run, layer: int, block: Block, part: Tensor) -> Tensor:
    """A part of what attention wrote, through the norm after it, with the scale that the whole had."""
    post = block.attention_post_norm
    if post is None:
        return part
    whole = attention_output(run.z[layer], block.attention, None)
    return through_norm(part, post, norm_scale(whole, post))
