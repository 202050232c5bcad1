"""What is known about a circuit after it was judged."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd

from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.files.words import counted, one_line
from circuits.statistics import FEWEST, Effect

SIGNIFICANT = 0.05
"""The largest p-value of a circuit that does better than chance."""
HALF, NOTHING = 0.5, 0.05
"""Shares of the behaviour: what a proven circuit surely keeps, and below which nothing was found."""
UNNEEDED = 0.01
"""A change of faithfulness that is next to nothing."""


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
    """How much one node matters to the circuit: the change of its faithfulness when the node goes; where that is next to
    nothing, the largest one after some other nodes are gone (`without`)."""

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
    """Faithfulness of random circuits of as many edges, on so many prompts as `metadata["random_prompts"]` says (all, where it
    says nothing)."""
    p_value: float | None
    """Of random circuits on those prompts; they end early where enough of them keep as much (`metadata["random_reached"]`)."""
    completeness: tuple[Removal, ...] = ()
    minimality: tuple[Need, ...] = ()
    searched_on: Effect | None = None
    """Faithfulness on the prompts that the circuit was searched on, where they were given."""
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    independent: int | None = dataclasses.field(default=None, metadata=stored(optional=True))
    """How many of the prompts' groups share no prompt with another, clean or corrupt; None: not counted (older files)."""

    @property
    def evidence(self) -> int:
        """How many prompts count as independent of each other."""
        return self.prompts if self.independent is None else self.independent

    @property
    def drawn_from(self) -> int | None:
        """Of how many nodes those of `minimality` were drawn at random; None: every node was asked for."""
        of = self.metadata.get("minimality_of")
        return of if isinstance(of, int) else None

    @property
    def standing(self) -> Literal["proven", "partial", "unproven"]:
        """One word: "proven" where the circuit does better than chance and surely keeps half of the behaviour on the prompts it
        was judged on, "partial" where it does better than chance and keeps more than next to nothing, else, and on fewer than
        five independent prompts, "unproven"."""
        one = self.faithfulness
        if self.evidence < FEWEST:
            return "unproven"
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

    def unneeded(self, least: float = UNNEEDED) -> tuple[str, ...]:
        """Nodes whose removal never changed the faithfulness by `least`."""
        return tuple(need.node for need in self.minimality if abs(need.change) < least)

    @property
    def summary(self) -> str:
        """The verdict in a few sentences."""
        one = self.faithfulness
        share = f"{self.edges:,} edges ({_percent(self.share)} of all) between {self.nodes:,} nodes"
        words = [f"{share} keep {one.effect:z.2f} of the behaviour ({self._sureness})."]
        if self.searched_on is not None:
            words.append(f"On the prompts searched on: {self.searched_on.effect:z.2f}.")
        if self.null:
            words.append(self._chance)
        if self.incompleteness is not None:
            some = self.metadata.get("completeness_prompts", self.prompts)
            where = "" if some == self.prompts else f" on {some} of the prompts"
            gap = f"{self.incompleteness:z.2f}"
            words.append(f"Largest gap to the model when sets of nodes are taken out of both{where}: {gap}.")
        if self.minimality:
            words.append(self._needed)
        return " ".join(words)

    @property
    def _needed(self) -> str:
        """How many nodes are needed, of those that were asked for."""
        spare, asked = self.unneeded(), f"{len(self.minimality)} nodes"
        asked += "" if self.drawn_from is None else f" drawn at random from {self.drawn_from}"
        names = ", ".join(spare[:5]) + (", …" if len(spare) > 5 else "")
        few = f"{len(spare)} of {asked} {'is' if len(spare) == 1 else 'are'} not needed ({names})."
        return few if spare else f"All {asked} are needed."

    @property
    def _sureness(self) -> str:
        """On how many prompts, and the interval where there is one."""
        one, alike = self.faithfulness, self.prompts - self.evidence
        prompts = counted(self.prompts, "prompt") + (f", {self.evidence} independent" if alike else "")
        if self.evidence < 2:
            return f"{prompts}: there is no interval"
        return f"95 % interval {one.low:z.2f} to {one.high:z.2f}, {prompts}"

    @property
    def _chance(self) -> str:
        """What random circuits keep."""
        few, most = self.metadata.get("random_prompts"), self.metadata.get("random_circuits")
        where = f" on {few} of the prompts" if isinstance(few, int) else ""
        drawn = f"{counted(len(self.null), 'random circuit')} of this size{where}"
        if isinstance(most, int) and len(self.null) < most:
            reached = self.metadata.get("random_reached")
            return f"{drawn}: as much is kept by {reached}, so no more were drawn (p = {self.p_value:.3g})."
        return f"{drawn}: at most {max(self.null):z.2f} (p = {self.p_value:.3g})."

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
