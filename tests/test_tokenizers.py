"""The tokenizers of the tests are of the kinds that they say."""

from pathlib import Path

import pytest

from circuits.models import load_model
from tests.tokenizers import ADDED, BOS, KINDS, MARKED, saved, tokenizer

TEXT = "The capital of France is Paris (the year 1743)."


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_comes_back_and_opens_as_its_kind_says(kind: str) -> None:
    own = tokenizer(kind)
    ids = own(TEXT).input_ids
    assert own.decode(ids, skip_special_tokens=True) == TEXT
    assert (own.bos_token_id is None) == (kind == "byte pairs, no BOS")
    assert (ids[0] == own.bos_token_id) == (kind in ADDED)
    assert ids.count(own.convert_tokens_to_ids(BOS)) == (kind in ADDED)


@pytest.mark.parametrize("kind", KINDS)
def test_words_and_digits_are_cut_as_its_kind_says(kind: str) -> None:
    own = tokenizer(kind)
    first = own.convert_ids_to_tokens(own("Paris", add_special_tokens=False).input_ids)[0]
    assert first.startswith("▁") == (kind in MARKED)
    digits = [piece for piece in own.tokenize("the year 1743") if piece.strip("Ġ▁").isdigit()]
    assert (digits == list("1743")) == (kind in ("digits", "prefix space"))
    assert own.decode(own("日本 ünd", add_special_tokens=False).input_ids) == "日本 ünd" or kind in MARKED[1:]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_around_it_loads(kind: str, tmp_path: Path) -> None:
    model = load_model(saved(kind, tmp_path))
    assert model.d_vocab == len(tokenizer(kind)) and model.tokenizer.get_vocab() == tokenizer(kind).get_vocab()
