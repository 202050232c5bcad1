"""Pairs that cannot be compared are refused by name, and good ones never are."""

import random
from collections.abc import Callable

import pytest
import torch

from circuits.errors import NonFiniteError, PromptError
from circuits.models import Model
from circuits.tasks import PromptPairs, mini_facts
from circuits.tasks.gaps import refuse_non_finite, refuse_zero_gap
from tests.models import bundled

Pair = dict[str, str]
KEYS = ("clean", "corrupt", "answers", "distractors", "subjects")


@pytest.fixture(scope="module")
def mini() -> Model:
    return bundled.mini()


@pytest.fixture(scope="module")
def good(mini: Model) -> list[Pair]:
    """1,000 pairs of two facts of one relation, in one template, whose prompts have equally many tokens."""
    groups: dict[tuple[str, int], list] = {}
    for fact in mini_facts():
        template = fact.prompt.replace(fact.subject, "{}")
        groups.setdefault((template, len(mini.tokenizer.encode(fact.prompt))), []).append(fact)
    chooser, pairs = random.Random(0), []
    alike = [group for group in groups.values() if len({fact.attribute for fact in group}) > 1]
    while len(pairs) < 1000:
        one, other = chooser.sample(chooser.choice(alike), 2)
        if one.attribute != other.attribute:
            values = (one.prompt, other.prompt, f" {one.attribute}", f" {other.attribute}", one.subject)
            pairs.append(dict(zip(KEYS, values, strict=True)))
    return pairs


def made(model: Model, pairs: list[Pair]) -> PromptPairs:
    return PromptPairs.from_text(model, **{key: [pair[key] for pair in pairs] for key in KEYS})


def test_good_pairs_are_accepted_together_and_alone(mini: Model, good: list[Pair]) -> None:
    together = made(mini, good)
    assert len(together) == 1000
    for index in range(0, 1000, 10):
        alone = made(mini, [good[index]])
        assert int(together.answers[index]) == int(alone.answers[0])
        row = together.clean.ids[index][together.clean.mask[index]]
        assert row.tolist() == alone.clean.ids[0].tolist()
        assert mini.to_string(row[1:].tolist()) == good[index]["clean"]


def test_subjects_are_found_at_their_columns(mini: Model, good: list[Pair]) -> None:
    pairs = made(mini, good[:200])
    for index, pair in enumerate(good[:200]):
        first, last = (int(pairs.positions[name][index]) for name in ("subject_first", "subject_last"))
        said = mini.to_string(pairs.clean.ids[index, first : last + 1].tolist()).strip()
        assert said.rstrip(".,") == pair["subjects"].rstrip(".")


