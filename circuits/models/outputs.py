"""What each node of the graph wrote to the residual stream in a run; with the biases, it sums to the final residual."""

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import GraphError
from circuits.graph.named import NodeName, parsed
from circuits.models.folding import through_norm
from circuits.models.layers import attention_output, linear, mlp_output, norm_scale
from circuits.models.run import Run


def node_output(run: Run, node: NodeName) -> Float[Tensor, "prompt position d_model"]:
    """What `input`, a head, an MLP or a neuron wrote in a run; `logits` gives the final residual stream. A head's
    output leaves out the attention's shared bias, a neuron's the MLP's; an MLP's holds its bias. Where the block has a
    norm after the sublayer, its scale is the run's own. Raises GraphError for a node the run's model lacks."""
    run.require_factors()
    node = parsed(node)
    layer, index = node.layer or 0, node.index
    if layer >= len(run.weights.blocks):
        raise GraphError(f"the model has no node {node}: it has {len(run.weights.blocks)} layers")
    block = run.weights.blocks[layer]
    if node.kind == "input":
        return run.residuals[0]
    if node.kind == "logits":
        return run.residuals[-1]
    if node.kind == "head":
        if index is None or index >= block.attention.n_heads:
            raise GraphError(f"the model has no node {node}: it has {block.attention.n_heads} heads a layer")
        output = run.z[layer][:, :, index] @ block.attention.per_head("W_O")[index]
        return _through_post_norm(output, run, layer, "attention")
    if block.mlp is None or (index is not None and index >= block.mlp.W_in.shape[1]):
        raise GraphError(f"the model has no node {node}")
    if node.kind == "mlp" and layer in run.edited_mlps:
        return run.edited_mlps[layer]
    if node.kind == "mlp":
        return mlp_output(run.neurons[layer], block.mlp, block.mlp_post_norm)
    output = run.neurons[layer][:, :, index, None] * block.mlp.W_out[index]
    return _through_post_norm(output, run, layer, "mlp")


def attention_bias(run: Run, layer: int) -> Float[Tensor, "prompt position d_model"]:
    """What a layer's attention writes beyond its heads: the output bias, through the post-norm where there is one."""
    block = run.weights.blocks[layer]
    bias = torch.zeros_like(run.residuals[0])
    if block.attention.b_O is not None:
        bias = bias + block.attention.b_O
    post = block.attention_post_norm
    bias = _through_post_norm(bias, run, layer, "attention")
    return bias if post is None or post.bias is None else bias + post.bias


def _before_post_norm(run: Run, layer: int, part: str) -> Tensor:
    block = run.weights.blocks[layer]
    if part == "attention":
        return attention_output(run.z[layer], block.attention, None)
    assert block.mlp is not None
    return linear(run.neurons[layer], block.mlp.W_out, block.mlp.b_out)


def _through_post_norm(part: Tensor, run: Run, layer: int, whole: str) -> Tensor:
    """The share of a summand in the output of a norm behind attention or MLP, with the scale that the norm had in the run
    (without its bias)."""
    block = run.weights.blocks[layer]
    norm = block.attention_post_norm if whole == "attention" else block.mlp_post_norm
    # Without a norm the whole is not made: it costs far more than the part.
    return part if norm is None else through_norm(part, norm, norm_scale(_before_post_norm(run, layer, whole), norm))
