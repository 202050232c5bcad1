"""How many bits it takes to tell labels to somebody who has the activations (Voita & Titov 2020)."""

import itertools
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.probes.regression import Problem, Turned, fit_logistic, scores_of

FRACTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""How much of the words is known when the next block is told."""


def online_bits(
    x: Float[Tensor, "word width"],
    labels: Int[Tensor, " word"],
    sentence: Int[Tensor, " word"],
    *,
    classes: int,
    penalty: float,
    turned: Turned | None = None,
) -> float:
    """Bits a word of the online code: the first block is told at log2(classes) bits a word, each later one by the probe that
    was fitted to all blocks before it. Blocks end at .1, .2, .4, .8, 1.6, 3.2, 6.25, 12.5, 25, 50 and 100 % of the words, and
    with a sentence.

    The penalty is that of a probe on all words; on fewer it is larger by as much, as a prior's is. A probe's chances are mixed
    with even ones as if it had seen half a word more of each class: the first word of a class is never impossible.
    """
    ends, turned = block_ends(sentence), Turned.of(x) if turned is None else turned
    bits = ends[0] * math.log2(classes)
    for known, end in itertools.pairwise(ends):
        problem = Problem(labels[:known], penalty * len(x) / known)
        fitted = fit_logistic(turned.first(known), [problem], classes=classes)[0]
        chances = scores_of(x[known:end], fitted).double().softmax(dim=-1)
        mixed = (known * chances + 0.5) / (known + 0.5 * classes)
        bits -= float(mixed.gather(1, labels[known:end, None]).log2().sum())
    return bits / len(x)


def block_ends(sentence: Int[Tensor, " word"]) -> list[int]:
    """Where blocks of words end: behind the last word of a sentence, each behind the one before it."""
    last = torch.cat([sentence[1:] != sentence[:-1], torch.ones(1, dtype=torch.bool)])
    stops = (last.nonzero()[:, 0] + 1).tolist()
    found: list[int] = []
    for fraction in FRACTIONS:
        wanted = fraction * len(sentence)
        end = next(stop for stop in stops if stop >= wanted - 1e-9)
        found += [end] if not found or end > found[-1] else []
    return found
