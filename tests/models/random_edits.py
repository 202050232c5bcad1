"""Random node edits, each both as the package's `Edit` and as changes for the reference's single prompts."""

import dataclasses
import random
from collections.abc import Callable

import torch
from torch import Tensor

from circuits.models import Edit, TokenBatch
from tests.models.reference import Array, Change, Node


@dataclasses.dataclass(frozen=True)
class RandomEdit:
    """One edit of a batch, and for each prompt what it does there."""

    edit: Edit
    changes: list[tuple[Node, Change]]


def random_batch(rng: random.Random, vocabulary: int, longest: int) -> TokenBatch:
    """Some prompts; of unequal length and with pads on either side in four cases of ten."""
    count, width, padded = rng.randint(1, 3), rng.randint(1, longest), rng.random() < 0.4
    rows = [[rng.randrange(vocabulary) for _ in range(width)] for _ in range(count)]
    mask = torch.ones(count, width, dtype=torch.bool)
    for row in mask:
        length = rng.randint(1, width) if padded else width
        start = rng.randint(0, width - length)
        row[:start] = row[start + length :] = False
    return TokenBatch(torch.tensor(rows), mask)


def node_sizes(n_layers: int, n_heads: int, d_head: int, d_mlp: int, d_model: int) -> dict[str, tuple[Node, tuple[int, ...]]]:
    """Name → (the reference's node, shape of its value at one position)."""
    nodes = {"input": (Node("input"), (d_model,))}
    for layer in range(n_layers):
        for head in range(n_heads):
            nodes[f"a{layer}.h{head}"] = (Node("head", layer, head), (d_head,))
        if d_mlp:
            nodes[f"m{layer}"] = (Node("mlp", layer), (d_model,))
        for neuron in range(d_mlp):
            nodes[f"m{layer}.n{neuron}"] = (Node("neuron", layer, neuron), ())
    return nodes


def random_edit(
    rng: random.Random, nodes: dict[str, tuple[Node, tuple[int, ...]]], batch: TokenBatch, dtype: torch.dtype
) -> RandomEdit:
    """An edit of any node by a number, a tensor or a function, at all positions, some of each prompt's own, or a mask."""
    name = rng.choice([rng.choice(list(nodes)), rng.choice([n for n in nodes if ".n" not in n])])
    node, size = nodes[name]
    count, width = batch.ids.shape
    noise = torch.Generator().manual_seed(rng.randrange(2**32))
    longest = int(batch.mask.sum(dim=1).max())
    places = [place - rng.choice([0, longest]) for place in rng.sample(range(longest), rng.randint(0, longest))]
    kind = rng.choice(["all", "places", "mask"])
    mask = torch.rand(count, width, generator=noise) < 0.5
    positions = {"all": None, "places": places, "mask": mask}[kind]
    shapes = [size, (width, *size), (count, width, *size)]
    if kind == "places":
        shapes = [size, (len(places), *size), (count, len(places), *size)]
    values = torch.randn(rng.choice(shapes), generator=noise, dtype=torch.float64)
    slope, shift = rng.uniform(-2, 2), rng.uniform(-1, 1)
    style = rng.choice(["number", "tensor", "function"])
    value = {"number": shift, "tensor": values.to(dtype), "function": lambda current: slope * current + shift}[style]
    full = values
    hit = {"all": torch.ones_like(mask), "places": torch.zeros_like(mask), "mask": mask}[kind].clone()
    if kind == "places":
        full = torch.zeros(count, width, *size, dtype=torch.float64)
        given = values.expand(count, len(places), *size) if style == "tensor" else None
        for prompt, own in enumerate(batch.mask):
            columns = own.nonzero()[:, 0].tolist()
            for place, position in enumerate(places):
                if -len(columns) <= position < len(columns):
                    hit[prompt, columns[position]] = True
                    full[prompt, columns[position]] = 0.0 if given is None else given[prompt, place]
    full = full.expand(count, width, *size) if style == "tensor" else torch.zeros(count, width, *size)

    def new(prompt: int, column: int, old: Array) -> Array:
        if not hit[prompt, column]:
            return old
        if style == "tensor":
            return full[prompt, column].numpy().reshape(old.shape)
        return old * 0 + shift if style == "number" else slope * old + shift

    return RandomEdit(Edit(name, value, positions), [(node, _at(new, p, batch)) for p in range(count)])


def _at(new: Callable[[int, int, Array], Array], prompt: int, batch: TokenBatch) -> Change:
    first = int(batch.mask[prompt].long().argmax())
    return lambda position, old: new(prompt, first + position, old)


def random_patterns(rng: random.Random, n_layers: int, n_heads: int, batch: TokenBatch) -> list[Tensor]:
    """One pattern a layer with rows that sum to 1, not causal."""
    noise = torch.Generator().manual_seed(rng.randrange(2**32))
    count, width = batch.ids.shape
    scores = [torch.randn(count, n_heads, width, width, generator=noise, dtype=torch.float64) for _ in range(n_layers)]
    return [s.softmax(-1) for s in scores]
