"""Words replaced by synonyms: the search, what agrees, and the penalty that holds importances together."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from scipy.stats import kendalltau

import circuits
from circuits.errors import CircuitsError, FileFormatError, PromptError
from circuits.models import Model, TokenBatch
from circuits.statistics import kendall
from circuits.uses import Classifier, Recipe, planted_shortcut, stability, train_flat, train_head
from circuits.uses.attributing.flat import attacked_texts, flat_penalty
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


def test_stability_splits_texts_by_what_became_of_the_class(trained: Classifier, tmp_path: Path) -> None:
    texts = FEW.held_out.texts[:16]
    with pytest.raises(PromptError, match="none of 1 texts has 3 words or more"):
        stability(trained, ["dull"], SYNONYMS)
    found = stability(trained, [*texts, texts[0], "dull .", "nothing at all of it"], SYNONYMS, most=1, seed=1)
    assert (found.given, found.tried) == (18, 16), "one stands there twice, one is short, one has no word with a synonym"
    turned = sum(not kept for kept, searched in zip(found.kept, found.searched, strict=True) if searched)
    assert found.turned.effect == turned / 16 > 0 and f"turn {turned} of 16 texts" in found.summary
    rows = list(zip(found.kendall.tolist(), found.kept, found.searched, strict=True))
    means = [[tau for tau, same, searched in rows if searched and same == kept] for kept in (True, False)]
    kept, turns = (sum(own) / len(own) for own in means)
    same = found.agreement(kept=True)
    assert same is not None and same.effect == pytest.approx(kept)
    assert found.difference is not None and found.difference.effect == pytest.approx(kept - turns)
    found.save(tmp_path / "stability.json")
    assert Stability.load(tmp_path / "stability.json").others == found.others and "Kendall" in found.summary


def planted_pairs(kept: Sequence[bool], taus: Sequence[float], *, tried: int) -> Stability:
    """A result of texts of these kinds, each with a drawn pair beside it that keeps its class and agrees fully."""
    texts, count = tuple(f"text {place} of some" for place in range(len(kept))), len(kept)
    both = {"texts": texts * 2, "others": texts * 2, "replaced": torch.ones(2 * count, dtype=torch.int64)}
    ranks = torch.tensor([*taus, *[1.0] * count], dtype=torch.float64)
    both |= {"kept": (*kept, *[True] * count), "searched": (*[True] * count, *[False] * count)}
    return Stability("m", "0" * 64, "gradient", "s", **both, kendall=ranks, spearman=ranks, given=tried, tried=tried)


def test_drawn_pairs_say_nothing_of_what_turned_texts_do() -> None:
    generator, kept = torch.Generator().manual_seed(1), [True, False] * 40
    taus = (0.5 + 0.1 * torch.randn(80, generator=generator)).tolist()
    found = planted_pairs(kept, taus, tried=100)
    assert found.difference is not None and found.difference.low < 0 < found.difference.high, "random against adversarial"
    apart = planted_pairs(kept, [tau + 0.2 * same for tau, same in zip(taus, kept, strict=True)], tried=100).difference
    assert apart is not None and apart.low > 0.1 and apart.effect == pytest.approx(found.difference.effect + 0.2)
    spread = math.sqrt(torch.tensor(taus[::2]).var() / 40 + torch.tensor(taus[1::2]).var() / 40)
    assert (apart.high - apart.low) / 2 == pytest.approx(1.96 * spread, rel=0.15)
    assert planted_pairs([True] * 4, taus[:4], tried=4).difference is None and found.turned.effect == 0.4


def test_two_classifiers_are_compared_text_by_text() -> None:
    turned, held = planted_pairs([False] * 12, [0.5] * 12, tried=20), planted_pairs([True] * 10, [0.25] * 10, tried=20)
    less, more = held.less_turned(turned), held.more_agreement(turned)
    assert less.effect == 0.6 and less.low > 0.3 and turned.less_turned(held).effect == -0.6
    assert more is not None and (more.effect, more.low) == (-0.25, -0.25)
    with pytest.raises(CircuitsError, match="20 texts that could be turned against 30"):
        held.less_turned(planted_pairs([True], [1.0], tried=30))


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
    few = FEW.train[:24]
    others = attacked_texts(trained, few.texts, SYNONYMS, most=1)
    found = [train_flat(base, trained, few, SYNONYMS, strength=0.0, others=others, **about)]
    found.append(train_flat(base, trained, few, SYNONYMS, strength=20.0, **about))
    assert found[0].training["penalty"]["replaced"] == found[1].training["penalty"]["replaced"] > 0, "the same attacked texts"
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
