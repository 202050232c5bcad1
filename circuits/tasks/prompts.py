"""Aligned clean and corrupt prompts with their answers, and every refusal of pairs that would give wrong numbers."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.errors import PromptError, shown
from circuits.files.words import counted
from circuits.models import Model, TokenBatch
from circuits.tasks.alignment import (
    Limits,
    check_rows,
    check_targets,
    check_texts,
    same_counts,
    where_of,
)
from circuits.tasks.answers import one_token
from circuits.tasks.role_columns import RoleColumns
from circuits.tasks.subjects import columns_of_subject

Several = Literal["mean", "max"]
"""How several right (or wrong) answers count: the mean of their logits and the sum of their probabilities, or the largest."""
SEVERAL: tuple[Several, ...] = ("mean", "max")


@dataclasses.dataclass(frozen=True, eq=False)
class PromptPairs:
    """Clean and corrupt prompts, column by column alike, with the token that each clean prompt calls for.

    `answers` and `distractors` are token ids `[prompt]`; `answer_columns` `[prompt]` is the column at whose logits the
    answer is read. Raises PromptError where the parts do not fit each other.
    """

    clean: TokenBatch
    corrupt: TokenBatch
    answers: Int[Tensor, " prompt"]
    distractors: Int[Tensor, " prompt"]
    answer_columns: Int[Tensor, " prompt"]
    positions: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    """Named columns `[prompt]`, -1 where a prompt has none."""
    labels: tuple[str, ...] = ()
    """The text of each clean prompt, for messages and figures; empty where there is none."""
    answer_words: tuple[str, ...] = ()
    """What the answers begin, where they are the first tokens of longer words; empty where they are all there is."""
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """What these pairs were to be made of and could not: reason → how many."""
    answer_sets: Int[Tensor, "prompt right"] | None = None
    """Where prompts have several right answers: all of them, `answers` first, -1 behind the last. `with_answers` makes them."""
    distractor_sets: Int[Tensor, "prompt wrong"] | None = None
    """All wrong answers, `distractors` first, likewise."""
    several: Several = "mean"
    """How several answers count."""
    roles: RoleColumns | None = None
    """The role of every token, where roles are asked for (`circuits.tasks.roles`)."""

    def __post_init__(self) -> None:
        if self.clean.mask.shape != self.corrupt.mask.shape or not torch.equal(self.clean.mask, self.corrupt.mask):
            raise PromptError("clean and corrupt prompts have different shapes or pads in different columns")
        columns = {"answers": self.answers, "distractors": self.distractors, "answer_columns": self.answer_columns}
        for name, column in (columns | dict(self.positions)).items():
            if tuple(column.shape) != (len(self),):
                raise PromptError(
                    f"{name} has shape {tuple(column.shape)}, expected one number for each of {len(self)} prompts"
                )
        for name, some, first in (
            ("answer_sets", self.answer_sets, self.answers),
            ("distractor_sets", self.distractor_sets, self.distractors),
        ):
            if some is not None and (some.ndim != 2 or some.shape[1] < 1 or not torch.equal(some[:, 0], first)):
                raise PromptError(
                    f"{name} has shape {tuple(some.shape)}; expected a row a prompt that begins with {name[:-5]}s"
                )
        if self.several not in SEVERAL:
            raise PromptError(f"several answers count by {self.several!r}; expected {' or '.join(SEVERAL)}")
        if self.labels and len(self.labels) != len(self):
            raise PromptError(f"{len(self.labels)} labels for {len(self)} prompts")
        if self.answer_words and len(self.answer_words) != len(self):
            raise PromptError(f"{len(self.answer_words)} words of answers for {len(self)} prompts")
        width = self.clean.ids.shape[1]
        inside = (self.answer_columns >= 0) & (self.answer_columns < width)
        read = self.clean.mask.gather(1, self.answer_columns.clamp(0, width - 1).long()[:, None])[:, 0] & inside
        if not bool(read.all()):
            raise PromptError(f"{self.name(first_of(~read))}: its answer column is not the column of a token")

    @classmethod
    def from_text(
        cls,
        model: Model,
        *,
        clean: Sequence[str],
        corrupt: Sequence[str],
        answers: Sequence[str | int],
        distractors: Sequence[str | int],
        subjects: Sequence[str] | None = None,
        prepend_bos: bool | None = None,
        joined: bool = False,
    ) -> "PromptPairs":
        """Pairs from text, one list entry a pair; the answer is read at the last token.

        Raises PromptError, with the prompt's index and text, for a pair that cannot be compared; ModelError for a model
        without a tokenizer.

        Args:
            model: whose tokenizer cuts the prompts.
            clean: prompts that call for the answer.
            corrupt: prompts of as many tokens that call for another.
            answers: texts of one token, or token ids. A text is spelled as the prompt goes on (" Paris", with its space), and
                its token is the one that follows where both are tokenized together.
            distractors: likewise, what the answer is compared with.
            subjects: looked up in the clean prompts as whole words (the last occurrence); they give the positions
                `subject_first` and `subject_last`.
            prepend_bos: put BOS in front (default: as the model's tokenizer does).
            joined: take answers without a leading space as they are.

        >>> import circuits
        >>> model = circuits.load_model("mini")
        >>> pairs = circuits.PromptPairs.from_text(
        ...     model,
        ...     clean=["The cat sat on the"],
        ...     corrupt=["The dog sat on the"],
        ...     answers=[" floor"],
        ...     distractors=[" road"],
        ...     subjects=["cat"],
        ... )
        >>> len(pairs), pairs.positions["subject_last"].tolist()
        (1, [2])
        """
        same_counts(clean=clean, corrupt=corrupt, answers=answers, distractors=distractors, subjects=subjects)
        wheres = [where_of(index, text) for index, text in enumerate(clean)]
        for where, *texts in zip(wheres, clean, corrupt, strict=True):
            check_texts(where, texts)
        model.require_open_end(prepend_bos=prepend_bos)
        rows = [_rows(model.to_tokens(list(texts), prepend_bos=prepend_bos)) for texts in (clean, corrupt)]
        targets = [
            [one_token(model, *case, what=what, joined=joined) for case in zip(wheres, clean, given, strict=True)]
            for what, given in (("answer", answers), ("distractor", distractors))
        ]
        limits = Limits.of(model, model.bos_id)
        pairs = _build(limits, wheres, rows, targets, tuple(clean))
        if subjects is None:
            return pairs
        cases = zip(wheres, clean, subjects, rows[0], strict=True)
        ends = torch.tensor([columns_of_subject(model.tokenizer, *case) for case in cases], device=limits.device)
        return dataclasses.replace(pairs, positions={"subject_first": ends[:, 0], "subject_last": ends[:, 1]})

    @classmethod
    def from_tokens(
        cls,
        vocabulary: Model | int,
        *,
        clean: Sequence[Sequence[int]],
        corrupt: Sequence[Sequence[int]],
        answers: Sequence[int],
        distractors: Sequence[int],
        bos_id: int | None = None,
    ) -> "PromptPairs":
        """Pairs from rows of token ids, for a model or a vocabulary of some size; nothing is prepended.

        `bos_id` (default: that of the model's tokenizer) is the token whose doubling, or presence in some of the prompts
        only, is refused. Raises PromptError, with the prompt's index and text, for a pair that cannot be compared.
        """
        same_counts(clean=clean, corrupt=corrupt, answers=answers, distractors=distractors)
        model = vocabulary if isinstance(vocabulary, Model) else None
        bos = bos_id if bos_id is not None or model is None else model.bos_id
        limits = Limits.of(vocabulary, bos)
        rows = [[list(row) for row in given] for given in (clean, corrupt)]
        labels = tuple(_label(limits, model, row) for row in rows[0])
        wheres = [where_of(index, label) for index, label in enumerate(labels)]
        return _build(limits, wheres, rows, [list(answers), list(distractors)], labels)

    def with_answers(
        self, answers: Sequence[Sequence[int]], distractors: Sequence[Sequence[int]], *, several: Several = "mean"
    ) -> "PromptPairs":
        """The same prompts with several right and several wrong answers each, token ids of which the first are `answers` and
        `distractors`. `several` says how they count: "mean" (the mean of their logits; probabilities add up) or "max".

        Raises PromptError for a prompt without an answer and for a token that is both right and wrong.
        """
        same_counts(clean=self.clean.ids.tolist(), answers=answers, distractors=distractors)
        for row, (right, wrong) in enumerate(zip(answers, distractors, strict=True)):
            if not right or not wrong:
                raise PromptError(f"{self.name(row)}: has no {'distractor' if right else 'answer'}")
            if both := set(right) & set(wrong):
                raise PromptError(f"{self.name(row)}: the token {min(both)} is both an answer and a distractor")
        sets = [_padded(some).to(self.answers.device) for some in (answers, distractors)]
        return dataclasses.replace(
            self,
            answers=sets[0][:, 0],
            distractors=sets[1][:, 0],
            answer_sets=sets[0],
            distractor_sets=sets[1],
            several=several,
        )

    def name(self, index: int) -> str:
        """A prompt's index and text, as errors call it."""
        return where_of(index, self.labels[index]) if self.labels else f"prompt {index}"

    def __repr__(self) -> str:
        first = f", first {shown(self.labels[0])}" if self.labels else ""
        return f"PromptPairs({counted(len(self), 'pair')} of up to {counted(self.clean.ids.shape[1], 'token')}{first})"

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, rows: slice | list[int]) -> "PromptPairs":
        chosen = list(range(len(self)))[rows] if isinstance(rows, slice) else rows
        if not chosen:
            raise PromptError(f"no pairs are left of {len(self)}")
        return PromptPairs(
            self.clean[chosen],
            self.corrupt[chosen],
            self.answers[chosen],
            self.distractors[chosen],
            self.answer_columns[chosen],
            {name: column[chosen] for name, column in self.positions.items()},
            tuple(self.labels[row] for row in chosen) if self.labels else (),
            tuple(self.answer_words[row] for row in chosen) if self.answer_words else (),
            self.left_out,
            None if self.answer_sets is None else self.answer_sets[chosen],
            None if self.distractor_sets is None else self.distractor_sets[chosen],
            self.several,
            self.roles and dataclasses.replace(self.roles, columns=self.roles.columns[chosen]),
        )

    def to(self, device: torch.device | str) -> "PromptPairs":
        """The same pairs on a device."""
        device = torch.device(device)
        return dataclasses.replace(
            self,
            clean=self.clean.to(device),
            corrupt=self.corrupt.to(device),
            answers=self.answers.to(device),
            distractors=self.distractors.to(device),
            answer_columns=self.answer_columns.to(device),
            positions={name: column.to(device) for name, column in self.positions.items()},
            answer_sets=None if self.answer_sets is None else self.answer_sets.to(device),
            distractor_sets=None if self.distractor_sets is None else self.distractor_sets.to(device),
            roles=self.roles and dataclasses.replace(self.roles, columns=self.roles.columns.to(device)),
        )


def _build(limits: Limits, wheres: list, rows: list, targets: list, labels: tuple[str, ...]) -> PromptPairs:
    for where, *case in zip(wheres, *rows, *targets, strict=True):
        check_rows(limits, where, *case[:2])
        check_targets(limits, where, *case[2:])
    opened = [limits.bos is not None and row[0] == limits.bos for row in rows[0]]
    if any(opened) and not all(opened):
        raise PromptError(f"{wheres[opened.index(False)]}: does not start with BOS (token {limits.bos}), others do")
    clean, corrupt = (TokenBatch.from_rows(part).to(limits.device) for part in rows)
    answers, distractors = (torch.tensor(part, device=limits.device) for part in targets)
    return PromptPairs(clean, corrupt, answers, distractors, clean.last, labels=labels)


def _padded(rows: Sequence[Sequence[int]]) -> Int[Tensor, "prompt choice"]:
    """Rows of unequal lengths with -1 behind the last of each."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows])


def _rows(batch: TokenBatch) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(batch.ids.cpu(), batch.mask.cpu(), strict=True)]


def _label(limits: Limits, model: Model | None, row: list[int]) -> str:
    readable = all(isinstance(token, int) and 0 <= token < limits.d_vocab for token in row)
    return model.to_string(row) if model is not None and model.tokenizer is not None and readable else str(row)


def first_of(flags: Tensor) -> int:
    """The first prompt of which a flag is set."""
    return int(flags.long().argmax())
