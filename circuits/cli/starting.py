"""What a long job will take, said before it starts."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import circuits
from circuits.cli.progress import ProgressBars
from circuits.cli.text import one_line

LONG = 1e11
"""Multiplications of one plain pass over all prompts from which on a job says what it will take: about a second's work of one
processor, so many times as the job has passes."""
_COUNTED = 64
"""Texts that are tokenized to estimate the tokens of all."""


def announce(
    progress: ProgressBars, model: "circuits.Model", what: str, prompts: int, tokens: int, *, budget: int | None = None
) -> None:
    """Say on stderr how many prompts and tokens a job is about, and the memory that it takes on each device, where it is a long
    one; once something is done, the progress line says how much time is left.

    Args:
        progress: the bars of the job.
        model: what runs.
        what: how the prompts are called: "pairs of prompts".
        prompts: how many there are.
        tokens: of all of them together.
        budget: bytes that a pass may take besides.
    """
    if (line := starting(model, what, prompts, tokens, budget=budget)) is not None:
        progress.say(one_line(line), err=True)


def starting(model: "circuits.Model", what: str, prompts: int, tokens: int, *, budget: int | None = None) -> str | None:
    """That line; None for a job that is not long."""
    held = weights_by_device(model)
    numbers = sum(held.values()) // model.dtype.itemsize
    if tokens * numbers < LONG:
        return None
    memory = ", ".join(f"{_mib(size)} on {device}" for device, size in held.items())
    passes = "" if budget is None else f", up to {_mib(budget)} more in a pass (--memory)"
    return f"{model.name}: {prompts:,} {what}, {tokens:,} tokens; weights take {memory}{passes}"


def weights_by_device(model: "circuits.Model") -> dict[str, int]:
    """Bytes of weights on each device, shared storage counted once."""
    seen, held = set[tuple[str, int]](), Counter[str]()
    for _, tensor in model.weights.tensors():
        storage, device = tensor.untyped_storage(), str(tensor.device)
        if (device, storage.data_ptr()) not in seen:
            seen.add((device, storage.data_ptr()))
            held[device] += storage.nbytes()
    return dict(held)


def tokens_of(model: "circuits.Model", texts: Sequence[Any]) -> int:
    """About how many tokens some texts have, by the first of them."""
    some = [str(text) for text in texts[:_COUNTED]]
    if not some or model.tokenizer is None:
        return 0
    counted = sum(len(row) for row in model.tokenizer(some)["input_ids"])
    return round(counted / len(some) * len(texts))


def _mib(size: int) -> str:
    return f"{-(-size // 2**20):,} MiB"
