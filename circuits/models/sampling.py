"""Text that a model writes: one token after the other, with the keys and values of those before kept."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import ModelError
from circuits.models.geometry import Geometry, Rotation
from circuits.models.layers import (
    SLOTS,
    attend,
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
        self.prompts, self.length = prompts, length
        whole = TokenBatch.unpadded(torch.zeros(1, length, dtype=torch.long, device=device))
        self.weights, self.geometry = weights, Geometry(weights, whole, weights.W_E.dtype)
        self.count, self.tokens = 0, torch.zeros(prompts, length, dtype=torch.long, device=device)
        attention = weights.blocks[0].attention
        shape = (prompts, length, attention.n_key_value_heads, attention.d_head)
        self._kept = [tuple(torch.empty(shape, dtype=weights.W_E.dtype, device=device) for _ in "kv") for _ in weights.blocks]

    def add(self, ids: Int[Tensor, " prompt"]) -> Float[Tensor, "prompt d_vocab_out"]:
        """Logits after one more token of every prompt."""
        return self.read(ids[:, None])

    def read(self, ids: Int[Tensor, "prompt new"]) -> Float[Tensor, "prompt d_vocab_out"]:
        """Logits after further tokens of every prompt, which are read together."""
        return self.read_at(ids, [-1])[:, 0]

    def read_at(self, ids: Int[Tensor, "prompt new"], columns: Sequence[int]) -> Float[Tensor, "prompt column d_vocab_out"]:
        """The same, with the logits at some of the new tokens, by their places among these."""
        return unembed(self.weights, self._streams(ids)[:, columns])

    def read_ends(self, ids: Int[Tensor, "prompt new"], ends: Int[Tensor, " prompt"]) -> Float[Tensor, "prompt d_vocab_out"]:
        """The same for prompts that end at different ones of the new tokens, with the logits there. What stands behind an end
        is read as well."""
        return unembed(self.weights, self._streams(ids)[torch.arange(len(ids), device=ids.device), ends])

    def continued(
        self, rows: Int[Tensor, " other"], starts: Int[Tensor, " other"], ids: Sequence[Sequence[int]]
    ) -> Float[Tensor, "other d_vocab_out"]:
        """Logits at the ends of other prompts that begin as these do; this writer stays as it was.

        Args:
            rows: which of the prompts each begins as.
            starts: how many of that one's tokens.
            ids: the tokens behind those, one or more.
        """
        weights, device = self.weights, self.tokens.device
        ends = torch.tensor([len(one) - 1 for one in ids], device=device)
        places = torch.arange(int(ends.max()) + 1, device=device)
        length, shared = int((starts + ends).max()) + 1, int(starts.max())
        # What fills up a shorter row stands in one more column, behind all that a token may look at.
        columns = torch.where(places <= ends[:, None], starts[:, None] + places, length)
        new = torch.tensor([[*one, *[0] * (len(places) - len(one))] for one in ids], device=device)
        tokens = torch.zeros(len(ids), length + 1, dtype=torch.long, device=device)
        tokens[:, :shared] = self.tokens[rows, :shared]
        tokens = tokens.scatter(1, columns, new)
        geometry = Geometry(weights, TokenBatch.unpadded(torch.zeros_like(tokens[:1])), weights.W_E.dtype)
        each = torch.arange(len(ids), device=device)
        x = embed(weights, TokenBatch.unpadded(tokens[:, :length]))[each[:, None], columns.clamp(max=length - 1)]

        def attended(layer: int, block: Block, x: Tensor) -> Tensor:
            """What a layer's attention adds to the new tokens."""
            q, k, v = _projected(block, x, geometry.rotation(layer), columns)
            both = []
            for kept, own in zip(self._kept[layer], (k, v), strict=True):
                every = kept.new_zeros((len(ids), length + 1, *kept.shape[2:]))
                every[:, :shared] = kept[rows, :shared]
                every[each[:, None], columns] = own
                both.append(every)
            keys, values = both
            z = attend(q, keys, values, block.attention, geometry.bias_at(block.attention.window, columns))
            return attention_output(z, block.attention, block.attention_post_norm)

        return unembed(weights, _through(weights, x, attended)[each, ends])

    def _streams(self, ids: Int[Tensor, "prompt new"]) -> Float[Tensor, "prompt new d_model"]:
        """The final residual streams of further tokens."""
        at, until = self.count, self.count + ids.shape[1]
        self.tokens[:, at:until] = ids
        x = embed(self.weights, TokenBatch.unpadded(self.tokens[:, :until]))[:, at:]
        x = _through(self.weights, x, self._attended)
        self.count = until
        return x

    def branch(self, length: int) -> "Writer":
        """A writer that has read the same, goes on by itself and has room for `length` tokens in all."""
        own = Writer(self.weights, self.prompts, length)
        own.tokens[:, : self.count] = self.tokens[:, : self.count]
        for mine, theirs in zip(own._kept, self._kept, strict=True):
            for copy, kept in zip(mine, theirs, strict=True):
                copy[:, : self.count] = kept[:, : self.count]
        own.count = self.count
        return own

    def _attended(self, layer: int, block: Block, x: Tensor) -> Float[Tensor, "prompt new d_model"]:
        attention, at, until = block.attention, self.count, self.count + x.shape[1]
        columns = torch.arange(at, until, device=x.device)[None]
        q, k, v = _projected(block, x, self.geometry.rotation(layer), columns)
        for kept, new in zip(self._kept[layer], (k, v), strict=True):
            kept[:, at:until] = new
        keys, values = (kept[:, :until] for kept in self._kept[layer])
        bias = self.geometry.bias_at(attention.window, columns)[..., :until]
        pattern = attention_pattern(q, keys, attention, bias)
        return attention_output(mix(pattern, values, attention), attention, block.attention_post_norm)


