"""Answers are the token that would follow, with tokenizers of every kind."""

import dataclasses
import functools
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from circuits.errors import ModelError, PromptError
from circuits.lenses import logit_lens, logits
from circuits.models import Model, load_model
from circuits.models.planted import planted_induction
from circuits.patching import attention
from circuits.tasks import Fact, PromptPairs, fact_pairs, mini_facts, score_facts
from circuits.tasks.answers import answer_ids, first_of, following, one_token, spelled, text_of
from circuits.tasks.behavioural.likelihood import token_log_probabilities
from tests.models import bundled, checkpoints
from tests.tokenizers import KINDS, MARKED, saved, tokenizer

FACTS = random.Random(0).sample(mini_facts(), 80)
FRANCE = "The capital of France is"


@functools.cache
def both(kind: str) -> tuple[Model, Any]:
    """A random model with a tokenizer of a kind in float64, and the Hugging Face model that it was loaded from."""
    with tempfile.TemporaryDirectory() as directory:
        path = saved(kind, Path(directory))
        return load_model(path, dtype=torch.float64), checkpoints.original(path)


def model_of(kind: str) -> Model:
    return bundled.mini() if kind == "mini" else both(kind)[0]


def answer_in_sentence(kind: str, prompt: str, attribute: str) -> tuple[list[int], int]:
    """The tokens of the whole sentence as its tokenizer has them, and the first that holds a letter of the attribute."""
    text = f"{prompt} {attribute}"
    encoded = tokenizer(kind)(text, return_offsets_mapping=True)
    spans = encoded["offset_mapping"]
    return encoded["input_ids"], next(at for at, (_, end) in enumerate(spans) if end > len(prompt) + 1)


def chances_in(original: Any, rows: list[list[int]]) -> list[torch.Tensor]:
    """The log-probability of each row's tokens but the first, in rows of one length at a time, so that nothing is padded."""
    found = dict[int, torch.Tensor]()
    for length in {len(row) for row in rows}:
        places = [place for place, row in enumerate(rows) if len(row) == length]
        ids = torch.tensor([rows[place] for place in places])
        with torch.no_grad(), checkpoints.without_downcasts():
            likely = original(ids).logits.log_softmax(dim=-1)
        found |= zip(places, likely[:, :-1].gather(2, ids[:, 1:, None])[:, :, 0], strict=True)
    return [found[place] for place in range(len(rows))]


