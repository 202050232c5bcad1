"""A fact as rows of tokens: its prompt behind sampled prefixes, and where in each the subject ends."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.errors import PromptError, shown
from circuits.models import Model, TokenBatch
from circuits.tasks.answers import check_text, one_token
from circuits.tasks.sources.corpus import written_text
from circuits.tasks.subjects import subject_columns

ESSENCE = "{} is a"
"""What is said of a subject whatever is asked of it: what follows should stay as it is (Meng et al. 2022)."""


@dataclasses.dataclass(frozen=True)
class Lookup:
    """Where a model looks a fact up: rows of tokens that end where the answer is asked for, and in each the column of the
    subject's last token."""

    rows: tuple[tuple[int, ...], ...]
    """The prompt by itself, then behind each prefix."""
    columns: tuple[int, ...]
    answer: int
    """The token that is to follow."""
    kept_rows: tuple[tuple[int, ...], ...] = ()
    """Prompts about the same subject, what follows which is to stay."""
    kept_columns: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        places = zip((*self.rows, *self.kept_rows), (*self.columns, *self.kept_columns), strict=True)
        if not self.rows or any(not 0 <= column < len(row) for row, column in places):
            raise PromptError("a fact needs a prompt, and a column of each prompt at which its subject ends")

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row from the subject's last one on, those that are kept behind the others."""
        every = zip((*self.rows, *self.kept_rows), (*self.columns, *self.kept_columns), strict=True)
        return [len(row) - column for row, column in every]

    def batch(self) -> tuple[TokenBatch, Int[Tensor, " prompt"]]:
        """All rows, padded on the left so that they end together, and the columns there."""
        every = [*self.rows, *self.kept_rows]
        width = max(map(len, every))
        ids = torch.tensor([[*[0] * (width - len(row)), *row] for row in every], dtype=torch.long)
        mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in every])
        return TokenBatch(ids, mask), torch.tensor([width - length for length in self.lengths])


def sampled_prefixes(model: Model, *, count: int = 10, lengths: Sequence[int] = (5, 10), seed: int = 0) -> tuple[str, ...]:
    """Beginnings of texts that the model writes by itself, `count` in all, in equal numbers of these many tokens: what prompts
    are put behind so that a key stands for a subject and not for one prompt. None for a model without a tokenizer."""
    if model.tokenizer is None or count < 1:
        return ()
    found: list[str] = []
    for place, length in enumerate(lengths):
        share = count // len(lengths) + (place < count % len(lengths))
        if share:
            opening = len(model.opening())
            written = written_text(model, count=share, length=opening + length, seed=seed + place).ids[:, opening:]
            found += [" ".join(model.to_string(row).split()) for row in written]
    return tuple(text for text in found if text)


def look_up(model: Model, prompt: str, *, subject: str, answer: str, prefixes: Sequence[str] = (), keep: bool = True) -> Lookup:
    """A fact as it is looked up. Raises PromptError for a subject that is not in the prompt as words of its own, an answer of
    several tokens, and a prompt that is too long behind its prefixes.

    Args:
        model: the model whose tokens they are.
        prompt: what the answer follows.
        subject: the part of the prompt that the fact is about.
        answer: the new answer, one token, with its space.
        prefixes: texts in front of the prompt, from which a full stop and a space part it.
        keep: also what is said of the subject whatever is asked (`ESSENCE`).
    """
    check_text("the edit", "the prompt", prompt)
    prompt = prompt.rstrip()
    model.require_open_end()
    target = one_token(model, f"the prompt {shown(prompt)}", prompt, answer, what="new answer", joined=None)
    rows, columns = zip(
        *(_row(model, text, subject) for text in (prompt, *(f"{one}. {prompt}" for one in prefixes))), strict=True
    )
    about = [_row(model, ESSENCE.format(subject.strip()), subject)] if keep else []
    return Lookup(rows, columns, target, tuple(row for row, _ in about), tuple(column for _, column in about))


def _row(model: Model, text: str, subject: str) -> tuple[tuple[int, ...], int]:
    batch = model.prepare(text)
    _, last = subject_columns(model, text, subject, batch)
    return tuple(batch.ids[0].tolist()), last
