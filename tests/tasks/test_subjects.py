"""Subjects are found as words of their own."""

import json
import unicodedata
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from circuits.errors import PromptError
from circuits.models import Model
from circuits.patching import attention_knockout, causal_trace, trace_facts
from circuits.tasks import Fact, PromptPairs, fact_pairs, mini_facts
from circuits.tasks.sources.facts import read_rome_json
from circuits.tasks.subjects import columns_of_subject, subject_columns, subject_span, with_subject
from tests.models import bundled
from tests.tasks.test_answers import both
from tests.tokenizers import KINDS

FOUND = [
    ("A Japanophile loves Japan", "Japan", (20, 25)),
    ("Japan, says a Japanophile", "Japan", (0, 5)),
    ("A cat, a catalog and a concat", "cat", (2, 5)),
    ("Japan is far; Japan is", "Japan", (14, 19)),
    ("Japan's capital is", "Japan", (0, 5)),
    ("the Coca-Cola company", "Cola", (9, 13)),
    ("Windows 98 and Windows 9 are", " Windows 9 ", (15, 24)),
    ("Washington D.C. is", "Washington D.C.", (0, 15)),
    ("日本の首都は", "日本", (0, 2)),
    ("これは東京都", "東京", (3, 5)),
    ("일본의 수도는", "일본", (0, 2)),
    ("ประเทศไทยมี", "ไทย", (6, 9)),
    ("In Japanでは", "Japan", (3, 8)),
    ("(Ünal) was", "Ünal", (1, 5)),
    ("A", "A", (0, 1)),
]


@pytest.mark.parametrize(("text", "subject", "span"), FOUND)
def test_a_subject_is_found_as_a_whole_word(text: str, subject: str, span: tuple[int, int]) -> None:
    assert subject_span(text, subject) == span
    assert text[slice(*span)] == subject.strip()
    assert with_subject(text, subject, "{}") == f"{text[: span[0]]}{{}}{text[span[1] :]}"


@pytest.mark.parametrize(
    ("text", "subject", "longer"),
    [
        ("A Japanophile", "Japan", "Japanophile"),
        ("a catalog of concats", "cat", "concats"),
        ("Windows 98", "Windows 9", "Windows 98"),
        ("Jose\u0301 is", "Jose", "José"),
        ("Ünalp", "nal", "Ünalp"),
        ("カ\u3099ス", "カ", "ガ"),
    ],
)
def test_a_subject_inside_a_longer_word_is_refused_with_that_word(text: str, subject: str, longer: str) -> None:
    with pytest.raises(PromptError, match="only inside a longer word") as refused:
        subject_span(text, subject, where="prompt 3")
    assert str(refused.value).startswith("prompt 3: the subject ")
    assert longer in unicodedata.normalize("NFC", str(refused.value))


@pytest.mark.parametrize("subject", ["Peru", "", " ", "A Japanophile of"])
def test_a_subject_that_is_not_there_is_refused(subject: str) -> None:
    with pytest.raises(PromptError, match="is not in it"):
        subject_span("A Japanophile", subject)


@pytest.mark.parametrize("kind", KINDS)
def test_its_columns_hold_the_subject_whatever_the_tokenizer_puts_in_front(kind: str) -> None:
    model, _ = both(kind)
    for fact in mini_facts()[::40]:
        for bos in (None, False, *([True] if model.tokenizer.bos_token_id is not None else [])):
            tokens = model.to_tokens(fact.prompt, prepend_bos=bos)
            first, last = subject_columns(model, fact.prompt, fact.subject, tokens)
            said = model.to_string(tokens.ids[0, first : last + 1]).strip()
            assert said.rstrip(".,'") == fact.subject.rstrip("."), "a token may hold marks beside it"


@pytest.fixture(scope="module")
def mini() -> Model:
    return bundled.mini()


TWICE = "A Japanophile, unlike a Francophile, says that the capital of Japan is"


def test_every_function_finds_the_same_word(mini: Model) -> None:
    tokens = mini.to_tokens(TWICE)
    columns = subject_columns(mini, TWICE, "Japan", tokens)
    assert mini.to_string(tokens.ids[0, columns[0] : columns[1] + 1]) == " Japan"
    pairs = PromptPairs.from_text(
        mini,
        clean=[TWICE],
        corrupt=[TWICE.replace(" Japan ", " France ")],
        answers=[" Tokyo"],
        distractors=[" Paris"],
        subjects=["Japan"],
    )
    assert (int(pairs.positions["subject_first"]), int(pairs.positions["subject_last"])) == columns
    assert attention_knockout(mini, TWICE, subject="Japan", window=1).subject == columns
    options = {"subject": "Japan", "kinds": ("states",)}
    traced = causal_trace(mini, TWICE, replacement="France", **options)
    with torch.no_grad():
        other = mini.run(TWICE.replace(" Japan ", " France ")).logits[0, -1].softmax(dim=-1)
    answer = mini.single_token(traced.answer)
    assert traced.subject == columns and float(traced.corrupted[0]) == pytest.approx(float(other[answer]), abs=1e-6)


def test_a_fact_is_replaced_where_its_subject_stands_and_not_where_its_letters_first_do(mini: Model) -> None:
    said = "As every Japanophile knows, the capital of {} is"
    names = {"Japan": "Tokyo", "France": "Paris"}
    facts = [Fact(said.replace("{}", name), name, city, "capital") for name, city in names.items()]
    pairs = fact_pairs(mini, facts)
    assert len(pairs) == 2 and pairs.labels == tuple(fact.prompt for fact in facts)
    assert mini.to_string(pairs.corrupt.ids[0][1:]) == facts[1].prompt
    assert mini.to_string(pairs.clean.ids[0, pairs.positions["subject_last"][:1]]) == " Japan"


def test_a_file_with_a_subject_inside_a_word_is_read(tmp_path: Path) -> None:
    rows = [("A Japanophile is fond of", "Japan", "Japan"), ("The capital of Peru is", "Peru", "Lima")]
    path = tmp_path / "known.json"
    path.write_text(json.dumps([dict(zip(("prompt", "subject", "attribute"), row, strict=True)) for row in rows]))
    assert [fact.subject for fact in read_rome_json(path)] == ["Japan", "Peru"]


def test_facts_about_parts_of_words_are_skipped_with_the_reason(mini: Model) -> None:
    found = trace_facts(mini, [Fact("A Japanophile is fond of", "Japan", "Japan", "")], draws=1, kinds=["states"])
    assert not found.traces and "only inside a longer word, 'Japanophile'" in found.skipped[0][1]


def test_a_subject_that_shares_a_token_with_other_letters_is_refused() -> None:
    """In a script without spaces any place will do, but one token may hold more than the subject."""
    made = Tokenizer(WordLevel({"東京都": 0, "は": 1, "[unk]": 2}, unk_token="[unk]"))
    made.pre_tokenizer = Split(Regex("東京都|は"), "isolated")
    own = transformers.PreTrainedTokenizerFast(tokenizer_object=made)
    assert columns_of_subject(own, "here", "東京都は", "東京都", [7, 0, 1, 8]) == (1, 1)
    with pytest.raises(PromptError, match="here: the subject '東京' is in it, but begins or ends inside a token"):
        columns_of_subject(own, "here", "東京都は", "東京", [0, 1])
