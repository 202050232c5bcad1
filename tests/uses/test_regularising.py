"""Penalties for going by other words than people want: right by hand, and differentiable by the weights."""

import dataclasses
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import circuits
from circuits.errors import PromptError
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.weights import Weights
from circuits.uses import (
    Classifier,
    ErTest,
    Examples,
    Recipe,
    Regularisation,
    er_test,
    planted_shortcut,
    train_all,
    train_head,
    train_regularised,
)
from circuits.uses.attributing.gradients import input_gradients
from circuits.uses.classifying.words import spelt_texts
from circuits.uses.regularising.distances import DISTANCES, distance_of
from circuits.uses.regularising.er_test import functional_tests
from circuits.uses.regularising.frozen import train_head_without, word_effects
from circuits.uses.regularising.guidance import Guidance, Target, wishes_of
from circuits.uses.regularising.penalty import RationalePenalty
from circuits.uses.regularising.rationales import RationaleHead, removal_effects, token_shares
from circuits.uses.shortcuts.label_words import form_of, label_words
from tests.models.random_models import random_shape, random_weights, record_of
from tests.runs.test_shards import run_in

FEW = planted_shortcut(count=24, judged=20, seed=3)


@pytest.fixture(scope="module")
def mini() -> Model:
    return circuits.load_model("mini", dtype=torch.float64)


@pytest.fixture(scope="module")
def small(mini: Model) -> Model:
    return dataclasses.replace(mini, weights=mini.weights.of_layers(0, 1), make_bridge=None)


@pytest.fixture(scope="module")
def classifier(mini: Model) -> Classifier:
    """On mini's first two layers, with a drawn head."""
    base = dataclasses.replace(mini, weights=mini.weights.of_layers(0, 2), make_bridge=None)
    generator = torch.Generator().manual_seed(0)
    head = {"W_U": torch.randn(256, 3, generator=generator).double(), "b_U": torch.randn(3, generator=generator).double()}
    return Classifier.on(base, ["a", "b", "c"]).with_tensors(head, tuned=False, training={})


TOKENS = TokenBatch.from_rows([[0, 5, 9, 33, 7], [0, 70, 8], [0, 900, 31, 12]])
LABELS = torch.tensor([0, 2, 1])
SAID = torch.tensor([[-1, 1, 0, 0, -2], [-1, -2, 0, -3, -3], [-1, -2, 0, 1, -3]])
"""1: wanted, 0: unwanted, -2: nothing said, -1: no word, -3: a pad."""
TARGET = Target((SAID > -3) & (SAID != -1), SAID >= 0, SAID == 1)


def tiny_weights() -> Weights:
    """Two layers with every kind of tensor that weights have: biases, gains, gates."""
    some = {"n_layers": 2, "n_heads": 2, "n_key_value_heads": 2, "d_head": 4, "activation": "gelu", "causal": True}
    some |= {
        "norm": "LN",
        "final_rms": False,
        "post_norms": False,
        "key_norm": None,
        "embedding_norm": False,
        "windows": (None,) * 2,
    }
    some |= {"positions": "rotary", "rotary_dim": 4, "rotary_bases": (), "slopes": (), "parallel": False, "one_norm": False}
    shape = dataclasses.replace(random_shape(random.Random(3)), logit_cap=None, score_cap=None, **some)
    weights = record_of(shape, random_weights(shape, random.Random(38)))
    generator = torch.Generator().manual_seed(5)
    head = torch.randn(weights.W_E.shape[1], 3, generator=generator).double()
    return dataclasses.replace(weights, W_U=head, b_U=torch.randn(3, generator=generator).double())


