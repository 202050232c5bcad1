"""What causal tracing found: one prompt, and many."""

import dataclasses

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.files.words import counted
from circuits.statistics import standard_error

ROLES = (
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first subsequent token",
    "further tokens",
    "last token",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Trace(Result, format="circuits-trace", inside="trace"):
    """One traced prompt. Probabilities are those of `answer`, the clean run's top token."""

    model: str
    weights_sha256: str
    prompt: str
    tokens: tuple[str, ...] = dataclasses.field(metadata=stored(axis="position"))
    subject: tuple[int, int]
    """Positions of the subject's first and last token."""
    answer: str
    clean: float
    """Probability in the clean run."""
    corrupted: Float[Tensor, " draw"]
    """Probability in each corrupted run."""
    restored: dict[str, Float[Tensor, "position layer draw"]]
    """Probability by kind of site, with the clean value put back there."""
    noise: float
    """Standard deviation of the noise; 0 where the subject was replaced."""
    window: int
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.subject[0] <= self.subject[1] < len(self.tokens):
            raise CircuitsError(f"the subject's positions {self.subject} are not among {len(self.tokens)} tokens")
        if not len(self.corrupted) or any(not values.numel() for values in self.restored.values()):
            raise CircuitsError("a trace needs a corrupted run, and a position and a layer of every kind")

    @property
    def summary(self) -> str:
        """The answer's probability, clean and corrupted, and the site that restores most of it."""
        best = ""
        for kind in self.restored:
            effects = self.effects(kind)
            position, layer = divmod(int(effects.argmax()), effects.shape[1])
            best += f", {kind} {float(effects.max()):+.2f} at {self.tokens[position]!r} in layer {layer}"
        corrupted = float(self.corrupted.mean())
        return f"{self.answer!r} has probability {self.clean:.2f}, corrupted {corrupted:.2f}; most is restored by{best[1:]}."

    @property
    def total_effect(self) -> float:
        """Clean minus corrupted probability."""
        return self.clean - float(self.corrupted.mean())

    def effects(self, kind: str) -> Float[Tensor, "position layer"]:
        """Indirect effects: mean probability with the site restored, minus the corrupted run's."""
        if kind not in self.restored:
            raise CircuitsError(f"{kind!r} was not traced; there are {', '.join(self.restored)}")
        return self.restored[kind].mean(dim=-1) - self.corrupted.mean()

    def roles(self) -> list[str]:
        """The role of each position; before the subject: "". A subject of one token is counted as its last token."""
        first, last = self.subject
        named = []
        for position in range(len(self.tokens)):
            if position < first:
                named.append("")
            elif position <= last:
                place = 2 if position == last else 0 if position == first else 1
                named.append(ROLES[place])
            elif position == len(self.tokens) - 1:
                named.append(ROLES[5])
            else:
                named.append(ROLES[3] if position == last + 1 else ROLES[4])
        return named

    def by_role(self, kind: str) -> dict[str, Float[Tensor, " layer"]]:
        """Effects averaged over the positions of each role that the prompt has. As in the paper, a subject of one token is
        both its first and its last, and a last token right after the subject is both subsequent and last."""
        effects, (first, last), width = self.effects(kind), self.subject, len(self.tokens)
        positions = (
            [first],
            list(range(first + 1, last)),
            [last],
            [last + 1] if last + 1 < width else [],
            list(range(last + 2, width - 1)),
            [width - 1],
        )
        return {role: effects[chosen].mean(dim=0) for role, chosen in zip(ROLES, positions, strict=True) if chosen}

    def to_dataframe(self) -> pd.DataFrame:
        """One row a kind, position and layer, with the mean restored probability and the indirect effect."""
        roles, rows = self.roles(), []
        for kind in self.restored:
            effects = self.effects(kind)
            for position, token in enumerate(self.tokens):
                for layer in range(effects.shape[1]):
                    effect = float(effects[position, layer])
                    place = {"kind": kind, "position": position, "token": token, "role": roles[position], "layer": layer}
                    rows.append({**place, "probability": effect + float(self.corrupted.mean()), "indirect_effect": effect})
        return pd.DataFrame(rows)


@dataclasses.dataclass(frozen=True, eq=False)
class Traces(Result, format="circuits-traces"):
    """Traces of many facts with one model, and their averages by role."""

    traces: tuple[Trace, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    """Prompts that were not traced, each with the reason."""

    def __post_init__(self) -> None:
        shapes = {(trace.model, *(values.shape[1] for values in trace.restored.values())) for trace in self.traces}
        if len(shapes) > 1 or len({tuple(trace.restored) for trace in self.traces}) > 1:
            raise CircuitsError("traces of different models or kinds cannot be averaged")

    @property
    def summary(self) -> str:
        """How many facts, and what corruption costs them on average."""
        if not self.traces:
            return f"no fact was traced, {len(self.skipped)} left out."
        (effect, half), (clean, _) = self.average_total_effect(), self.average_probabilities()
        average = f"probability {clean:.2f}, average total effect {effect:.3f} ± {half:.3f}"
        return f"{self.traces[0].model}: {counted(len(self.traces), 'fact')} ({len(self.skipped)} left out), {average}."

    def average_total_effect(self) -> tuple[float, float]:
        """The mean total effect over facts, and half the width of its 95 % interval, 1.96 sd / sqrt(n)."""
        mean, half = _interval(torch.tensor([[trace.total_effect] for trace in self.traces], dtype=torch.float64))
        return float(mean[0]), float(half[0])

    def average_probabilities(self) -> tuple[float, float]:
        """Mean clean and mean corrupted probability of the answer over facts."""
        count = max(1, len(self.traces))
        clean = sum(trace.clean for trace in self.traces) / count
        return clean, sum(float(trace.corrupted.mean()) for trace in self.traces) / count

    def average_by_role(self, kind: str) -> dict[str, tuple[Tensor, Tensor, int]]:
        """Role → average indirect effect `[layer]`, half the width of its 95 % interval (1.96 sd / sqrt(n)), and the
        number of facts that have this role."""
        found = [trace.by_role(kind) for trace in self.traces]
        averages = {}
        for role in ROLES:
            rows = [effects[role] for effects in found if role in effects]
            if rows:
                averages[role] = (*_interval(torch.stack(rows)), len(rows))
        return averages

    def to_dataframe(self) -> pd.DataFrame:
        """One row a kind, role and layer."""
        rows = []
        for kind in self.traces[0].restored if self.traces else ():
            for role, (mean, half, count) in self.average_by_role(kind).items():
                for layer, (effect, width) in enumerate(zip(mean.tolist(), half.tolist(), strict=True)):
                    place = {"kind": kind, "role": role, "layer": layer, "facts": count}
                    rows.append({**place, "average_indirect_effect": effect, "low": effect - width, "high": effect + width})
        return pd.DataFrame(rows)


def _interval(rows: Float[Tensor, "fact layer"]) -> tuple[Tensor, Tensor]:
    """The mean, and half the width of its 95 % interval: 0 for a single fact, which shows no spread."""
    errors = standard_error(rows, dim=0) if len(rows) > 1 else torch.zeros_like(rows[0])
    return rows.mean(dim=0), 1.96 * errors