def _through(weights: Weights, x: Tensor, attended: Callable[[int, Block, Tensor], Tensor]) -> Tensor:
    """Residual streams after all layers, by what each layer's attention adds to them."""
    for layer, block in enumerate(weights.blocks):
        middle = x + attended(layer, block, x)
        if block.mlp is not None:
            neurons = neuron_activations(normalise(x if weights.parallel else middle, block.mlp_norm), block.mlp)
            middle = middle + mlp_output(neurons, block.mlp, block.mlp_post_norm)
        x = middle
    return x


def _projected(
    block: Block, x: Tensor, rotation: Rotation | None, columns: Int[Tensor, "row new"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of tokens in some columns; one row of these where all prompts have the same."""
    normed = normalise(x, block.attention_norm)
    turned = None if rotation is None else rotation.picked(lambda table: table[0][columns])
    q, k, v = (placed(project(normed, block.attention, slot), slot, turned) for slot in SLOTS)
    return q, k, v


@torch.no_grad()
def most_probable(weights: Weights, prompt: Int[Tensor, " position"], length: int, *, stop: Callable[[int], bool]) -> list[int]:
    """What a model writes after a prompt, always its most probable token: `length` tokens at most, up to the first at which
    `stop` holds, which is left out."""
    writer, found = Writer(weights, 1, len(prompt) + length), list[int]()
    new = prompt[None]
    for _ in range(length):
        new = writer.read(new).argmax(dim=-1)[:, None]
        if stop(int(new)):
            break
        found.append(int(new))
    return found


@torch.no_grad()
def sampled(
    weights: Weights, prompt: Int[Tensor, " position"], count: int, length: int, *, generator: torch.Generator
) -> Int[Tensor, "count length"]:
    """What a model writes after a prompt, `count` times: `length` tokens, each drawn from what it predicts."""
    writer, found = Writer(weights, count, len(prompt) + length), list[Tensor]()
    new = prompt.expand(count, -1)
    for _ in range(length):
        chances = writer.read(new).double().cpu().softmax(dim=-1)
        new = torch.multinomial(chances, 1, generator=generator).to(prompt.device)
        found.append(new)
    return torch.cat(found, dim=1)


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
