"""What is refused of prompts before they become pairs: lengths, tokens and texts that would give wrong numbers."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch

from circuits.errors import PromptError, shown
from circuits.models import Model
from circuits.tasks.answers import check_text


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
        check_text(where, f"the {kind} prompt", text)
        if not text.strip():
            raise PromptError(f"{where}: the {kind} prompt is empty")


def where_of(index: int, text: object) -> str:
    """A prompt's index and text, as errors call it."""
    return f"prompt {index} ({shown(text)})"


def reasons(left_out: Mapping[str, int]) -> str:
    """Why something was left out, in words, the most frequent reason first; "none is given" for nothing."""
    ordered = sorted(left_out.items(), key=lambda one: -one[1])
    return "; ".join(f"{count:,}: {reason}" for reason, count in ordered) or "none is given"
