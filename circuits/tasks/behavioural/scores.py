"""Scores of a behaviour, item by item, with baselines beside them: the result, its tables and its file."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError, shown
from circuits.files.results import Result
from circuits.statistics import standard_error

EVERYTHING = "all"
"""The name of the group that holds every item."""


@dataclasses.dataclass(frozen=True, eq=False)
class BehaviourScores(Result, format="circuits-behaviour-scores"):
    """What a model, and baselines that know less, get of minimal pairs or facts, a number an item.

    `values`: columns `[item]`; `notes` says what each of them is. Accuracies are 1, 0, or 0.5 for a tie; log-probabilities and
    margins are in nats. Higher is better throughout.
    """

    model: str
    kind: Literal["minimal pairs", "facts"]
    items: tuple[str, ...]
    """The text of each item: the good sentence, or the prompt of the fact."""
    groups: tuple[str, ...]
    """The paradigm or relation of each item."""
    values: Mapping[str, Float[Tensor, " item"]]
    notes: Mapping[str, str]

    def __post_init__(self) -> None:
        if not self.items or len(self.groups) != len(self.items) or not self.values or set(self.notes) != set(self.values):
            raise CircuitsError("items, groups, values and notes do not fit each other")
        if any(tuple(column.shape) != (len(self.items),) for column in self.values.values()):
            raise CircuitsError(f"every column must hold one number for each of {len(self.items)} items")

    def mean(self, column: str, group: str = EVERYTHING) -> float:
        """The mean of a column over a group. Raises CircuitsError for one that is not there."""
        return float(self._of(column, group).mean())

    def standard_error(self, column: str, group: str = EVERYTHING) -> float:
        """The standard error of that mean; NaN for a single item."""
        return float(standard_error(self._of(column, group)))

    def _of(self, column: str, group: str) -> Float[Tensor, " item"]:
        if column not in self.values:
            raise CircuitsError(f"no column {shown(column)}: there are {', '.join(self.values)}")
        if group == EVERYTHING:
            return self.values[column]
        rows = [row for row, name in enumerate(self.groups) if name == group]
        if not rows:
            raise CircuitsError(f"no group {shown(group)}: there are {', '.join(sorted(set(self.groups)))[:200]}")
        return self.values[column][rows]

    @property
    def summary(self) -> str:
        """The means over all items, first the model's."""
        means = ", ".join(f"{column.replace('_', ' ')} {self.mean(column):.3g}" for column in [*self.values][:4])
        return f"{self.model} on {len(self.items):,} {self.kind}: {means}."

    def to_dataframe(self) -> pd.DataFrame:
        """One row a group, and at last one of all: its name, how many items, each column's mean and standard error."""
        rows = []
        for group in [*dict.fromkeys(self.groups), EVERYTHING]:
            row: dict[str, str | int | float] = {"group": group, "items": len(self._of(next(iter(self.values)), group))}
            for column in self.values:
                row |= {column: self.mean(column, group), f"{column}_se": self.standard_error(column, group)}
            rows.append(row)
        return pd.DataFrame(rows)

    def items_dataframe(self) -> pd.DataFrame:
        """One row an item: its text, its group and every column."""
        columns = {name: values.tolist() for name, values in self.values.items()}
        return pd.DataFrame({"item": list(self.items), "group": list(self.groups), **columns})
