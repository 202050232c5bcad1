"""A model with a planted circuit for recalling facts (Geva et al. 2023), among heads and neurons of the same size.

Prompts are BOS, a first and a second subject token, a relation. A previous-token head gathers the first subject token at
the second. There one neuron an entity detects the pair (first tokens and second tokens are shared between entities, so
that both are needed) and writes an entity flag and all the entity's attributes, in a subspace a relation. At the
relation's token one late head a relation asks for the flag (and rests on BOS for other tokens), and turns that relation's
attribute into the answer. All other heads and neurons are random with the same norms, and write to scratch.
"""

import dataclasses
import itertools
import random
from collections.abc import Mapping

import torch

from circuits.graph import Circuit, Graph
from circuits.models.planted.parts import (
    COPY_GAIN,
    FREQUENCIES,
    Head,
    Planted,
    PlantedFact,
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
from circuits.models.weights import MLP, Weights

NAMES, VALUES, D_HEAD, N_LAYERS, N_HEADS, D_MLP = 8, 6, 56, 4, 4, 64


@dataclasses.dataclass(frozen=True)
class _World:
    """Token ids: BOS 0, first names, second names, relations, then the values of each relation in turn."""

    entities: tuple[tuple[int, int], ...]
    relations: tuple[int, ...]
    values: tuple[tuple[int, ...], ...]
    """The answer of each entity (outer) to each relation (inner)."""

    @classmethod
    def drawn(cls, entities: int, relations: int, draw: random.Random) -> "_World":
        """A world of so many entities and relations, drawn."""
        pairs = list(itertools.product(range(1, NAMES + 1), range(NAMES + 1, 2 * NAMES + 1)))
        first_value = 1 + 2 * NAMES + relations
        rows = [tuple(first_value + r * VALUES + draw.randrange(VALUES) for r in range(relations)) for _ in range(entities)]
        asked = tuple(range(1 + 2 * NAMES, first_value))
        return cls(tuple(sorted(draw.sample(pairs, entities))), asked, tuple(rows))

    def rewritten(self, answers: Mapping[int, int]) -> "_World":
        """The same world with other answers, by the places of facts, entities outermost."""
        rows = [list(row) for row in self.values]
        for place, answer in answers.items():
            entity, relation = divmod(place, len(self.relations))
            there = range(*self.value_ids(relation).indices(self.d_vocab))
            if not 0 <= entity < len(rows) or answer not in there:
                raise ValueError(
                    f"fact {place} with the answer {answer}: expected a fact that is there, and an answer of its relation"
                )
            rows[entity][relation] = answer
        return dataclasses.replace(self, values=tuple(map(tuple, rows)))

    @property
    def first_value(self) -> int:
        """The id of the first value."""
        return self.relations[-1] + 1

    @property
    def d_vocab(self) -> int:
        """How many tokens there are."""
        return self.first_value + VALUES * len(self.relations)

    def value_ids(self, relation: int) -> slice:
        """The tokens that answer the relation of that place."""
        start = self.first_value + relation * VALUES
        return slice(start, start + VALUES)


def planted_recall(
    *, seed: int = 0, entities: int = 20, relations: int = 3, rewritten: Mapping[int, int] | None = None
) -> Planted:
    """A model that knows `entities` × `relations` facts, one neuron an entity; float64, four layers of four heads.

    Where heads and neurons stand is drawn from `seed`. `entities` up to 60, `relations` up to 6. `facts` lists what the
    model knows, as prompts and answers; the circuit's graph has single neurons. `rewritten`: other answers of the relation for
    some facts, by their places in `facts`: the same model, drawn alike, but for the output weights of those entities' neurons.
    """
    if not (1 <= entities <= 60 and 1 <= relations <= 6):
        raise ValueError(f"a planted model knows 1 to 60 entities and 1 to 6 relations, got {entities} and {relations}")
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    world = _World.drawn(entities, relations, draw).rewritten(rewritten or {})
    size = world.d_vocab
    widths = {"token": size, "constant": 1, "position": 2 * FREQUENCIES, "previous": size, "flag": 1}
    space = Space.random({**widths, "attribute": VALUES * relations, "output": size, "scratch": 24}, generator)
    codes, step = position_codes(space, generator)
    gatherer = (0, draw.randrange(N_HEADS))
    fetchers = draw.sample([(layer, head) for layer in (2, 3) for head in range(N_HEADS)], relations)
    planted = {gatherer: previous_token_head(space, step, D_HEAD, generator)}
    planted |= {place: _fetch_head(space, world, r, generator) for r, place in enumerate(fetchers)}
    models = list(planted.values())
    places = itertools.product(range(N_LAYERS), range(N_HEADS))
    heads = {place: planted.get(place) or distractor_head(space, draw.choice(models), generator) for place in places}
    neurons = sorted(draw.sample(range(D_MLP), entities))
    memory = draw.randrange(2)
    mlps = [distractor_mlp(space, models[0], generator, d_mlp=D_MLP) for _ in range(N_LAYERS)]
    mlps[memory] = _memory(space, world, neurons, generator)
    rows = [[heads[layer, head] for head in range(N_HEADS)] for layer in range(N_LAYERS)]
    weights = Weights(
        W_E=space["token"] + space["constant"],
        W_U=5.0 * space["output"].T,
        b_U=None,
        blocks=tuple(block_of(space, row, mlp) for row, mlp in zip(rows, mlps, strict=True)),
        final_norm=unit_norm(space),
        max_positions=codes.shape[0],
        W_pos=codes,
    )
    model = planted_model(f"planted-recall-{seed}", weights)
    circuit = _true_circuit(model.graph(neurons=True), gatherer, [f"m{memory}.n{n}" for n in neurons], fetchers)
    facts = [
        PlantedFact(pair, relation, answers[r])
        for pair, answers in zip(world.entities, world.values, strict=True)
        for r, relation in enumerate(world.relations)
    ]
    return Planted(model, circuit, tuple(facts))


def _memory(space: Space, world: _World, neurons: list[int], generator: torch.Generator) -> MLP:
    """The layer with the entities' neurons. An entity's neuron adds up its two tokens and takes off one and a half of
    what every token carries, so that it fires for both together and for neither alone, whatever the norm's scale."""
    half = 0.5
    W_in, W_out = torch.zeros(D_MLP, space.d_model).double(), torch.zeros(D_MLP, space.d_model).double()
    for neuron, (first, second), answers in zip(neurons, world.entities, world.values, strict=True):
        W_in[neuron] = half * (space["previous"][first] + space["token"][second] - 1.5 * space["constant"][0])
        attributes = space["attribute"][[answer - world.first_value for answer in answers]].sum(dim=0)
        W_out[neuron] = half * (attributes + space["flag"][0])
    scratch = space["scratch"]
    like_in, like_out = float(W_in[neurons[0]].norm()), float(W_out[neurons[0]].norm())
    for neuron in set(range(D_MLP)) - set(neurons):
        W_in[neuron] = random_matrix(1, space.d_model, like_in, generator)[0]
        W_out[neuron] = random_matrix(1, scratch.shape[0], like_out * 0.5, generator)[0] @ scratch
    return MLP(W_in=W_in.T.contiguous(), W_out=W_out, b_in=None, b_out=None, activation="relu")


def _fetch_head(space: Space, world: _World, relation: int, generator: torch.Generator) -> Head:
    asked = space["token"][world.relations[relation]][None]
    looks = [(asked, space["flag"], 3.0), (space["constant"], space["token"][:1], 0.5)]
    W_Q, W_K = factor(looks, D_HEAD, random_rotation(D_HEAD, generator))
    start = relation * VALUES
    values, answers = space["attribute"][start : start + VALUES], space["output"][world.value_ids(relation)]
    W_V, W_O = factor([(values, answers, 2 * COPY_GAIN)], D_HEAD, random_rotation(D_HEAD, generator))
    return Head(W_Q, W_K, W_V, W_O.T)


def _true_circuit(graph: Graph, gatherer: tuple[int, int], neurons: list[str], fetchers: list[tuple[int, int]]) -> Circuit:
    gather = "a{}.h{}".format(*gatherer)
    edges = [f"input->{gather}<{slot}>" for slot in ("q", "k", "v")]
    edges += [f"{writer}->{neuron}" for neuron in neurons for writer in ("input", gather)]
    roles = {gather: "previous token", **dict.fromkeys(neurons, "entity neuron")}
    for place in fetchers:
        fetch = "a{}.h{}".format(*place)
        edges += [f"input->{fetch}<q>", f"{fetch}->logits"]
        edges += [f"{neuron}->{fetch}<{slot}>" for neuron in neurons for slot in ("k", "v")]
        roles[fetch] = "attribute fetch"
    return Circuit(graph, edges, roles=roles)
