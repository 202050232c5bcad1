"""Running text as prompts: files, rows of tokens, long texts in pieces, and text that a model writes by itself."""

import dataclasses
from pathlib import Path

import pytest
import torch

from circuits.errors import FileFormatError, PromptError
from circuits.models import Model
from circuits.tasks.sources import corpus
from circuits.tasks.sources.corpus import read_text, text_rows, text_tokens, written_text
from tests.models import bundled

TEXT = "The river runs to the sea.\n\nThe sea is deep,     and the river\nis long. " * 5


@pytest.fixture(scope="module")
def mini() -> Model:
    return bundled.mini()


def tokens_of(model: Model, text: str) -> list[int]:
    return model.to_tokens(text, prepend_bos=False).ids[0].tolist()


def test_rows_hold_the_texts_tokens_in_order(mini: Model) -> None:
    ids, bos = tokens_of(mini, TEXT), mini.tokenizer.bos_token_id
    for limit in (None, 30):
        rows = text_rows(mini, TEXT, width=12, limit=limit)
        count = min(len(ids), limit or len(ids)) // 11 * 11
        assert rows.ids[:, 0].tolist() == [bos] * len(rows) and not rows.padded
        assert rows.ids.shape[1] == 12 and rows.ids[:, 1:].flatten().tolist() == ids[:count]
    whole = text_rows(mini, TEXT * 4).ids
    assert whole.shape[1] == min(corpus.WIDTH, mini.max_positions or corpus.WIDTH)
    assert text_rows(mini, "The river", width=12).ids.tolist() == [[bos, *tokens_of(mini, "The river")]]
    bare = dataclasses.replace(mini, prepend_bos=False)
    assert text_rows(bare, TEXT, width=12).ids.flatten().tolist() == ids[: len(ids) // 12 * 12]
    with pytest.raises(PromptError, match="too short"):
        text_rows(mini, "")
    with pytest.raises(PromptError, match="leave no room"):
        text_rows(mini, TEXT, width=1)


def test_long_texts_are_cut_where_no_token_lies(mini: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tokens_of(mini, TEXT)
    for size in range(12, 60):
        monkeypatch.setattr(corpus, "_PIECE", size)
        assert text_tokens(mini, TEXT) == expected, size
    assert text_tokens(mini, TEXT, limit=17) == expected[:17]
    monkeypatch.setattr(corpus, "_PIECE", 5)
    assert corpus._cut("ab     cd ef", 0) == 2, "in front of all the spaces, which may be one token"
    monkeypatch.setattr(corpus, "_PIECE", 4)
    pieces = text_tokens(mini, "abcdefghij" * 3)
    assert mini.to_string(pieces) == "abcdefghij" * 3, "a word without an end is cut all the same"


def test_what_a_model_writes_begins_with_bos_has_nothing_special_and_follows_the_seed(mini: Model) -> None:
    first, again, other = (written_text(mini, count=3, length=9, seed=seed).ids for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other) and first.shape == (3, 9)
    assert first[:, 0].tolist() == [mini.tokenizer.bos_token_id] * 3
    eager = dataclasses.replace(mini.weights, b_U=torch.zeros(mini.weights.W_U.shape[1]), max_positions=5)
    eager.b_U[mini.tokenizer.all_special_ids] = 1e4
    written = written_text(dataclasses.replace(mini, weights=eager), count=2, length=9).ids
    assert written.shape == (2, 5), "as long as the context"
    assert not torch.isin(written[:, 1:], torch.tensor(mini.tokenizer.all_special_ids)).any()
    shifted = written_text(mini.with_bos(False), count=3, length=8, seed=1).ids
    assert torch.equal(shifted, first[:, 1:]), "the same text, without the BOS that it was written after"
    assert written_text(dataclasses.replace(mini.with_bos(False), weights=eager), count=2, length=9).ids.shape == (2, 4)
    bare = dataclasses.replace(mini, tokenizer=None)
    assert len(set(written_text(bare, count=20, length=2).ids[:, 0].tolist())) > 10, "any token opens where there is no BOS"
    with pytest.raises(PromptError, match="count=0"):
        written_text(mini, count=0)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes("é\n".encode())
    assert read_text(tmp_path / "text.txt") == "é\n"
    (tmp_path / "text.txt").write_bytes(b"ab\xff")
    with pytest.raises(FileFormatError, match=r"not UTF-8 text: byte 2"):
        read_text(tmp_path / "text.txt")
