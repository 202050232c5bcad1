"""How likely a model, or a count of words, holds text: batch by batch, so that no logits of the whole text are held."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import NonFiniteError, PromptError, shown
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.layers import unembed
from circuits.models.memory import BUDGET
from circuits.progress import Progress, silent
from circuits.runs import shards
from circuits.tasks.sources.corpus import text_tokens

BACKOFF = 1.0
"""How many imagined sightings, spread as single tokens are, each token's followers get in a count of words."""

_MANY, _LONGER = 32, 4


def token_log_probabilities(
    model: Model, rows: Sequence[Sequence[int]], *, budget: int = BUDGET, progress: Progress | None = None
) -> list[Float[Tensor, " token"]]:
    """Log-probability of every token but the first of each row, given those before it, in nats (float64, on the CPU).

    Rows of like length share a batch. Raises PromptError for a row that the model does not take, NonFiniteError with the row's
    text for a number that is none.
    """
    report = progress or silent
    _check_rows(model, rows)
    found: list[Tensor] = [torch.zeros(0, dtype=torch.float64)] * len(rows)
    done, batches = 0, list(_batches(rows, lambda width: budget // _bytes(model, width)))

    def scored(place: int) -> list[Tensor]:
        """The log-probabilities of one batch's rows."""
        return _of_batch(model, [rows[row] for row in batches[place]])

    for batch, values in zip(batches, shards("scoring text", len(batches), scored), strict=True):
        for row, value in zip(batch, values, strict=True):
            if not bool(value.isfinite().all()):
                raise NonFiniteError(f"the log-probability of {shown(model.to_string(rows[row]))} is no finite number")
            found[row] = value
        done += len(batch)
        report("scoring text", done, len(rows))
    return found


def read_next_tokens(
    model: Model,
    rows: Sequence[Sequence[int]],
    read: Callable[[list[int], Float[Tensor, "row d_vocab"]], Any],
    *,
    budget: int = BUDGET,
) -> Iterator[tuple[list[int], Any]]:
    """What `read` makes of the logits after the last token of rows, batch by batch: which rows, and that. `read` gets which
    rows, and theirs, in float32 at least; what it gives is kept where the run is (`circuits.runs.shards`)."""
    _check_rows(model, rows)
    batches = list(_batches(rows, lambda width: budget // (_bytes(model, width) + 16 * model.weights.W_U.shape[1])))

    def found(place: int) -> Any:
        """What is read of one batch."""
        return read(batches[place], _next_logits(model, [rows[row] for row in batches[place]]))

    yield from zip(batches, shards("asking for what follows", len(batches), found), strict=True)


def _next_logits(model: Model, rows: Sequence[Sequence[int]]) -> Float[Tensor, "row d_vocab"]:
    with torch.no_grad():
        tokens = TokenBatch.from_rows([list(row) for row in rows]).to(model.device)
        run = forward(model.weights, tokens, logits=False)
        last = run.residuals[-1][torch.arange(len(rows), device=model.device), tokens.last]
        logits = unembed(model.weights, last)
    bad = ~logits.isfinite().all(dim=-1)
    if bool(bad.any()):
        row = rows[int(bad.long().argmax())]
        raise NonFiniteError(f"the logits after {shown(model.to_string(row))} hold NaN or infinity")
    return logits if logits.dtype == torch.float64 else logits.float()


def _batches(rows: Sequence[Sequence[int]], most: Callable[[int], int]) -> Iterator[list[int]]:
    """Which rows go together: those of one length, or where these are few, of up to _LONGER more tokens."""
    order, start = sorted(range(len(rows)), key=lambda row: len(rows[row])), 0
    while start < len(order):
        width = len(rows[order[start]])
        batch = order[start : start + max(1, most(width + _LONGER))]
        equal = [row for row in batch if len(rows[row]) == width]
        batch = equal if len(equal) >= _MANY else [row for row in batch if len(rows[row]) <= width + _LONGER]
        start += len(batch)
        yield batch


def _bytes(model: Model, width: int) -> int:
    """What one row takes in a batch: its logits, twice over for the softmax, or the factors of the layers."""
    heads = model.n_heads * model.d_head
    factors = model.n_layers * (4 * model.d_model + 4 * heads + 3 * model.d_mlp)
    return width * model.weights.W_E.element_size() * max(3 * model.weights.W_U.shape[1], factors)


def _of_batch(model: Model, rows: list[Sequence[int]]) -> list[Float[Tensor, " token"]]:
    tokens = TokenBatch.from_rows([list(row) for row in rows]).to(model.device)
    with torch.no_grad():
        logits = forward(model.weights, tokens, keep="logits").logits[:, :-1]
        logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        wanted = logits.gather(2, tokens.ids[:, 1:, None])[:, :, 0]
        # the sum over tokens passes over a logit of minus infinity, though one that overflowed may as well be the largest
        values = (wanted - logits.logsumexp(dim=-1)).masked_fill(logits.amin(dim=-1) == -torch.inf, torch.nan).double().cpu()
    return [value[: len(row) - 1] for value, row in zip(values, rows, strict=True)]


def _check_rows(model: Model, rows: Sequence[Sequence[int]]) -> None:
    model.require_finite()  # fused attention can lose a NaN on the way
    for row in rows:
        if not row:
            raise PromptError("a text has no tokens")
        if model.max_positions is not None and len(row) > model.max_positions:
            text = shown(model.to_string(row))
            raise PromptError(f"{text} has {len(row)} tokens; {model.name} takes {model.max_positions}: leave it out")


@dataclasses.dataclass(frozen=True, eq=False)
class WordCounts:
    """Single tokens and pairs of neighbours counted in a text."""

    singles: Float[Tensor, " d_vocab"]
    """Share of each token, one sighting added to each."""
    keys: Int[Tensor, " seen"]
    """Pairs that were seen, `first * d_vocab + second`, rising."""
    counts: Float[Tensor, " seen"]
    firsts: Float[Tensor, " d_vocab"]
    """How often each token was followed by one."""

    @classmethod
    def of(cls, model: Model, text: str) -> "WordCounts":
        """Count a text as the model tokenizes it. Raises PromptError for a text of fewer than two tokens."""
        ids, size = torch.tensor(text_tokens(model, text), dtype=torch.long), model.weights.W_U.shape[1]
        if len(ids) < 2:
            raise PromptError(f"a text of {len(ids)} tokens has no neighbours to count: give a longer one")
        singles = torch.bincount(ids, minlength=size).double() + 1
        keys, counts = torch.unique(ids[:-1] * size + ids[1:], return_counts=True)
        firsts = torch.bincount(ids[:-1], minlength=size).double()
        return cls(singles / singles.sum(), keys, counts.double(), firsts)

    def rows(self, previous: Int[Tensor, " row"]) -> Float[Tensor, "row d_vocab"]:
        """Log-probability of every next token after these: `(count + BACKOFF * share) / (followed + BACKOFF)`."""
        size = len(self.singles)
        table = (BACKOFF * self.singles).expand(len(previous), size).clone()
        for row, token in enumerate(previous.tolist()):
            start, stop = torch.searchsorted(self.keys, torch.tensor([token * size, (token + 1) * size])).tolist()
            table[row, self.keys[start:stop] - token * size] += self.counts[start:stop]
        return (table / (self.firsts[previous] + BACKOFF)[:, None]).log()


@dataclasses.dataclass(frozen=True, eq=False)
class BigramModel:
    """What comes next by the previous token alone: counted in a text, or asked of the model, given BOS and that token."""

    model: Model
    counts: WordCounts | None
    budget: int = BUDGET

    @classmethod
    def of(cls, model: Model, text: str | None, *, budget: int = BUDGET) -> "BigramModel":
        """From a text, or without one from the model."""
        return cls(model, None if text is None else WordCounts.of(model, text), budget)

    @property
    def note(self) -> str:
        """What it is, in words."""
        if self.counts is None:
            return "the model itself, shown the previous token alone (after what opens its prompts)"
        return f"counts of neighbours in the text, each token's followers with {BACKOFF:g} sighting spread as single tokens are"

    def read_tables(
        self, previous: Sequence[int], read: Callable[[list[int], Float[Tensor, "row d_vocab"]], Any]
    ) -> Iterator[tuple[list[int], Any]]:
        """What `read` makes of the log-probabilities of every next token after each of these (float64, CPU), a few at a time:
        which, and that."""
        if self.counts is None:
            opening = self.model.opening()
            rows = [[token] if token in opening else [*opening, token] for token in previous]

            def likely(batch: list[int], logits: Tensor) -> Any:
                """What is read of a batch's log-probabilities."""
                return read(batch, logits.double().log_softmax(dim=-1).cpu())

            yield from read_next_tokens(self.model, rows, likely, budget=self.budget)
            return
        size = max(1, self.budget // (24 * len(self.counts.singles)))
        for start in range(0, len(previous), size):
            batch = list(range(start, min(start + size, len(previous))))
            yield batch, read(batch, self.counts.rows(torch.tensor([previous[row] for row in batch])))

    def log_probabilities(self, rows: Sequence[Sequence[int]]) -> list[Float[Tensor, " token"]]:
        """Log-probability of every token but the first of each row, given the one before it."""
        wanted: dict[int, dict[int, float]] = {}
        for row in rows:
            for first, second in itertools.pairwise(row):
                wanted.setdefault(first, {})[second] = -math.inf
        previous = sorted(wanted)

        def followed(batch: list[int], table: Tensor) -> list[list[float]]:
            """The log-probabilities of the followers of some tokens."""
            return [table[place, list(wanted[previous[row]])].tolist() for place, row in enumerate(batch)]

        for batch, found in self.read_tables(previous, followed):
            for row, values in zip(batch, found, strict=True):
                wanted[previous[row]].update(zip(wanted[previous[row]], values, strict=True))
        values = [[wanted[first][second] for first, second in itertools.pairwise(row)] for row in rows]
        return [torch.tensor(value, dtype=torch.float64) for value in values]
