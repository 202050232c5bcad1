"""The language tasks: every pair is read back from its text, on four tokenizers that split words differently."""

import re

import pytest
import torch

import circuits.tasks
from circuits.errors import ModelError, PromptError
from circuits.models import Model
from circuits.tasks import agreement, docstring, gendered_pronouns, greater_than, ioi, metrics
from circuits.tasks.library.wording import word_list
from tests.models.native import native_bridge
from tests.tasks.vocabularies import KINDS, Make, at, made, model, model_of, texts, word

CHANGED: list[tuple[Make, dict[str, str], tuple[str, ...]]] = [
    (ioi, {}, ("io", "s1", "s2")),
    (ioi, {"corruption": "swap"}, ("s2",)),
    (ioi, {"corruption": "third"}, ("s2",)),
    (ioi, {"order": "bab"}, ("io", "s1", "s2")),
    (greater_than, {}, ("start_year",)),
    (docstring, {}, ("def_3", "def_4", "def_5", "doc_1", "doc_2")),
    (docstring, {"corruption": "random_answer"}, ("def_5",)),
    (docstring, {"corruption": "random_doc"}, ("doc_1", "doc_2")),
    (gendered_pronouns, {}, ("name",)),
    (agreement, {}, ("subject",)),
    (agreement, {"attractor": "other"}, ("subject",)),
]
"""Task, options, and the positions where clean and corrupt must differ."""
EVERY = [(kind, *case) for kind in KINDS for case in CHANGED if (kind, case[0]) != ("mini", greater_than)]
DIGITS = ("single digits", "mini")
"""Tokenizers that split years into a century and single digits."""
TASKS = (ioi, greater_than, docstring, gendered_pronouns, agreement)


@pytest.mark.parametrize(("kind", "make", "options", "places"), EVERY)
def test_pairs_differ_where_they_should_and_nowhere_else(kind: str, make: Make, options: dict, places: tuple) -> None:
    pairs = made(make, kind, **options)
    assert len(pairs) == 24
    assert torch.equal(pairs.positions["end"], pairs.answer_columns)
    assert torch.equal(pairs.answer_columns, pairs.clean.last)
    assert (pairs.clean.ids[:, 0] == model(kind).tokenizer.bos_token_id).all()
    for row in range(len(pairs)):
        differ = (pairs.clean.ids[row] != pairs.corrupt.ids[row]).nonzero()[:, 0].tolist()
        assert differ == sorted(int(pairs.positions[place][row]) for place in places)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("corruption", ["abc", "swap", "third"])
def test_ioi_answers_with_the_name_that_was_said_once(kind: str, corruption: str) -> None:
    pairs = made(ioi, kind, corruption=corruption)
    names = {*word_list("women"), *word_list("men")}
    for row, (clean, corrupt, answer, distractor) in enumerate(texts(kind, pairs)):
        said, other = ([one for one in words if one in names] for words in (clean, corrupt))
        assert len(said) == 3 and said.count(answer) == 1 and said.count(distractor) == 2
        assert said[2] == distractor == at(kind, pairs, "s1", row) == at(kind, pairs, "s2", row)
        assert said.index(answer) == row % 2 and at(kind, pairs, "io", row) == answer
        assert pairs.positions["s2"][row] > max(pairs.positions["io"][row], pairs.positions["s1"][row])
        after = clean[clean.index(distractor) + 1]
        assert at(kind, pairs, "s1_plus_1", row) in (after, ",")
        if corruption == "abc":
            assert len(set(said) | set(other)) == 5 and len(set(other)) == 3
        else:
            assert other[:2] == said[:2]
            assert (other[2] == answer) if corruption == "swap" else (other[2] not in said)


@pytest.mark.parametrize(("order", "place"), [("abb", 0), ("bab", 1)])
def test_ioi_orders(order: str, place: int) -> None:
    pairs = made(ioi, "mini", order=order)
    before = pairs.positions["io"] < pairs.positions["s1"]
    assert bool((before == (place == 0)).all())


@pytest.mark.parametrize("kind", KINDS[:3])
def test_greater_than_asks_for_a_later_year_of_the_same_century(kind: str) -> None:
    pairs = made(greater_than, kind)
    for row, (clean, corrupt, answer, distractor) in enumerate(texts(kind, pairs)):
        century, start, again = (one for one in clean if one.isdigit())
        assert century == again and 11 <= int(century) <= 17
        assert 2 <= int(start) <= 98 and at(kind, pairs, "start_year", row) == start
        assert int(distractor) <= int(start) < int(answer) and int(distractor) > 1
        assert [one for one in corrupt if one.isdigit()] == [century, "01", century]
        assert at(kind, pairs, "noun", row) == clean[1]


