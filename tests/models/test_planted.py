"""Planted models do what they say, by the heads and neurons they say, among others of the same size."""

import functools

import pytest
import torch

from circuits.graph import Node
from circuits.models import Edit
from circuits.models.planted import Planted, planted_induction, planted_recall
from circuits.tasks import repeated_tokens

SEEDS = range(20)
induction_of = functools.cache(lambda seed: planted_induction(seed=seed))
recall_of = functools.cache(lambda seed: planted_recall(seed=seed))


def with_role(planted: Planted, role: str) -> list[Node]:
    return [node for node, given in planted.circuit.roles.items() if given == role]


def other_heads(planted: Planted) -> list[Node]:
    heads = [node for node in planted.model.graph().nodes() if node.kind == "head"]
    return [head for head in heads if head not in planted.circuit.nodes]


def second_copy(planted: Planted, ablated: list[Node], copies: int = 2) -> torch.Tensor:
    """Probability of the right next token, in all copies but the first."""
    tokens, length = repeated_tokens(planted.model, count=4, length=25, copies=copies, seed=1)
    logits = planted.model.run(tokens, edits=[Edit(node, 0.0) for node in ablated]).logits
    columns = torch.arange(1 + length, copies * length)
    return logits.softmax(-1)[:, columns].gather(-1, tokens.ids[:, columns + 1, None])


@pytest.mark.parametrize("seed", SEEDS)
def test_induction_works_and_hangs_on_the_planted_heads_alone(seed: int):
    planted = induction_of(seed)
    assert float(second_copy(planted, []).min()) > 0.9
    assert float(second_copy(planted, [], copies=4).min()) > 0.9
    assert float(second_copy(planted, other_heads(planted)).min()) > 0.9
    for role in ("previous token", "induction"):
        assert float(second_copy(planted, with_role(planted, role)).mean()) < 0.1


def facts_known(planted: Planted, ablated: list[Node]) -> list[bool]:
    prompts = torch.tensor([fact.prompt for fact in planted.facts])
    answers = torch.tensor([fact.answer for fact in planted.facts])
    logits = planted.model.run(prompts, edits=[Edit(node, 0.0) for node in ablated]).logits[:, -1]
    return (logits.argmax(-1) == answers).tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_recall_knows_every_fact_by_the_planted_nodes_alone(seed: int):
    planted = recall_of(seed)
    assert len(planted.facts) == 60
    assert all(facts_known(planted, []))
    assert all(facts_known(planted, other_heads(planted)))
    for role in ("previous token", "entity neuron", "attribute fetch"):
        assert sum(facts_known(planted, with_role(planted, role))) < 15


@pytest.mark.parametrize("seed", SEEDS)
def test_a_neuron_holds_one_entity_and_a_fetch_head_one_relation(seed: int):
    planted = recall_of(seed)
    for neuron in with_role(planted, "entity neuron")[:4]:
        forgotten = [fact for fact, known in zip(planted.facts, facts_known(planted, [neuron]), strict=True) if not known]
        assert len({fact.subject for fact in forgotten}) == 1
    for head in with_role(planted, "attribute fetch"):
        forgotten = [fact for fact, known in zip(planted.facts, facts_known(planted, [head]), strict=True) if not known]
        assert len({fact.relation for fact in forgotten}) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_neuron_fires_for_both_tokens_and_for_neither_alone(seed: int):
    planted = recall_of(seed)
    model, subjects = planted.model, sorted({fact.subject for fact in planted.facts})
    neurons = with_role(planted, "entity neuron")
    layer, columns = neurons[0].layer, [neuron.index for neuron in neurons]
    relation = planted.facts[0].relation
    prompts = torch.tensor([[0, first, second, relation] for first in range(1, 9) for second in range(9, 17)])
    active = model.run(prompts).neurons[layer][:, 2, columns] > 0
    for row, prompt in zip(active, prompts.tolist(), strict=True):
        pair = (prompt[1], prompt[2])
        assert row.tolist() == [subject == pair for subject in subjects]


@pytest.mark.parametrize("make", [planted_induction, planted_recall])
def test_distractors_have_the_size_of_what_was_planted(make):
    planted = make(seed=2)
    roles = {(node.layer, node.index) for node in planted.circuit.roles if node.kind == "head"}
    sizes: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for layer, block in enumerate(planted.model.weights.blocks):
        norms = [block.attention.per_head(name).flatten(1).norm(dim=1) for name in ("W_Q", "W_K", "W_V", "W_O")]
        for head in range(planted.model.n_heads):
            sizes[(layer, head) in roles].append(torch.stack([norm[head] for norm in norms]))
    planted_mean, other_mean = (torch.stack(sizes[kind]).mean(dim=0) for kind in (True, False))
    assert ((other_mean / planted_mean > 0.4) & (other_mean / planted_mean < 2.5)).all()


def test_distractor_neurons_have_the_size_of_entity_neurons_and_fire():
    planted = recall_of(3)
    neurons = with_role(planted, "entity neuron")
    mlp = planted.model.weights.blocks[neurons[0].layer].mlp
    own = torch.zeros(64, dtype=torch.bool)
    own[[neuron.index for neuron in neurons]] = True
    for norms in (mlp.W_in.norm(dim=0), mlp.W_out.norm(dim=1)):
        ratio = float(norms[~own].mean() / norms[own].mean())
        assert 0.5 <= ratio <= 2
    prompts = torch.tensor([fact.prompt for fact in planted.facts])
    assert float(planted.model.run(prompts).neurons[neurons[0].layer][:, :, ~own].mean()) > 0.05


@pytest.mark.parametrize("make", [planted_induction, planted_recall])
def test_seeds_decide_everything(make):
    once, again, other = make(seed=4), make(seed=4), make(seed=5)
    assert once.model.fingerprint == again.model.fingerprint != other.model.fingerprint
    assert once.circuit == again.circuit != other.circuit


def test_the_circuit_runs_from_the_input_to_the_logits():
    for planted in (induction_of(1), recall_of(1)):
        connected = planted.circuit.connected()
        assert set(connected.edges) == set(planted.circuit.edges)


def test_too_many_entities_are_refused():
    with pytest.raises(ValueError, match="1 to 60 entities"):
        planted_recall(entities=65)
