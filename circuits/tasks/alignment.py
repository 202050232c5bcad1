"""What is refused of prompts before they become pairs: lengths, tokens and texts that would give wrong numbers; and where in a
prompt its subject stands."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from circuits.errors import ModelError, PromptError, shown
from circuits.models import Model, TokenBatch

_BEFORE_A_JOINED_WORD = "([{<\"'“‘«-–—/_@#$&"


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a model takes: its name, vocabulary and output vocabulary, longest prompt, BOS and device."""

    name: str
    d_vocab: int
    d_vocab_out: int
    longest: int | None
    bos: int | None
    device: torch.device

    @classmethod
    def of(cls, vocabulary: Model | int, bos: int | None) -> "Limits":
        """What a model takes, or a vocabulary of some size without a model."""
        if isinstance(vocabulary, Model):
            d_out = vocabulary.weights.W_U.shape[1]
            return cls(vocabulary.name, vocabulary.d_vocab, d_out, vocabulary.max_positions, bos, vocabulary.device)
        return cls("the model", vocabulary, vocabulary, None, bos, torch.device("cpu"))


def check_rows(limits: Limits, where: str, clean: list[int], corrupt: list[int]) -> None:
    """Raise PromptError for two rows of tokens that cannot be compared: empty, outside the vocabulary, too long, BOS doubled or
    in one of them alone, of two lengths, or the same."""
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


def check_targets(limits: Limits, where: str, answer: int, distractor: int) -> None:
    """Raise PromptError for answer and distractor that are no tokens of the vocabulary, or the same one."""
    for what, token in (("answer", answer), ("distractor", distractor)):
        _check_id(where, f"the {what}", token, limits.d_vocab_out, limits.name)
    if answer == distractor:
        raise PromptError(f"{where}: answer and distractor are the same token, {answer}; they must differ")


def _check_id(where: str, what: str, token: object, size: int, name: str) -> None:
    if not isinstance(token, int) or isinstance(token, bool):
        raise PromptError(f"{where}: {what} holds {shown(token)}; expected a token id")
    if not 0 <= token < size:
        raise PromptError(f"{where}: {what} has token id {shown(token)}, outside the vocabulary of {size} of {name}")


def same_counts(**given: Sequence | None) -> None:
    """Raise PromptError for lists of unequal lengths, for empty ones, and for a text where a list belongs."""
    counts = {name: len(part) for name, part in given.items() if part is not None}
    text = next((name for name, part in given.items() if isinstance(part, str)), None)
    if text is not None:
        raise PromptError(f"{text} is one text; expected a list with one entry a prompt")
    if len(set(counts.values())) > 1:
        index, longest = min(counts.values()), max(counts, key=lambda name: counts[name])
        first = (given[longest] or [""])[index]
        said = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise PromptError(f"{where_of(index, first)}: the lists differ in length ({said}); give one entry a prompt")
    if not counts["clean"]:
        raise PromptError("there are no pairs: every list is empty")


def check_texts(where: str, texts: list[str]) -> None:
    """Raise PromptError for prompts that are no text, or empty."""
    for kind, text in zip(("clean", "corrupt"), texts, strict=True):
        _check_text(where, f"the {kind} prompt", text)
        if not text.strip():
            raise PromptError(f"{where}: the {kind} prompt is empty")


def _check_text(where: str, what: str, text: object) -> None:
    if not isinstance(text, str):
        raise PromptError(f"{where}: {what} is {shown(text)}; expected text")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise PromptError(f"{where}: {what} holds half of a surrogate pair, which is no text")


def one_token(model: Model, where: str, prompt: str, answer: str | int, *, what: str, joined: bool) -> int:
    """The token id of an answer or distractor. Raises PromptError, with what was probably meant, for a text of several tokens
    and for one that lacks its leading space."""
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
    return columns_of_subject(model.tokenizer, f"the prompt {shown(prompt)}", prompt, subject, tokens.ids[0].tolist())


def columns_of_subject(tokenizer: Any, where: str, text: str, subject: str, row: list[int]) -> tuple[int, int]:
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


def bos_of(model: Model) -> int | None:
    """The id of the BOS token of a model's tokenizer; None where there is none."""
    return None if model.tokenizer is None or model.tokenizer.bos_token_id is None else int(model.tokenizer.bos_token_id)


def where_of(index: int, text: object) -> str:
    """A prompt's index and text, as errors call it."""
    return f"prompt {index} ({shown(text)})"
