"""A model with a planted induction circuit (Elhage et al. 2021), among heads and neurons of the same size.

The residual stream holds orthogonal subspaces: the token, the position, a copy of the previous token, the output, and
scratch. One previous-token head matches each position's code with the code before it and copies the token there into
`previous`. Each induction head asks with its token for a key whose `previous` holds the same token, rests on BOS where
there is none, and copies the token it finds into `output`, which alone is unembedded. All other heads and all neurons
are random with the same norms, or decoys, and write to scratch.
"""

import random

import torch
from torch import Tensor

from circuits.graph import Circuit, Graph
from circuits.models.planted.parts import (
    COPY_GAIN,
    FREQUENCIES,
    POSITIONS,
    Head,
    Planted,
    Space,
    block_of,
    distractor_head,
    distractor_mlp,
    factor,
    planted_model,
    position_codes,
    previous_token_head,
    random_matrix,
    random_rotation,
    unit_norm,
)
from circuits.models.weights import Weights

D_VOCAB, D_HEAD = 48, 56


def planted_induction(*, seed: int = 0, n_layers: int = 3, n_heads: int = 5) -> Planted:
    """A model that continues repeated tokens by one previous-token head and one or two induction heads.

    Where they stand is drawn from `seed`. 48 tokens, of which 0 is BOS; up to 128 positions; float64.
    """
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    widths = {"token": D_VOCAB, "position": 2 * FREQUENCIES, "previous": D_VOCAB, "output": D_VOCAB, "scratch": 24}
    space = Space.random(widths, generator)
    codes, step = position_codes(space, generator)
    previous_layer = draw.randrange(n_layers - 1)
    previous_head = (previous_layer, draw.randrange(n_heads))
    later = [(layer, head) for layer in range(previous_layer + 1, n_layers) for head in range(n_heads)]
    inductors = sorted(draw.sample(later, draw.choice((1, 2))))
    planted = {previous_head: previous_token_head(space, step, D_HEAD, generator)}
    planted |= {place: _induction_head(space, generator, 1 / len(inductors)) for place in inductors}
    rest = [(layer, head) for layer in range(n_layers) for head in range(n_heads) if (layer, head) not in planted]
    decoys = dict(zip(draw.sample(rest, 2), _decoys(space, step, generator), strict=True))
    models = list(planted.values())
    heads = {place: distractor_head(space, draw.choice(models), generator) for place in rest} | planted | decoys
    layers = [[heads[layer, head] for head in range(n_heads)] for layer in range(n_layers)]
    weights = Weights(
        W_E=space["token"].clone(),
        W_U=5.0 * space["output"].T,
        b_U=None,
        blocks=tuple(block_of(space, row, distractor_mlp(space, models[0], generator)) for row in layers),
        final_norm=unit_norm(space),
        max_positions=POSITIONS,
        W_pos=codes,
    )
    model = planted_model(f"planted-induction-{seed}", weights)
    return Planted(model, _true_circuit(model.graph(), previous_head, inductors))


def _induction_head(space: Space, generator: torch.Generator, share: float) -> Head:
    token, previous = space["token"], space["previous"]
    anything = token.sum(dim=0, keepdim=True)
    rest_on_bos = (anything, token[:1], 0.3)
    W_Q, W_K = factor([(token, previous, 1.0), rest_on_bos], D_HEAD, random_rotation(D_HEAD, generator))
    spoken = token.clone()
    spoken[0] = 0.0
    W_V, W_O = factor([(spoken, space["output"], COPY_GAIN * share)], D_HEAD, random_rotation(D_HEAD, generator))
    return Head(W_Q, W_K, W_V, W_O.T)


def _decoys(space: Space, step: Tensor, generator: torch.Generator) -> tuple[Head, Head]:
    """A previous-token head that nobody reads, and a head that attends to copies of its own token."""
    unread = previous_token_head(space, step, D_HEAD, generator)
    scratch = random_matrix(D_HEAD, space["scratch"].shape[0], float(unread.W_O.norm()), generator) @ space["scratch"]
    W_Q, W_K = factor([(space["token"], space["token"], 1.0)], D_HEAD, random_rotation(D_HEAD, generator))
    return Head(unread.W_Q, unread.W_K, unread.W_V, scratch), Head(W_Q, W_K, unread.W_V, scratch)


def _true_circuit(graph: Graph, previous_head: tuple[int, int], inductors: list[tuple[int, int]]) -> Circuit:
    writer = "a{}.h{}".format(*previous_head)
    edges = [f"input->{writer}<{slot}>" for slot in ("q", "k", "v")]
    roles = {writer: "previous token"}
    for place in inductors:
        head = "a{}.h{}".format(*place)
        edges += [f"input->{head}<q>", f"input->{head}<v>", f"{writer}->{head}<k>", f"{head}->logits"]
        roles[head] = "induction"
    return Circuit(graph, edges, roles=roles)
