"""Models with planted logic: an answer that needs two heads together, and one that either of two can give.

Head A and head B each find the token of their operand that has the label asked for, by key and query, and carry its bit
to the last position, into a channel each. There neurons compute A and B, or A or B, for the logits. In the OR, a backup
head carries operand A too, but the output of head A turns its query away: it speaks only where head A is silent. All
other heads (one of them a decoy that attends as head A does) and neurons have the same norms and write to scratch. There
are no norms, so that what nobody reads changes nothing at all; float64.
"""

import itertools
import random
from collections.abc import Mapping

import torch
from torch import Tensor

from circuits.graph import Circuit
from circuits.models.model import Model
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
    random_matrix,
    random_rotation,
)
from circuits.models.planted.words import OperandWords
from circuits.models.weights import MLP, Weights

SHARP = 10.0
"""Attention score of the token that a head looks for; that of others is 0."""
D_HEAD, D_MLP, SCRATCH = 16, 16, 24
LOGIT_GAIN = 8.0

Place = tuple[int, int]
Neurons = list[tuple[float, float]]
"""For each planted neuron its bias, added to the sum of the channels, and what it adds to the answer."""
_AND: Neurons = [(-1.25, 1 / 0.75)]
_OR: Neurons = [(0.25, 1.0), (-0.75, -1.0), (-2.25, -1.0)]
"""0.25 for a sum of 0, 1 for a sum of 1 or 2, 0.25 again for a sum of 3: a backup that speaks out of turn does harm."""


def planted_gate(*, seed: int = 0, n_layers: int = 3, n_heads: int = 5) -> Planted:
    """A model that says yes where both operands' bits are 1: two heads, and one neuron that fires only for both together.

    Heads stand in any layer but the last, the neuron in their layer or later, as drawn from `seed`. `words` says what
    tokens mean; the circuit's graph has single neurons.
    """
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    words = OperandWords()
    space = _space(words, generator)
    early = list(itertools.product(range(n_layers - 1), range(n_heads)))
    first, second = draw.sample(early, 2)
    memory = draw.randrange(max(first[0], second[0]), n_layers)
    heads = {first: _operand_head(space, words, 0, generator), second: _operand_head(space, words, 1, generator)}
    model, neurons = _model(f"planted-gate-{seed}", space, words, heads, (memory, _AND), (n_layers, n_heads), draw, generator)
    names = ["a{}.h{}".format(*place) for place in (first, second)]
    roles = dict.fromkeys(names, "operand") | dict.fromkeys(neurons, "gate")
    circuit = Circuit(model.graph(neurons=True), _edges(names, neurons), roles=roles)
    return Planted(model, circuit, words=words)


def planted_or(*, seed: int = 0, n_layers: int = 3, n_heads: int = 5) -> Planted:
    """A model that says yes where either operand's bit is 1: two heads into neurons that saturate, and a backup head
    that carries the first operand only where the first head is silent.

    `redundant` names the edges of `whole` that hide each other where both bits are 1; the backup's own output is silent
    in every prompt unless the first head is tampered with.
    """
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    words = OperandWords()
    space = _space(words, generator)
    main = (0, draw.randrange(n_heads))
    backup = (draw.randrange(1, n_layers), draw.randrange(n_heads))
    rest = [place for place in itertools.product(range(n_layers - 1), range(n_heads)) if place not in (main, backup)]
    other = draw.choice(rest)
    memory = draw.randrange(max(backup[0], other[0]), n_layers)
    heads = {main: _operand_head(space, words, 0, generator), other: _operand_head(space, words, 1, generator)}
    heads[backup] = _backup_head(space, words, generator)
    model, neurons = _model(f"planted-or-{seed}", space, words, heads, (memory, _OR), (n_layers, n_heads), draw, generator)
    a, b, c = ("a{}.h{}".format(*place) for place in (main, other, backup))
    roles = {a: "operand", b: "operand", c: "backup"} | dict.fromkeys(neurons, "or")
    circuit = Circuit(model.graph(neurons=True), [*_edges([a, b, c], neurons), f"{a}->{c}<q>"], roles=roles)
    mlp = f"m{memory}"
    groups = [(f"{a}->{mlp}", f"{b}->{mlp}")]
    groups += [(f"input->{a}<{slot}>", f"input->{b}<{slot}>", f"input->{c}<{slot}>") for slot in "qkv"]
    groups += [(f"input->{a}<{slot}>", f"{b}->{mlp}", f"{c}->{mlp}") for slot in "qkv"]
    return Planted(model, circuit, words=words, redundant=tuple(groups))


def _space(words: OperandWords, generator: torch.Generator) -> Space:
    widths = {"token": words.d_vocab, "first": 1, "second": 1, "backup": 1, "answer": 1, "scratch": SCRATCH}
    return Space.random(widths, generator)


def _labels(space: Space, words: OperandWords, operand: int) -> tuple[Tensor, Tensor]:
    """For each label, the sum of the queries that ask this operand for it, and of the tokens that have it `[2 d_model]`."""
    token = space["token"]
    asking = [[words.query(*((a, b) if operand == 0 else (b, a))) for b in (0, 1)] for a in (0, 1)]
    variants = range(words.variants)
    having = [[words.operand(operand, label, bit, v) for bit in (0, 1) for v in variants] for label in (0, 1)]
    summed = [torch.stack([token[ids].sum(dim=0) for ids in found]) for found in (asking, having)]
    return summed[0], summed[1]


