"""A model with a planted chain of heads, one a layer, each of which moves what the one before it brought.

The first head carries a content to a marker, the next one from there to the next marker, the last one to the last token,
which alone is unembedded. Each chooses by a label that its query wants and the keys have. All other heads (one of them a
decoy that attends as the first one does) and all neurons have the same norms and write to scratch. There are no norms,
so that what nobody reads changes nothing at all; float64.
"""

import itertools
import random

import torch
from torch import Tensor

from circuits.graph import Circuit, Graph
from circuits.models.planted.parts import (
    Head,
    Planted,
    Space,
    bare_block,
    decoy_of,
    distractor_head,
    distractor_mlp,
    factor,
    planted_model,
    random_rotation,
)
from circuits.models.planted.words import HopWords
from circuits.models.weights import Weights

SHARP, LOGIT_GAIN = 10.0, 8.0
D_HEAD, D_MLP, SCRATCH = 16, 16, 24


def planted_chain(*, seed: int = 0, hops: int = 3, n_heads: int = 5) -> Planted:
    """A model that follows a content from marker to marker, one head a layer; which one is drawn from `seed`.

    `words` says what tokens mean.
    """
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    words = HopWords(hops=hops)
    channels = {f"carried {hop}": words.contents for hop in range(hops)}
    space = Space.random({"token": words.d_vocab, **channels, "scratch": SCRATCH}, generator)
    chain = [(layer, draw.randrange(n_heads)) for layer in range(hops)]
    planted = {place: hop_head(space, words, hop, generator) for hop, place in enumerate(chain)}
    models = list(planted.values())
    places = list(itertools.product(range(hops), range(n_heads)))
    heads = {place: planted.get(place) or distractor_head(space, draw.choice(models), generator) for place in places}
    heads[draw.choice([place for place in places if place not in planted])] = decoy_of(space, models[0], generator)
    rows = [[heads[layer, head] for head in range(n_heads)] for layer in range(hops)]
    W_U = torch.zeros(space.d_model, words.d_vocab).double()
    W_U[:, [words.answer(content) for content in range(words.contents)]] = LOGIT_GAIN * space[f"carried {hops - 1}"].T
    weights = Weights(
        W_E=space["token"].clone(),
        W_U=W_U,
        b_U=None,
        blocks=tuple(bare_block(row, distractor_mlp(space, models[0], generator, d_mlp=D_MLP)) for row in rows),
        final_norm=None,
        max_positions=None,
    )
    model = planted_model(f"planted-chain-{seed}", weights)
    return Planted(model, chain_circuit(model.graph(), chain), words=words)


def hop_head(space: Space, words: HopWords, hop: int, generator: torch.Generator) -> Head:
    """The head of one hop: from markers to what has the label they want."""
    token = space["token"]

    def summed(ids: list[list[int]]) -> Tensor:
        """The codes of each row's tokens, summed."""
        return torch.stack([token[row].sum(dim=0) for row in ids])

    contents = range(words.contents)
    wanting = summed([[words.marker(hop, wants, label) for label in (0, 1)] for wants in (0, 1)])
    if hop == 0:
        having = summed([[words.content(content, label) for content in contents] for label in (0, 1)])
        carried = summed([[words.content(content, label) for label in (0, 1)] for content in contents])
    else:
        having = summed([[words.marker(hop - 1, wants, label) for wants in (0, 1)] for label in (0, 1)])
        carried = space[f"carried {hop - 1}"]
    W_Q, W_K = factor([(wanting, having, SHARP)], D_HEAD, random_rotation(D_HEAD, generator))
    W_V, W_O = factor([(carried, space[f"carried {hop}"], 1.0)], D_HEAD, random_rotation(D_HEAD, generator))
    return Head(W_Q, W_K, W_V, W_O.T)


def chain_circuit(graph: Graph, chain: list[tuple[int, int]]) -> Circuit:
    """The circuit of these heads, each of which reads the value of the one before it."""
    names = ["a{}.h{}".format(*place) for place in chain]
    edges = [f"input->{name}<{slot}>" for name in names for slot in "qk"]
    edges += [f"{writer}->{name}<v>" for writer, name in zip(["input", *names], names, strict=False)]
    return Circuit(graph, [*edges, f"{names[-1]}->logits"], roles={name: f"hop {hop}" for hop, name in enumerate(names)})
