"""Heads as branches: heads that each look at a class of words of their own, heads that are tied, and slow ways to count."""

import dataclasses
import random

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models as tokenizer_models, pre_tokenizers

from circuits.concepts import Specialisation, specialise
from circuits.errors import PromptError
from circuits.models import Model
from circuits.models.planted import planted_branches
from circuits.tasks import Sentence, Word

CLASSES, EACH = 3, 4


def spoken(*, tied: bool, n_layers: int = 1) -> Model:
    """The planted model with a tokenizer of one token a word, w1 to w12."""
    size = 1 + CLASSES * EACH
    words = Tokenizer(tokenizer_models.WordLevel({"<bos>": 0, **{f"w{i}": i for i in range(1, size)}}, unk_token="<bos>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<bos>")
    model = planted_branches(classes=CLASSES, each=EACH, tied=tied, n_layers=n_layers).model
    return dataclasses.replace(model, tokenizer=fast, prepend_bos=True)


def sentences(count: int = 40, *, informed: bool = True, seed: int = 0) -> list[Sentence]:
    """Random words whose tag is the class of the token (or, not `informed`, anything)."""
    rng, found = random.Random(seed), []
    for _ in range(count):
        ids = [rng.randrange(CLASSES * EACH) for _ in range(rng.randint(12, 16))]
        words, at = [], 0
        for place, one in enumerate(ids):
            tag = "XYZ"[one // EACH if informed else rng.randrange(CLASSES)]
            words.append(Word(f"w{one + 1}", at, at + len(f"w{one + 1}"), tag, None if place == 0 else 0, "dep"))
            at += len(f"w{one + 1}") + 1
        found.append(Sentence(" ".join(word.form for word in words), tuple(words)))
    return found


def measured(model: Model, given: list[Sentence]) -> Specialisation:
    return specialise(model, given, least=5, permutations=39, resamples=20)


def test_heads_of_a_class_each_are_found_and_told() -> None:
    found = measured(spoken(tied=False), sentences())
    assert float(found.information[0]) > 0.7 and float(found.chance[0]) == 1 / 40
    assert float(found.information[1]) == 0.0, "a single layer is no choice"
    assert set(found.specialised) == {"a0.h0", "a0.h1", "a0.h2"}
    table = found.to_dataframe()
    assert table["most"].tolist() == ["X", "Y", "Z"] and found.interval("head")[0] > 0.5


def test_tied_heads_tell_nothing_and_labels_of_nothing_are_not_told() -> None:
    tied = measured(spoken(tied=True), sentences())
    assert float(tied.information[0]) < 1e-9 and float(tied.chance[0]) == 1.0 and tied.specialised == ()
    idle = measured(spoken(tied=False), sentences(informed=False))
    assert float(idle.chance[0]) > 0.05 and float(idle.information[0]) < 0.1


def test_layers_alike_tell_nothing() -> None:
    found = measured(spoken(tied=False, n_layers=2), sentences(20))
    assert float(found.information[1]) < 1e-9 < 0.3 < float(found.information[0]), "each layer holds the same heads"


def test_information_is_that_of_a_loop_over_words() -> None:
    model, given = spoken(tied=False), sentences(8, seed=3)
    found = measured(model, given)
    shares = torch.zeros(CLASSES, CLASSES).double()
    for sentence in given:
        pattern = model.run(sentence.text, keep="factors").pattern(0)[0].double()  # head, query, key; BOS in front
        for key, word in enumerate(sentence.words[:-1]):
            behind = pattern[:, key + 2 :, key + 1]
            shares[:, "XYZ".index(word.tag)] += behind.mean(dim=1)
    shares /= shares.sum(dim=1, keepdim=True)
    order = ["XYZ".index(name) for name in found.classes]
    torch.testing.assert_close(found.profile[0], shares[:, order], atol=1e-6, rtol=0)
    joint = shares / CLASSES
    mean = joint.sum(dim=0)
    told = sum(float(p * (p * CLASSES / q).log()) for row in joint for p, q in zip(row, mean, strict=True) if p > 0)
    entropy = -float((mean * mean.log()).sum())
    assert float(found.information[0]) == pytest.approx(told / min(entropy, float(torch.tensor(3.0).log())), abs=1e-6)


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(PromptError, match="permutations=1"):
        specialise(spoken(tied=True), sentences(5), permutations=1)
