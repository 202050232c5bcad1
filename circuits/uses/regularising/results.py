"""What holding a classifier to what people say has changed, over seeds."""

import dataclasses
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.statistics import Effect, t_interval

if TYPE_CHECKING:
    import pandas


@dataclasses.dataclass(frozen=True, eq=False)
class ErTest(Result, format="circuits-er-test"):
    """Explanation regularisation by the tests of ER-TEST (Joshi et al. 2022): unseen data, contrast sets, functional tests,
    each beside plain training with the same seeds. Shares of texts, 0 to 1."""

    model: str
    weights_sha256: str
    """Of the base model."""
    rationale: str
    distance: str
    strength: float
    trained: str
    """What of the weights was trained, and on how many texts."""
    seeds: tuple[int, ...]
    tests: tuple[str, ...]
    kinds: tuple[str, ...]
    """Of each test: "in distribution", "unseen", "contrast" or "functional"."""
    plain: Float[Tensor, "seed test"]
    regularised: Float[Tensor, "seed test"]
    left_out: tuple[str, ...] = dataclasses.field(default=(), metadata=stored(optional=True))
    """Tests that could be made for some seeds alone: no text had a word to be swapped there."""
    same_texts: bool = dataclasses.field(default=False, metadata=stored(optional=True))
    """Whether all seeds were trained on the same texts: the intervals then tell of trainings, not of other texts."""

    def __post_init__(self) -> None:
        if len(self.seeds) < 2 or len(self.kinds) != len(self.tests):
            raise CircuitsError(
                f"{len(self.seeds)} seeds, {len(self.tests)} tests, {len(self.kinds)} kinds: expected two seeds"
            )

    def gain(self, test: str) -> Effect:
        """By how much more texts are right with regularisation than without, the mean over seeds with Student's 95 % interval
        of the differences of the same seed. Raises CircuitsError for a test that was not made."""
        if test not in self.tests:
            raise CircuitsError(f"no test {test!r}: expected one of {', '.join(self.tests)}")
        at = self.tests.index(test)
        return t_interval((self.regularised - self.plain)[:, at].double())

    @property
    def summary(self) -> str:
        """The gains that are sure, and what there is of others."""
        said = []
        for test in self.tests:
            gain = self.gain(test)
            sure = "" if gain.low > 0 or gain.high < 0 else " (unsure)"
            said.append(f"{test} {gain.effect:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]{sure}")
        return (
            f"{self.model}, {self.rationale} rationale, {self.distance}, strength {self.strength:g}, {len(self.seeds)} seeds; "
            f"right more often than with plain training: {'; '.join(said)}."
        )

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a test."""
        import pandas

        rows = []
        for at, (test, kind) in enumerate(zip(self.tests, self.kinds, strict=True)):
            gain = self.gain(test)
            row = {"test": test, "kind": kind, "plain": float(self.plain[:, at].mean())}
            row |= {"regularised": float(self.regularised[:, at].mean())}
            rows.append(row | {"gain": gain.effect, "low": gain.low, "high": gain.high})
        return pandas.DataFrame(rows)
