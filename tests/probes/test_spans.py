"""Edge probes of planted spans, their scores against slow definitions, and files of spans."""

import dataclasses
import json
import random
from pathlib import Path

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from circuits.errors import FileFormatError, PromptError
from circuits.heads.attention.words import Aligned
from circuits.probes import SpanSentence, SpanTarget, probe_spans, read_spans, tree_spans
from circuits.probes.reading import WordText
from circuits.probes.spans.asking import SpanQuestion
from circuits.probes.spans.edges import EdgeBank, fit_edges, told
from circuits.probes.spans.probing import mix_layers
from circuits.probes.spans.scoring import baselines, counts, expected_layer, micro_f1
from circuits.probes.spans.stack import stacked
from circuits.probes.splitting import split_words
from circuits.progress import silent
from circuits.tasks import grammar_sentences
from tests.probes.spoken import before, previous_model, sentence_of

KINDS = 3


def brackets(count: int = 400, seed: int = 0) -> tuple[SpanQuestion, torch.Tensor]:
    """Spans between an opening and a closing token of three kinds each, among other words; a span's label is the sum of both
    modulo 3, so that either end leaves all labels alike. Also the tokens."""
    rng, rows, starts, lengths, gold = random.Random(seed), [], [], [], []
    at = 0
    for _ in range(count):
        first, last, inside = rng.randrange(KINDS), rng.randrange(KINDS), rng.randint(2, 4)
        row = [rng.randint(7, 12), 1 + first, *(rng.randint(7, 12) for _ in range(inside)), 4 + last, rng.randint(7, 12)]
        starts.append([at + 1])
        lengths.append([inside + 2])
        gold.append((first + last) % KINDS)
        at += len(row)
        rows.append(row)
    sentences = [sentence_of(row, ["_"] * len(row)) for row in rows]
    text = text_of(sentences)
    hot = torch.nn.functional.one_hot(torch.tensor(gold), KINDS).bool()
    number = torch.arange(count)
    split = split_words(torch.zeros(count, dtype=torch.long), number)
    question = SpanQuestion(text, ("0", "1", "2"), torch.tensor(starts), torch.tensor(lengths), hot, number, split, {})
    return question, torch.tensor([token for row in rows for token in row])


def text_of(sentences: list) -> WordText:
    """A token a word."""
    aligned = [Aligned(one, tuple(range(len(one.words))), tuple(range(len(one.words)))) for one in sentences]
    places = [(number, word) for number, one in enumerate(aligned) for word in range(len(one.ids))]
    return WordText(tuple(aligned), tuple(places), {})


def test_a_label_that_needs_both_ends_is_told_by_the_edge_probe_alone() -> None:
    question, tokens = brackets()
    x = torch.randn(13, 8, generator=torch.Generator().manual_seed(1))[tokens]
    bank = fit_edges(x[:, None], question, torch.ones(1, 1, dtype=torch.bool), rank=16, hidden=32, epochs=40)
    judge, train = question.split.judge, question.split.train
    share, _ = micro_f1(counts(told(bank, x[:, None], question, judge), question.gold[judge]), question.sentence[judge])
    assert float(share[0]) > 0.95
    labels = question.gold.long().argmax(dim=1)
    ends = {"first": question.starts[:, 0], "last": (question.starts + question.lengths - 1)[:, 0]}
    features = {name: x[words] for name, words in ends.items()}
    spans = zip(question.starts[:, 0].tolist(), question.lengths[:, 0].tolist(), strict=True)
    features["mean"] = torch.stack([x[start : start + length].mean(dim=0) for start, length in spans])
    for name, rows in features.items():
        fitted = LogisticRegression(max_iter=500).fit(rows[train].numpy(), labels[train].numpy())
        right = float((fitted.predict(rows[judge].numpy()) == labels[judge].numpy()).mean())
        assert right < 0.5, f"{name}: {right}"
    assert all(share < 0.5 for share, _ in baselines(question).values())


