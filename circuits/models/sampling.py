"""Text that a model writes: one token after the other, with the keys and values of those before kept."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import ModelError
from circuits.models.geometry import Geometry
from circuits.models.layers import (
    SLOTS,
    attention_output,
    attention_pattern,
    embed,
    mix,
    mlp_output,
    neuron_activations,
    normalise,
    placed,
    project,
    unembed,
)
from circuits.models.tokens import TokenBatch
from circuits.models.weights import Block, Weights
from circuits.progress import Progress, silent


class Writer:
    """Prompts of equal length that grow by a token at a time, up to `length`. Raises ModelError where the model looks ahead."""

    def __init__(self, weights: Weights, prompts: int, length: int) -> None:
        if not weights.causal:
            raise ModelError("a model whose attention looks ahead cannot write text token by token")
        device = weights.W_E.device
        whole = TokenBatch.unpadded(torch.zeros(1, length, dtype=torch.long, device=device))
        self.weights, self.geometry = weights, Geometry(weights, whole, weights.W_E.dtype)
        self.count, self.tokens = 0, torch.zeros(prompts, length, dtype=torch.long, device=device)
        attention = weights.blocks[0].attention
        shape = (prompts, length, attention.n_key_value_heads, attention.d_head)
        self._kept = [tuple(torch.empty(shape, dtype=weights.W_E.dtype, device=device) for _ in "kv") for _ in weights.blocks]

    def add(self, ids: Int[Tensor, " prompt"]) -> Float[Tensor, "prompt d_vocab_out"]:
        """Logits after one more token of every prompt."""
        weights, at = self.weights, self.count
        self.tokens[:, at] = ids
        x = embed(weights, TokenBatch.unpadded(self.tokens[:, : at + 1]))[:, at:]
        for layer, block in enumerate(weights.blocks):
            middle = x + self._attended(layer, block, x)
            if block.mlp is not None:
                neurons = neuron_activations(normalise(x if weights.parallel else middle, block.mlp_norm), block.mlp)
                middle = middle + mlp_output(neurons, block.mlp, block.mlp_post_norm)
            x = middle
        self.count += 1
        return unembed(weights, x)[:, 0]

    def _attended(self, layer: int, block: Block, x: Tensor) -> Float[Tensor, "prompt 1 d_model"]:
        attention, normed, at = block.attention, normalise(x, block.attention_norm), self.count
        rotation = self.geometry.rotation(layer)
        rotation = None if rotation is None else rotation.picked(lambda table: table[:, at : at + 1])
        q, k, v = (placed(project(normed, attention, slot), slot, rotation) for slot in SLOTS)
        for kept, new in zip(self._kept[layer], (k, v), strict=True):
            kept[:, at : at + 1] = new
        keys, values = (kept[:, : at + 1] for kept in self._kept[layer])
        column = torch.tensor([[at]], device=x.device)
        bias = self.geometry.bias_at(attention.window, column)[..., : at + 1]
        pattern = attention_pattern(q, keys, attention, bias)
        return attention_output(mix(pattern, values, attention), attention, block.attention_post_norm)


@torch.no_grad()
def write(
    weights: Weights,
    first: Int[Tensor, " prompt"],
    length: int,
    *,
    generator: torch.Generator,
    banned: list[int] | None = None,
    progress: Progress | None = None,
) -> Int[Tensor, "prompt length"]:
    """Prompts of `length` tokens that begin with these and go on with samples of what the model predicts; tokens in `banned`
    are not written. `progress` hears how many tokens of each prompt there are."""
    writer, ids, report = Writer(weights, len(first), length), first, progress or silent
    for done in range(length - 1):
        report("writing a text", done, length - 1)
        logits = writer.add(ids).double().cpu()
        logits[:, banned or []] = -torch.inf
        ids = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)[:, 0].to(first.device)
    writer.tokens[:, length - 1] = ids
    report("writing a text", length - 1, length - 1)
    return writer.tokens