def _bit(space: Space, words: OperandWords, operand: int) -> Tensor:
    """The sum of the tokens with which this operand is 1 `[1 d_model]`."""
    ids = [words.operand(operand, label, 1, variant) for label in (0, 1) for variant in range(words.variants)]
    return space["token"][ids].sum(dim=0, keepdim=True)


def _operand_head(space: Space, words: OperandWords, operand: int, generator: torch.Generator) -> Head:
    asking, having = _labels(space, words, operand)
    W_Q, W_K = factor([(asking, having, SHARP)], D_HEAD, random_rotation(D_HEAD, generator))
    carried = (_bit(space, words, operand), space[("first", "second")[operand]], 1.0)
    W_V, W_O = factor([carried], D_HEAD, random_rotation(D_HEAD, generator))
    return Head(W_Q, W_K, W_V, W_O.T)


def _backup_head(space: Space, words: OperandWords, generator: torch.Generator) -> Head:
    asking, having = _labels(space, words, 0)
    turned_away = (space["first"], -having.sum(dim=0, keepdim=True), 2 * SHARP)
    # It rests on BOS: half as gladly where there is a query, and everywhere else, so that it is silent there too.
    any_query = asking.sum(dim=0, keepdim=True)
    resting = (space["token"].sum(dim=0, keepdim=True) - any_query / 2, space["token"][:1], SHARP)
    W_Q, W_K = factor([(asking, having, SHARP), turned_away, resting], D_HEAD, random_rotation(D_HEAD, generator))
    W_V, W_O = factor([(_bit(space, words, 0), space["backup"], 1.0)], D_HEAD, random_rotation(D_HEAD, generator))
    return Head(W_Q, W_K, W_V, W_O.T)


def _model(
    name: str,
    space: Space,
    words: OperandWords,
    planted: Mapping[Place, Head],
    computing: tuple[int, Neurons],
    shape: tuple[int, int],
    draw: random.Random,
    generator: torch.Generator,
) -> tuple[Model, list[str]]:
    """The model with these heads and, in the layer `computing` names, these neurons, among distractors; the names of the
    neurons."""
    places = list(itertools.product(range(shape[0]), range(shape[1])))
    models = list(planted.values())
    heads = {place: planted.get(place) or distractor_head(space, draw.choice(models), generator) for place in places}
    heads[draw.choice([place for place in places if place not in planted])] = decoy_of(space, models[0], generator)
    memory, neurons = computing
    columns = sorted(draw.sample(range(D_MLP), len(neurons)))
    mlps = [distractor_mlp(space, models[0], generator, d_mlp=D_MLP) for _ in range(shape[0])]
    mlps[memory] = _logic(space, dict(zip(columns, neurons, strict=True)), generator)
    rows = [[heads[layer, head] for head in range(shape[1])] for layer in range(shape[0])]
    settled = _settled(neurons)
    W_U, b_U = torch.zeros(space.d_model, words.d_vocab).double(), torch.zeros(words.d_vocab).double()
    for token, sign in ((words.yes, 1), (words.no, -1)):
        W_U[:, token] = sign * LOGIT_GAIN / 2 * space["answer"][0]
        b_U[token] = -sign * LOGIT_GAIN / 2 * settled
    weights = Weights(
        W_E=space["token"].clone(),
        W_U=W_U,
        b_U=b_U,
        blocks=tuple(bare_block(row, mlp) for row, mlp in zip(rows, mlps, strict=True)),
        final_norm=None,
        max_positions=None,
    )
    return planted_model(name, weights), [f"m{memory}.n{column}" for column in columns]


def _settled(neurons: Neurons) -> float:
    """Half way between what the neurons add for no operand and for both."""
    ends = [sum(out * max(0.0, total + bias) for bias, out in neurons) for total in (0, 2)]
    return sum(ends) / 2


def _logic(space: Space, neurons: Mapping[int, tuple[float, float]], generator: torch.Generator) -> MLP:
    """The layer whose planted neurons add up the channels; the others are random and as large."""
    W_in, W_out = torch.zeros(D_MLP, space.d_model).double(), torch.zeros(D_MLP, space.d_model).double()
    b_in = torch.randn(D_MLP, generator=generator).double()
    channels = space["first"][0] + space["second"][0] + space["backup"][0]
    for neuron in range(D_MLP):
        if neuron in neurons:
            b_in[neuron], out = neurons[neuron]
            W_in[neuron], W_out[neuron] = channels, out * space["answer"][0]
        else:
            W_in[neuron] = random_matrix(1, space.d_model, float(channels.norm()), generator)[0]
            W_out[neuron] = random_matrix(1, SCRATCH, 1.0, generator)[0] @ space["scratch"]
    return MLP(W_in=W_in.T.contiguous(), W_out=W_out, b_in=b_in, b_out=None, activation="relu")


def _edges(heads: list[str], neurons: list[str]) -> list[str]:
    edges = [f"input->{head}<{slot}>" for head in heads for slot in "qkv"]
    edges += [f"{head}->{neuron}" for head in heads for neuron in neurons]
    return edges + [f"{neuron}->logits" for neuron in neurons]
