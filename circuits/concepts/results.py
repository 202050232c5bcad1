"""What testing a concept has found: its direction at each layer, and whether the answer hangs on it."""

import dataclasses
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result

if TYPE_CHECKING:
    import pandas

_COLUMNS = ("accuracy", "chance", "score", "spread", "null", "null_spread", "p_values", "published", "slope", "low", "high")


@dataclasses.dataclass(frozen=True)
class ConceptCurve:
    """What the metric is when the concept's direction is moved by so many steps at a layer, and when it is erased."""

    site: str
    steps: tuple[float, ...]
    """One step: half of the way from random examples to the concept's."""
    values: tuple[float, ...]
    errors: tuple[float, ...]
    """Standard errors of the mean over prompts of the change from the whole model."""
    random: tuple[float, ...]
    """The mean over random directions of the same length."""
    erased: float
    erased_error: float
    random_erased: float
    random_spread: tuple[float, ...] = dataclasses.field(default=(), metadata=stored(optional=True))
    """Standard deviations over random directions; none in files of before."""
    random_erased_spread: float | None = dataclasses.field(default=None, metadata=stored(optional=True))


@dataclasses.dataclass(frozen=True, eq=False)
class ConceptTest(Result, format="circuits-concept-test"):
    """Testing with concept activation vectors (TCAV, Kim et al. 2018), by place: residual streams, heads, neurons of a layer.
    A concept counts where its slope lies elsewhere than those of random concepts, surely so for as many places as were
    tried."""

    model: str
    weights_sha256: str
    concept: str
    target: str
    """What is asked of the model, and the number that is read."""
    sites: tuple[str, ...]
    accuracy: Float[Tensor, " site"]
    """The share of examples that the classifiers tell right when each is left out, the mean over random sets."""
    chance: Float[Tensor, " site"]
    """That of random sets against each other."""
    score: Float[Tensor, " site"]
    """The share of prompts whose number grows along the concept's direction, the mean over random sets."""
    spread: Float[Tensor, " site"]
    """Its standard deviation over random sets; `null_spread` likewise."""
    null: Float[Tensor, " site"]
    """The mean score of directions between random sets."""
    null_spread: Float[Tensor, " site"]
    p_values: Float[Tensor, " site"] = dataclasses.field(metadata=stored(missing=True))
    """Two-sided, of the slope along the mean direction among those of random concepts, times the number of places (Bonferroni),
    at most 1."""
    published: Float[Tensor, " site"] = dataclasses.field(metadata=stored(missing=True))
    """Those of Welch's t-test between the scores and the ones of random directions (Kim et al. 2018), likewise: too small, as
    all scores share the concept's own examples."""
    slope: Float[Tensor, " site"]
    """By how much the number grows with one step along the mean direction (half of the way from random examples to the
    concept's), the mean over prompts, with its 95 % interval over prompts (`low`, `high`)."""
    low: Float[Tensor, " site"]
    high: Float[Tensor, " site"]
    sets: int
    """Random sets, and pairs of random sets."""
    examples: int
    """Texts of the concept in each set, and of each random set."""
    prompts: int
    whole: float
    """The mean number of the whole model."""
    curves: tuple[ConceptCurve, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if {len(getattr(self, name)) for name in _COLUMNS} != {len(self.sites)} or not self.sites:
            raise CircuitsError("a concept's test needs one number a place in every column")

    @property
    def significant(self) -> tuple[str, ...]:
        """Places where the concept counts."""
        return tuple(site for site, p in zip(self.sites, self.p_values.tolist(), strict=True) if p < 0.05)

    @property
    def summary(self) -> str:
        """Where it counts, and how it pulls there."""
        if not self.significant:
            read = float(self.accuracy.max())
            return (
                f"{self.model}: {self.target} does not surely hang on {self.concept} at any of {len(self.sites)} places "
                f"(told apart at best {read:.0%})."
            )
        best = max(self.significant, key=lambda site: abs(float(self.slope[self.sites.index(site)])))
        at = self.sites.index(best)
        return (
            f"{self.model}: {self.target} hangs on {self.concept} at {len(self.significant)} of {len(self.sites)} places, most "
            f"at {best}: score {float(self.score[at]):.2f} against {float(self.null[at]):.2f} of random ones, p = "
            f"{float(self.p_values[at]):.2g}, {float(self.slope[at]):+.3g} a step."
        )

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a place."""
        import pandas

        rows: list[dict[str, Any]] = []
        for place, site in enumerate(self.sites):
            rows.append({"site": site} | {name: float(getattr(self, name)[place]) for name in _COLUMNS})
        return pandas.DataFrame(rows)