@pytest.mark.parametrize("kind", DIGITS)
def test_greater_than_asks_for_a_later_decade_where_digits_stand_one_by_one(kind: str) -> None:
    pairs = made(greater_than, kind)
    assert len(pairs) == 24 and torch.equal(pairs.positions["end"], pairs.clean.last)
    for row, label in enumerate(pairs.labels):
        ((century, start, again),) = re.findall(r" from the year (\d\d)(\d\d) to the year (\d\d)$", label)
        places = [int(pairs.positions[name][row]) for name in ("start_decade", "start_year")]
        assert century == again and "".join(word(kind, pairs.clean.ids[row, place]) for place in places) == start
        answer, distractor = (int(word(kind, column[row])) for column in (pairs.answers, pairs.distractors))
        assert 0 < distractor < int(start[0]) < answer
        assert (pairs.clean.ids[row] != pairs.corrupt.ids[row]).nonzero()[:, 0].tolist() == [
            place for place, old, new in zip(places, start, "01", strict=True) if old != new
        ]
        sides = [side.ids[row][side.mask[row]].tolist() for side in (pairs.clean, pairs.corrupt)]
        for text, ids in zip((label, label.replace(start, "01", 1)), sides, strict=True):
            assert model(kind).to_tokens(text).ids[0].tolist() == ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("corruption", ["random", "random_answer", "random_doc"])
def test_docstring_answers_with_the_argument_after_the_last_documented_one(kind: str, corruption: str) -> None:
    pairs = made(docstring, kind, corruption=corruption)
    for row, (clean, corrupt, answer, distractor) in enumerate(texts(kind, pairs)):
        # "param" may be two tokens, "par" and "am", which decode to one word.
        defined = clean[clean.index("self") + 1 :][:6]
        assert defined == [at(kind, pairs, f"def_{index}", row) for index in range(1, 7)]
        documented = [clean[place + 1] for place, one in enumerate(clean) if one == "param" and place + 1 < len(clean)]
        assert clean[-1] == "param" and documented == defined[2:4]
        assert documented == [at(kind, pairs, name, row) for name in ("doc_1", "doc_2")]
        assert answer == defined[4] and distractor in defined and distractor != answer
        fresh = [new for new, old in zip(corrupt, clean, strict=True) if new != old]
        assert len(set(fresh)) == len(fresh) and not set(fresh) & set(clean)
        assert (answer in corrupt) == (corruption == "random_doc")


