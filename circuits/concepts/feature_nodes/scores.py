"""What features do to an answer, or to another feature."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.statistics import Effect, ratio_intervals

if TYPE_CHECKING:
    import pandas


@dataclasses.dataclass(frozen=True)
class TapTotal:
    """One dictionary: what its nodes come to together."""

    place: str
    dictionary: str
    features: int
    moved: int
    """Features whose activation differs between the clean and the corrupt prompts."""
    estimated: float
    """The sum of all its nodes' scores, the mean over prompts; by features alone, and by the error."""
    by_features: float
    by_error: float
    exact: float
    """The change of the metric when all that stands there is taken from the corrupt prompts."""

    @property
    def gap(self) -> float | None:
        """How far the sum of the scores is from what it should be, as a share; None where nothing happens."""
        return abs(self.estimated - self.exact) / abs(self.exact) if self.exact else None


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureScores(Result, format="circuits-feature-scores"):
    """By how much a metric would move if one feature took its value from the corrupt prompts, to first order: the change of its
    activation times the gradient along its decoder's row, summed over the tokens. Nodes of largest |mean score| first; the
    errors of all dictionaries are among them."""

    names: tuple[str, ...]
    scores: Float[Tensor, "node prompt"]
    by_position: Float[Tensor, "node offset"]
    """The mean over prompts by token, counted from the answer's."""
    offsets: tuple[int, ...] = dataclasses.field(metadata=stored(axis="offset"))
    """0: the token at which the answer is read; -1: the one before."""
    exact: Float[Tensor, "node prompt"] = dataclasses.field(metadata=stored(missing=True))
    """The same measured, by running the model so; NaN where it was not."""
    clean: Float[Tensor, " prompt"]
    corrupt: Float[Tensor, " prompt"]
    taps: tuple[TapTotal, ...]
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.names) != len(self.scores) or self.exact.shape != self.scores.shape:
            raise CircuitsError(f"{len(self.names)} names, but scores of shape {tuple(self.scores.shape)}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def gap(self) -> Float[Tensor, " prompt"]:
        """The change of the metric from the clean to the corrupt prompts."""
        return self.corrupt - self.clean

    def effects(self) -> list[Effect]:
        """Every node's score as a share of the gap, with its 95 % interval over prompts: 1 = the whole way to the corrupt
        metric."""
        return ratio_intervals(self.scores, self.gap, seed=self.seed)

    def measured(self) -> list[Effect | None]:
        """The same measured, where it was."""
        there = ~self.exact.isnan().any(dim=1)
        found = iter(ratio_intervals(self.exact[there], self.gap, seed=self.seed))
        return [next(found) if one else None for one in there.tolist()]

    def noted(self, **more: Any) -> "FeatureScores":
        """The same with more said of where it comes from; nothing of what is empty."""
        return dataclasses.replace(self, metadata={**self.metadata, **{key: value for key, value in more.items() if value}})

    def order(self) -> list[int]:
        """Nodes by the size of their mean score, the largest first."""
        return self.scores.mean(dim=1).abs().argsort(descending=True, stable=True).tolist()

    @property
    def agreement(self) -> float | None:
        """The correlation between estimate and measure over the nodes that were measured; None for fewer than three."""
        there = ~self.exact.isnan().any(dim=1)
        if int(there.sum()) < 3:
            return None
        both = torch.stack([self.scores[there].mean(dim=1), self.exact[there].mean(dim=1)])
        return float(torch.corrcoef(both)[0, 1].nan_to_num(0.0))

    @property
    def summary(self) -> str:
        """The strongest feature, and how much of the whole the features and the errors carry."""
        best = next((row for row in self.order() if ".f" in self.names[row]), None)
        words = [f"{sum(tap.moved for tap in self.taps):,} of {sum(tap.features for tap in self.taps):,} features differ"]
        if best is not None:
            effect = ratio_intervals(self.scores[[best]], self.gap, seed=self.seed)[0]
            words.append(f"strongest {self.names[best]} ({effect.effect:+.3f} of the gap)")
        gap = float(self.gap.mean())
        for tap in self.taps if gap else ():
            parts = f"features {tap.by_features / gap:+.3f}, error {tap.by_error / gap:+.3f}, exactly {tap.exact / gap:+.3f}"
            words.append(f"all of {tap.place}: {parts}")
        return f"{'; '.join(words)}."

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a node: its estimated effect (share of the gap) with its 95 % interval, the measured one, its score in the
        metric's unit, and the token (counted from the answer's) where it does most."""
        import pandas

        rows = []
        for row, (one, real) in enumerate(zip(self.effects(), self.measured(), strict=True)):
            most = self.offsets[int(self.by_position[row].abs().argmax())] if self.offsets else 0
            rows.append(
                {
                    "node": self.names[row],
                    "effect": one.effect,
                    "low": one.low,
                    "high": one.high,
                    "measured": real.effect if real else None,
                    "score": float(self.scores[row].mean()),
                    "position": most,
                }
            )
        columns = ["node", "effect", "low", "high", "measured", "score", "position"]
        return pandas.DataFrame(rows, columns=columns)