TINY = tiny_weights()
FEW_TOKENS = TokenBatch.from_rows([[0, 5, 9, 11, 7], [0, 10, 8], [0, 12, 3, 6]])
SCORER = torch.randn(TINY.W_E.shape[1], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
"""What a learned rationale reads the last stream by."""
LAST = {f"blocks.1.attention.{name}" for name in ("W_V", "W_O", "b_V", "b_O")}
LAST |= {name for name, _ in TINY.tensors() if name.startswith("blocks.1.mlp")} | {"W_U", "final_norm.weight"}
UNMOVED = {
    "gradient": {"b_U", "final_norm.bias", "scorer"},  # what is added to a margin changes no slope of it
    "removal": {"b_U", "final_norm.bias", "scorer"},
    "attention": {"b_U", "final_norm.bias", "scorer"} | LAST,  # patterns are not read from what comes behind them
    "learned": {"b_U", "final_norm.bias", "W_U", "final_norm.weight"},  # the last stream, in front of the final norm
}
"""What a rationale does not hang on; all other weights are reached."""


def penalty_of(tensors: dict[str, torch.Tensor], rationale: Any, distance: str) -> torch.Tensor:
    """Of the tiny classifier with other tensors; "scorer" is the learned rationale's."""
    scorer = tensors["scorer"]
    weights = TINY.with_tensors({name: tensor for name, tensor in tensors.items() if name != "scorer"})
    if rationale == "removal":
        guidance = Guidance(TARGET.words, TARGET.judged, TARGET.wanted)
        penalty = RationalePenalty(guidance, Regularisation(rationale=rationale, strength=2.0))
        return penalty(weights, FEW_TOKENS, LABELS, torch.arange(3))
    learned = RationaleHead(scorer, torch.optim.Adam([scorer])) if rationale == "learned" else None
    return distance_of(token_shares(weights, FEW_TOKENS, LABELS, TARGET.words, rationale, learned), TARGET, distance)


@pytest.mark.parametrize(
    "rationale, distance",
    [*(("gradient", distance) for distance in sorted(DISTANCES)), ("attention", "mse"), ("learned", "kl"), ("removal", "mse")],
)
def test_the_gradient_of_every_penalty_by_every_weight_is_that_of_finite_differences(rationale: Any, distance: str) -> None:
    """Each tensor is moved by itself, in a direction that is drawn: none hides behind another."""
    leaves = {name: tensor.clone() for name, tensor in TINY.tensors() if not name.endswith("frequencies")}
    leaves = {name: tensor.requires_grad_() for name, tensor in {**leaves, "scorer": SCORER.clone()}.items()}
    found = torch.autograd.grad(
        penalty_of(leaves, rationale, distance), [*leaves.values()], allow_unused=True, materialize_grads=True
    )
    gradients = dict(zip(leaves, found, strict=True))
    generator, step = torch.Generator().manual_seed(2), 1e-4
    for name, leaf in leaves.items():
        way = torch.randn(leaf.shape, generator=generator).double()
        ends = [
            penalty_of({**leaves, name: (leaf + sign * step * way).detach().requires_grad_()}, rationale, distance).detach()
            for sign in (2, 1, -1, -2)
        ]
        slow = (-ends[0] + 8 * ends[1] - 8 * ends[2] + ends[3]) / (12 * step)
        torch.testing.assert_close(
            (gradients[name] * way).sum(), slow, rtol=1e-6, atol=1e-9, msg=lambda said, at=name: at + said
        )
    unmoved = {name for name, one in gradients.items() if not bool((one.abs() > 1e-12).any())}
    assert unmoved == UNMOVED[rationale]


def test_distances_are_those_by_hand() -> None:
    one = Target(*(mask[:1] for mask in (TARGET.words, TARGET.judged, TARGET.wanted)))
    shares = torch.tensor([[0.0, 0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
    whole = dataclasses.replace(one, judged=one.words)
    assert float(distance_of(shares, whole, "mse")) == pytest.approx(0.6**2 + 0.3**2 + 0.2**2 + 0.1**2)
    assert float(distance_of(shares, whole, "kl")) == pytest.approx(-math.log(0.4), abs=1e-4)
    expected = {
        "mse": 0.3**2 + 0.2**2,
        "kl": -math.log(1 - 0.5),
        "bce": -torch.tensor([0.4, 0.7, 0.8]).log().mean(),
        "order": ((0.3 - 0.4 + 1) + (0.2 - 0.4 + 1)) / 2,
    }
    for name, value in expected.items():
        assert float(distance_of(shares, one, name)) == pytest.approx(float(value), abs=1e-5), name
    none = Target(one.words, one.judged, torch.zeros_like(one.wanted))
    unwanted = {"mse": 0.4**2 + 0.3**2 + 0.2**2, "kl": -torch.tensor(0.1).log(), "order": (0.3 + 0.2 + 0.1) / 3}
    for name, value in unwanted.items():
        assert float(distance_of(shares, none, name)) == pytest.approx(float(value), abs=1e-4), name
    with pytest.raises(PromptError, match="expected one of"):
        distance_of(shares, none, "cosine")


def test_removal_is_the_fall_of_the_margin_without_unwanted_tokens(classifier: Classifier) -> None:
    """By brute force: the mean embedding in place of each unwanted token."""
    weights = classifier.model.weights
    found = removal_effects(weights, TOKENS, LABELS, TARGET.judged & ~TARGET.wanted)
    for row in range(3):
        kept, ends = [token for token, own in zip(TOKENS.ids[row].tolist(), TOKENS.mask[row].tolist(), strict=True) if own], []
        wider = torch.cat([weights.W_E, weights.W_E.mean(dim=0, keepdim=True)])
        said = SAID[row].tolist()
        for ids in (kept, [len(weights.W_E) if said[place] == 0 else token for place, token in enumerate(kept)]):
            logits = forward(dataclasses.replace(weights, W_E=wider), TokenBatch.from_rows([ids])).logits[0, -1]
            ends.append(logits[LABELS[row]] * 1.5 - logits.sum() / 2)
        assert float(found[row]) == pytest.approx(float(ends[0] - ends[1]), abs=1e-9)
    with pytest.raises(PromptError, match="distance 'kl' of removal: expected mse"):
        Regularisation(rationale="removal", distance="kl")


def test_wishes_reach_the_tokens_of_their_words(small: Model) -> None:
    examples = Examples(("We saw it on Friday .", "It was delightful ."), (0, 1), ("a", "b"), (None, ((2, 3),)))
    wishes = wishes_of(examples, without=["friday"])
    assert wishes == [{4: False}, {0: False, 1: False, 2: True, 3: False}]
    untrained = Classifier.on(small, ["a", "b"])
    guidance, spelt = Guidance.of(untrained, examples.texts, wishes), spelt_texts(untrained, examples.texts)
    for row, one in enumerate(spelt):
        said = [wishes[row].get(owner) for owner in one.owners]
        assert guidance.judged[row, : len(said)].tolist() == [word is not None for word in said]
        assert guidance.wanted[row, : len(said)].tolist() == [word is True for word in said]
        assert not guidance.words[row, len(said) :].any() and not guidance.words[row, 0]
    with pytest.raises(PromptError, match="the word 'sunday' is in none of 2 texts"):
        wishes_of(examples, without=["Sunday"])
    with pytest.raises(PromptError, match="nothing is said of any word"):
        Guidance.of(untrained, examples.texts, [{}, {}])


@pytest.mark.parametrize("by", ["gradient", "removal"])
def test_what_a_word_does_is_linear_in_the_head(classifier: Classifier, by: Any) -> None:
    """The fast way, once for all heads, says what the slow one says of this head."""
    texts, wishes = FEW.train.texts[:4], [{4: False}, {0: False, 4: False}, {}, {9: False}]
    moved, rows = word_effects(classifier, texts, wishes, by=by)
    labels, head = torch.tensor([0, 1, 2, 1]), classifier.model.weights.W_U
    others = (head.sum(dim=1, keepdim=True) - head) / 2
    fast = (moved * (head - others)[:, labels[rows]].T).sum(dim=1)
    spelt = spelt_texts(classifier, texts)
    pairs = [(row, word) for row, said in enumerate(wishes) for word in said]
    for (row, word), value in zip(pairs, fast.tolist(), strict=True):
        ids = list(spelt[row].ids)
        if by == "gradient":
            tokens = input_gradients(classifier.model.weights, TokenBatch.from_rows([ids]), labels[row : row + 1])[0]
            slow = float(tokens[[owner == word for owner in spelt[row].owners]].sum())
        else:
            ends = [
                classifier.model.run(torch.tensor(one)).logits[0, -1] for one in (ids, spelt[row].without(frozenset([word])))
            ]
            margins = [end[labels[row]] - (end.sum() - end[labels[row]]) / 2 for end in ends]
            slow = float(margins[0] - margins[1])
        assert value == pytest.approx(slow, abs=1e-8)


def test_a_held_head_is_moved_less_by_unwanted_words(small: Model) -> None:
    wishes = wishes_of(dataclasses.replace(FEW.train, rationales=()), without=["friday", "monday"])
    sizes = []
    for strength in (0.0, 1e3, 1e6):
        held = train_head_without(small, FEW.train, wishes, strength=strength)
        moved, _ = word_effects(held, FEW.train.texts, wishes)
        head = held.model.weights.W_U
        sizes.append(float((moved @ (head[:, 0] - head[:, 1])).square().mean()))
    assert sizes[0] > 2 * sizes[1] > 4 * sizes[2]
    with pytest.raises(PromptError, match="no word that the classifier reads is unwanted"):
        train_head_without(small, FEW.train, [{0: True}] * 24)
    with pytest.raises(PromptError, match="no word that the classifier reads is unwanted"):
        train_regularised(small, FEW.train, [{0: True}] * 24)


@pytest.mark.parametrize("by", ["removal", "gradient"])
def test_a_head_that_is_held_to_nothing_is_the_plain_one(small: Model, by: Any) -> None:
    wishes = wishes_of(FEW.train)
    plain, free = train_head(small, FEW.train), train_head_without(small, FEW.train, wishes, by=by, strength=0.0)
    torch.testing.assert_close(free.logits(FEW.held_out.texts), plain.logits(FEW.held_out.texts), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("rationale", ["attention", "learned"])
def test_what_no_head_changes_cannot_hold_one(small: Model, rationale: str) -> None:
    how, wishes = Regularisation(rationale=rationale), wishes_of(FEW.train)
    with pytest.raises(PromptError, match=f"the rationale '{rationale}' does not hang on the head"):
        train_regularised(small, FEW.train, wishes, how=how, only="head")
    with pytest.raises(PromptError, match="does not hang on the head"):
        er_test(small, lambda seed: (FEW.train, FEW.splits), how=how, only="head")


def test_er_test_names_the_tests_that_not_all_seeds_have(small: Model) -> None:
    bare = dataclasses.replace(FEW.held_out, rationales=())
    how, recipe = Regularisation(strength=0.0), Recipe(epochs=1, batch=24)

    def make(seed: int) -> Any:
        return FEW.train, {"held out": FEW.held_out if seed else bare}

    found = er_test(small, make, how=how, recipe=recipe, only="head", seeds=(0, 1))
    assert found.tests == ("held out",) and found.left_out == ("meaning changed", "the rest changed") and found.same_texts


def test_er_test_pairs_trainings_by_their_seeds_and_trains_none_twice(small: Model, tmp_path: Path) -> None:
    made: list[int] = []
    stop = {5}

    def make(seed: int) -> Any:
        if seed in stop:
            raise KeyboardInterrupt
        made.append(seed)
        planted = planted_shortcut(count=24, judged=10, seed=seed)
        return planted.train, planted.splits

    asked: list[int] = []
    prints: list[str] = []

    def seen(seed: int, plain: Classifier, held: Classifier) -> None:
        asked.append(seed)
        prints.extend([plain.model.fingerprint, held.model.fingerprint])

    how, recipe = Regularisation(rationale="attention", distance="kl", strength=0.0), Recipe(epochs=1, batch=12)
    options: Any = {"how": how, "recipe": recipe, "seeds": (4, 5), "seen": seen}
    with pytest.raises(KeyboardInterrupt), run_in(tmp_path / "journal"):
        er_test(small, make, **options, seen_of=(4,))
    stop.clear()
    with run_in(tmp_path / "journal"):
        found = er_test(small, make, **options, seen_of=(4,))
    assert made == [4, 5] and asked == [4, 4] and len(set(prints)) == 1, "kept, and the same bit by bit"
    alone = train_all(small, make(4)[0], recipe=dataclasses.replace(recipe, seed=4))
    assert alone.model.fingerprint == prints[0]
    assert found.tests[:4] == ("held out", "random", "flipped", "contrast")
    assert found.tests[4:] == ("meaning changed", "the rest changed") and found.kinds[0] == "in distribution"
    assert not found.left_out and not found.same_texts
    assert torch.equal(found.plain, found.regularised), "a penalty of no strength changes nothing"
    changed = dataclasses.replace(found, regularised=found.plain + torch.tensor([[0.2] * 6, [0.4] * 6]))
    assert changed.gain("flipped").effect == pytest.approx(0.3) and "flipped +0.30" in changed.summary
    assert ErTest.from_json(changed.as_json()).gain("random") == changed.gain("random")


def test_functional_tests_swap_what_decides_or_the_rest() -> None:
    counted = label_words(FEW.train)
    meaning, rest = functional_tests(FEW.train, FEW.held_out, wishes_of(FEW.held_out))
    for before, after in zip(meaning.before, meaning.after, strict=True):
        changed = [word for word, other in zip(before.split(), after.split(), strict=True) if word != other]
        assert changed and not {"Friday", "Monday"} & set(changed)
    for before, after in zip(rest.before, rest.after, strict=True):
        swaps = {(word, other) for word, other in zip(before.split(), after.split(), strict=True) if word != other}
        assert swaps and {word.casefold() for pair in swaps for word in pair} <= set(counted.words)
        assert all(form_of(word) in counted.in_head for word, _ in swaps)
