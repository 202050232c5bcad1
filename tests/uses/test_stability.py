"""Words replaced by synonyms: the search, what agrees, and the penalty that holds importances together."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from scipy.stats import kendalltau

import circuits
from circuits.errors import FileFormatError, PromptError
from circuits.models import Model, TokenBatch
from circuits.statistics import kendall
from circuits.uses import Classifier, Recipe, planted_shortcut, stability, train_flat, train_head
from circuits.uses.attributing.flat import flat_penalty
from circuits.uses.attributing.gradients import input_gradients
from circuits.uses.attributing.replacing import attacked, replaced_at_random
from circuits.uses.attributing.stability import Stability
from circuits.uses.attributing.synonyms import alternatives, embedded_synonyms, planted_synonyms, read_synonyms

FEW = planted_shortcut(count=40, judged=24, seed=3)
SYNONYMS = {word: others[:1] for word, others in planted_synonyms().items()}


@pytest.fixture(scope="module")
def base() -> Model:
    mini = circuits.load_model("mini", dtype=torch.float64)
    return dataclasses.replace(mini, weights=mini.weights.of_layers(0, 1), make_bridge=None)


@pytest.fixture(scope="module")
def trained(base: Model) -> Classifier:
    return train_head(base, FEW.train)


def test_kendalls_tau_is_scipys() -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (2, 9, 30):
        first, second = torch.randint(5, (2, count), generator=generator).double()
        assert kendall(first, second) == pytest.approx(kendalltau(first.numpy(), second.numpy()).statistic, nan_ok=True)
    assert math.isnan(kendall(torch.ones(3), torch.arange(3.0)))
    assert math.isnan(kendall(torch.tensor([1.0, torch.nan]), torch.arange(2.0)))


def test_the_search_lowers_the_margin_with_synonyms_alone_until_the_class_turns(trained: Classifier) -> None:
    found = attacked(trained, FEW.held_out.texts[:8], SYNONYMS, most=2)
    assert len(found) > 3
    before = trained.logits([pair.text for pair in found])
    after = trained.logits([pair.other for pair in found])
    labels = before.argmax(dim=1)
    for row, pair in enumerate(found):
        words, others = pair.text.split(), pair.other.split()
        changed = [place for place, (one, other) in enumerate(zip(words, others, strict=True)) if one != other]
        assert changed == list(pair.places) and 1 <= len(changed) <= 2
        assert all(others[place] in alternatives(words[place], SYNONYMS) for place in changed)
        own = [float(logits[row, labels[row]] - logits[row, 1 - labels[row]]) for logits in (before, after)]
        assert own[1] < own[0] and pair.kept == (int(after[row].argmax()) == int(labels[row]))
    # The first replacement is the best single one.
    first = attacked(trained, [found[0].text], SYNONYMS, most=1)[0]
    words, label = first.text.split(), int(labels[0])
    slow = min(
        float((logits := trained.logits([" ".join([*words[:at], other, *words[at + 1 :]])])[0])[label] - logits[1 - label])
        for at, word in enumerate(words)
        for other in alternatives(word, SYNONYMS)
    )
    logits = trained.logits([first.other])[0]
    assert float(logits[label] - logits[1 - label]) == pytest.approx(slow, abs=1e-9)
    drawn = replaced_at_random(trained, found, SYNONYMS, seed=1)
    assert [len(pair.places) for pair in drawn] == [len(pair.places) for pair in found]


def test_stability_splits_pairs_by_what_became_of_the_class(trained: Classifier, tmp_path: Path) -> None:
    found = stability(trained, FEW.held_out.texts[:16], SYNONYMS, most=1, seed=1)
    assert 0 < found.turned <= 1 and sum(found.searched) * 2 == len(found.texts)
    assert found.difference is not None and found.difference.effect > 0, "robust pairs agree more"
    own = [tau for tau, kept in zip(found.kendall.tolist(), found.kept, strict=True) if kept]
    kept = found.agreement(kept=True)
    assert kept is not None and kept.effect == pytest.approx(sum(own) / len(own))
    found.save(tmp_path / "stability.json")
    assert Stability.load(tmp_path / "stability.json").others == found.others and "Kendall" in found.summary


def test_words_beside_punctuation_have_synonyms_too(trained: Classifier) -> None:
    assert alternatives("(Film?)", {"film": ("movie",)}) == ("(Movie?)",) and alternatives("FILM,", {"film": ("movie",)}) == (
        "MOVIE,",
    )
    assert alternatives(",", {"film": ("movie",)}) == ()
    bare, beside = "The plot was great , the cast was dull .", "The plot was great, the cast was dull."
    found = attacked(trained, [bare, beside], SYNONYMS, most=3)
    drawn = replaced_at_random(trained, found, SYNONYMS)
    assert [pair.text for pair in found] == [bare, beside] and all(
        "," in one.other and "." in one.other for one in found + drawn
    )


def test_synonyms_come_from_files_and_embeddings(base: Model, tmp_path: Path) -> None:
    file = tmp_path / "words.json"
    file.write_text(json.dumps({"Good": ["fine", "good", "great"], "alone": []}))
    assert read_synonyms(file) == {"good": ("fine", "great")} and alternatives("Good", read_synonyms(file)) == ("Fine", "Great")
    for text, said in (
        ("[]", "expected an object"),
        ('{"a": ["b c"]}', "single words"),
        ('{"a": ["a"]}', "no word has another"),
    ):
        file.write_text(text)
        with pytest.raises(FileFormatError, match=said):
            read_synonyms(file)
    near = embedded_synonyms(base, ["Mary", "good", "\u00e9t\u00e9"], like=0.0, nearest=3)
    assert all(len(others) == 3 and word not in others for word, others in near.items()) and near
    assert embedded_synonyms(base, (word for word in ("good,", "Mary.")), like=0.0, nearest=3)["good"] == near["good"]
    with pytest.raises(PromptError, match="has a neighbour"):
        embedded_synonyms(base, ["xyzzy"])
    with pytest.raises(PromptError, match="has a word with a synonym"):
        attacked(Classifier.on(base, ["a", "b"]), ["nothing here"], {"good": ("fine",)})


def test_the_penalty_is_the_difference_of_importances_and_reaches_the_weights(trained: Classifier) -> None:
    texts, others = ["The plot was great .", "The cast was dull ."], ["The plot was fine .", "The cast was dull ."]
    penalty, none = (flat_penalty(trained, texts, others, strength=strength) for strength in (2.0, 0.0))
    weights, labels, places = trained.model.weights, torch.tensor([1, 0]), torch.tensor([0, 1])
    tokens = trained.tokens(texts)
    pair = penalty.pairs[0]
    slow = []
    for one in pair:
        numbers = input_gradients(weights, TokenBatch.from_rows([list(one.ids)]), labels[:1], baseline="mean")[0]
        slow.append(sum(float(numbers[at]) for at, owner in enumerate(one.owners) if owner == 3))
    found, bare = (float(one(weights, tokens, labels, places).detach()) for one in (penalty, none))
    assert found - bare == pytest.approx(2 * abs(slow[0] - slow[1]))
    assert bare == pytest.approx(float(-trained.logits(others[:1]).log_softmax(dim=1)[0, 1]))
    assert float(penalty(weights, tokens[[1]], labels[1:], places[1:])) == 0, "no word of this text was replaced"
    leaf = weights.blocks[0].attention.W_O.clone().requires_grad_()
    name = next(name for name, tensor in weights.tensors() if tensor is weights.blocks[0].attention.W_O)
    value = penalty(weights.with_tensors({name: leaf}), tokens, labels, places)
    (slope,) = torch.autograd.grad(value, leaf)
    way = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.01
    values = [
        float(penalty(weights.with_tensors({name: (leaf + step * way).detach()}), tokens, labels, places).detach())
        for step in (1e-3, -1e-3)
    ]
    assert float((slope * way).sum()) == pytest.approx((values[0] - values[1]) / 2e-3, rel=1e-5)
    with pytest.raises(PromptError, match="has 5 words, its other one 4"):
        flat_penalty(trained, texts, ["The plot was .", texts[1]])


def test_flat_training_holds_importances_together(base: Model, trained: Classifier) -> None:
    about = {"most": 1, "recipe": Recipe(epochs=1, batch=8, rate=1e-3)}
    found = [train_flat(base, trained, FEW.train[:24], SYNONYMS, strength=one, **about) for one in (0.0, 20.0)]
    assert found[1].training["penalty"]["strength"] == 20.0 and found[1].tuned
    pairs = attacked(trained, FEW.held_out.texts[:12], SYNONYMS, most=1)
    gaps = []
    for classifier in found:
        penalty = flat_penalty(classifier, [pair.text for pair in pairs], [pair.other for pair in pairs], strength=1.0)
        bare = dataclasses.replace(penalty, strength=0.0)
        asked = (classifier.model.weights, classifier.tokens([pair.text for pair in pairs]))
        labels = classifier.logits([pair.text for pair in pairs]).argmax(dim=1)
        places = torch.arange(len(pairs))
        gaps.append(float((penalty(*asked, labels, places) - bare(*asked, labels, places)).detach()))
    assert gaps[1] < gaps[0]
