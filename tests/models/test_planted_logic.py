"""Planted logic and chains do what they say, and exact edge patching tells their circuits from all other edges."""

import dataclasses
import functools
import itertools

import pytest
import torch

from circuits.errors import PromptError
from circuits.graph import Circuit, Graph, Node
from circuits.models import Edit
from circuits.models.planted import HopWords, OperandWords, Planted, planted_chain, planted_gate, planted_induction, planted_or
from circuits.patching import patch_edges
from circuits.patching.effects import Direction
from circuits.patching.subgraphs.subgraph import run_subgraph
from circuits.tasks import PromptPairs
from circuits.tasks.library.planted import carrying, planted_logic_pairs, planted_task
from circuits.tasks.metric import answer_logits
from circuits.tasks.metrics import accuracy, logit_difference
from experiments.ground_truth_models import trained_route

MAKERS = {"gate": planted_gate, "or": planted_or, "chain": planted_chain}
task_of = functools.cache(planted_task)


def edge_effects(
    planted: Planted, pairs: PromptPairs, direction: Direction, edges: list[str] | None = None
) -> dict[str, float]:
    found = patch_edges(planted.model, pairs, logit_difference, edges=edges, direction=direction)
    return dict(zip(found.names, found.effect().tolist(), strict=True))


def split(effects: dict[str, float], circuit: Circuit) -> tuple[dict[str, float], float]:
    """The effects of the circuit's edges, and the largest of any other edge."""
    true = {str(edge): effects[str(edge)] for edge in circuit.edges}
    return true, max(abs(effect) for name, effect in effects.items() if name not in true)


def says_yes(planted: Planted, ablated: tuple[Node, ...] = ()) -> dict[tuple[int, int], set[bool]]:
    """For the two bits asked for, whether the answer is yes, over labels asked for, other bits and variants."""
    words = planted.words
    assert isinstance(words, OperandWords)
    keys, prompts = [], []
    found: dict[tuple[int, int], set[bool]] = {}
    for first, second, a, b, x, y, variant in itertools.product((0, 1), repeat=7):
        tokens = [words.operand(0, first, a, variant), words.operand(0, 1 - first, x, 1 - variant)]
        tokens += [words.operand(1, 1 - second, y, variant), words.operand(1, second, b, variant)]
        keys.append((a, b))
        prompts.append([0, *tokens, words.filler_ids[0], words.query(first, second)])
    logits = planted.model.run(torch.tensor(prompts), edits=[Edit(node, 0.0) for node in ablated]).logits[:, -1]
    top = logits.argmax(dim=-1)
    assert set(top.tolist()) <= {words.yes, words.no}
    for key, token in zip(keys, top.tolist(), strict=True):
        found.setdefault(key, set()).add(token == words.yes)
    return found


def with_role(planted: Planted, role: str) -> tuple[Node, ...]:
    return tuple(node for node, given in planted.circuit.roles.items() if given == role and isinstance(node, Node))


def others(planted: Planted) -> tuple[Node, ...]:
    """Heads and neurons outside the circuit."""
    nodes = planted.circuit.graph.nodes() if planted.circuit.graph.neurons else planted.model.graph(neurons=True).nodes()
    return tuple(node for node in nodes if node.kind in ("head", "neuron") and node not in planted.circuit.nodes)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", MAKERS)
def test_every_pair_calls_for_its_answer_and_its_distractor(name: str, seed: int):
    planted, pairs = task_of(name, seed)
    swapped = dataclasses.replace(pairs, answers=pairs.distractors, distractors=pairs.answers)
    for batch, asked in ((pairs.clean, pairs), (pairs.corrupt, swapped)):
        for ablated in ((), others(planted)):
            run = planted.model.run(batch, edits=[Edit(node, 0.0) for node in ablated])
            assert bool((accuracy(answer_logits(run, asked), asked) == 1).all())


@pytest.mark.parametrize("seed", range(6))
def test_the_gate_needs_both_operands(seed: int):
    planted = planted_gate(seed=seed)
    assert says_yes(planted) == {(0, 0): {False}, (0, 1): {False}, (1, 0): {False}, (1, 1): {True}}
    for node in (*with_role(planted, "operand"), *with_role(planted, "gate")):
        assert says_yes(planted, (node,))[1, 1] == {False}


