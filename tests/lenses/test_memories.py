"""Values, agreement and sub-updates, against their definitions."""

import dataclasses

import pytest
import torch

from circuits.errors import GraphError, PromptError
from circuits.graph import Node
from circuits.lenses import Triggers, find_triggers, key_value_agreement, read_values, sub_updates
from circuits.lenses.neurons.memories import following_tokens
from circuits.lenses.neurons.places import Places
from circuits.lenses.neurons.updates import update_vectors
from circuits.models import Model, TokenBatch
from circuits.models.layers import norm_scale, normalise
from circuits.models.planted import planted_recall
from circuits.models.weights import Norm
from tests.lenses.test_triggers import random_model
from tests.models.random_models import D_VOCAB


def without_mlps(model: Model) -> Model:
    blocks = tuple(dataclasses.replace(block, mlp=None, mlp_norm=None) for block in model.weights.blocks)
    return dataclasses.replace(model, weights=dataclasses.replace(model.weights, blocks=blocks))


def linear_part(x: torch.Tensor, norm: Norm | None) -> torch.Tensor:
    """A norm without its scale and bias, from the norm itself: what it makes of x, times the scale."""
    if norm is None:
        return x
    return normalise(x, dataclasses.replace(norm, bias=None)) * norm_scale(x, norm)


def slow_value(model: Model, name: str, through: str | None) -> torch.Tensor:
    """What a unit of a neuron's activation adds to every logit."""
    node, weights = Node.parse(name), model.weights
    block = weights.blocks[node.layer]
    vector = linear_part(block.mlp.W_out[node.index], block.mlp_post_norm)
    if through is not None:
        head = Node.parse(through)
        block, d_head = weights.blocks[head.layer], model.d_head
        group = head.index // (model.n_heads // model.n_key_value_heads)
        vector = linear_part(vector, block.attention_norm) @ block.attention.W_V[:, group * d_head : (group + 1) * d_head]
        vector = linear_part(
            vector @ block.attention.W_O[head.index * d_head : (head.index + 1) * d_head], block.attention_post_norm
        )
    return linear_part(vector, weights.final_norm) @ weights.W_U


@pytest.mark.parametrize("seed", range(20))
def test_values_are_what_a_unit_of_activation_adds_to_the_logits(seed: int) -> None:
    model = random_model(seed)
    last = model.n_layers - 1
    through = f"a{last}.h{seed % model.n_heads}" if last and seed % 2 else None
    values = read_values(model, ["m0"], k=4, through=through)
    assert values.through == through and values.layers.tolist() == [0] * model.d_mlp
    block = model.weights.blocks[0]
    for row in range(model.d_mlp):
        written = linear_part(block.mlp.W_out[row], block.mlp_post_norm)
        assert float(values.norms[row]) == pytest.approx(float(written.norm()), abs=1e-10), "what the neuron itself writes"
        logits = slow_value(model, f"m0.n{row}", through)
        for ids, amounts, sign in ((values.raised, values.raised_by, 1), (values.lowered, values.lowered_by, -1)):
            best = (sign * logits).sort(descending=True).values[:4] * sign
            assert torch.allclose(amounts[row], best, atol=1e-9)
            assert torch.allclose(logits[ids[row]], amounts[row], atol=1e-9)
    table = values.to_dataframe()
    assert len(table) == 4 * model.d_mlp and table["raised"].iloc[0] == str(int(values.raised[0, 0]))


@pytest.mark.parametrize("seed", range(5))
def test_an_entity_neurons_value_is_exactly_its_attributes_read_through_the_heads_that_fetch_them(seed: int) -> None:
    planted = planted_recall(seed=seed)
    model, roles = planted.model, planted.circuit.roles
    relations = sorted({fact.relation for fact in planted.facts})
    subjects = sorted({fact.subject for fact in planted.facts})
    corpus = TokenBatch.unpadded(torch.tensor([[0, *fact.prompt[1:]] for fact in planted.facts]))
    neurons = [str(node) for node, role in roles.items() if role == "entity neuron"]
    heads = [str(node) for node, role in roles.items() if role == "attribute fetch"]
    triggers = find_triggers(model, corpus, neurons=neurons, top=1)
    read = {head: read_values(model, neurons, k=2, through=head) for head in heads}
    known = {(fact.subject, fact.relation): fact.answer for fact in planted.facts}
    recovered = {}
    for name in neurons:
        row = triggers.row(name)
        subject = tuple(corpus.ids[int(triggers.highest.prompts[row, 0]), 1:3].tolist())
        answers = [int(values.raised[row, 0]) for values in read.values()]
        assert all(float(v.raised_by[row, 0]) > 1e6 * abs(float(v.raised_by[row, 1])) for v in read.values()), "nothing else"
        recovered[subject] = sorted(answers)
    assert recovered == {subject: sorted(known[subject, relation] for relation in relations) for subject in subjects}
    with pytest.raises(GraphError, match="name a head of a later layer"):
        read_values(model, neurons, through="a0.h0")
    with pytest.raises(GraphError, match="m3 is no head"):
        read_values(model, neurons, through="m3")


