"""What the attention-only probe says of itself and of its baselines, and labels of heads that look ahead, against loops over
the judged words."""

import dataclasses
from pathlib import Path

import pytest
import torch

from circuits.heads import label_heads, probe_attention
from circuits.heads.attention.attention_probe import _best_offset, _Group
from circuits.heads.attention.labels import _second_half
from circuits.heads.attention.words import align_sentences, stream_attention
from circuits.statistics import clustered_errors
from tests.heads.test_labels import built, random_sentences, sentence, slow_attention


def test_shares_and_baselines_equal_loops_over_the_other_half(tmp_path: Path) -> None:
    model, sentences = built("gpt2", tmp_path), random_sentences(24, seed=1)
    probe = probe_attention(model, sentences, seed=3)
    second = _second_half(len(sentences), 3).tolist()
    offsets = [
        word.head - number
        for one, judged in zip(sentences, second, strict=True)
        for number, word in enumerate(one.words)
        if not judged and word.head is not None
    ]
    assert probe.offset == min(set(offsets), key=lambda one: (-offsets.count(one), abs(one), one))
    assert probe.train_words == len(offsets)
    found: dict[str, list[list[float]]] = {"all": [], "earlier": [], "later": []}
    places: dict[str, list[int]] = {part: [] for part in found}
    for place, one in enumerate(sentences):
        attention = torch.tensor(slow_attention(model, one) if second[place] else [], dtype=torch.float64)
        for number, word in enumerate(one.words):
            if second[place] and word.head is not None:
                w, u = probe.w.flatten(), probe.u.flatten()
                scores = attention[:, number].T @ w + attention[:, :, number].T @ u
                scores[number] = -torch.inf
                hits = [float(scores.argmax() == word.head), float(number + probe.offset == word.head)]
                for part in ("all", "later" if word.head > number else "earlier"):
                    found[part].append([*hits, 1 / (len(one.words) - 1)])
                    places[part].append(place)
    assert probe.counts == {part: len(rows) for part, rows in found.items()}
    for part, rows in found.items():
        values = torch.tensor(rows, dtype=torch.float64)
        errors = clustered_errors(values, torch.tensor(places[part]))
        for column, name in enumerate(("probe", "offset", "uniform")):
            assert probe.scores[name][part] == pytest.approx((float(values[:, column].mean()), float(errors[column])))


def test_of_equally_frequent_offsets_the_shortest_is_the_baseline() -> None:
    heads = torch.tensor([[1, -1, -1, 0]])  # one on for the first word, three back for the last
    group = _Group(torch.zeros(1, 4, 4, 1), torch.ones(1, 4, 4, dtype=torch.bool), heads, torch.tensor([0]))
    assert _best_offset([group]) == 1


def test_heads_that_look_ahead_choose_among_all_other_words(tmp_path: Path) -> None:
    model, sentences = built("gpt2", tmp_path), random_sentences(16, seed=2)
    model = dataclasses.replace(model, weights=dataclasses.replace(model.weights, causal=False))
    labels = label_heads(model, sentences, min_count=4, seed=1)
    second = _second_half(len(sentences), 1).tolist()
    attention = [torch.tensor(slow_attention(model, one), dtype=torch.float64) for one in sentences]
    assert {direction for _, direction in labels.rows} == {"head", "dependent"}
    for row, (relation, direction) in enumerate(labels.rows):
        right = []
        for one, table, judged in zip(sentences, attention, second, strict=True):
            for number, word in enumerate(one.words):
                if judged and word.head is not None and word.relation.split(":")[0] == relation:
                    looks, gold = (number, word.head) if direction == "head" else (word.head, number)
                    seen = table[:, looks].clone()
                    seen[:, looks] = -1.0
                    right.append((seen.argmax(dim=1) == gold).double())
        assert int(labels.counts[row]) == len(right)
        assert torch.allclose(labels.accuracy[row].flatten(), torch.stack(right).mean(dim=0), rtol=0, atol=1e-12)


def test_sentences_fill_the_context_and_batches_the_budget(tmp_path: Path) -> None:
    model = built("gpt2", tmp_path)
    assert model.max_positions is not None
    room = model.max_positions - len(model.opening())
    aligned, left_out = align_sentences(model, [sentence("a" * size, [(None, "root")]) for size in (room, room + 1)])
    assert len(aligned) == left_out["too long"] == 1 and len(aligned[0].ids) == model.max_positions
    aligned, _ = align_sentences(model, random_sentences(12))
    longest = max(len(one.ids) for one in aligned)
    budget = 2 * 8 * model.n_layers * model.n_heads * longest**2
    sizes = []
    for batch in stream_attention(model, aligned, budget=budget):
        width = max(len(aligned[place].ids) for place in batch.places)
        sizes.append(len(batch.places))
        assert sizes[-1] * 8 * model.n_layers * model.n_heads * width**2 <= budget
    assert sum(sizes) == 12 and max(sizes) > 2
