"""What a neuron reads and writes, by its weights and in its contexts, and the report that says it all."""

import random
from pathlib import Path

import pytest
import torch

from circuits.errors import FileFormatError, GraphError
from circuits.graph import Node
from circuits.lenses import KeyValueAgreement, NeuronReport, find_triggers, key_value_agreement, neuron
from circuits.lenses.neurons.alignment import key_tokens, strongest_readers, strongest_writers
from circuits.lenses.neurons.contexts import contexts
from circuits.lenses.neurons.report import default_corpus
from circuits.models import TokenBatch
from circuits.models.layers import normalise
from circuits.models.planted import planted_recall
from circuits.tasks.sources.corpus import written_text
from tests.lenses.test_memories import linear_part
from tests.lenses.test_triggers import random_model
from tests.models import bundled
from tests.models.random_edits import random_batch
from tests.models.random_models import D_VOCAB, LENGTH


@pytest.mark.parametrize("seed", range(20))
def test_keys_are_pre_activations_of_single_tokens(seed: int) -> None:
    model = random_model(seed)
    node, weights = Node("neuron", model.n_layers - 1, 1), model.weights
    block = weights.blocks[-1]
    assert block.mlp is not None
    found = key_tokens(model, node, k=3)
    assert ("gate" in found) == (block.mlp.W_gate is not None)
    x = normalise(normalise(weights.embedding_scale * weights.W_E, weights.embedding_norm), block.mlp_norm)
    for slot, (W, b) in {"input": (block.mlp.W_in, block.mlp.b_in), "gate": (block.mlp.W_gate, block.mlp.b_gate)}.items():
        if W is not None:
            answers = x @ W[:, 1] + (0 if b is None else b[1])
            (most, least) = found[slot]
            assert [value for _, value in most] == pytest.approx(answers.sort(descending=True).values[:3].tolist(), abs=1e-9)
            assert [value for _, value in least] == pytest.approx(answers.sort().values[:3].tolist(), abs=1e-9)
            assert float(answers[int(most[0][0])]) == pytest.approx(most[0][1], abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_writers_and_readers_are_cosines_of_weights(seed: int) -> None:
    model = random_model(seed)
    weights, last = model.weights, model.n_layers - 1
    reader, writer = Node("neuron", last, 0), Node("neuron", 0, 0)
    eye = torch.eye(model.d_model, dtype=torch.float64)

    def key(layer: int, index: int) -> torch.Tensor:
        block = weights.blocks[layer]
        matrix = block.mlp.W_in if block.mlp.W_gate is None else block.mlp.W_gate
        return torch.stack([linear_part(row, block.mlp_norm) for row in eye]) @ matrix[:, index]

    def value(layer: int, index: int) -> torch.Tensor:
        block = weights.blocks[layer]
        return linear_part(block.mlp.W_out[index], block.mlp_post_norm)

    def head_parts(node: Node) -> tuple[torch.Tensor, torch.Tensor]:
        """What a head reads values with, and what it writes with."""
        block, d_head = weights.blocks[node.layer], model.d_head
        group = node.index // (model.n_heads // model.n_key_value_heads)
        reads = torch.stack([linear_part(row, block.attention_norm) for row in eye])
        rows = block.attention.W_O[node.index * d_head : (node.index + 1) * d_head]
        W_O = torch.stack([linear_part(row, block.attention_post_norm) for row in rows])
        return reads @ block.attention.W_V[:, group * d_head : (group + 1) * d_head], W_O

    def largest(cosines: list[torch.Tensor]) -> list[float]:
        return sorted((abs(float(cosine)) for cosine in cosines), reverse=True)[:3]

    cosines = [
        torch.cosine_similarity(value(early, index), key(last, 0), dim=0)
        for early in range(last)
        for index in range(model.d_mlp)
    ]
    found = strongest_writers(model, reader, top=3)
    assert [abs(strength) for name, strength in found if ".n" in name] == pytest.approx(largest(cosines), abs=1e-9)
    for name, strength in found:
        node = Node.parse(name)
        assert node.layer < last or (node.kind == "head" and not weights.parallel)
        if node.kind == "neuron":
            assert strength == pytest.approx(
                float(torch.cosine_similarity(value(node.layer, node.index), key(last, 0), dim=0)), abs=1e-9
            )
        else:
            W_O, read = head_parts(node)[1], key(last, 0)
            assert strength == pytest.approx(float((W_O @ read).norm() / (W_O.norm() * read.norm())), abs=1e-9)
    cosines = [
        torch.cosine_similarity(value(0, 0), key(late, index), dim=0)
        for late in range(1, last + 1)
        for index in range(model.d_mlp)
    ]
    found = strongest_readers(model, writer, top=3)
    assert [abs(strength) for name, strength in found if ".n" in name] == pytest.approx(largest(cosines), abs=1e-9)
    for name, strength in found:
        node = Node.parse(name)
        assert node.layer > 0
        if node.kind == "neuron":
            assert strength == pytest.approx(
                float(torch.cosine_similarity(value(0, 0), key(node.layer, node.index), dim=0)), abs=1e-9
            )
        else:
            W_V, written = head_parts(node)[0], value(0, 0)
            assert strength == pytest.approx(float((written @ W_V).norm() / (W_V.norm() * written.norm())), abs=1e-9)


def test_planted_writers_and_readers_are_those_of_the_circuit() -> None:
    planted = planted_recall(seed=3)
    roles = {str(node): role for node, role in planted.circuit.roles.items()}
    name = next(node for node, role in roles.items() if role == "entity neuron")
    readers = [node for node, _ in strongest_readers(planted.model, Node.parse(name), top=3) if node.startswith("a")]
    assert {roles.get(node) for node in readers} == {"attribute fetch"}
    writers = [node for node, _ in strongest_writers(planted.model, Node.parse(name), top=1) if node.startswith("a")]
    assert [roles.get(node) for node in writers] == ["previous token"]


def test_a_report_says_what_its_parts_say_and_is_kept_whole(tmp_path: Path) -> None:
    model = bundled.mini()
    text = "The river runs to the sea. The sea is deep, and the river is long. " * 12
    report = neuron(model, "m2.n5", text, top=4, before=3, after=2)
    corpus = TokenBatch.unpadded(model.to_tokens(text, prepend_bos=False).ids[:, :100])
    assert report.places > 90 and len(report.triggers) == len(report.lowest) == 4
    assert report.largest == max(one.activation for one in report.triggers)
    for one in report.triggers:
        assert one.activations[one.at] == pytest.approx(one.activation, abs=1e-5)
        assert f"[[{one.tokens[one.at]}]]" in one.marked() and one.at <= 3 and len(one.tokens) <= 6
        assert one.following is None or one.tokens[one.at + 1] == one.following
    assert report.raises[0][1] >= report.raises[1][1] and report.lowers[0][1] < 0
    report.save(tmp_path / "neuron.json")
    assert NeuronReport.load(tmp_path / "neuron.json").as_json() == report.as_json()
    assert len(report.to_dataframe()) == 8
    again = neuron(model, "m2.n5", corpus, top=1, through="a3.h1")
    assert again.through == "a3.h1" and again.raises != report.raises
    with pytest.raises(GraphError, match="m2 is no neuron"):
        neuron(model, "m2", corpus)
    with pytest.raises(GraphError, match=r"m2\.n5000"):
        neuron(model, "m2.n5000", corpus)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    planted = planted_recall(seed=0)
    name = next(str(node) for node, role in planted.circuit.roles.items() if role == "entity neuron")
    corpus = TokenBatch.unpadded(torch.tensor([[0, *fact.prompt[1:]] for fact in planted.facts]))
    neuron(planted.model, name, corpus, top=2).save(tmp_path / "neuron.json")
    triggers = find_triggers(planted.model, corpus)
    found = key_value_agreement(planted.model, triggers, corpus)
    found.save(tmp_path / "agreement.json")
    assert KeyValueAgreement.load(tmp_path / "agreement.json").as_json() == found.as_json()
    draw = random.Random(0)
    for file, kind in (("neuron.json", NeuronReport), ("agreement.json", KeyValueAgreement)):
        content = (tmp_path / file).read_bytes()
        for _ in range(60):
            damaged = bytearray(content)
            place = draw.randrange(len(damaged))
            damaged[place : place + draw.randrange(3)] = draw.choice([b"", b"[", b'"', b"null", b"1", b"{}", b"-", b"x"])
            (tmp_path / "bad.json").write_bytes(bytes(damaged))
            try:
                kind.load(tmp_path / "bad.json")
            except FileFormatError as error:
                assert "bad.json" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("seed", range(10))
def test_contexts_are_what_stands_around_each_place(seed: int) -> None:
    model, rng = random_model(seed), random.Random(seed)
    batches = [random_batch(rng, D_VOCAB, LENGTH) for _ in range(3)]
    tokens = TokenBatch.from_rows([row[mask].tolist() for b in batches for row, mask in zip(b.ids, b.mask, strict=True)])
    node = Node("neuron", model.n_layers - 1, 2)
    found = find_triggers(model, tokens, neurons=[node], top=6, count_bos=True)
    run = model.run(tokens)
    for rank, one in enumerate(contexts(model, node, found.highest, 0, tokens, before=2, after=1)):
        place = (int(found.highest.prompts[0, rank]), int(found.highest.positions[0, rank]))
        assert (one.prompt, one.position) == place
        length = int(tokens.mask[one.prompt].sum())
        columns = range(max(0, one.position - 2), min(length, one.position + 2))
        assert one.tokens == tuple(str(int(tokens.ids[one.prompt, column])) for column in columns)
        assert columns[one.at] == one.position
        values = [float(run.neurons[-1][one.prompt, column, 2]) for column in columns]
        assert one.activations == pytest.approx(values, abs=1e-10) and one.activation == pytest.approx(
            values[one.at], abs=1e-10
        )
        last = one.position + 1 == length
        assert one.following == (None if last else str(int(tokens.ids[one.prompt, one.position + 1])))


def test_the_default_corpus_is_what_the_model_writes_drawn_from_the_seed() -> None:
    model = next(one for one in map(random_model, range(50)) if one.weights.W_pos is None and one.weights.causal)
    for seed in (0, 1):
        assert torch.equal(default_corpus(model, seed=seed).ids, written_text(model, count=64, length=64, seed=seed).ids)
    assert not torch.equal(default_corpus(model, seed=0).ids, default_corpus(model, seed=1).ids)
