"""What the last token takes from each other token: attention weights, and the exact split of the margin by what heads read."""

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.lenses.direct.contributions import at_columns, layer_contributions
from circuits.lenses.readout import constant, direction
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.layers import embed


@dataclasses.dataclass(frozen=True, eq=False)
class DirectSplit:
    """The margin of each text, taken apart: the tokens' numbers and `rest` sum to `margins`."""

    numbers: Float[Tensor, "text position"]
    """What all heads of the last token took from each token (weight times value, through the output weights onto the class),
    and what the last token's own embedding says."""
    rest: Float[Tensor, " text"]
    """What MLPs and biases wrote at the last token, which belongs to no single token."""
    margins: Float[Tensor, " text"]


@torch.no_grad()
def attention_weights(model: Model, tokens: TokenBatch, *, rollout: bool) -> Float[Tensor, "text position"]:
    """How much the last token attends to each, all heads alike.

    The mean over layers of the last token's weights; or with `rollout` (Abnar & Zuidema 2020) the last row of the product
    over layers of half the mean pattern and half the identity, which follows attention down to the embeddings. Both sum to 1
    and know nothing of classes: a large weight speaks neither for nor against one.
    """
    patterns = [pattern.mean(dim=1) for pattern in forward(model.weights, tokens, keep="patterns", logits=False).patterns]
    rows = torch.arange(len(tokens), device=tokens.ids.device)
    if not rollout:
        return torch.stack([pattern[rows, tokens.last] for pattern in patterns]).mean(dim=0)
    found = torch.zeros_like(patterns[0][:, 0])
    found[rows, tokens.last] = 1.0
    for pattern in reversed(patterns):
        found = (found + torch.einsum("bq,bqk->bk", found, pattern)) / 2
    return found


@torch.no_grad()
def direct_split(model: Model, tokens: TokenBatch, labels: Int[Tensor, " text"]) -> DirectSplit:
    """The margin of each text's class over the mean of the others' as what the last token's heads read from each token, its
    own embedding, MLPs and biases write onto it, through the final norm as it was: exact.

    Args:
        model: a classifier's.
        tokens: the texts.
        labels: the class of each whose margin is taken apart.
    """
    run, columns = forward(model.weights, tokens, logits=False), tokens.last
    classes = torch.arange(model.weights.W_U.shape[1], device=tokens.ids.device)
    # The margin is linear in the logits: each class by its part in it.
    parts = torch.full((len(labels), len(classes)), -1 / (len(classes) - 1), dtype=run.residuals[-1].dtype).to(labels.device)
    parts[torch.arange(len(labels), device=labels.device), labels] = 1.0
    wide = parts @ direction(model, classes).to(parts)
    onto = wide / at_columns(run.final_scale, columns)
    written = at_columns(run.residuals[-1], columns)
    always = parts @ constant(model, classes).to(parts)
    numbers, rest = torch.zeros_like(run.residuals[0][..., 0]), always.clone()
    rows = torch.arange(len(tokens), device=tokens.ids.device)
    numbers[rows, columns] += (at_columns(embed(model.weights, tokens), columns) * onto).sum(dim=-1)
    for layer in range(model.n_layers):
        here = layer_contributions(run, layer, onto, columns, sources=True)
        assert here.sources is not None
        numbers += here.sources.sum(dim=0)
        rest += here.neurons.sum(dim=0)
        rest += sum(bias for bias in (here.attention_bias, here.mlp_bias) if bias is not None)
    return DirectSplit(numbers, rest, (written * onto).sum(dim=-1) + always)
