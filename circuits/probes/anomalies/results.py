"""Surprisal gaps of minimal pairs, layer by layer."""

import dataclasses
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.results import Result
from circuits.probes.results import SURE

if TYPE_CHECKING:
    import pandas

SHAPED = ("gaps", "errors", "effects", "null", "p_values", "shares")


@dataclasses.dataclass(frozen=True, eq=False)
class Anomalies(Result, format="circuits-anomalies"):
    """By how much the wrong sentence of a minimal pair surprises a Gaussian of each residual stream more than the right one (Li
    et al. 2021), in nats a pair; above 0 = the wrong one stands out. Rows are the pairs' paradigms."""

    model: str
    weights_sha256: str
    groups: tuple[str, ...]
    counts: tuple[int, ...]
    """Pairs of each."""
    sites: tuple[str, ...]
    gaps: Float[Tensor, "group site"]
    errors: Float[Tensor, "group site"]
    """Standard errors over pairs."""
    effects: Float[Tensor, "group site"]
    """Gaps over the standard deviation of pairs: the surprisal gap as it was published."""
    null: Float[Tensor, "group site"]
    """What 95 % of shuffled pairs (which sentence is the wrong one, drawn for each pair) stay within, on either side of 0."""
    p_values: Float[Tensor, "group site"]
    """The chance of a gap so far above 0 anywhere in the layers, by shuffled pairs."""
    shares: Float[Tensor, "group site"]
    """Of pairs, the share whose wrong sentence surprises more (of a tie, half): no pair counts more than another, as those do
    for the gap in which one token has a far larger vector than all others. Chance is 0.5."""
    tokens: int
    """Of normal text that the Gaussians were fitted to."""
    left_out: int
    """Pairs longer than the model's context, or of one token."""
    shuffles: int
    seed: int

    def __post_init__(self) -> None:
        shape = (len(self.groups), len(self.sites))
        if any(tuple(getattr(self, name).shape) != shape for name in SHAPED) or not all(shape):
            raise CircuitsError(f"every table must have one number for each of {shape[0]} groups and {shape[1]} places")
        if len(self.counts) != len(self.groups):
            raise CircuitsError("every group has a number of pairs")

    def first(self, group: int, *, level: float = 0.05) -> int | None:
        """The first place where a group's wrong sentences stand out: p up to `level`. None where there is none."""
        found = ((self.p_values[group] <= level) & (self.gaps[group] > 0)).nonzero()
        return int(found[0]) if len(found) else None

    @property
    def summary(self) -> str:
        """Of each group where it first stands out, and where most."""
        said = []
        for number, group in enumerate(self.groups):
            first, most = self.first(number), int(self.effects[number].argmax())
            where = "nowhere" if first is None else f"first at {self.sites[first]}"
            half = SURE * float(self.errors[number, most])
            top = f"most at {self.sites[most]}, {float(self.gaps[number, most]):+.3g} ± {half:.2g} nats, "
            top += f"{float(self.shares[number, most]):.0%} of pairs"
            said.append(f"{group} {where} ({top})")
        return f"{self.model}: wrong sentences stand out in {'; '.join(said)}."

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a group and place."""
        import pandas

        rows: list[dict[str, Any]] = []
        for number, (group, count) in enumerate(zip(self.groups, self.counts, strict=True)):
            for place, site in enumerate(self.sites):
                row: dict[str, Any] = {"group": group, "pairs": count, "site": site}
                row |= {"gap": float(self.gaps[number, place]), "standard_error": float(self.errors[number, place])}
                row |= {"effect": float(self.effects[number, place]), "null": float(self.null[number, place])}
                row |= {"share": float(self.shares[number, place])}
                rows.append({**row, "p_value": float(self.p_values[number, place])})
        return pandas.DataFrame(rows)
