"""A model in which the token before is known from one layer on, and decides what is said: something for probes to find.

Until a chosen layer every head attends to its own position; in that layer one head copies the token before into a subspace of
its own, which alone is unembedded. A probe for the token before is at chance up to that layer and right behind it; what it
reads there is what the model says. Heads write into scratch where they write nothing else; norms and float64 as in
`planted_induction`.
"""

import torch

from circuits.graph import Circuit
from circuits.models.planted.parts import (
    FREQUENCIES,
    POSITIONS,
    Head,
    Planted,
    Space,
    block_of,
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

D_VOCAB, D_HEAD, SCRATCH = 25, 40, 24
GAIN = 1.6


def planted_previous(*, seed: int = 0, n_layers: int = 3, n_heads: int = 2, layer: int = 1) -> Planted:
    """A model whose head a{layer}.h0 alone looks at the token before; it says that token's image, token after token, and its
    own token's never. 25 tokens, of which 0 is BOS; up to 128 positions; float64."""
    generator = torch.Generator().manual_seed(seed)
    widths = {"token": D_VOCAB, "position": 2 * FREQUENCIES, "previous": D_VOCAB, "scratch": SCRATCH}
    space = Space.random(widths, generator)
    codes, step = position_codes(space, generator)
    writer = previous_token_head(space, step, D_HEAD, generator)
    rows = [[_alone(space, writer, generator) for _ in range(n_heads)] for _ in range(n_layers)]
    rows[layer][0] = writer
    weights = Weights(
        W_E=space["token"].clone(),
        W_U=GAIN * space["previous"].T,
        b_U=None,
        blocks=tuple(block_of(space, row, distractor_mlp(space, writer, generator)) for row in rows),
        final_norm=unit_norm(space),
        max_positions=POSITIONS,
        W_pos=codes,
    )
    model = planted_model(f"planted-previous-{seed}", weights)
    name = f"a{layer}.h0"
    edges = [f"input->{name}<{slot}>" for slot in ("q", "k", "v")]
    return Planted(model, Circuit(model.graph(), [*edges, f"{name}->logits"], roles={name: "previous token"}))


def _alone(space: Space, like: Head, generator: torch.Generator) -> Head:
    """A head that attends to its own position, as sharply as another to the one before, and writes into scratch."""
    position = space["position"]
    W_Q, W_K = factor([(position, position, 4.0)], D_HEAD, random_rotation(D_HEAD, generator))
    written = random_matrix(like.W_O.shape[0], SCRATCH, float(like.W_O.norm()), generator) @ space["scratch"]
    return Head(W_Q, W_K, like.W_V, written)
