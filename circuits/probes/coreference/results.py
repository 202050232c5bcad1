"""What pointers from pronouns have found, place by place."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.results import Result
from circuits.probes.results import SURE

if TYPE_CHECKING:
    import pandas


@dataclasses.dataclass(frozen=True, eq=False)
class CoreferenceProbes(Result, format="circuits-coreference-probes"):
    """How often a pronoun is most like an antecedent of its own among the nouns, names and pronouns before it (Sorodoc et al.
    2020), by maps trained at each place, on passages that none was trained on."""

    model: str
    weights_sha256: str
    pooling: str
    rank: int
    """Directions of the maps at most."""
    passage: int
    """Words of a passage at most."""
    sites: tuple[str, ...]
    accuracy: Float[Tensor, " site"]
    """The mean over seeds."""
    errors: Float[Tensor, " site"]
    """Its standard error, pronouns of one passage taken together."""
    baselines: dict[str, tuple[float, float]]
    """What needs no model: the nearest noun, and a candidate drawn at random, with their errors."""
    judged: int
    """Pronouns that figures are of."""
    trained: int
    passages: int
    candidates: float
    """Words that a judged pronoun may refer to, on average."""
    left_out: dict[str, int]
    """Pronouns with a mention of their own that were not used, by reason."""
    seeds: tuple[int, ...]
    random: tuple[float, ...] = ()
    """Accuracy at each place of the same architecture with random weights; empty where it was not asked."""
    random_errors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.sites) == len(self.accuracy) == len(self.errors) or not self.sites:
            raise CircuitsError("coreference probes need one number a place in every column")
        if len(self.random) not in (0, len(self.sites)) or len(self.random) != len(self.random_errors):
            raise CircuitsError("coreference probes need a number and an error a place for random weights, or none")

    @property
    def best(self) -> int:
        """The most accurate place (of equal ones the earliest)."""
        return int(self.accuracy.argmax())

    @property
    def summary(self) -> str:
        """The best place, beside its baselines."""
        best = self.best
        beside = [f"{name} {share:.1%}" for name, (share, _) in self.baselines.items()]
        if "resid0" in self.sites and self.sites[best] != "resid0":
            beside.append(f"resid0 {float(self.accuracy[self.sites.index('resid0')]):.1%}")
        beside += [f"random weights {self.random[best]:.1%}"] if self.random else []
        half = SURE * float(self.errors[best])
        return (
            f"{self.model}: what a pronoun refers to is read off {self.sites[best]} best, {float(self.accuracy[best]):.1%} ± "
            f"{half:.1%} of {self.judged:,} pronouns ({', '.join(beside)})."
        )

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a place."""
        import pandas

        rows: list[dict[str, Any]] = []
        for place, site in enumerate(self.sites):
            row: dict[str, Any] = {"site": site, "accuracy": float(self.accuracy[place])}
            row |= {"standard_error": float(self.errors[place])}
            row |= {"random": self.random[place] if self.random else math.nan}
            row |= {"random_error": self.random_errors[place] if self.random else math.nan}
            rows.append(row)
        return pandas.DataFrame(rows)
