"""Text as the token ids that a model was made for: those of its tokenizer, with one beginning-of-sequence token at most."""

from typing import Any


def bos_of(tokenizer: Any) -> int | None:
    """The id of a tokenizer's BOS token; None where it has none."""
    return None if tokenizer.bos_token_id is None else int(tokenizer.bos_token_id)


def token_ids(tokenizer: Any, text: str, *, prepend_bos: bool | None = None) -> list[int]:
    """The ids of one text.

    None: exactly those of `tokenizer(text)`, but for a second BOS where the text brings its own and the tokenizer adds one.
    True: exactly one BOS, then the text's own; False: the text's own alone (a BOS written in the text stays).
    """
    if prepend_bos is None:
        ids = [int(token) for token in tokenizer(text).input_ids]
        bos = bos_of(tokenizer)
        return ids[1:] if bos is not None and ids[:2] == [bos, bos] else ids
    own = [int(token) for token in tokenizer(text, add_special_tokens=False).input_ids]
    bos = bos_of(tokenizer)
    return own if not prepend_bos or bos is None or own[:1] == [bos] else [bos, *own]


def added_in_front(tokenizer: Any) -> list[int]:
    """The ids that a tokenizer puts in front of every text."""
    return _added(tokenizer)[0]


def added_behind(tokenizer: Any) -> list[int]:
    """The ids that a tokenizer puts behind every text."""
    return _added(tokenizer)[1]


def _added(tokenizer: Any) -> tuple[list[int], list[int]]:
    """A tokenizer does not say what it adds: it is asked about one letter."""
    whole = [int(token) for token in tokenizer("a").input_ids]
    own = [int(token) for token in tokenizer("a", add_special_tokens=False).input_ids]
    at = next((at for at in range(len(whole) - len(own) + 1) if whole[at : at + len(own)] == own), 0)
    return whole[:at], whole[at + len(own) :]
