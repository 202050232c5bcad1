"""Rankings of a model's neurons, and what it loses without them, against runs of the model with single neurons edited."""

import dataclasses
from pathlib import Path

import pytest
import torch

from circuits.errors import CircuitsError, GraphError, PromptError
from circuits.heads.text_loss import losses_of, predicted
from circuits.models import Edit, Model, TokenBatch
from circuits.probes.ranking.circuit import neuron_circuit
from circuits.probes.ranking.knockout import knock_out
from circuits.probes.ranking.rank import rank_neurons
from circuits.probes.ranking.results import SETS, NeuronRankings
from circuits.probes.reading import WordText
from circuits.tasks import Sentence
from tests.models.native import native_bridge
from tests.probes.spoken import sentence_of, spoken

WORDS, CLASSES = 24, 4
KNOWN, USED = (0, 1), (2, 3)
"""Neurons of layer 0 that know the class of the word; the first two write nothing."""


def knowing_model() -> Model:
    """A random model in which four neurons of layer 0 read the class of the word at hand."""
    model = Model.from_bridge(native_bridge(2, d_vocab=WORDS + 1))
    weights = model.weights
    W_E = weights.W_E.clone()
    W_E[:, 0] = 4.0 * (torch.arange(WORDS + 1) % CLASSES - 1.5)
    mlp = weights.blocks[0].mlp
    assert mlp is not None
    W_in, W_out = mlp.W_in.clone(), mlp.W_out.clone()
    W_in[:, :4] = 0
    W_in[0, :4] = torch.tensor([2.0, -2.0, 2.0, -2.0], dtype=torch.float64)
    W_out[list(KNOWN)] = 0
    W_out[list(USED)] *= 5
    block = dataclasses.replace(weights.blocks[0], mlp=dataclasses.replace(mlp, W_in=W_in, W_out=W_out))
    return spoken(
        dataclasses.replace(model, weights=dataclasses.replace(weights, W_E=W_E, blocks=(block, *weights.blocks[1:])))
    )


def own_class(count: int) -> list[Sentence]:
    """Random words, each labelled by its class."""
    made = torch.Generator().manual_seed(0)
    rows = [torch.randint(1, WORDS + 1, (7,), generator=made).tolist() for _ in range(count)]
    return [sentence_of(row, [f"c{token % CLASSES}" for token in row]) for row in rows]


@pytest.fixture(scope="module")
def model() -> Model:
    """The model whose neurons are ranked."""
    return knowing_model()


@pytest.fixture(scope="module")
def sentences() -> list[Sentence]:
    """What it reads."""
    return own_class(60)


@pytest.fixture(scope="module")
def rankings(model: Model, sentences: list[Sentence]) -> NeuronRankings:
    """Its neurons, ranked."""
    return rank_neurons(model, sentences, "upos", by=("probeless", "gaussian", "lca"), layers=[0], sizes=(1, 2, 4), least=5)


def test_neurons_that_know_come_first(rankings: NeuronRankings) -> None:
    known = {f"m0.n{number}" for number in (*KNOWN, *USED)}
    assert set(rankings.names("probeless", 4)) == known
    first = set(rankings.names("gaussian", 2))
    assert first <= known and {int(name[-1]) % 2 for name in first} == {0, 1}, "one of each pair that says the same"
    place = rankings.place_of("gaussian")
    assert rankings.accuracy[place, 1] > rankings.accuracy[place, 0] + 0.1
    assert float(rankings.overlap(4)[0, 0]) == 1
    assert rankings.best[0] in rankings.ways


def test_what_is_lost_is_that_of_runs_with_edited_neurons(
    model: Model, sentences: list[Sentence], rankings: NeuronRankings
) -> None:
    found = knock_out(model, sentences, rankings, sizes=(2,), count=6, draws=1)
    text = WordText.of(model, sentences)
    judged = _judged(text, rankings)
    chosen = judged[torch.randperm(len(judged), generator=torch.Generator().manual_seed(0))][:6].tolist()
    place = rankings.place_of("probeless")
    names = rankings.names("probeless", 2)
    for kind, value in (("zero", lambda name: 0.0), ("mean", lambda name: _mean(model, text, rankings, name))):
        lost = []
        for number in chosen:
            tokens = TokenBatch.from_rows([list(text.aligned[number].ids)])
            edits = [Edit(name, value(name)) for name in names]
            after, before = (_losses(model, tokens, some) for some in (edits, []))
            follows = torch.tensor([owner is not None and owner >= 0 for owner in text.aligned[number].owners[:-1]])
            lost.append((after - before)[follows])
        expected = float(torch.cat(lost).mean())
        at = found.kinds.index(kind)
        assert float(found.lost[place, 0, at, 0, 0]) == pytest.approx(expected, abs=1e-10)


