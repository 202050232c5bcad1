"""A model with planted neurons: one that fires at a set of tokens, one at what follows a token, and random ones."""

import torch

from circuits.models import Model, TokenBatch
from circuits.models.planted.parts import Head, Space, bare_block, planted_model, random_matrix
from circuits.models.weights import MLP, Weights

D_VOCAB, SCRATCH = 40, 8
LEXICON = (7, 19, 23)
"""Tokens at which m0.n2 fires, with these activations."""
STRENGTHS = (1.0, 0.8, 0.6)
NEURONS = 6


def planted_lexicon(seed: int = 0) -> Model:
    """One layer without norms, whose head does nothing: m0.n2 fires at the lexicon alone; the others fire at random."""
    generator = torch.Generator().manual_seed(seed)
    space = Space.random({"token": D_VOCAB, "scratch": SCRATCH}, generator)
    zeros = torch.zeros(space.d_model, 4, dtype=torch.float64)
    nothing = Head(zeros, zeros, zeros, zeros.T)
    W_in = random_matrix(space.d_model, NEURONS, 3.0, generator)
    W_in[:, 2] = sum(strength * space["token"][token] for token, strength in zip(LEXICON, STRENGTHS, strict=True))
    W_out = random_matrix(NEURONS, SCRATCH, 1.0, generator) @ space["scratch"]
    mlp = MLP(W_in=W_in, W_out=W_out, b_in=None, b_out=None, activation="relu")
    return planted_model(
        "planted-lexicon",
        Weights(
            W_E=space["token"].clone(),
            W_U=space["token"].T.clone(),
            b_U=None,
            blocks=(bare_block([nothing], mlp),),
            final_norm=None,
            max_positions=None,
        ),
    )


def random_text(seed: int = 0, *, rows: int = 120, width: int = 12) -> TokenBatch:
    """Rows of random tokens behind token 0, which opens prompts; half of the rows have tokens of the lexicon."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, D_VOCAB, (rows, width), generator=generator)
    ids[rows // 2 :] = ids[rows // 2 :].where(~torch.isin(ids[rows // 2 :], torch.tensor(LEXICON)), torch.tensor(1))
    ids[:, 0] = 0
    return TokenBatch.unpadded(ids)