FRANCE = dict(zip(KEYS, ("The town of France is", "The town of Japan is", " Paris", " Tokyo", "France"), strict=True))
CHANGES: dict[str, tuple[Callable[[Pair], Pair], str]] = {
    "longer corrupt": (lambda pair: pair | {"corrupt": pair["corrupt"] + " the"}, "they must have equally many"),
    "longer clean": (lambda pair: pair | {"clean": "Now then, " + pair["clean"]}, "they must have equally many"),
    "long answer": (lambda pair: pair | {"answers": " of the sea"}, r"tokens .*expected one"),
    "long distractor": (lambda pair: pair | {"distractors": " incomprehensibility"}, r"tokens .*expected one"),
    "no space": (lambda pair: pair | {"answers": "in"}, "lacks its leading space; did you mean ' in'"),
    "no space in distractor": (lambda pair: pair | {"distractors": "in"}, "lacks its leading space"),
    "no subject": (lambda pair: pair | {"subjects": "Zzyzx"}, "is not in it"),
    "part of a word": (lambda pair: FRANCE | {"subjects": "ranc"}, "only inside a longer word, 'France'"),
    "empty subject": (lambda pair: pair | {"subjects": " "}, "is not in it"),
    "same answers": (lambda pair: pair | {"distractors": pair["answers"]}, "same token"),
    "same prompts": (lambda pair: pair | {"corrupt": pair["clean"]}, "nothing would be changed"),
    "empty clean": (lambda pair: pair | {"clean": "  "}, "is empty"),
    "empty corrupt": (lambda pair: pair | {"corrupt": ""}, "is empty"),
    "empty answer": (lambda pair: pair | {"answers": ""}, "0 tokens"),
    "too long": (lambda pair: pair | {"clean": pair["clean"] * 40, "corrupt": pair["corrupt"] * 40}, "takes 128"),
    "surrogate": (lambda pair: pair | {"corrupt": pair["corrupt"] + "\ud800"}, "surrogate"),
    "id outside": (lambda pair: pair | {"answers": 4096}, "outside the vocabulary"),
    "negative id": (lambda pair: pair | {"distractors": -1}, "outside the vocabulary"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_bad_pair_among_good_ones_is_named(mini: Model, good: list[Pair], kind: str) -> None:
    change, said = CHANGES[kind]
    chooser = random.Random(kind)
    for _ in range(18):  # 18 kinds: 324 bad pairs
        pairs = chooser.sample(good, 6)
        index = chooser.randrange(6)
        pairs[index] = change(pairs[index])
        with pytest.raises(PromptError, match=said) as refused:
            made(mini, pairs)
        assert str(refused.value).startswith(f"prompt {index} ("), refused.value
        assert "\n" not in str(refused.value)


ROWS = {
    "two BOS": ([0, 0, 5], [0, 0, 6], "twice"),
    "BOS in the clean alone": ([0, 5, 6], [4, 5, 6], "only the clean prompt starts with BOS"),
    "BOS in the corrupt alone": ([4, 5, 6], [0, 5, 6], "only the corrupt prompt starts with BOS"),
    "others have BOS": ([4, 5, 6], [4, 5, 7], "does not start with BOS"),
    "only BOS": ([0], [0], "is empty"),
    "outside": ([0, 5, 50], [0, 5, 6], "outside the vocabulary of 50"),
    "a flag": ([0, 5, True], [0, 5, 6], "expected a token id"),
    "unequal": ([0, 5], [0, 5, 6], "equally many"),
    "the same": ([0, 5], [0, 5], "nothing would be changed"),
}


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("index", range(1, 5))
def test_a_bad_row_of_ids_is_named(kind: str, index: int) -> None:
    clean, corrupt, said = ROWS[kind]
    rows = [[[0, 7, 9]] * 5, [[0, 8, 9]] * 5]
    rows[0][index], rows[1][index] = clean, corrupt
    with pytest.raises(PromptError, match=said) as refused:
        PromptPairs.from_tokens(50, clean=rows[0], corrupt=rows[1], answers=[1] * 5, distractors=[2] * 5, bos_id=0)
    assert str(refused.value).startswith(f"prompt {index} (")


def test_lists_of_differing_length_are_refused(mini: Model, good: list[Pair]) -> None:
    values = {key: [pair[key] for pair in good[:4]] for key in KEYS}
    for key in KEYS:
        with pytest.raises(PromptError, match=r"prompt 3 .*differ in length"):
            PromptPairs.from_text(mini, **(values | {key: values[key][:3]}))
        with pytest.raises(PromptError, match=f"{key} is one text"):
            PromptPairs.from_text(mini, **(values | {key: "text"}))
    with pytest.raises(PromptError, match="no pairs"):
        PromptPairs.from_text(mini, clean=[], corrupt=[], answers=[], distractors=[])


def test_joined_takes_an_answer_as_it_is(mini: Model, good: list[Pair]) -> None:
    fields = {"clean": [good[0]["clean"]], "corrupt": [good[0]["corrupt"]], "distractors": [" of"]}
    pairs = PromptPairs.from_text(mini, answers=["in"], joined=True, **fields)
    assert mini.to_string([int(pairs.answers[0])]) == "in"


def test_prompts_of_several_lengths_are_padded_and_read_at_their_own_last_token(mini: Model, good: list[Pair]) -> None:
    pairs = made(mini, good[:50])
    lengths = pairs.clean.mask.sum(dim=1)
    assert len(set(lengths.tolist())) > 1
    assert torch.equal(pairs.clean.mask, pairs.corrupt.mask)
    assert torch.equal(pairs.answer_columns, pairs.clean.last)
    part = pairs[10:20]
    assert len(part) == 10 and part.labels[0] == pairs.labels[10]
    with pytest.raises(PromptError, match="no pairs are left"):
        _ = pairs[50:]


def test_a_gap_of_zero_and_numbers_that_are_none_are_refused_by_name(mini: Model, good: list[Pair]) -> None:
    pairs = made(mini, good[:5])
    clean, corrupt = torch.arange(5.0) + 1, torch.arange(5.0)
    refuse_zero_gap(clean, corrupt, pairs)
    with pytest.raises(PromptError, match=r"the gaps of 4 pairs cancel"):
        refuse_zero_gap(clean[:4], clean[:4] + torch.tensor([2.0, -2.0, 3.0, -3.0]), pairs[:4])
    refuse_zero_gap(clean[:4], clean[:4] + torch.tensor([2.0, -2.0, 3.0, -2.9]), pairs[:4])
    corrupt[3] = clean[3]
    with pytest.raises(PromptError, match=r"prompt 3 .*there is no gap"):
        refuse_zero_gap(clean, corrupt, pairs)
    for bad in (float("nan"), float("inf"), -float("inf")):
        corrupt[2] = bad
        with pytest.raises(NonFiniteError, match=r"prompt 2 .*corrupt prompt is"):
            refuse_zero_gap(clean, corrupt, pairs)
        with pytest.raises(NonFiniteError, match=r"prompt 2 .*the thing is"):
            refuse_non_finite(corrupt, pairs, "the thing")