@pytest.mark.parametrize("seed", range(20))
def test_updates_and_biases_sum_to_what_the_mlp_writes(seed: int) -> None:
    model = random_model(seed)
    ids = torch.randint(1, D_VOCAB, (5,), generator=torch.Generator().manual_seed(seed))
    run, layer, position = model.run(ids), seed % model.n_layers, seed % 5
    written = model.node_output(run, f"m{layer}")[0, position]
    updates, bias = update_vectors(model, run, layer, position=position)
    assert torch.allclose(updates.sum(dim=0) + bias, written, atol=1e-9)
    for index in range(model.d_mlp):
        assert torch.allclose(updates[index], model.node_output(run, f"m{layer}.n{index}")[0, position], atol=1e-10)
    found = sub_updates(model, ids, layer=layer, position=position, top=100, tokens=2)
    assert len(found.updates) == model.d_mlp
    assert sum(one.share for one in found.updates) + found.biases[layer][0] == pytest.approx(1, abs=1e-9)
    direct = sum(one.logit for one in found.updates) + found.biases[layer][1]
    scale = run.final_scale[0, position]
    best = int(run.logits[0, position].argmax())
    expected = float(linear_part(written, model.weights.final_norm) @ model.weights.W_U[:, best] / scale)
    assert direct == pytest.approx(found.logits[layer], abs=1e-9)
    assert direct == pytest.approx(expected, abs=1e-8), "what the MLP adds to the predicted token's logit"
    assert found.predicted == str(best)
    strengths = [one.strength for one in found.updates]
    assert strengths == sorted(strengths, reverse=True)
    for one in found.updates:
        index = int(one.neuron.split(".n")[1])
        assert one.strength == pytest.approx(float(updates[index].norm()), abs=1e-10)
        assert one.activation == pytest.approx(float(run.neurons[layer][0, position, index]), abs=1e-12)
        raised = slow_value(model, one.neuron, None) * (1 if one.activation >= 0 else -1)
        assert float(raised[int(one.raises[0])]) == pytest.approx(float(raised.max()), abs=1e-9)


def test_updates_of_all_layers_are_ranked_together() -> None:
    model = random_model(10)
    ids = torch.randint(1, D_VOCAB, (5,), generator=torch.Generator().manual_seed(0))
    whole = sub_updates(model, ids, top=4)
    each = [one for layer in range(model.n_layers) for one in sub_updates(model, ids, layer=layer, top=4).updates]
    best = sorted(each, key=lambda one: -one.strength)[:4]
    assert [one.neuron for one in whole.updates] == [one.neuron for one in best]
    assert len(whole.to_dataframe()) == 4
    for options, words in (({"layer": 9}, "no layer 9"), ({"position": 5}, "position 5"), ({"top": 0}, "top=0")):
        with pytest.raises((GraphError, PromptError), match=words):
            sub_updates(model, ids, **options)
    with pytest.raises(PromptError, match="attention alone"):
        sub_updates(without_mlps(model), ids)


def test_agreement_counts_neurons_whose_value_names_the_next_token() -> None:
    model = random_model(14)
    tokens = TokenBatch.unpadded(torch.randint(1, D_VOCAB, (8, 6), generator=torch.Generator().manual_seed(5)))
    triggers, values = find_triggers(model, tokens, top=3), read_values(model, k=4)
    found = key_value_agreement(model, triggers, tokens, k=4, permutations=50, seed=1)
    for place, layer in enumerate(found.layers):
        first, within, counted = 0, 0, 0
        for row in (triggers.layers == layer).nonzero()[:, 0].tolist():
            places = zip(triggers.highest.prompts[row].tolist(), triggers.highest.positions[row].tolist(), strict=True)
            nexts = [int(tokens.ids[prompt, position + 1]) for prompt, position in places if position < 5]
            if nexts and triggers.largest[row] > 0:
                counted += 1
                first += nexts[0] == int(values.raised[row, 0])
                within += nexts[0] in values.raised[row].tolist()
        assert found.neurons[place] == counted
        assert found.share[place] == pytest.approx(first / max(counted, 1))
        assert found.share_within[place] == pytest.approx(within / max(counted, 1))
        assert found.low_within[place] <= found.chance_within[place] <= found.high_within[place]
    again = key_value_agreement(model, triggers, tokens, k=4, permutations=50, seed=1)
    assert again.as_json() == found.as_json(), "the same seed gives the same chance"
    handed = key_value_agreement(model, triggers, tokens, k=4, permutations=50, seed=1, values=values)
    assert handed.as_json() == found.as_json(), "values that are at hand are those that would be read"
    for wrong in (read_values(model, k=3), read_values(model, ["m0"], k=4)):
        with pytest.raises(PromptError, match="not of the triggers' neurons"):
            key_value_agreement(model, triggers, tokens, k=4, values=wrong)
    other = dataclasses.replace(model, weights=dataclasses.replace(model.weights, W_E=2 * model.weights.W_E))
    with pytest.raises(PromptError, match="other weights"):
        key_value_agreement(other, triggers, tokens)
    with pytest.raises(PromptError, match="give the prompts in which"):
        key_value_agreement(model, triggers, tokens[:1])


