"""What attention tracing found, beside what ablation found."""

import dataclasses
import math
from typing import TYPE_CHECKING

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.pictures import drawing_of
from circuits.files.results import Result
from circuits.files.words import counted
from circuits.heads.attention.tracing import TRACINGS
from circuits.statistics import Effect, bootstrap, spearman

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EFFECTS = ("embedding", "knockout")
"""Ablations of a source token, in nats of the answer's log-probability; each has a `_logit` beside it."""
HINT = "Attention is a hint, not a cause: only taking a token away tells whether the answer needs it."


@dataclasses.dataclass(frozen=True)
class TracingAgreement:
    """How well one tracing ranks source tokens as one ablation does."""

    tracing: str
    effect: str
    spearman: Effect | None
    """Rank correlation, mean over prompts with a 95 % bootstrap interval; None where no prompt has one."""
    top: Effect | None
    """Share of prompts where both put the same token first."""
    prompts: int
    """Prompts that count: those with three source tokens or more, not all of them equal."""


@dataclasses.dataclass(frozen=True, eq=False)
class AttentionTrace(Result, format="circuits-attention"):
    """For one token of each prompt: how much attention seems to draw from each source token, and what the answer loses when
    that token is taken away.

    `tracings` (see `circuits.heads.tracing`) and `effects` (see `circuits.attention`) are `[prompt source]` by the prompts'
    own positions, 0 past a prompt's end. Effects: positive = the token was helping the answer; in nats of log-probability,
    and in logits under names that end in `_logit`.
    """

    model: str
    weights_sha256: str
    tokens: tuple[tuple[str, ...], ...]
    opening: tuple[bool, ...]
    """Whether the prompt's first token is the one that opens every prompt (BOS)."""
    causal: bool
    positions: tuple[int, ...]
    """The token that is read, in each prompt's own count."""
    answers: tuple[str, ...]
    log_probabilities: Float[Tensor, " prompt"]
    """Of the answers, with nothing taken away; in nats."""
    logits: Float[Tensor, " prompt"]
    tracings: dict[str, Float[Tensor, "prompt source"]]
    effects: dict[str, Float[Tensor, "prompt source"]]
    kind: str
    """What stood in for a token's embedding: "mean" or "resample"."""
    seed: int
    patterns: tuple[Float[Tensor, "prompt head query key"], ...] = dataclasses.field(default=(), metadata=stored(saved=False))
    """One a layer, by columns of the batch, where they were asked for; not saved."""

    def __post_init__(self) -> None:
        count, width = len(self.tokens), max((len(row) for row in self.tokens), default=0)
        if not count or any(len(value) != count for value in (self.opening, self.positions, self.answers)):
            raise CircuitsError("an attention trace needs tokens, a position and an answer for every prompt")
        if any(not 0 <= place < len(row) for place, row in zip(self.positions, self.tokens, strict=True)):
            raise CircuitsError("a position that is read is not one of its prompt's tokens")
        shapes = {tuple(values.shape) for values in (*self.tracings.values(), *self.effects.values())}
        if shapes != {(count, width)} or {tuple(self.log_probabilities.shape), tuple(self.logits.shape)} != {(count,)}:
            raise CircuitsError(f"tracings and effects have shapes {sorted(shapes)}, expected {(count, width)} for all")
        if set(self.tracings) != set(TRACINGS) or set(self.effects) != {e + s for e in EFFECTS for s in ("", "_logit")}:
            raise CircuitsError("the tracings and effects are not those of an attention trace")

    def __len__(self) -> int:
        return len(self.tokens)

    def sources(self, prompt: int, *, effect: str = "embedding", opening: bool = True) -> list[int]:
        """Positions of a prompt that can reach the readout; for a knockout without the readout itself, which nothing hides
        from itself. `opening=False` leaves out the token that opens every prompt."""
        place = self.positions[prompt]
        reach = range(place + 1 if self.causal else len(self.tokens[prompt]))
        hidden = {place} if effect.startswith("knockout") else set()
        hidden |= {0} if self.opening[prompt] and not opening else set()
        return [at for at in reach if at not in hidden]

    def disagreement(self, *, opening: bool = True, seed: int = 0) -> tuple[TracingAgreement, ...]:
        """How each tracing and each ablation rank the source tokens of a prompt: Spearman's rank correlation (ties share their
        mean rank; 1 = the same order, 0 = none) and how often both put the same token first, averaged over prompts."""
        return tuple(self._agreement(name, effect, opening, seed) for name in self.tracings for effect in EFFECTS)

    def _agreement(self, name: str, effect: str, opening: bool, seed: int) -> TracingAgreement:
        ranks, tops = [], []
        for prompt in range(len(self)):
            places = self.sources(prompt, effect=effect, opening=opening)
            traced, lost = self.tracings[name][prompt, places], self.effects[effect][prompt, places]
            found = spearman(traced, lost) if len(places) > 2 else math.nan
            if not math.isnan(found):
                ranks.append(found)
                tops.append(float(traced.argmax() == lost.argmax()))
        means = [bootstrap(torch.tensor(values), seed=seed) if values else None for values in (ranks, tops)]
        return TracingAgreement(name, effect, means[0], means[1], len(ranks))

    def __repr__(self) -> str:
        answers = ", ".join(map(repr, self.answers[:2])) + (", …" if len(self) > 2 else "")
        read = f"log-probability {float(self.log_probabilities.mean()):.3g}"
        return f"AttentionTrace({self.model}: {counted(len(self), 'prompt')}, answers {answers[:60]}, {read})"

    @property
    def summary(self) -> str:
        """The disagreement in words."""
        parts = []
        for effect, words in (("embedding", "replacing its embedding"), ("knockout", "hiding it from later tokens")):
            rows = [row for row in self.disagreement() if row.effect == effect and row.spearman is not None]
            listed = ", ".join(f"{row.tracing} {row.spearman.effect:+.2f}" for row in rows if row.spearman is not None)
            parts.append(f"with {words}: {listed or 'no prompt has enough tokens'}")
        count = f"mean over {len(self)} prompts" if len(self) > 1 else "one prompt"
        return (
            f"Rank correlation of what attention points at with what a token's loss costs ({count}) {'; '.join(parts)}. {HINT}"
        )

    def to_dataframe(self) -> pd.DataFrame:
        """One row a prompt and source token: every tracing and every effect."""
        rows = []
        for prompt, tokens in enumerate(self.tokens):
            for at, token in enumerate(tokens):
                values = {name: float(table[prompt, at]) for name, table in (self.tracings | self.effects).items()}
                read = at == self.positions[prompt]
                rows.append({"prompt": prompt, "position": at, "token": token, "readout": read, **values})
        return pd.DataFrame(rows)

    def plot(self, *, prompt: int = 0) -> "Figure":
        """The tracings of one prompt beside its ablation effects, token by token."""
        return drawing_of(AttentionTrace)(self, prompt=prompt)