@pytest.mark.parametrize("kind", KINDS)
def test_facts_are_as_likely_as_in_the_original_on_the_whole_sentence(kind: str) -> None:
    model, original = both(kind)
    scores = score_facts(model, FACTS).values["log_probability"]
    sentences = [answer_in_sentence(kind, fact.prompt, fact.attribute) for fact in FACTS]
    chances = chances_in(original, [ids for ids, _ in sentences])
    wholes = []
    for fact, score, (ids, at), chance in zip(FACTS, scores.tolist(), sentences, chances, strict=True):
        # A mark for the space, where that is a token of its own, is what the model is asked for.
        at -= tokenizer(kind).decode(ids[at - 1 : at]).strip() == ""
        assert score == pytest.approx(float(chance[at - 1]), abs=1e-9)
        assert following(model, fact.prompt, spelled(fact.prompt, fact.attribute)) == ids[at:]
        wholes.append((ids, at, float(chance[at - 1 :].sum())))
    own = token_log_probabilities(model, [ids for ids, _, _ in wholes])
    for found, (_, at, whole) in zip(own, wholes, strict=True):
        assert float(found[at - 1 :].sum()) == pytest.approx(whole, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_facts_with_other_answers_ask_for_other_tokens(kind: str) -> None:
    """A bare mark for every fact would make the majority right about all of them."""
    model, _ = both(kind)
    capitals = mini_facts(relation="country_capital")
    firsts = {first_of(model, fact.prompt, fact.attribute) for fact in capitals}
    assert len(firsts) > len({fact.attribute for fact in capitals}) / 4
    assert score_facts(model, capitals).mean("majority_top1") < 0.5


@pytest.mark.parametrize("kind", [*KINDS, "mini"])
def test_what_follows_is_the_rest_of_the_whole_text(kind: str) -> None:
    model = model_of(kind)
    draw, shared = random.Random(1), 0
    for fact in draw.sample(mini_facts(), 300):
        text = f"{fact.prompt} ({fact.attribute}) since 1743."
        cut = draw.randrange(1, len(text))
        prompt, answer = text[:cut], text[cut:]
        own, whole = (model.tokenizer.encode(part, add_special_tokens=False) for part in (prompt, text))
        if whole[: len(own)] == own:
            assert following(model, prompt, answer) == whole[len(own) :]
            continue
        shared += 1
        with pytest.raises(PromptError, match="shares a token with the prompt") as refused:
            following(model, prompt, answer, where="prompt 7")
        assert str(refused.value).startswith("prompt 7: ") and "\n" not in str(refused.value)
    assert 50 < shared < 290


@pytest.mark.parametrize("kind", [*KINDS, "mini"])
def test_a_space_at_the_prompts_end_is_named(kind: str) -> None:
    with pytest.raises(PromptError, match="leave out the space at the prompt's end"):
        following(model_of(kind), f"{FRANCE} ", "Paris")


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_take_the_word_as_it_stands_in_the_text(kind: str) -> None:
    model, _ = both(kind)
    fields = {"clean": [FRANCE], "corrupt": ["The capital of capital is"], "distractors": [" France"]}
    pairs = PromptPairs.from_text(model, answers=[" Paris"], **fields)
    assert model.to_string([*pairs.clean.ids[0].tolist(), int(pairs.answers[0])]).endswith("France is Paris")
    inside = tokenizer(kind)(f"{FRANCE} Paris", add_special_tokens=False).input_ids[-1]
    assert int(pairs.answers[0]) == inside
    with pytest.raises(PromptError, match="did you mean ' Paris'") as refused:
        PromptPairs.from_text(model, answers=["Paris"], **fields)
    assert str(refused.value).startswith("prompt 0 (")
    with pytest.raises(PromptError, match=r"is \d+ tokens \(.* \| .*\), expected one"):
        PromptPairs.from_text(model, answers=[" incomprehensibility"], **fields)


@pytest.mark.parametrize("kind", KINDS)
def test_lenses_and_attention_ask_for_the_same_token(kind: str) -> None:
    model, _ = both(kind)
    wanted = tokenizer(kind)(f"{FRANCE} Paris", add_special_tokens=False).input_ids[-1]
    for prompts in (FRANCE, [FRANCE], model.to_tokens(FRANCE)):
        assert logit_lens(model, prompts, answers=" Paris").targets.unique().tolist() == [wanted]
        assert logits(model, prompts, answers=" Paris", distractors=" France").answers == tuple(
            model.to_token_strings([wanted])
        )
        own = model.run(prompts).logits[0, -1].log_softmax(dim=-1)[wanted]
        found = attention(model, prompts, answers=" Paris")
        assert float(found.log_probabilities[0]) == pytest.approx(float(own), abs=1e-9)
        with pytest.raises(PromptError, match=r"prompt 0 .*did you mean ' Paris'\?$"):
            logit_lens(model, prompts, answers="Paris")


@pytest.mark.parametrize("kind", KINDS)
def test_attention_at_an_earlier_token_asks_for_what_follows_there(kind: str) -> None:
    model, _ = both(kind)
    place = len(model.to_tokens("The capital of").ids[0]) - 1
    found = attention(model, f"{FRANCE} Paris", answers=" France", position=place)
    wanted = tokenizer(kind)("The capital of France", add_special_tokens=False).input_ids[-1]
    own = model.run(f"{FRANCE} Paris").logits[0, place].log_softmax(dim=-1)[wanted]
    assert float(found.log_probabilities[0]) == pytest.approx(float(own), abs=1e-9)


@pytest.mark.parametrize("kind", [*KINDS, "mini"])
def test_rows_of_tokens_come_back_as_their_text(kind: str) -> None:
    model = model_of(kind)
    for fact in FACTS[:50]:
        row = model.to_tokens(fact.prompt).ids[0].tolist()
        assert text_of(model, row) == fact.prompt
        assert (
            answer_ids(model, [f" {fact.attribute}", 7], [row, row]) if len(following(model, fact.prompt, " x")) == 1 else True
        )
    with pytest.raises(PromptError, match="outside the vocabulary"):
        text_of(model, [5, -1])


@pytest.mark.parametrize("kind", KINDS)
def test_facts_pair_with_every_tokenizer(kind: str) -> None:
    model, _ = both(kind)
    facts = [*FACTS, Fact("The capital of Japanophile is", "Japan", "Tokyo", "x"), Fact("The only one of", "one", "it", "y")]
    pairs = fact_pairs(model, facts)
    assert len(pairs) + sum(pairs.left_out.values()) == len(facts)
    assert pairs.left_out["the subject does not stand in the prompt as words, and tokens, of its own"] == 1
    assert pairs.left_out["no other fact is asked in the same words, with as many tokens, and has another answer"] >= 1
    for row, (label, word) in enumerate(zip(pairs.labels, pairs.answer_words, strict=True)):
        assert int(pairs.answers[row]) == first_of(model, label, word) != int(pairs.distractors[row])
    part = pairs[[3, 1]]
    assert part.answer_words == (pairs.answer_words[3], pairs.answer_words[1]) and part.left_out == pairs.left_out


def test_facts_that_begin_with_the_same_token_are_counted_and_no_pair_is_refused() -> None:
    model = bundled.mini()
    facts = [
        Fact(f"The capital of {name} is", name, answer, "x") for name, answer in (("France", "Paris"), ("Japan", "Paris A"))
    ]
    with pytest.raises(
        PromptError, match="nothing to pair among 2 facts: 2: every partner's answer begins with the same token"
    ):
        fact_pairs(model, facts)
    with pytest.raises(PromptError, match="among 0 facts: none is given"):
        fact_pairs(model, [])
    with pytest.raises(PromptError, match="2: no other fact is asked in the same words"):
        fact_pairs(model, [facts[0], dataclasses.replace(facts[0], attribute="Rome")])
    pairs = fact_pairs(model, [*facts, Fact("The capital of Italy is", "Italy", "Rome", "x")])
    assert len(pairs) == 3 and dict(pairs.left_out) == {}


SPELLED = [
    ("The capital of France is", "Paris", " Paris"),
    ("The capital of France is ", " Paris ", "Paris"),
    ("The capital (", "Paris", "Paris"),
    ('He called it "', "Paris", "Paris"),
    ('He called it "home"', "and", " and"),
    ("the dogs'", "home", " home"),
    ("'", "Paris", "Paris"),
    ("well-", "known", "known"),
    ("the capital –", "Paris", " Paris"),
    ("and/", "or", "or"),
    ("法国的首都是", "巴黎", "巴黎"),
    ("フランスの首都は", "パリ", "パリ"),
    ("프랑스의 수도는", "파리", " 파리"),
    ("The year 17", "43", " 43"),
    ("", "Paris", "Paris"),
]


@pytest.mark.parametrize(("prompt", "word", "expected"), SPELLED)
def test_a_word_is_spelled_as_the_text_goes_on(prompt: str, word: str, expected: str) -> None:
    assert spelled(prompt, word) == expected


def test_digits_follow_digits_one_by_one() -> None:
    for kind in ("digits", "prefix space"):
        model, _ = both(kind)
        assert model.to_token_strings(following(model, "from the year 17", "43")) == ["4", "3"]
        assert one_token(model, "here", "from the year 17", "4", what="answer", joined=False) == following(model, "17", "4")[0]
    with pytest.raises(PromptError, match="'43' is 2 tokens"):
        one_token(model, "here", "from the year 17", "43", what="answer", joined=False)


def test_models_that_read_no_text_want_ids() -> None:
    model = planted_induction().model
    with pytest.raises(ModelError, match="no tokenizer"):
        following(model, "a", "b")
    with pytest.raises(PromptError, match="no tokenizer to read ' b' with"):
        answer_ids(model, [" b"], [[0, 1]])
    assert answer_ids(model, [3], [[0, 1]]) == [3]


def test_the_beginning_of_words_is_marked_by_the_kinds_that_do_so() -> None:
    """What the tests above would miss if every kind cut words alike."""
    for kind in MARKED:
        model, _ = both(kind)
        alone = tokenizer(kind)("Paris", add_special_tokens=False).input_ids
        assert following(model, "(see", "Paris") != alone == following(model, FRANCE, " Paris")
