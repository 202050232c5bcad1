"""What a neuron's weights say of it: tokens that its key answers to, and the nodes that write to it and read from it."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Node
from circuits.heads.composition import output_matrices, reading_matrices
from circuits.lenses.neurons.activations import mlp_of
from circuits.lenses.neurons.memories import value_rows
from circuits.models import Model
from circuits.models.folding import behind_norm
from circuits.models.layers import normalise

_BLOCK = 2**24
"""Numbers of embedded tokens that are held at once."""


def key_columns(model: Model, neuron: Node) -> dict[str, tuple[Float[Tensor, " d_model"], float]]:
    """What a neuron reads with, weights and bias each: `input`, and `gate` where there is one."""
    mlp, index = mlp_of(model, neuron.layer or 0), neuron.index or 0
    parts = {"input": (mlp.W_in, mlp.b_in), "gate": (mlp.W_gate, mlp.b_gate)}
    return {
        name: (matrix[:, index], 0.0 if bias is None else float(bias[index]))
        for name, (matrix, bias) in parts.items()
        if matrix is not None
    }


def key_tokens(model: Model, neuron: Node, *, k: int = 10) -> dict[str, tuple[tuple[tuple[str, float], ...], ...]]:
    """Tokens that a neuron's key answers to most and least: for `input`, and for `gate` where there is one, the `k` tokens
    of largest and the `k` of smallest pre-activation, with it, where the residual stream is the token's embedding alone
    (without a position) through the norm before the MLP."""
    weights, block = model.weights, model.weights.blocks[neuron.layer or 0]
    keys, found = key_columns(model, neuron), {}
    matrix = torch.stack([column for column, _ in keys.values()], dim=1)
    parts = []
    with torch.no_grad():
        for rows in weights.W_E.split(max(1, _BLOCK // model.d_model)):
            x = rows if weights.embedding_scale == 1.0 else rows * weights.embedding_scale
            parts.append(normalise(normalise(x, weights.embedding_norm), block.mlp_norm) @ matrix)
    answers = torch.cat(parts).double().cpu()
    for column, (name, (_, bias)) in enumerate(keys.items()):
        values = answers[:, column] + bias
        ends = []
        for descending in (True, False):
            ids = values.argsort(descending=descending, stable=True)[:k]
            ends.append(tuple(zip(model.to_token_strings(ids), values[ids].tolist(), strict=True)))
        found[name] = tuple(ends)
    return found


def strongest_writers(model: Model, neuron: Node, *, top: int = 5) -> tuple[tuple[str, float], ...]:
    """Heads and neurons before a neuron whose output lies along its key (its gate's, where there is one), by weight.

    Neurons: the cosine of their value and the key. Heads, without sign: |W_O key| over |W_O| |key|. `top` of each kind, by
    size. Norms' gains and centrings are in it, their scales are not.
    """
    layer, keys = neuron.layer or 0, key_columns(model, neuron)
    key = behind_norm(keys["gate" if "gate" in keys else "input"][0][:, None], model.weights.blocks[layer].mlp_norm)[:, 0]
    neurons, heads = [], []
    with torch.no_grad():
        for early, block in enumerate(model.weights.blocks[: layer + 1]):
            if early < layer and block.mlp is not None:
                rows = value_rows(model, early)
                neurons.append((early, rows @ key / (rows.norm(dim=1) * key.norm()).clamp(min=1e-30)))
            if early < layer or not model.weights.parallel:
                W_O = output_matrices(block)
                sizes = (W_O @ key).norm(dim=1) / (W_O.flatten(1).norm(dim=1) * key.norm()).clamp(min=1e-30)
                heads.append((early, sizes))
    return (*_largest("head", heads, top), *_largest("neuron", neurons, top))


def strongest_readers(model: Model, neuron: Node, *, top: int = 5) -> tuple[tuple[str, float], ...]:
    """Heads and neurons of later layers that read along a neuron's value, by weight.

    Neurons: the cosine of the value and their key (their gate's, where there is one). Heads, without sign: |value W_V| over
    |value| |W_V|. `top` of each kind, by size. Norms' gains and centrings are in it, their scales are not.
    """
    layer = neuron.layer or 0
    value = value_rows(model, layer, [neuron.index or 0])[0]
    neurons, heads = [], []
    with torch.no_grad():
        for late in range(layer + 1, model.n_layers):
            block = model.weights.blocks[late]
            if block.mlp is not None:
                keys = block.mlp.W_in if block.mlp.W_gate is None else block.mlp.W_gate
                columns = behind_norm(keys, block.mlp_norm)
                neurons.append((late, value @ columns / (columns.norm(dim=0) * value.norm()).clamp(min=1e-30)))
            W_V = reading_matrices(block, "W_V")
            sizes = (value @ W_V).norm(dim=1) / (W_V.flatten(1).norm(dim=1) * value.norm()).clamp(min=1e-30)
            heads.append((late, sizes))
    return (*_largest("head", heads, top), *_largest("neuron", neurons, top))


def _largest(kind: str, parts: Iterable[tuple[int, Tensor]], top: int) -> list[tuple[str, float]]:
    names = {"head": "a{}.h{}", "neuron": "m{}.n{}"}
    found = []
    for layer, values in parts:
        order = values.abs().argsort(descending=True, stable=True)[:top]
        found += [(names[kind].format(layer, index), float(values[index])) for index in order.tolist()]
    return sorted(found, key=lambda row: -abs(row[1]))[:top]
