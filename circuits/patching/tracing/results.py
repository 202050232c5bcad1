"""What causal tracing found: one prompt, and many."""

import dataclasses
import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError, FileFormatError
from circuits.files.reading import read_document
from circuits.files.writing import write_whole
from circuits.statistics import standard_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = "circuits-trace"
ROLES = (
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first subsequent token",
    "further tokens",
    "last token",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """One traced prompt. Probabilities are those of `answer`, the clean run's top token."""

    model: str
    weights_sha256: str
    prompt: str
    tokens: tuple[str, ...]
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

    def plot(self) -> "Figure":
        """Heatmaps of all kinds, tokens down, layers across."""
        return importlib.import_module("circuits.plots").trace_figure(self)

    def as_json(self) -> dict[str, Any]:
        """Plain values, as they stand in files."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        restored = {kind: values.tolist() for kind, values in self.restored.items()}
        return {**fields, "corrupted": self.corrupted.tolist(), "restored": restored}

    @classmethod
    def from_json(cls, data: Any) -> "Trace":
        """The reverse of `as_json`. Raises CircuitsError for values that do not fit together."""
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(data, dict) or set(data) != names:
            raise CircuitsError("a trace must hold exactly " + ", ".join(sorted(names)))
        texts = all(isinstance(data[name], str) for name in ("model", "weights_sha256", "prompt", "answer"))
        numbers = all(_is_number(data[name]) for name in ("clean", "noise", "window", "seed"))
        tokens, subject = data["tokens"], data["subject"]
        if not texts or not numbers or not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise CircuitsError("a trace's texts, numbers and tokens must be texts, numbers and texts")
        whole = isinstance(subject, list) and len(subject) == 2 and all(type(place) is int for place in subject)
        if not whole or not 0 <= subject[0] <= subject[1] < len(tokens) or not isinstance(data["restored"], dict):
            raise CircuitsError("a trace's subject must be two positions among its tokens, and restored an object")
        corrupted = _tensor(data["corrupted"], 1)
        restored = {str(kind): _tensor(values, 3) for kind, values in data["restored"].items()}
        for kind, values in restored.items():
            if values.shape[0] != len(tokens) or values.shape[2] != len(corrupted):
                raise CircuitsError(f"{kind} has shape {tuple(values.shape)}, for {len(tokens)} tokens, {len(corrupted)} draws")
        return cls(**{**data, "tokens": tuple(tokens), "subject": tuple(subject), "corrupted": corrupted, "restored": restored})

    def save(self, path: str | Path) -> None:
        """Write to a JSON file; `Trace.load` reads it."""
        write_whole(Path(path), json.dumps({"format": FORMAT, "version": 1, "trace": self.as_json()}, allow_nan=False).encode())

    @classmethod
    def load(cls, path: str | Path) -> "Trace":
        """A saved trace. Raises FileFormatError for anything else."""
        data = read_document(path, FORMAT, max_bytes=2**31)
        try:
            return cls.from_json(data.get("trace"))
        except CircuitsError as error:
            raise FileFormatError(f"{path}: {error}") from None


@dataclasses.dataclass(frozen=True, eq=False)
class Traces:
    """Traces of many facts with one model, and their averages by role."""

    traces: tuple[Trace, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    """Prompts that were not traced, each with the reason."""

    def __post_init__(self) -> None:
        shapes = {(trace.model, *(values.shape[1] for values in trace.restored.values())) for trace in self.traces}
        if len(shapes) > 1 or len({tuple(trace.restored) for trace in self.traces}) > 1:
            raise CircuitsError("traces of different models or kinds cannot be averaged")

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

    def plot(self) -> "Figure":
        """Curves by role with their intervals, a panel a kind."""
        return importlib.import_module("circuits.plots").role_curves_figure(self)

    def save(self, path: str | Path) -> None:
        """Write to a JSON file; `Traces.load` reads it."""
        document = {"traces": [trace.as_json() for trace in self.traces], "skipped": [list(pair) for pair in self.skipped]}
        write_whole(Path(path), json.dumps({"format": f"{FORMAT}s", "version": 1, **document}, allow_nan=False).encode())

    @classmethod
    def load(cls, path: str | Path) -> "Traces":
        """Saved traces. Raises FileFormatError for anything else."""
        data = read_document(path, f"{FORMAT}s", max_bytes=2**31)
        traces, skipped = data.get("traces"), data.get("skipped")
        pairs = isinstance(skipped, list) and all(isinstance(p, list) and [type(x) for x in p] == [str, str] for p in skipped)
        if not isinstance(traces, list) or not isinstance(skipped, list) or not pairs:
            raise FileFormatError(f'{path}: expected lists "traces" and "skipped"')
        try:
            return cls(tuple(map(Trace.from_json, traces)), tuple((pair[0], pair[1]) for pair in skipped))
        except CircuitsError as error:
            raise FileFormatError(f"{path}: {error}") from None


def _interval(rows: Float[Tensor, "fact layer"]) -> tuple[Tensor, Tensor]:
    """The mean, and half the width of its 95 % interval: 0 for a single fact, which shows no spread."""
    errors = standard_error(rows, dim=0) if len(rows) > 1 else torch.zeros_like(rows[0])
    return rows.mean(dim=0), 1.96 * errors


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tensor(values: object, axes: int) -> Tensor:
    try:
        tensor = torch.tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise CircuitsError("a trace's probabilities are not an array of numbers") from None
    if tensor.ndim != axes or not bool(tensor.isfinite().all()) or not tensor.numel():
        raise CircuitsError(f"a trace's probabilities must be finite numbers on {axes} axes")
    return tensor
