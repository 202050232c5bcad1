"""A model whose heads and neurons are copies of each other, each for a class of tokens of its own: something for tests of
specialisation and of symmetry to find.

Head h attends to the tokens of class h alone, from everywhere, and writes into scratch; neuron n fires at the tokens of class
n. Exchanging two classes token by token exchanges the two heads and the two neurons, exactly. No norms, no positions; float64.
"""

import torch

from circuits.graph import Circuit
from circuits.models.planted.parts import (
    Head,
    Planted,
    Space,
    bare_block,
    factor,
    planted_model,
    random_matrix,
    random_rotation,
)
from circuits.models.weights import MLP, Weights

D_HEAD, SCRATCH, GAIN = 4, 8, 30.0


def planted_branches(*, seed: int = 0, classes: int = 3, each: int = 4, n_layers: int = 1, tied: bool = False) -> Planted:
    """A model with a head and a neuron for each class of tokens in every layer; with `tied` all heads attend alike, to the
    first class. BOS is 0, class c the tokens from 1 + c * each on; up to 128 positions; its roles tell each head's class."""
    generator = torch.Generator().manual_seed(seed)
    space = Space.random({"token": 1 + classes * each, "scratch": SCRATCH}, generator)
    token = space["token"]
    own = [token[1 + c * each : 1 + (c + 1) * each].sum(dim=0, keepdim=True) for c in range(classes)]
    rows = []
    for _ in range(n_layers):
        heads = [_head(space, own[0 if tied else c], generator) for c in range(classes)]
        written = random_matrix(classes, SCRATCH, 1.0, generator) @ space["scratch"]
        mlp = MLP(W_in=torch.cat(own).T.clone(), W_out=written, b_in=None, b_out=None, activation="relu")
        rows.append(bare_block(heads, mlp))
    weights = Weights(W_E=token.clone(), W_U=token.T.clone(), b_U=None, blocks=tuple(rows), final_norm=None, max_positions=128)
    model = planted_model(f"planted-branches-{seed}", weights)
    roles = {f"a{layer}.h{head}": f"class {0 if tied else head}" for layer in range(n_layers) for head in range(classes)}
    return Planted(
        model, Circuit(model.graph(), [f"input->{name}<{slot}>" for name in roles for slot in ("q", "k")], roles=roles)
    )


def _head(space: Space, wanted: torch.Tensor, generator: torch.Generator) -> Head:
    anything = space["token"].sum(dim=0, keepdim=True)
    W_Q, W_K = factor([(anything, wanted, GAIN)], D_HEAD, random_rotation(D_HEAD, generator))
    W_V = random_matrix(space.d_model, D_HEAD, 1.0, generator)
    return Head(W_Q, W_K, W_V, random_matrix(D_HEAD, SCRATCH, 1.0, generator) @ space["scratch"])
