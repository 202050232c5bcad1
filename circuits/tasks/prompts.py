"""Aligned clean and corrupt prompts with their answers, and every refusal of pairs that would give wrong numbers."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import ModelError, NonFiniteError, PromptError, shown
from circuits.models import Model, TokenBatch

_BEFORE_A_JOINED_WORD = "([{<\"'“‘«-–—/_@#$&"


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

    def __post_init__(self) -> None:
        if self.clean.mask.shape != self.corrupt.mask.shape or not torch.equal(self.clean.mask, self.corrupt.mask):
            raise PromptError("clean and corrupt prompts have different shapes or pads in different columns")
        columns = {"answers": self.answers, "distractors": self.distractors, "answer_columns": self.answer_columns}
        for name, column in (columns | dict(self.positions)).items():
            if tuple(column.shape) != (len(self),):
                raise PromptError(
                    f"{name} has shape {tuple(column.shape)}, expected one number for each of {len(self)} prompts"
                )
        if self.labels and len(self.labels) != len(self):
            raise PromptError(f"{len(self.labels)} labels for {len(self)} prompts")
        width = self.clean.ids.shape[1]
        inside = (self.answer_columns >= 0) & (self.answer_columns < width)
        read = self.clean.mask.gather(1, self.answer_columns.clamp(0, width - 1).long()[:, None])[:, 0] & inside
        if not bool(read.all()):
            raise PromptError(f"{self.name(_first(~read))}: its answer column is not the column of a token")

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
            answers: texts of one token, or token ids.
            distractors: likewise, what the answer is compared with.
            subjects: looked up in the clean prompts (last occurrence, whole words first); they give the positions
                `subject_first` and `subject_last`.
            prepend_bos: put BOS in front (default: what the model's tokenizer asks for).
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
        _same_counts(clean=clean, corrupt=corrupt, answers=answers, distractors=distractors, subjects=subjects)
        wheres = [_where(index, text) for index, text in enumerate(clean)]
        for where, *texts in zip(wheres, clean, corrupt, strict=True):
            _check_texts(where, texts)
        rows = [_rows(model.to_tokens(list(texts), prepend_bos=prepend_bos)) for texts in (clean, corrupt)]
        targets = [
            [_token(model, *case, what=what, joined=joined) for case in zip(wheres, clean, given, strict=True)]
            for what, given in (("answer", answers), ("distractor", distractors))
        ]
        limits = _Limits.of(model, _bos_id(model))
        pairs = _build(limits, wheres, rows, targets, tuple(clean))
        if subjects is None:
            return pairs
        cases = zip(wheres, clean, subjects, rows[0], strict=True)
        ends = torch.tensor([_subject_columns(model.tokenizer, *case) for case in cases], device=limits.device)
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
        _same_counts(clean=clean, corrupt=corrupt, answers=answers, distractors=distractors)
        model = vocabulary if isinstance(vocabulary, Model) else None
        bos = bos_id if bos_id is not None or model is None else _bos_id(model)
        limits = _Limits.of(vocabulary, bos)
        rows = [[list(row) for row in given] for given in (clean, corrupt)]
        labels = tuple(_label(limits, model, row) for row in rows[0])
        wheres = [_where(index, label) for index, label in enumerate(labels)]
        return _build(limits, wheres, rows, [list(answers), list(distractors)], labels)

    def name(self, index: int) -> str:
        """A prompt's index and text, as errors call it."""
        return _where(index, self.labels[index]) if self.labels else f"prompt {index}"

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
        )


def refuse_non_finite(values: Float[Tensor, " prompt"], pairs: PromptPairs, what: str) -> None:
    """Raise NonFiniteError, with the first such prompt's name, where one of `values` (called `what`) is NaN or infinite."""
    bad = ~values.detach().isfinite()
    if bool(bad.any()):
        index = _first(bad)
        raise NonFiniteError(f"{pairs.name(index)}: {what} is {float(values[index])}; expected a finite number")


def refuse_zero_gap(clean: Float[Tensor, " prompt"], corrupt: Float[Tensor, " prompt"], pairs: PromptPairs) -> None:
    """Raise PromptError, with the first such prompt's name, where the metric is the same on the clean and the corrupt
    prompt (to rounding: 8 units in the last place), so that nothing can be divided by their gap. Raises NonFiniteError
    where either is not finite."""
    refuse_non_finite(clean, pairs, "the metric on the clean prompt")
    refuse_non_finite(corrupt, pairs, "the metric on the corrupt prompt")
    rounding = 8 * torch.finfo(clean.dtype).eps * torch.maximum(clean.abs(), corrupt.abs())
    zero = ((clean - corrupt).abs() <= rounding).detach()
    if bool(zero.any()):
        index = _first(zero)
        raise PromptError(
            f"{pairs.name(index)}: the metric is {float(clean[index]):.6g} on the clean and on the corrupt prompt alike; "
            "there is no gap to explain: leave the pair out or choose another corruption"
        )