@pytest.mark.parametrize("kind", KINDS)
def test_pronouns_go_with_the_name(kind: str) -> None:
    pairs = made(gendered_pronouns, kind)
    women, men = set(word_list("women")), set(word_list("men"))
    for row, (clean, corrupt, answer, distractor) in enumerate(texts(kind, pairs)):
        name, other = ([one for one in words if one in women | men] for words in (clean, corrupt))
        assert len(name) == len(other) == 1 and at(kind, pairs, "name", row) == name[0]
        assert (answer, distractor) == (("she", "he") if name[0] in women else ("he", "she"))
        assert (name[0] in women) == (other[0] in men)
    assert {answer for *_, answer, _ in texts(kind, pairs)} == {"she", "he"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attractor", ["mixed", "same", "other"])
def test_verbs_agree_with_the_subject_and_not_with_the_noun_between(kind: str, attractor: str) -> None:
    pairs = made(agreement, kind, attractor=attractor)
    number = {form: side for kind_ in ("nouns", "verbs") for pair in word_list(kind_) for side, form in enumerate(pair)}
    alike = []
    for row, (clean, corrupt, answer, distractor) in enumerate(texts(kind, pairs)):
        subject, between = (at(kind, pairs, name, row) for name in ("subject", "attractor"))
        assert clean[-1] == between and subject in clean and subject != between
        assert number[answer] == number[subject] != number[distractor]
        assert (answer, distractor) in word_list("verbs") or (distractor, answer) in word_list("verbs")
        (flipped,) = (new for new, old in zip(corrupt, clean, strict=True) if new != old)
        assert {(flipped, subject), (subject, flipped)} & set(word_list("nouns"))
        alike.append(number[between] == number[subject])
    assert set(alike) == {"mixed": {True, False}, "same": {True}, "other": {False}}[attractor]


@pytest.mark.parametrize("make", TASKS)
@pytest.mark.parametrize("kind", ["byte pairs", "spaced words"])
def test_seeds_decide_and_counts_are_kept(kind: str, make: Make) -> None:
    state = torch.random.get_rng_state()
    once, again, other, one = (made(make, kind, count, seed) for count, seed in ((9, 1), (9, 1), (9, 2), (1, 1)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert once.labels == again.labels and torch.equal(once.corrupt.ids, again.corrupt.ids)
    assert torch.equal(once.answers, again.answers) and torch.equal(once.distractors, again.distractors)
    assert once.labels != other.labels and len(set(other.labels)) > 1
    assert len(one) == 1 and one.labels[0] == once.labels[0]
    with pytest.raises(PromptError, match="no pairs"):
        made(make, kind, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (ioi, "0 of 130 names are one token of its vocabulary, this task needs 5"),
        (greater_than, "spans of time are one token of its vocabulary, this task needs 1"),
        (docstring, "argument names are one token of its vocabulary, this task needs 12"),
        (gendered_pronouns, "0 of 64 names of women are one token"),
        (agreement, "0 of 55 nouns are one token in singular and plural"),
    ],
)
def test_small_vocabularies_and_models_without_one_are_refused(make: Make, message: str) -> None:
    with pytest.raises(PromptError, match=re.escape(message)):
        make(model("bytes"))
    bare = Model.from_bridge(native_bridge(0, d_vocab=40, n_ctx=32))
    with pytest.raises(ModelError, match="has no tokenizer"):
        make(bare)


@pytest.mark.parametrize(("make", "without"), [(ioi, "places"), (gendered_pronouns, "men"), (agreement, "nouns")])
def test_words_that_a_tokenizer_does_not_know_are_not_used(make: Make, without: str) -> None:
    with pytest.raises(PromptError, match="are one token"):
        make(model_of("whole words", without=without))


def test_years_that_are_tokens_of_their_own_are_not_asked_about() -> None:
    """mini has 1700 as 17 and 00, 1110 as 1 and 110."""
    labels = made(greater_than, "mini", 64).labels
    years = {re.findall(r"\d{4}", label)[0] for label in labels}
    assert {year[:2] for year in years} == {"12", "13", "14", "15", "16", "17"}
    assert all(len(model("mini").to_tokens(f" {year}").ids[0]) > 3 for year in years)


def test_years_that_are_split_otherwise_are_refused() -> None:
    """As by tokenizers that take three digits at a time."""
    with pytest.raises(PromptError, match=r"no century's years split into a century and two digits, .* 1743 is '174 \| 3'"):
        greater_than(model("three digits"))


def test_mini_knows_whose_pronoun_it_is() -> None:
    pairs = made(gendered_pronouns, "mini", 32)
    for side, sign in ((pairs.clean, 1), (pairs.corrupt, -1)):
        with torch.no_grad():
            logits = metrics.answer_logits(model("mini").run(side, keep="logits"), pairs)
        assert float((sign * metrics.logit_difference(logits, pairs)).mean()) > 0.5


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (ioi, {"order": "bba"}, "order='bba': expected one of mixed, abb, bab"),
        (ioi, {"corruption": "noise"}, "expected one of abc, swap, third"),
        (docstring, {"corruption": "noise"}, "expected one of random, random_answer, random_doc"),
        (agreement, {"attractor": "none"}, "expected one of mixed, same, other"),
    ],
)
def test_unknown_options_are_refused(make: Make, options: dict[str, str], message: str) -> None:
    with pytest.raises(PromptError, match=re.escape(message)):
        getattr(make, "__wrapped__", make)(model("mini"), **options)


def test_tasks_go_by_name() -> None:
    names = ["induction", "ioi", "greater-than", "docstring", "facts", "gendered-pronoun", "agreement", "multiple-choice"]
    assert list(circuits.tasks.TASKS) == names
    bpe = model("byte pairs")
    for name in names:
        task = circuits.tasks.task(name)
        assert task.name == name and task.summary and "\n" not in task.summary
        chosen = model("mini") if name == "facts" else bpe
        pairs = task.pairs(chosen, 4, 3)
        metric = task.metric(chosen, pairs)
        assert len(pairs) == 4
        assert metric(torch.zeros(4, chosen.d_vocab), pairs).shape == (4,)
    assert circuits.tasks.task("ioi").metric(bpe, pairs) is metrics.logit_difference
    with pytest.raises(PromptError, match=r"no task 'nonsense'; expected one of induction, ioi, greater-than, "):
        circuits.tasks.task("nonsense")


@pytest.mark.parametrize(
    "name", ["ioi", "greater_than", "docstring", "gendered_pronouns", "agreement", "induction", "multiple_choice"]
)
def test_the_name_is_the_function(name: str) -> None:
    assert callable(getattr(circuits.tasks, name))
