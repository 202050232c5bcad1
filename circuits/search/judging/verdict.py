"""What is known about a circuit after it was judged."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd

from circuits.files.results import Result
from circuits.files.words import counted, one_line
from circuits.statistics import Effect

SIGNIFICANT = 0.05
"""The largest p-value of a circuit that does better than chance."""
HALF, NOTHING = 0.5, 0.05
"""Shares of the behaviour: what a proven circuit surely keeps, and below which nothing was found."""


@dataclasses.dataclass(frozen=True)
class Removal:
    """A set of nodes taken out of the circuit and out of the whole model: both should lose alike."""

    nodes: tuple[str, ...]
    how: str
    """"random" or "greedy"."""
    circuit: float
    """Faithfulness of the circuit without them; `model`: of the whole model without them."""
    model: float

    @property
    def gap(self) -> float:
        """|circuit - model|: what the circuit misses."""
        return abs(self.circuit - self.model)


@dataclasses.dataclass(frozen=True)
class Need:
    """How much one node matters to the circuit: the largest change of its faithfulness when the node goes, after some other
    nodes are gone (`without`; most often none)."""

    node: str
    change: float
    without: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Verdict(Result, format="circuits-verdict", indent=1):
    """A circuit's faithfulness, and what speaks for and against it. Faithfulness: 0 = as the corrupt prompts, 1 = as the
    whole model, edges outside the circuit carrying what `metadata["outside"]` says: corrupt values, their mean or zero."""

    edges: int
    nodes: int
    share: float
    """Of all the graph's edges."""
    prompts: int
    faithfulness: Effect
    """With its 95 % interval over prompts."""
    null: tuple[float, ...]
    """Faithfulness of random circuits of as many edges."""
    p_value: float | None
    completeness: tuple[Removal, ...] = ()
    minimality: tuple[Need, ...] = ()
    searched_on: Effect | None = None
    """Faithfulness on the prompts that the circuit was searched on, where they were given."""
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def standing(self) -> Literal["proven", "partial", "unproven"]:
        """One word: "proven" where the circuit does better than chance and surely keeps half of the behaviour on the prompts it
        was judged on, "partial" where it does better than chance and keeps more than next to nothing, else "unproven"."""
        one = self.faithfulness
        if self.p_value is None or self.p_value > SIGNIFICANT or one.low <= 0 or one.effect < NOTHING:
            return "unproven"
        return "proven" if one.low >= HALF else "partial"

    def __repr__(self) -> str:
        chance = "not held against chance" if self.p_value is None else f"p = {self.p_value:.2g}"
        return f"Verdict({self.standing}, {chance}: {one_line(self.summary).removesuffix('.')})"

    @property
    def incompleteness(self) -> float | None:
        """The largest gap over the removed sets."""
        return max((one.gap for one in self.completeness), default=None)

    def unneeded(self, least: float = 0.01) -> tuple[str, ...]:
        """Nodes whose removal never changed the faithfulness by `least`."""
        return tuple(need.node for need in self.minimality if abs(need.change) < least)

    @property
    def summary(self) -> str:
        """The verdict in a few sentences."""
        one = self.faithfulness
        share = f"{self.edges:,} edges ({_percent(self.share)} of all) between {self.nodes:,} nodes"
        words = [
            f"{share} keep {one.effect:.2f} of the behaviour"
            f" (95 % interval {one.low:.2f} to {one.high:.2f}, {counted(self.prompts, 'prompt')})."
        ]
        if self.searched_on is not None:
            words.append(f"On the prompts searched on: {self.searched_on.effect:.2f}.")
        if self.null:
            words.append(
                f"{len(self.null)} random circuits of this size: at most {max(self.null):.2f} (p = {self.p_value:.3g})."
            )
        if self.incompleteness is not None:
            words.append(f"Largest gap to the model when sets of nodes are taken out of both: {self.incompleteness:.2f}.")
        if self.minimality:
            spare, count = self.unneeded(), len(self.minimality)
            names = ", ".join(spare[:5]) + (", …" if len(spare) > 5 else "")
            verb = "is" if len(spare) == 1 else "are"
            few = f"{len(spare)} of {count} nodes {verb} not needed ({names})."
            words.append(few if spare else f"All {count} nodes are needed.")
        return " ".join(words)

    def to_dataframe(self) -> pd.DataFrame:
        """One row a measure: measure, value, low, high, about."""
        one, rows = self.faithfulness, []
        rows.append({"measure": "faithfulness", "value": one.effect, "low": one.low, "high": one.high})
        if (seen := self.searched_on) is not None:
            rows.append({"measure": "faithfulness searched on", "value": seen.effect, "low": seen.low, "high": seen.high})
        for value in self.null:
            rows.append({"measure": "random circuit", "value": value, "about": f"{self.edges} edges"})
        for removal in self.completeness:
            about = f"{removal.how}: {' '.join(removal.nodes)}"
            rows.append({"measure": "incompleteness", "value": removal.gap, "about": about})
        for need in self.minimality:
            rows.append({"measure": f"need of {need.node}", "value": need.change, "about": " ".join(need.without)})
        return pd.DataFrame(rows, columns=["measure", "value", "low", "high", "about"])


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else f"{100 * share:.2g}%"