@dataclasses.dataclass(frozen=True)
class _Limits:
    name: str
    d_vocab: int
    d_vocab_out: int
    longest: int | None
    bos: int | None
    device: torch.device

    @classmethod
    def of(cls, vocabulary: Model | int, bos: int | None) -> "_Limits":
        if isinstance(vocabulary, Model):
            d_out = vocabulary.weights.W_U.shape[1]
            return cls(vocabulary.name, vocabulary.d_vocab, d_out, vocabulary.max_positions, bos, vocabulary.device)
        return cls("the model", vocabulary, vocabulary, None, bos, torch.device("cpu"))


def _build(limits: _Limits, wheres: list, rows: list, targets: list, labels: tuple[str, ...]) -> PromptPairs:
    for where, *case in zip(wheres, *rows, *targets, strict=True):
        _check_rows(limits, where, *case[:2])
        _check_targets(limits, where, *case[2:])
    opened = [limits.bos is not None and row[0] == limits.bos for row in rows[0]]
    if any(opened) and not all(opened):
        raise PromptError(f"{wheres[opened.index(False)]}: does not start with BOS (token {limits.bos}), others do")
    clean, corrupt = (TokenBatch.from_rows(part).to(limits.device) for part in rows)
    answers, distractors = (torch.tensor(part, device=limits.device) for part in targets)
    return PromptPairs(clean, corrupt, answers, distractors, clean.last, labels=labels)


def _check_rows(limits: _Limits, where: str, clean: list[int], corrupt: list[int]) -> None:
    for kind, row in (("clean", clean), ("corrupt", corrupt)):
        if not row or row == [limits.bos]:
            raise PromptError(f"{where}: the {kind} prompt is empty")
        for token in row:
            _check_id(where, f"the {kind} prompt", token, limits.d_vocab, limits.name)
        if limits.bos is not None and row[:2] == [limits.bos] * 2:
            raise PromptError(f"{where}: the {kind} prompt starts with BOS (token {limits.bos}) twice; leave one out")
        if limits.longest is not None and len(row) > limits.longest:
            raise PromptError(f"{where}: the {kind} prompt has {len(row)} tokens; {limits.name} takes {limits.longest}")
    starts = [row[0] == limits.bos for row in (clean, corrupt)]
    if starts[0] != starts[1]:
        which = "clean" if starts[0] else "corrupt"
        raise PromptError(f"{where}: only the {which} prompt starts with BOS (token {limits.bos}); both or none must")
    if len(clean) != len(corrupt):
        raise PromptError(
            f"{where}: the clean prompt has {len(clean)} tokens, the corrupt one {len(corrupt)}; they must have equally many"
        )
    if clean == corrupt:
        raise PromptError(f"{where}: the clean and the corrupt prompt are the same; nothing would be changed")


def _check_targets(limits: _Limits, where: str, answer: int, distractor: int) -> None:
    for what, token in (("answer", answer), ("distractor", distractor)):
        _check_id(where, f"the {what}", token, limits.d_vocab_out, limits.name)
    if answer == distractor:
        raise PromptError(f"{where}: answer and distractor are the same token, {answer}; they must differ")


def _check_id(where: str, what: str, token: object, size: int, name: str) -> None:
    if not isinstance(token, int) or isinstance(token, bool):
        raise PromptError(f"{where}: {what} holds {shown(token)}; expected a token id")
    if not 0 <= token < size:
        raise PromptError(f"{where}: {what} has token id {shown(token)}, outside the vocabulary of {size} of {name}")


def _same_counts(**given: Sequence | None) -> None:
    counts = {name: len(part) for name, part in given.items() if part is not None}
    text = next((name for name, part in given.items() if isinstance(part, str)), None)
    if text is not None:
        raise PromptError(f"{text} is one text; expected a list with one entry a prompt")
    if len(set(counts.values())) > 1:
        index, longest = min(counts.values()), max(counts, key=lambda name: counts[name])
        first = (given[longest] or [""])[index]
        said = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise PromptError(f"{_where(index, first)}: the lists differ in length ({said}); give one entry a prompt")
    if not counts["clean"]:
        raise PromptError("there are no pairs: every list is empty")