def _judged(text: WordText, rankings: NeuronRankings) -> torch.Tensor:
    from circuits.probes.question import Question

    question = Question.of(text, "upos", least=1, classes=rankings.classes, baselines=False)
    return question.asked.sentence[question.split.judge].unique()


def _mean(model: Model, text: WordText, rankings: NeuronRankings, name: str) -> float:
    """A neuron's mean over the words that rankings were made on, word by word."""
    from circuits.probes.question import Question

    question = Question.of(text, "upos", least=1, classes=rankings.classes, baselines=False)
    index = int(name.split("n")[1])
    by_sentence: dict[int, list[int]] = {}
    for number, word in (text.places[place] for place in question.split.train.tolist()):
        by_sentence.setdefault(number, []).append(word)
    values = []
    for number, words in by_sentence.items():
        one = text.aligned[number]
        neurons = model.run(TokenBatch.from_rows([list(one.ids)])).neurons[int(name[1])][0, :, index]
        values += [float(neurons[max(i for i, owner in enumerate(one.owners) if owner == word)]) for word in words]
    return sum(values) / len(values)


def _losses(model: Model, tokens, edits: list[Edit]) -> torch.Tensor:
    run = model.run(tokens, edits=edits)
    counted = predicted(tokens)
    return losses_of(model.weights, run.residuals[-1][:, :-1][counted], tokens.ids[:, 1:][counted])


def test_what_is_known_need_not_be_used(model: Model, sentences: list[Sentence], rankings: NeuronRankings) -> None:
    rest = [place for place in range(len(rankings.layers)) if place not in (*KNOWN, *USED)]
    orders = torch.tensor([[*KNOWN, *USED, *rest], [*USED, *KNOWN, *rest]])
    two = {"scores": rankings.scores[:2], "accuracy": rankings.accuracy[:2], "errors": rankings.errors[:2]}
    two |= {"selectivity": rankings.selectivity[:2], "selectivity_errors": rankings.selectivity_errors[:2]}
    planted = dataclasses.replace(rankings, ways=("lca", "raw"), order=orders, **two)
    found = knock_out(model, sentences, planted, sizes=(2,), count=8)
    assert float(found.lost[0, 0].abs().max()) <= 1e-12, "they write nothing"
    assert (found.lost[1, 0, :, 0, 0].abs() > 1e-3).all(), "these write"
    assert found.lost.shape == (2, len(SETS), 3, 1, 2)


def test_found_neurons_are_a_circuit(model: Model, rankings: NeuronRankings, tmp_path: Path) -> None:
    circuit = neuron_circuit(model, rankings, "probeless", 5)
    names = rankings.names("probeless", 5)
    assert {str(node) for node in circuit.nodes} == {"input", "logits", *names}
    assert circuit.evidence[names[0]]["rank"] == 1
    assert all(f"input->{name}" in circuit and f"{name}->logits" in circuit for name in names)
    circuit.save(tmp_path / "circuit.json")
    assert type(circuit).load(tmp_path / "circuit.json") == circuit
    with pytest.raises(CircuitsError, match="no ranking 'raw' among these"):
        neuron_circuit(model, rankings, "raw", 5)


def test_what_cannot_be_asked_is_refused(model: Model, sentences: list[Sentence], rankings: NeuronRankings) -> None:
    with pytest.raises(CircuitsError, match="by='best': expected some of lca"):
        rank_neurons(model, sentences, by=("best",))
    with pytest.raises(PromptError, match="agreement compares with other models"):
        rank_neurons(model, sentences, by=("agreement",))
    with pytest.raises(GraphError, match="no neurons in layer 2"):
        rank_neurons(model, sentences, layers=[2])
    with pytest.raises(PromptError, match="each larger than the one before"):
        rank_neurons(model, sentences, sizes=(5, 5))
    with pytest.raises(PromptError, match="give the same"):
        knock_out(model, sentences[:30], rankings)
    with pytest.raises(CircuitsError, match="expected some of zero, mean, moved"):
        knock_out(model, sentences, rankings, kinds=("swap",))


def test_a_model_agrees_with_itself(model: Model, sentences: list[Sentence]) -> None:
    found = rank_neurons(model, sentences, by=("agreement",), others=[model], sizes=(2,), least=5)
    moving = found.scores[0] > 0
    assert torch.allclose(found.scores[0][moving], torch.ones(int(moving.sum()), dtype=found.scores.dtype), atol=1e-6)
    assert found.others == (model.name,)
