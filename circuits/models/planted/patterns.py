"""A model whose heads each attend in one way, written into its weights: something for classifiers of attention maps to find.

Layer 0 holds a head that looks at its own token, one at the token before (which it copies, for layer 1), one at the first,
one at delimiters, one at earlier copies of its token and one at all alike; layer 1 an induction head, and five more of these.
All but the one that copies write into scratch. Norms and float64 as in `planted_induction`.
"""

import torch
from torch import Tensor

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

D_VOCAB, D_HEAD, SCRATCH = 32, 80, 24
DELIMITERS = (1, 2)
"""Tokens that end a block."""
_KINDS = (
    ("self", "previous", "first", "delimiter", "same", "mixed"),
    ("after same", "first", "self", "previous", "delimiter", "mixed"),
)


def planted_patterns(*, seed: int = 0) -> Planted:
    """A model of two layers with six heads, whose patterns are the roles of its circuit: self, previous, first, delimiter,
    same, after same, mixed. 32 tokens, of which 0 is BOS and 1 and 2 are delimiters; up to 128 positions; float64."""
    generator = torch.Generator().manual_seed(seed)
    widths = {"token": D_VOCAB, "position": 2 * FREQUENCIES, "previous": D_VOCAB, "scratch": SCRATCH}
    space = Space.random(widths, generator)
    codes, step = position_codes(space, generator)
    writer = previous_token_head(space, step, D_HEAD, generator)
    rows = [[_head(space, step, writer, kind, generator) for kind in kinds] for kinds in _KINDS]
    rows[0][1] = writer
    weights = Weights(
        W_E=space["token"].clone(),
        W_U=space["token"].T.clone(),
        b_U=None,
        blocks=tuple(block_of(space, row, distractor_mlp(space, writer, generator)) for row in rows),
        final_norm=unit_norm(space),
        max_positions=POSITIONS,
        W_pos=codes,
    )
    model = planted_model(f"planted-patterns-{seed}", weights)
    roles = {f"a{layer}.h{head}": kind for layer, kinds in enumerate(_KINDS) for head, kind in enumerate(kinds)}
    edges = [f"input->{name}<{slot}>" for name in roles for slot in ("q", "k")]
    return Planted(model, Circuit(model.graph(), [*edges, "a0.h1->a1.h0<k>"], roles=roles))


def _head(space: Space, step: Tensor, like: Head, kind: str, generator: torch.Generator) -> Head:
    """A head that attends in one way, as sharply as norms allow, and writes into scratch."""
    token, position = space["token"], space["position"]
    anything = token.sum(dim=0, keepdim=True)
    ends = token[list(DELIMITERS)].sum(dim=0, keepdim=True)
    pairs = {
        "self": [(position, position, 4.0)],
        "previous": [(position, step @ position, 4.0)],
        "first": [(anything, token[:1], 4.0)],
        "delimiter": [(anything, ends, 4.0), (anything, token[:1], 2.0)],
        # Its own place is the one copy that it does not look at.
        "same": [(token, token, 4.0), (position, -position, 1.0)],
        "after same": [(token, space["previous"], 4.0), (anything, token[:1], 1.0)],
        "mixed": [(position, position, 1e-6)],
    }
    W_Q, W_K = factor(pairs[kind], D_HEAD, random_rotation(D_HEAD, generator))
    written = random_matrix(like.W_O.shape[0], SCRATCH, float(like.W_O.norm()), generator) @ space["scratch"]
    return Head(W_Q, W_K, like.W_V, written)
