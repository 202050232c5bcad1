"""How well the next token of a text is predicted from a residual stream, part by part so that few logits are held."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import NonFiniteError, PromptError
from circuits.models import Edit, Run, TokenBatch
from circuits.models.forward import Keep, forward
from circuits.models.layers import unembed
from circuits.models.memory import BUDGET
from circuits.models.weights import Weights


def predicted(tokens: TokenBatch) -> Bool[Tensor, "prompt before"]:
    """Where a token that is no pad is followed by one: the places whose next token counts."""
    return tokens.mask[:, :-1] & tokens.mask[:, 1:]


def check_text(tokens: TokenBatch) -> None:
    """Raise PromptError for prompts without a next token to predict."""
    if not bool(predicted(tokens).any(dim=1).all()):
        raise PromptError("a prompt of one token has no next token to predict: give longer ones")


def next_token_losses(
    weights: Weights, x: Float[Tensor, "prompt position d_model"], tokens: TokenBatch, *, budget: int = BUDGET
) -> Float[Tensor, "prompt before"]:
    """The loss (nats) of each next token, from the final residual stream; 0 where none is predicted. Raises NonFiniteError
    where it is no number."""
    counted = predicted(tokens)
    rows = x[:, :-1][counted]
    wanted = tokens.ids[:, 1:][counted]
    losses = torch.zeros(counted.shape, dtype=x.dtype, device=x.device)
    losses[counted] = losses_of(weights, rows, wanted, budget=budget)
    return losses


def losses_of(
    weights: Weights, rows: Float[Tensor, "row d_model"], wanted: Int[Tensor, " row"], *, budget: int = BUDGET
) -> Float[Tensor, " row"]:
    """The loss (nats) of each wanted token, from the final residual stream before it. Logits take half of the budget: the
    other half is for the run that the stream is of. Raises PromptError for a token that the model cannot predict,
    NonFiniteError where a loss is no number."""
    size = weights.W_U.shape[1]
    if wanted.numel() and int(wanted.max()) >= size:
        raise PromptError(f"token {int(wanted.max())} is never predicted: the model unembeds {size} tokens")
    at_once = max(1, budget // 2 // (2 * size * max(4, rows.element_size())))
    parts = []
    for part, ids in zip(rows.split(at_once), wanted.split(at_once), strict=True):
        logits = unembed(weights, part)
        logits = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
        parts.append(torch.nn.functional.cross_entropy(logits, ids, reduction="none").to(rows.dtype))
    losses = torch.cat(parts) if parts else rows.new_zeros(0)
    if not bool(losses.isfinite().all()):
        raise NonFiniteError("the loss of a token is NaN or infinity: look at the weights and the text")
    return losses


def prompt_means(losses: Float[Tensor, "prompt before"], tokens: TokenBatch) -> Float[Tensor, " prompt"]:
    """Mean over the predicted tokens of each prompt, in float64 on the CPU."""
    return (losses.double().sum(dim=1) / predicted(tokens).sum(dim=1)).cpu()


def text_batches(weights: Weights, tokens: TokenBatch, *, budget: int = BUDGET) -> Iterator[TokenBatch]:
    """The prompts, so many at a time that a run's factors with their patterns fit half of the budget; at least one."""
    width, block = tokens.ids.shape[1], weights.blocks[0]
    heads, d_model = block.attention.n_heads, weights.W_E.shape[1]
    d_mlp = 0 if block.mlp is None else block.mlp.W_in.shape[1]
    per_layer = width * (8 * d_model + 4 * block.attention.W_Q.shape[1] + 3 * d_mlp + 2 * heads * width)
    at_once = max(1, budget // 2 // (per_layer * len(weights.blocks) * weights.W_E.element_size()))
    for start in range(0, len(tokens), at_once):
        yield tokens[start : start + at_once]


def run_from(
    weights: Weights, tokens: TokenBatch, layer: int, x: Float[Tensor, "prompt position d_model"], keep: Keep = "factors"
) -> Run:
    """Run the layers from `layer` on, on the residual stream before it; no logits."""
    return forward(weights.of_layers(layer), tokens, edits={("input", 0): [(None, Edit("input", x))]}, keep=keep, logits=False)