def test_the_mix_puts_its_weight_on_the_layer_that_has_the_label() -> None:
    question, tokens = brackets(300)
    noise = torch.randn(len(tokens), 4, 6, generator=torch.Generator().manual_seed(2))
    labels = question.gold.long().argmax(dim=1)
    for row, (start, length) in enumerate(zip(question.starts[:, 0].tolist(), question.lengths[:, 0].tolist(), strict=True)):
        noise[start : start + length, 2, int(labels[row])] += 3.0
    mix = mix_layers(noise, ["resid0", "resid1", "resid2", "resid3"], question, silent, rank=8, hidden=8, epochs=25, seed=0)
    assert mix is not None and mix.weights[2] > 0.7 and abs(mix.centre - 2) < 0.35
    assert mix.cumulative[1] < 0.5 < 0.9 < mix.cumulative[2], "the score jumps where the layer is seen"
    assert mix.expected is not None and abs(mix.expected.effect - 2) < 0.3
    assert mix.expected.low <= mix.expected.effect <= mix.expected.high


def test_layers_side_by_side_are_the_same_in_memory_and_in_a_file(tmp_path: Path) -> None:
    layers = {f"resid{layer}": torch.randn(9, 4) * 10**layer + layer for layer in range(3)}
    train = torch.arange(6)
    both = [stacked(layers.__getitem__, list(layers), train, tmp_path, budget=size, progress=silent) for size in (10**6, 1)]
    assert torch.equal(*both) and [one.name for one in tmp_path.iterdir()] == ["stack.bin"]
    scaled = both[0][:6]
    assert torch.allclose(scaled.mean(dim=0), torch.zeros(3, 4), atol=1e-5)
    assert torch.allclose(scaled.std(dim=0, correction=0), torch.ones(3, 4), atol=1e-5)


def test_scores_are_the_slow_ones() -> None:
    question, tokens = brackets(12)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(len(tokens), 3, 5, generator=generator, dtype=torch.float64)
    allowed = torch.tensor([[True, False, True], [True, True, True]])
    drawn = EdgeBank.drawn(allowed, spans=1, width=5, rank=4, hidden=6, labels=3, seed=0)
    values = {name: torch.randn(one.shape, generator=generator, dtype=torch.float64) for name, one in drawn.tensors.items()}
    bank = dataclasses.replace(drawn, **values)
    found = bank.scores(x, question.starts, question.lengths)
    for probe, row in ((0, 3), (1, 7), (1, 0)):
        start, length = int(question.starts[row, 0]), int(question.lengths[row, 0])
        s = values["mixing"][probe].masked_fill(~allowed[probe], -torch.inf).softmax(dim=0)
        h = values["gain"][probe] * torch.einsum("s,wsd->wd", s, x[start : start + length])
        projected = h @ values["P"][0, probe] + values["c"][0, probe]
        weight = (projected @ values["query"][0, probe])[:, 0].softmax(dim=0)
        hidden = (weight @ projected @ values["W"][probe] + values["b"][probe, 0]).relu()
        assert torch.allclose(found[probe, row], hidden @ values["U"][probe] + values["d"][probe, 0])


def test_micro_f1_and_the_expected_layer_by_hand() -> None:
    gold = torch.tensor([[1, 0], [1, 1], [0, 0], [0, 1]]).bool()
    answers = torch.tensor([[[1, 0], [0, 1], [1, 0], [0, 0]], [[1, 0], [1, 1], [0, 0], [0, 1]]]).bool()
    share, errors = micro_f1(counts(answers, gold), torch.tensor([0, 0, 1, 1]))
    assert share.tolist() == pytest.approx([2 * 2 / (2 * 2 + 1 + 2), 1.0])
    off = [4 - share[0] * 5, 0 - share[0] * 2]
    assert errors.tolist() == pytest.approx([float((off[0] ** 2 + off[1] ** 2) ** 0.5 / 7), 0.0])
    found = torch.tensor([[[2.0] * 5 + [0.0] * 5, [2.0] * 5 + [0.0] * 5, [2.0] * 10], [[2.0] * 10] * 3]).double()
    expected = expected_layer(found, torch.arange(10), torch.tensor([0.0, 3.0, 7.0]))
    assert expected is not None and expected.effect == 7.0, "all is gained where layer 7 is seen"
    assert expected_layer(found.flip(1), torch.arange(10), torch.tensor([0.0, 1.0, 2.0])) is None, "nothing is gained"