@pytest.mark.parametrize("seed", range(6))
def test_the_or_needs_one_operand_and_its_first_head_has_a_backup(seed: int):
    planted = planted_or(seed=seed)
    table = {(0, 0): {False}, (0, 1): {True}, (1, 0): {True}, (1, 1): {True}}
    main, backup = next(
        (edge.writer, edge.reader) for edge in planted.circuit.edges if {edge.writer.kind, edge.reader.kind} == {"head"}
    )
    (other,) = set(with_role(planted, "operand")) - {main}
    assert with_role(planted, "backup") == (backup,)
    assert says_yes(planted) == says_yes(planted, (backup,)) == says_yes(planted, (main,)) == table
    assert says_yes(planted, (main, backup)) == table | {(1, 0): {False}}
    assert says_yes(planted, (other,)) == table | {(0, 1): {False}}
    assert says_yes(planted, (main, other))[1, 1] == {True}
    assert says_yes(planted, (main, other, backup))[1, 1] == {False}


@pytest.mark.parametrize("seed", range(6))
def test_the_chain_breaks_at_any_head(seed: int):
    planted, pairs = task_of("chain", seed)
    heads = [node for node in planted.circuit.roles if isinstance(node, Node)]
    assert [head.layer for head in heads] == [0, 1, 2]
    for head in heads:
        logits = planted.model.run(pairs.clean, edits=[Edit(head, 0.0)]).logits[:, -1]
        assert float(logit_difference(logits, pairs).abs().max()) < 0.1


@pytest.mark.parametrize("direction", ["noising", "denoising"])
@pytest.mark.parametrize("name,least", [("gate", 0.16), ("chain", 0.13)])
@pytest.mark.parametrize("seed", range(2))
def test_exact_edge_patching_finds_the_circuit_and_nothing_else(name: str, least: float, direction: Direction, seed: int):
    planted, pairs = task_of(name, seed)
    true, other = split(edge_effects(planted, pairs, direction), planted.whole)
    assert min(true.values()) > least and max(true.values()) < 1.01
    assert other < 1e-9
    assert carrying(planted, pairs).edges == planted.whole.edges


def test_exact_edge_patching_finds_the_neuron_that_is_the_gate():
    planted, pairs = task_of("gate", 3)
    true = [str(edge) for edge in planted.circuit.edges]
    other = [edge for edge in every_edge(planted.circuit.graph) if edge not in true]
    true, other = split(edge_effects(planted, pairs, "noising", true + other[::10]), planted.circuit)
    assert min(true.values()) > 0.16 and other < 1e-9
    assert carrying(planted, pairs, neurons=True).edges == planted.circuit.edges


@pytest.mark.parametrize("seed", range(2))
def test_noising_misses_what_denoising_finds_in_the_or(seed: int):
    planted, pairs = task_of("or", seed)
    noising, other = split(edge_effects(planted, pairs, "noising"), planted.whole)
    denoising, as_well = split(edge_effects(planted, pairs, "denoising"), planted.whole)
    assert max(other, as_well) < 1e-9
    grouped = {edge for group in planted.redundant for edge in group}
    assert max(abs(noising[edge]) for edge in grouped) < 1e-3
    hidden = {str(edge) for edge in planted.whole.edges} - {str(edge) for edge in carrying(planted, pairs).edges}
    assert {edge.split("->")[0] for edge in hidden} == {str(node) for node in with_role(planted, "backup")}
    assert min(denoising[edge] for edge in grouped - hidden) > 0.3
    (turning_away,) = set(noising) - grouped - {name for name in noising if name.endswith("logits")}
    assert turning_away.endswith("<q>") and noising[turning_away] > 0.9


