"""What probing has found: how well a property is read off each place, beside what must be known of that number."""

import dataclasses
import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result

if TYPE_CHECKING:
    import pandas

SURE = 1.959963984540054
"""Standard errors on either side of a 95 % interval."""
_COLUMNS = ("accuracy", "errors", "spread", "macro_f1", "control", "selectivity", "selectivity_errors", "bits", "penalties")


@dataclasses.dataclass(frozen=True)
class HiddenLayer:
    """A probe with one hidden layer at one place, beside the linear one there: one that is as accurate and less selective knows
    words by heart. Or (`linear`) a linear probe through as many directions."""

    site: str
    hidden: int
    accuracy: float
    error: float
    control: float
    selectivity: float
    selectivity_error: float
    linear: bool = dataclasses.field(default=False, metadata=stored(optional=True))

    @property
    def what(self) -> str:
        """What was tried, in words."""
        return f"linear, of rank {self.hidden}" if self.linear else f"one hidden layer of {self.hidden}"


@dataclasses.dataclass(frozen=True, eq=False)
class Probes(Result, format="circuits-probes"):
    """Linear probes for one property, one a place, judged on sentences that none was trained on. Shares are of words, from 0 to
    1; errors are standard errors, words of one sentence taken together."""

    model: str
    weights_sha256: str
    column: str
    """The property, by the name of its column."""
    classes: tuple[str, ...]
    """The most frequent first."""
    pooling: str
    sites: tuple[str, ...]
    words: int
    """Words with the property, of all sentences."""
    judged: int
    """Those that shares are of."""
    sentences: int
    left_out: dict[str, int]
    """Sentences and words that were not used, by reason."""
    seeds: tuple[int, ...]
    accuracy: Float[Tensor, " site"]
    """The mean over seeds."""
    errors: Float[Tensor, " site"]
    spread: Float[Tensor, " site"] = dataclasses.field(metadata=stored(missing=True))
    """Standard deviation of the accuracy over seeds; NaN for one seed."""
    macro_f1: Float[Tensor, " site"]
    control: Float[Tensor, " site"] = dataclasses.field(metadata=stored(missing=True))
    """Accuracy on the control task, of judged words whose type was trained on; NaN where it was not asked."""
    selectivity: Float[Tensor, " site"] = dataclasses.field(metadata=stored(missing=True))
    """Accuracy less that on the control task, on the same words."""
    selectivity_errors: Float[Tensor, " site"] = dataclasses.field(metadata=stored(missing=True))
    bits: Float[Tensor, " site"] = dataclasses.field(metadata=stored(missing=True))
    """Of the online code, a word; without any model it is log2 of the number of classes."""
    penalties: Float[Tensor, " site"]
    baselines: dict[str, tuple[float, float]]
    """Accuracy and standard error without any model: `majority` (each word type's most frequent class), `neighbours` (the word
    and the two on either side)."""
    random: tuple[float, ...] = ()
    """Accuracy at each place of the same architecture with random weights; empty where it was not asked."""
    random_errors: tuple[float, ...] = ()
    hidden: tuple[HiddenLayer, ...] = ()
    class_f1: Float[Tensor, "site class"] | None = dataclasses.field(default=None, metadata=stored(optional=True, missing=True))
    """F1 of each class, the mean over seeds; NaN for a class that no judged word has. None in older files."""
    class_words: Int[Tensor, " class"] | None = dataclasses.field(default=None, metadata=stored(optional=True))
    """How many judged words have each class."""

    def __post_init__(self) -> None:
        sizes = {len(getattr(self, name)) for name in _COLUMNS} | {len(self.sites)}
        if len(sizes) > 1 or not self.sites or len(self.random) not in (0, len(self.sites)):
            raise CircuitsError("probes need one number a place in every column")
        if len(self.random) != len(self.random_errors) or len(self.classes) < 2:
            raise CircuitsError("probes need two classes, and an error for each accuracy")
        shapes = [None if one is None else tuple(one.shape) for one in (self.class_f1, self.class_words)]
        if shapes not in ([None, None], [(len(self.sites), len(self.classes)), (len(self.classes),)]):
            raise CircuitsError("probes need an F1 for each place and class and a number of words for each class, or neither")

    @property
    def best(self) -> int:
        """Which place is the most accurate (of equal ones the earliest)."""
        return int(self.accuracy.argmax())

    @property
    def summary(self) -> str:
        """The most accurate place, beside its baselines."""
        best = self.best
        said = [f"{name} {share:.1%}" for name, (share, _) in self.baselines.items()]
        if "resid0" in self.sites and self.sites[best] != "resid0":
            said.insert(0, f"resid0 {float(self.accuracy[self.sites.index('resid0')]):.1%}")
        said += [f"random weights {self.random[best]:.1%}"] if self.random else []
        half = SURE * float(self.errors[best])
        selective = float(self.selectivity[best])
        words = "" if math.isnan(selective) else f"; selectivity {selective:+.1%}"
        return (
            f"{self.model}: {self.column} is read off {self.sites[best]} best, {float(self.accuracy[best]):.1%} "
            f"± {half:.1%} of {self.judged:,} words ({', '.join(said)}){words}."
        )

    def interval(self, place: int) -> tuple[float, float]:
        """The 95 % interval of the accuracy at a place."""
        half = SURE * float(self.errors[place])
        return float(self.accuracy[place]) - half, float(self.accuracy[place]) + half

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a place."""
        import pandas

        uniform = math.log2(len(self.classes))
        rows: list[dict[str, Any]] = []
        for place, site in enumerate(self.sites):
            row: dict[str, Any] = {"site": site, "accuracy": float(self.accuracy[place])}
            row |= {"standard_error": float(self.errors[place]), "spread": float(self.spread[place])}
            row |= {"macro_f1": float(self.macro_f1[place]), "control": float(self.control[place])}
            row |= {"selectivity": float(self.selectivity[place])}
            row |= {"selectivity_error": float(self.selectivity_errors[place]), "bits": float(self.bits[place])}
            row |= {"compression": uniform / float(self.bits[place]), "penalty": float(self.penalties[place])}
            known = bool(self.random)
            row |= {"random": self.random[place] if known else math.nan}
            row |= {"random_error": self.random_errors[place] if known else math.nan}
            rows.append(row)
        return pandas.DataFrame(rows)

    def of_classes(self) -> "pandas.DataFrame":
        """One row a class, with its F1 at each place; empty of an older file."""
        import pandas

        if self.class_f1 is None or self.class_words is None:
            return pandas.DataFrame()
        places = dict(zip(self.sites, self.class_f1.unbind(0), strict=True))
        f1 = {f"f1_{site}": values.tolist() for site, values in places.items()}
        return pandas.DataFrame({"class": self.classes, "judged": self.class_words.tolist(), **f1})


KINDS = ("erased", "moved", "kept", "random")
"""What is done to the directions that a probe reads: erased (at every token its mean in their place), moved (at the words
themselves, another class's mean), kept (their own class's mean), and as many erased as a probe with random weights
reads."""
PARTS = ("needed", "others")


@dataclasses.dataclass(frozen=True, eq=False)
class PropertyUse(Result, format="circuits-property-use"):
    """What the model loses when the directions that a probe reads at a place are changed: nats a token by which the loss of the
    next token rises, of those that follow a word with the property (`needed`) and of all others. Above 0 = the model was using
    what was changed."""

    model: str
    weights_sha256: str
    column: str
    """The property, by the name of its column."""
    sites: tuple[str, ...]
    ranks: Int[Tensor, " site"]
    """How many directions are changed."""
    whole: Float[Tensor, " part"] = dataclasses.field(metadata=stored(missing=True))
    """The loss of the whole model; NaN where there are no such tokens."""
    counts: Int[Tensor, " part"]
    lost: Float[Tensor, "site kind part"] = dataclasses.field(metadata=stored(missing=True))
    errors: Float[Tensor, "site kind part"] = dataclasses.field(metadata=stored(missing=True))
    """Standard errors, tokens of one sentence taken together."""
    beyond: Float[Tensor, " site"]
    """What erasing costs beyond random directions, on the tokens that need it; errors likewise."""
    beyond_errors: Float[Tensor, " site"]
    draws: int
    """Sets of random directions, averaged."""
    sentences: int
    seed: int

    def __post_init__(self) -> None:
        if self.lost.shape != (len(self.sites), len(KINDS), len(PARTS)) or self.lost.shape != self.errors.shape:
            raise CircuitsError(f"the use of a property needs losses of shape [site {len(KINDS)} {len(PARTS)}]")
        if {len(self.whole), len(self.counts)} != {len(PARTS)} or not self.sites:
            raise CircuitsError(f"the use of a property needs {len(PARTS)} counts and a place")
        if any(len(getattr(self, name)) != len(self.sites) for name in ("ranks", "beyond", "beyond_errors")):
            raise CircuitsError("the use of a property needs one number a place")

    @property
    def used(self) -> str | None:
        """The place where erasing costs most beyond random directions, surely so for as many places as were tried (Bonferroni);
        None where there is none. Others may be as costly: their intervals tell."""
        tried = NormalDist().inv_cdf(1 - 0.025 / len(self.sites))
        sure = self.beyond - tried * self.beyond_errors > 0
        if not bool(sure.any()):
            return None
        return self.sites[int(torch.where(sure, self.beyond, -torch.inf).argmax())]

    @property
    def summary(self) -> str:
        """Where the property is used, and what that is worth."""
        if self.used is None:
            return f"{self.model}: erasing what probes of {self.column} read costs not surely more than random directions do."
        at = self.sites.index(self.used)
        half = SURE * float(self.beyond_errors[at])
        return (
            f"{self.model}: {self.column} is used at {self.used} most: erasing the {int(self.ranks[at])} directions that its "
            f"probe reads costs {float(self.beyond[at]):+.2f} ± {half:.2f} nats a token beyond random ones."
        )

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a place, kind of change and part of the tokens."""
        import pandas

        rows = []
        for at, site in enumerate(self.sites):
            for k, kind in enumerate(KINDS):
                for p, part in enumerate(PARTS):
                    values = {"lost": float(self.lost[at, k, p]), "standard_error": float(self.errors[at, k, p])}
                    rows.append({"site": site, "directions": int(self.ranks[at]), "change": kind, "tokens": part, **values})
        return pandas.DataFrame(rows)