def _check_texts(where: str, texts: list[str]) -> None:
    for kind, text in zip(("clean", "corrupt"), texts, strict=True):
        _check_text(where, f"the {kind} prompt", text)
        if not text.strip():
            raise PromptError(f"{where}: the {kind} prompt is empty")


def _check_text(where: str, what: str, text: object) -> None:
    if not isinstance(text, str):
        raise PromptError(f"{where}: {what} is {shown(text)}; expected text")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise PromptError(f"{where}: {what} holds half of a surrogate pair, which is no text")


def _token(model: Model, where: str, prompt: str, answer: str | int, *, what: str, joined: bool) -> int:
    if isinstance(answer, int):
        return answer
    _check_text(where, f"the {what}", answer)
    ids, spaced = _encode(model, answer), f" {answer}"
    if len(ids) != 1:
        near = [text for text in (spaced, answer.strip(), f" {answer.strip()}") if text != answer and text.strip()]
        hint = next((f"; did you mean {shown(text)}?" for text in near if len(_encode(model, text)) == 1), "")
        pieces = shown(" | ".join(model.to_token_strings(ids)))
        raise PromptError(f"{where}: the {what} {shown(answer)} is {len(ids)} tokens ({pieces}), expected one{hint}")
    if not joined and _starts_a_word(prompt, answer) and len(other := _encode(model, spaced)) == 1 and other != ids:
        raise PromptError(
            f"{where}: the {what} {shown(answer)} lacks its leading space; did you mean {shown(spaced)}? "
            "(joined=True takes it as it is)"
        )
    return ids[0]


def _starts_a_word(prompt: str, answer: str) -> bool:
    last, first = prompt[-1], answer[0]
    open_end = last.isspace() or last in _BEFORE_A_JOINED_WORD
    return first.isalnum() and not open_end and not (last.isdigit() and first.isdigit())


def subject_columns(model: Model, prompt: str, subject: str, tokens: TokenBatch) -> tuple[int, int]:
    """The columns of the first and last token of a subject (last occurrence, whole words first) in `tokens`, which is
    `prompt` alone as the model tokenizes it. Raises PromptError where the subject is not in the prompt."""
    return _subject_columns(model.tokenizer, f"the prompt {shown(prompt)}", prompt, subject, tokens.ids[0].tolist())


def _subject_columns(tokenizer: Any, where: str, text: str, subject: str, row: list[int]) -> tuple[int, int]:
    """The columns of the subject's first and last token."""
    _check_text(where, "the subject", subject)
    if not tokenizer.is_fast:
        raise ModelError("finding subjects needs a fast tokenizer, which knows the characters of each token")
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    found = [at for at in range(len(text)) if subject.strip() and text.startswith(subject.strip(), at)]
    if not found:
        raise PromptError(f"{where}: the subject {shown(subject)} is not in it")
    width = len(subject.strip())
    aligned = [at for at in found if not any(c.isalnum() for c in _overhang(text, spans, at, at + width))]
    if not aligned:
        raise PromptError(f"{where}: the subject {shown(subject)} is in it, but begins or ends inside a token")
    at = max(aligned, key=lambda at: (not (text[at - 1 : at] + text[at + width : at + width + 1]).isalnum(), at))
    columns = [column for column, (start, end) in enumerate(spans) if start < at + width and end > at]
    opening = len(row) - len(spans)
    return opening + columns[0], opening + columns[-1]


def _overhang(text: str, spans: list[tuple[int, int]], at: int, end: int) -> str:
    """What the tokens of `text[at:end]` hold besides it: spaces and punctuation do no harm, part of a word does."""
    covering = [span for span in spans if span[0] < end and span[1] > at]
    return text[min(covering)[0] : at] + text[end : max(span[1] for span in covering)] if covering else "x"


def _encode(model: Model, text: str) -> list[int]:
    return [int(token) for token in model.tokenizer.encode(text, add_special_tokens=False)]


def _bos_id(model: Model) -> int | None:
    return None if model.tokenizer is None or model.tokenizer.bos_token_id is None else int(model.tokenizer.bos_token_id)


def _rows(batch: TokenBatch) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(batch.ids.cpu(), batch.mask.cpu(), strict=True)]


def _label(limits: _Limits, model: Model | None, row: list[int]) -> str:
    readable = all(isinstance(token, int) and 0 <= token < limits.d_vocab for token in row)
    return model.to_string(row) if model is not None and model.tokenizer is not None and readable else str(row)


def _where(index: int, text: object) -> str:
    return f"prompt {index} ({shown(text)})"


def _first(flags: Tensor) -> int:
    return int(flags.long().argmax())
