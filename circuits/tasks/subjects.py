"""Where in a prompt its subject stands: as a word, or words, of its own."""

from typing import Any

from circuits.errors import ModelError, PromptError, shown
from circuits.files.words import counted
from circuits.models import Model, TokenBatch
from circuits.tasks.answers import check_text
from circuits.tasks.scripts import is_boundary


def subject_span(text: str, subject: str, *, where: str = "", which: int | None = None) -> tuple[int, int]:
    """The characters, from the first up to before the last, at which a subject stands in a text as whole words; its last
    occurrence of this kind, or the one of that number (`which`, from 1). In scripts without spaces any occurrence will do.

    Raises PromptError (`where` opens the message) for a subject that is not in the text, or only inside longer words.

    >>> import circuits
    >>> circuits.tasks.subjects.subject_span("A cat, a catalog and a concat", "cat")
    (2, 5)
    """
    where = where or f"the text {shown(text)}"
    check_text(where, "the subject", subject)
    words = subject.strip()
    found = [at for at in range(len(text) - len(words) + 1) if words and text.startswith(words, at)]
    if not found:
        raise PromptError(f"{where}: the subject {shown(subject)} is not in it")
    whole = [at for at in found if _stands_alone(text, at, at + len(words))]
    if not whole:
        longer = _word_around(text, found[-1], found[-1] + len(words))
        raise PromptError(f"{where}: the subject {shown(subject)} is in it only inside a longer word, {shown(longer)}")
    if which is not None and not 1 <= which <= len(whole):
        raise PromptError(f"{where}: {shown(words)} is in it {counted(len(whole), 'time')}, not {which}")
    at = whole[-1 if which is None else which - 1]
    return at, at + len(words)


def with_subject(text: str, subject: str, other: str, *, where: str = "") -> str:
    """A text with another subject in the place of its own. Raises PromptError as `subject_span`."""
    start, stop = subject_span(text, subject, where=where)
    return text[:start] + other + text[stop:]


def subject_columns(model: Model, prompt: str, subject: str, tokens: TokenBatch) -> tuple[int, int]:
    """The columns of the first and last token of a subject (`subject_span`) in `tokens`, which is `prompt` alone as the model
    tokenizes it. Raises PromptError where the subject is not in the prompt."""
    return columns_of_subject(model.tokenizer, f"the prompt {shown(prompt)}", prompt, subject, tokens.ids[0].tolist())


def columns_of_subject(
    tokenizer: Any, where: str, text: str, subject: str, row: list[int], *, which: int | None = None
) -> tuple[int, int]:
    """The columns of the subject's first and last token in a row of tokens, which are the text's and whatever the tokenizer
    puts around them; `which` as in `subject_span`."""
    start, stop = subject_span(text, subject, where=where, which=which)
    if not tokenizer.is_fast:
        raise ModelError("finding subjects needs a fast tokenizer, which knows the characters of each token")
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans, ids = encoded["offset_mapping"], [int(token) for token in encoded["input_ids"]]
    columns = [column for column, (first, last) in enumerate(spans) if first < stop and last > start]
    if not columns or _shared(text, [spans[column] for column in columns], start, stop):
        raise PromptError(f"{where}: the subject {shown(subject)} is in it, but begins or ends inside a token")
    opening = next((at for at in range(len(row) - len(ids) + 1) if row[at : at + len(ids)] == ids), len(row) - len(ids))
    return opening + columns[0], opening + columns[-1]


def _stands_alone(text: str, start: int, stop: int) -> bool:
    return is_boundary(text[start - 1 : start], text[start]) and is_boundary(text[stop - 1], text[stop : stop + 1])


def _word_around(text: str, start: int, stop: int) -> str:
    """The word, or words, that some characters are part of."""
    while start > 0 and not is_boundary(text[start - 1], text[start]):
        start -= 1
    while stop < len(text) and not is_boundary(text[stop - 1], text[stop]):
        stop += 1
    return text[start:stop]


def _shared(text: str, spans: list[tuple[int, int]], start: int, stop: int) -> bool:
    """Whether tokens that hold `text[start:stop]` also hold letters or digits besides: spaces and marks do no harm."""
    first, last = min(span[0] for span in spans), max(span[1] for span in spans)
    return any(character.isalnum() for character in text[first:start] + text[stop:last])