def test_a_redundant_group_counts_as_a_whole_and_no_part_of_it_does():
    planted, pairs = task_of("or", 1)
    pairs = pairs[:6]
    graph = planted.model.graph()
    everything = every_edge(graph)
    clean, corrupt = planted.model.run(pairs.clean), planted.model.run(pairs.corrupt)
    ends = [float(logit_difference(answer_logits(run, pairs), pairs).mean()) for run in (clean, corrupt)]

    def cut(edges: tuple[str, ...]) -> float:
        left = Circuit(graph, [edge for edge in everything if edge not in edges])
        logits = run_subgraph(planted.model, clean, corrupt, left)[:, -1]
        return (ends[0] - float(logit_difference(logits, pairs).mean())) / (ends[0] - ends[1])

    for group in planted.redundant:
        assert cut(group) > 0.3
        for part in itertools.combinations(group, len(group) - 1):
            assert abs(cut(part)) < 1e-3


def every_edge(graph: Graph) -> list[str]:
    return [f"{node}->{reader}" for node in graph.nodes() if node.kind != "logits" for reader in graph.readers(node)]


@pytest.mark.parametrize("name,hidden", [("induction", 2), ("recall", 5)])
def test_edges_that_carry_nothing_have_no_effect_and_the_others_do(name: str, hidden: int):
    planted, pairs = task_of(name, 1)
    carried = {str(edge) for edge in carrying(planted, pairs).edges}
    assert len(planted.whole.edges) - len(carried) == hidden
    chosen = [str(edge) for edge in planted.whole.edges]
    found = patch_edges(planted.model, pairs, logit_difference, edges=chosen)
    for edge, effect in zip(chosen, found.effect().tolist(), strict=True):
        assert effect > 0.08 if edge in carried else abs(effect) < 1e-6


@pytest.mark.parametrize("name", MAKERS)
def test_seeds_decide_everything_and_distractors_have_the_size_of_what_was_planted(name: str):
    once, again, other = (MAKERS[name](seed=seed) for seed in (4, 4, 5))
    assert once.model.fingerprint == again.model.fingerprint != other.model.fingerprint
    assert once.circuit == again.circuit != other.circuit
    assert once.redundant == again.redundant
    assert planted_logic_pairs(once, seed=1).clean.ids.equal(planted_logic_pairs(again, seed=1).clean.ids)
    assert not planted_logic_pairs(once, seed=1).clean.ids.equal(planted_logic_pairs(once, seed=2).clean.ids)
    sizes: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for layer, block in enumerate(once.model.weights.blocks):
        norms = [block.attention.per_head(part).flatten(1).norm(dim=1) for part in ("W_Q", "W_K", "W_V", "W_O")]
        for head in range(once.model.n_heads):
            sizes[Node("head", layer, head) in once.circuit.nodes].append(torch.stack([norm[head] for norm in norms]))
    planted_mean, other_mean = (torch.stack(sizes[kind]).mean(dim=0) for kind in (True, False))
    assert ((other_mean / planted_mean > 0.4) & (other_mean / planted_mean < 2.5)).all()


@pytest.mark.parametrize("name", ["gate", "or", "chain", "recall"])
def test_the_whole_circuit_runs_from_the_input_to_the_logits(name: str):
    planted, _ = task_of(name, 1)
    assert set(planted.whole.connected().edges) == set(planted.whole.edges)
    assert planted.whole.graph == planted.model.graph()


def test_words_have_one_meaning_each():
    words = HopWords(hops=2, contents=3, fillers=2)
    ids = [words.content(c, label) for c in range(3) for label in (0, 1)]
    ids += [words.marker(hop, wants, label) for hop in (0, 1) for wants in (0, 1) for label in (0, 1)]
    ids += [*words.filler_ids, *(words.answer(c) for c in range(3))]
    assert sorted(ids) == list(range(1, words.d_vocab))


def test_what_has_no_words_and_what_is_no_task_is_refused():
    with pytest.raises(PromptError, match="no words for logic"):
        planted_logic_pairs(planted_induction(seed=0))
    with pytest.raises(KeyError, match="expected one of"):
        planted_task("xor")


@pytest.mark.slow
def test_a_trained_route_is_learned_and_is_the_circuit():
    planted, pairs = trained_route(seed=5)
    unseen = planted_logic_pairs(planted, 300, seed=77)
    assert float(accuracy(answer_logits(planted.model.run(unseen.clean), unseen), unseen).mean()) > 0.99
    true, other = split(edge_effects(planted, pairs, "noising"), planted.whole)
    assert min(true.values()) > 0.05 and other < 1e-9
    assert carrying(planted, pairs).edges == planted.whole.edges
