"""What edge probes have found, place by place and off the mix of layers."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.probes.results import SURE
from circuits.statistics import Effect

if TYPE_CHECKING:
    import pandas


@dataclasses.dataclass(frozen=True)
class ScalarMix:
    """Edge probes that read a weighted sum of residual streams (Tenney et al. 2019a)."""

    layers: tuple[int, ...]
    """The streams, by the layer before which they stand."""
    weights: tuple[float, ...]
    """The softmax weight of each in the probe that sees all."""
    cumulative: tuple[float, ...]
    """Micro F1 of the probe that sees the streams up to each."""
    errors: tuple[float, ...]
    """Their standard errors by sentence."""
    expected: Effect | None
    """The expected layer, sum l Delta(l) / sum Delta(l), Delta(l) what the probe that sees layer l gains over the one that ends
    before it; with the 95 % interval over sentences. None where nothing sure is gained above the first layer."""

    def __post_init__(self) -> None:
        if {len(self.layers)} != {len(self.weights), len(self.cumulative), len(self.errors)} or len(self.layers) < 2:
            raise CircuitsError("a scalar mix needs two layers or more, with a weight, a score and an error each")

    @property
    def centre(self) -> float:
        """The centre of gravity, sum l s_l."""
        return sum(layer * weight for layer, weight in zip(self.layers, self.weights, strict=True))


@dataclasses.dataclass(frozen=True, eq=False)
class SpanProbes(Result, format="circuits-span-probes"):
    """Edge probes (Tenney et al. 2019b), one a place, judged on sentences that none was trained on: how well the labels of
    spans are told. Scores are micro F1 over targets and labels, from 0 to 1; errors are standard errors, targets of one
    sentence taken together."""

    model: str
    weights_sha256: str
    asked: str
    """What labels are: relation, phrase, phrase-upos, or the file they stand in."""
    labels: tuple[str, ...]
    """The most frequent first."""
    spans: int
    """Of a target: 1 or 2."""
    pooling: str
    """What stands for a word of several tokens; a span is made of words."""
    sites: tuple[str, ...]
    trained: int
    judged: int
    """Targets."""
    sentences: int
    left_out: dict[str, int]
    """Sentences, words and targets that were not used, by reason."""
    rank: int
    hidden: int
    seed: int
    f1: Float[Tensor, " site"]
    errors: Float[Tensor, " site"]
    by_label: Float[Tensor, "site label"] = dataclasses.field(metadata=stored(missing=True))
    """F1 of each label by itself; NaN for one that no judged target has and none was told."""
    baselines: dict[str, tuple[float, float]]
    """What needs no model, with errors: `majority`, the most frequent label; `same words`, the label that these very words most
    often have in training."""
    mix: ScalarMix | None = None
    random: tuple[float, ...] = ()
    """F1 at each place of the same architecture with random weights; empty where it was not asked."""
    random_errors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        sizes = {len(self.sites), len(self.f1), len(self.errors), len(self.by_label)}
        if sizes != {len(self.sites)} or not self.sites or self.by_label.shape[1] != len(self.labels):
            raise CircuitsError("edge probes need one number a place in every column, and one a place and label")
        if len(self.random) not in (0, len(self.sites)) or len(self.random) != len(self.random_errors):
            raise CircuitsError("edge probes need a number and an error a place for random weights, or none")

    @property
    def best(self) -> int:
        """The place with the largest F1 (of equal ones the earliest)."""
        return int(self.f1.argmax())

    @property
    def summary(self) -> str:
        """The best place, beside its baselines, and where in the layers it comes from."""
        best = self.best
        beside = [f"{name} {share:.1%}" for name, (share, _) in self.baselines.items()]
        if "resid0" in self.sites and self.sites[best] != "resid0":
            beside.append(f"resid0 {float(self.f1[self.sites.index('resid0')]):.1%}")
        beside += [f"random weights {self.random[best]:.1%}"] if self.random else []
        mixed = ""
        if self.mix is not None:
            mixed = f"; mixed over layers {self.mix.cumulative[-1]:.1%}, centre of gravity {self.mix.centre:.1f}"
            mixed += f", expected layer {self.mix.expected.effect:.1f}" if self.mix.expected else ""
        half = SURE * float(self.errors[best])
        return (
            f"{self.model}: {self.asked} is read off {self.sites[best]} best, F1 {float(self.f1[best]):.1%} ± {half:.1%} of "
            f"{self.judged:,} targets ({', '.join(beside)}){mixed}."
        )

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a place: F1, its standard error, random weights; of streams that are mixed their weight, and the score of
        the probe that sees all up to this one."""
        import pandas

        rows: list[dict[str, Any]] = []
        mixed = {} if self.mix is None else {f"resid{layer}": place for place, layer in enumerate(self.mix.layers)}
        for place, site in enumerate(self.sites):
            row: dict[str, Any] = {"site": site, "f1": float(self.f1[place]), "standard_error": float(self.errors[place])}
            row |= {"random": self.random[place] if self.random else math.nan}
            row |= {"random_error": self.random_errors[place] if self.random else math.nan}
            for name, column in (("weight", "weights"), ("cumulative", "cumulative"), ("cumulative_error", "errors")):
                row[name] = getattr(self.mix, column)[mixed[site]] if site in mixed else math.nan
            rows.append(row)
        return pandas.DataFrame(rows)
