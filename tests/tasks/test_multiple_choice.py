"""Multiple choice: the answer is the label of the right choice, and what changes places is what was asked for."""

from typing import Any

import pytest
import torch

from circuits.errors import PromptError
from circuits.tasks import PromptPairs, multiple_choice
from circuits.tasks.library.multiple_choice import CHOICES, LABELS
from circuits.tasks.library.wording import word_list
from tests.tasks.vocabularies import model

KIND_OF = {word: kind for kind, *words in word_list("kinds") for word in words}


def said(pairs: PromptPairs, name: str, side: str = "clean") -> list[str]:
    """The words at a position."""
    ids = getattr(pairs, side).ids.gather(1, pairs.positions[name][:, None])[:, 0]
    return [text.strip(" ▁") for text in model("byte pairs").to_token_strings(ids)]


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("corruption", ["choices", "labels"])
def test_the_answer_is_the_label_of_the_right_choice(labels: Any, corruption: Any) -> None:
    one = model("byte pairs")
    pairs = multiple_choice(one, 16, 3, corruption=corruption, labels=labels)
    right = (
        pairs.positions["right_label"][:, None] == torch.stack([pairs.positions[f"label_{n}"] for n in (1, 2, 3, 4)], 1)
    ).long()
    assert right.sum(dim=0).tolist() == [4] * CHOICES, "in every place as often"
    answers = [text.strip() for text in one.to_token_strings(pairs.answers)]
    others = [text.strip() for text in one.to_token_strings(pairs.distractors)]
    assert said(pairs, "right_label") == answers and said(pairs, "wrong_label") == others
    for row, text in enumerate(pairs.labels):
        asked = text.split("Which of these is ")[1].split("?")[0]
        choices = [said(pairs, f"choice_{n}")[row] for n in (1, 2, 3, 4)]
        assert [KIND_OF[word] == asked for word in choices].count(True) == 1
        assert KIND_OF[said(pairs, "right_choice")[row]] == asked
    changed, kept = ("choice", "label") if corruption == "choices" else ("label", "choice")
    assert said(pairs, f"right_{changed}", "corrupt") == said(pairs, f"wrong_{changed}")
    assert said(pairs, f"right_{kept}", "corrupt") == said(pairs, f"right_{kept}")


def test_labels_are_of_the_kind_that_was_asked_for() -> None:
    one = model("byte pairs")
    drawn = {name: multiple_choice(one, 12, 1, labels=name) for name in LABELS}
    columns = {name: [said(pairs, f"label_{n}") for n in (1, 2, 3, 4)] for name, pairs in drawn.items()}
    rows = {name: list(zip(*four, strict=True)) for name, four in columns.items()}
    assert set(rows["letters"]) == {tuple("ABCD")} and set(rows["numbers"]) == {tuple("1234")}
    assert all(set(row) == set("ABCD") for row in rows["permuted"]) and len(set(rows["permuted"])) > 1
    assert all([ord(label) - ord(row[0]) for label in row] == [0, 1, 2, 3] and row[0] > "D" for row in rows["others"])
    assert len({label for row in rows["random"] for label in row}) > 8


def test_a_vocabulary_that_lacks_labels_or_words_is_refused() -> None:
    with pytest.raises(PromptError, match="0 of 4 labels of choices are one token of its vocabulary, this task needs 4"):
        multiple_choice(model("single digits"), 4, labels="numbers")
    with pytest.raises(PromptError, match="labels='runes': expected one of letters, permuted, others, random, numbers"):
        multiple_choice(model("byte pairs"), 4, labels="runes")  # type: ignore[arg-type]