def test_agreement_of_made_neurons_is_whole_and_chance_is_far_below() -> None:
    """A bigram memory: each neuron fires for one token and writes the one that follows it."""
    model = random_model(2)
    block, size = model.weights.blocks[0], D_VOCAB
    eye = torch.eye(size, dtype=torch.float64)
    mlp = dataclasses.replace(
        block.mlp, W_in=eye, b_in=None, W_gate=None, b_gate=None, W_out=eye.roll(1, dims=1), b_out=None, activation="relu"
    )
    attention = {name: torch.zeros(size, getattr(block.attention, name).shape[1]).double() for name in ("W_Q", "W_K", "W_V")}
    attention |= {"W_O": torch.zeros(block.attention.W_O.shape[0], size).double(), "b_O": None}
    bare = dataclasses.replace(
        block,
        attention=dataclasses.replace(block.attention, **attention, q_norm=None, k_norm=None),
        mlp=mlp,
        **dict.fromkeys(("attention_norm", "mlp_norm", "attention_post_norm", "mlp_post_norm")),
    )
    weights = dataclasses.replace(
        model.weights, W_E=eye, W_U=eye, b_U=None, blocks=(bare,), final_norm=None, W_pos=None, embedding_norm=None, rotary=None
    )
    made = dataclasses.replace(model, weights=weights)
    ids = (torch.arange(size)[:, None] + torch.arange(4)[None, :]) % size
    tokens = TokenBatch.unpadded(ids)
    triggers = find_triggers(made, tokens, top=2, count_bos=True)
    found = key_value_agreement(made, triggers, tokens, k=1, seed=0)
    assert found.share == (1.0,) and found.neurons == (size,)
    assert found.chance[0] == pytest.approx(1 / size, abs=0.04) and found.high[0] < 0.5


def test_chance_is_what_shuffling_says_drawn_from_the_seed_and_pads_follow_nothing() -> None:
    """Six neurons name one token and six another; shuffled, the matches of a kind are hypergeometric: chances of 0.04 and
    less for one of six, and for five."""
    model = next(one for one in map(random_model, range(50)) if one.n_layers == 1)
    block, value = model.weights.blocks[0], torch.randn(model.d_model, generator=torch.Generator().manual_seed(0)).double()
    W_out = torch.cat([value.expand(6, -1), -value.expand(6, -1)])
    mlp = dataclasses.replace(block.mlp, W_in=torch.zeros_like(W_out).T, W_out=W_out, b_in=None, W_gate=None, b_gate=None)
    blocks = (dataclasses.replace(block, mlp=mlp),)
    made = dataclasses.replace(model, weights=dataclasses.replace(model.weights, blocks=blocks))
    first, second = read_values(made, ["m0.n0", "m0.n6"], k=1).raised[:, 0].tolist()
    tokens = TokenBatch.from_rows([[5, first], [5, second, 3]])
    prompts, zeros = torch.tensor([0] * 6 + [1] * 6), torch.zeros(12, dtype=torch.long)
    places = Places(torch.ones(12, 1).double(), prompts[:, None], zeros[:, None])
    statistics = {"count": 5, "mean": zeros.double(), "active": zeros.double()}
    triggers = Triggers("made", made.fingerprint, zeros, torch.arange(12), places, None, **statistics)
    found = key_value_agreement(made, triggers, tokens, k=1, permutations=2000)
    assert found.share == found.share_within == (1.0,) and found.chance[0] == pytest.approx(0.5, abs=0.01)
    assert (found.low[0], found.high[0]) == pytest.approx((2 / 12, 10 / 12))
    few = {key_value_agreement(made, triggers, tokens, k=1, permutations=3, seed=seed).chance for seed in range(4)}
    assert len(few) > 1
    last = dataclasses.replace(triggers, highest=dataclasses.replace(places, positions=places.positions + 1))
    assert following_tokens(made, last, tokens)[1][:, 0].tolist() == [False] * 6 + [True] * 6