def test_a_model_that_knows_the_word_before_beside_its_baselines() -> None:
    model, sentences = previous_model(), before(100)
    asked = [
        SpanSentence(one, tuple(SpanTarget((n, n + 1), None, (word.tag,)) for n, word in enumerate(one.words) if n))
        for one in sentences
    ]
    found = probe_spans(model, asked, least=5, rank=16, hidden=16, epochs=12, asked="before")
    assert found.sites == ("resid0", "resid1", "resid2", "resid3") and found.mix is not None and len(found.random) == 4
    assert float(found.f1[0]) < 0.6 < 0.95 < float(found.f1[2]), "known from behind layer 1 on"
    assert found.mix.cumulative[2] - found.mix.cumulative[0] > 0.3 and "expected layer" in found.summary
    assert found.baselines["majority"][0] < 0.4 and list(found.to_dataframe()["site"]) == list(found.sites)
    question = SpanQuestion.of(model, asked, least=5)
    parts = (question.split.train, question.split.develop, question.split.judge)
    train, develop, judge = (set(question.sentence[part].tolist()) for part in parts)
    assert not (train & develop or train & judge or develop & judge), "a sentence is on one side"


def test_spans_of_trees() -> None:
    (sentence,) = [one for one in grammar_sentences(60) if len(one.words) == 9 and one.words[1].relation == "nsubj"][:1]
    relations = tree_spans([sentence])[0].targets
    assert len(relations) == 8 and all(one.span2 is not None for one in relations)
    heads = {one.span1[0]: (one.span2, one.labels) for one in relations}
    assert heads[0] == ((1, 2), ("det",))
    phrases = {one.span1: one.labels for one in tree_spans([sentence], "phrase")[0].targets}
    assert phrases[0, 5] == ("nsubj",) and phrases[2, 5] == ("nmod",) and (0, 9) not in phrases
    assert {one.labels for one in tree_spans([sentence], "phrase-upos")[0].targets} == {("NOUN",)}


def test_files_of_spans(tmp_path: Path) -> None:
    path = tmp_path / "ner.jsonl"
    target = {"span1": [0, 2], "label": "NAME", "span_text": "New York"}
    rows = [{"text": "New York  sleeps", "info": 1, "targets": [target, {"span1": [2, 3], "label": ["a", "b"]}]}]
    path.write_text("\n".join(map(json.dumps, rows)))
    (found,) = read_spans(path)
    assert found.targets == (SpanTarget((0, 2), None, ("NAME",)), SpanTarget((2, 3), None, ("a", "b")))
    assert [(word.form, found.sentence.text[word.start : word.end]) for word in found.sentence.words][2] == ("sleeps", "sleeps")
    for wrong, words in (
        ({"text": "a b"}, 'row 0: "targets" is missing'),
        ({"text": "a b", "targets": [{"span1": [0, 3], "label": "x"}]}, 'target 0: "span1" is .* <= 2, its words'),
        ({"text": "a b", "targets": [{"span1": [1, 1], "label": "x"}]}, r'"span1" is \[1, 1\]; .* 0 <= i < j'),
        ({"text": "a b", "targets": [target, {**target, "span2": [1, 2]}]}, "row 0: the targets before it have one span each"),
        ({"text": "a b", "targets": [{"span1": [0, 1]}]}, '"label"'),
        ({"text": "a b", "targets": [{"span1": [0, 1], "label": True}]}, "a text, or a list"),
        ({"text": "a b", "targets": []}, "without a target"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(FileFormatError, match=words):
            read_spans(path)


def test_what_cannot_be_asked_is_refused() -> None:
    model, (one, *_) = previous_model(), before(1)
    mixed = SpanSentence(one, (SpanTarget((0, 1), None, ("a",)), SpanTarget((0, 1), (1, 2), ("b",))))
    with pytest.raises(PromptError, match="some targets have one span, others two"):
        probe_spans(model, [mixed])
    with pytest.raises(PromptError, match="2 labels of 2 spans, 0 of them 20 times or more"):
        probe_spans(model, [dataclasses.replace(mixed, targets=(mixed.targets[0], SpanTarget((1, 2), None, ("c",))))])
    with pytest.raises(PromptError, match="rank=0"):
        probe_spans(model, [mixed], rank=0)
    with pytest.raises(PromptError, match="no property of spans"):
        tree_spans([one], "head")
