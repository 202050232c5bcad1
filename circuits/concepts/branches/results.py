"""What looking at heads and neurons as branches has found."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.results import Result
from circuits.probes.results import SURE
from circuits.statistics import p_value

if TYPE_CHECKING:
    import pandas

BRANCHES = ("head", "layer")
"""What is a branch."""
TIE = 1e-9
"""Numbers that differ by less are the same: what tied units do differs by rounding."""


@dataclasses.dataclass(frozen=True, eq=False)
class Specialisation(Result, format="circuits-specialisation"):
    """Whether heads divide the classes of words between them (branch specialisation, Voss et al. 2021): I(class; branch) of
    what they look at, as a share of the smaller entropy, beside shuffled classes."""

    model: str
    weights_sha256: str
    column: str
    """The property of words: upos, relation, a feature."""
    classes: tuple[str, ...]
    """The most frequent first."""
    counts: Int[Tensor, " class"]
    """Words."""
    profile: Float[Tensor, "layer head class"]
    """The share of a head's attention that falls on each class."""
    divergence: Float[Tensor, "layer head"]
    """By how many nats a head's profile differs from the mean of all heads (KL)."""
    p_values: Float[Tensor, "layer head"]
    """Of that among shuffled classes, for as many heads as there are (Westfall & Young)."""
    information: Float[Tensor, " branch"]
    """I(class; branch) over the smaller entropy, of heads and of layers: 0 to 1."""
    errors: Float[Tensor, " branch"]
    """Standard errors over resamples of sentences."""
    null: Float[Tensor, "branch draw"]
    """The same with classes shuffled among words of the same place in their sentences."""
    chance: Float[Tensor, " branch"]
    """One-sided p-values among them."""
    grouped: Float[Tensor, " draw"]
    """That of layers with whole heads shuffled over layers."""
    grouped_chance: float
    sentences: int
    left_out: dict[str, int]
    seed: int

    def __post_init__(self) -> None:
        if len(self.information) != len(BRANCHES) or len(self.classes) != self.profile.shape[-1]:
            raise CircuitsError(f"a specialisation needs numbers of {' and '.join(BRANCHES)}, and a share a class")

    @property
    def specialised(self) -> tuple[str, ...]:
        """Heads that surely look at some classes more than the others do, the most different first."""
        heads = self.divergence.shape[1]
        order = self.divergence.flatten().argsort(descending=True, stable=True).tolist()
        return tuple(f"a{i // heads}.h{i % heads}" for i in order if float(self.p_values.flatten()[i]) <= 0.05)

    def interval(self, branch: str) -> tuple[float, float]:
        """The 95 % interval of heads' or of layers' information over sentences, within 0 and 1."""
        at = BRANCHES.index(branch)
        middle, reach = float(self.information[at]), SURE * float(self.errors[at])
        return max(0.0, middle - reach), min(1.0, middle + reach)

    @property
    def summary(self) -> str:
        """How much the head tells of the class, beside shuffled classes, and the most special head."""
        said = []
        for at, branch in enumerate(BRANCHES):
            low, high = self.interval(branch)
            own, null = float(self.information[at]), float(self.null[at].mean())
            said.append(f"by {branch} {own:.3f} [{low:.3f}, {high:.3f}] against {null:.3f}, p = {float(self.chance[at]):.2g}")
        words = f"{self.model}: {self.column} of what heads look at is told {'; '.join(said)}"
        count, total = len(self.specialised), self.divergence.numel()
        if not count:
            return f"{words}. No head surely looks at other classes than the rest."
        return f"{words}. {count} of {total} heads look at other classes than the rest, most {self.specialised[0]}."

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a head: how far its profile is from the mean, its p-value, the class that it looks at most above the mean,
        and a column a class."""
        import pandas

        layers, heads, _ = self.profile.shape
        mean, rows = self.profile.mean(dim=(0, 1)), []
        for layer in range(layers):
            for head in range(heads):
                shares = self.profile[layer, head]
                most = self.classes[int((shares - mean).argmax())]
                about = {"head": f"a{layer}.h{head}", "divergence": float(self.divergence[layer, head])}
                about |= {"p_value": float(self.p_values[layer, head]), "most": most}
                rows.append({**about, **dict(zip(self.classes, shares.tolist(), strict=True))})
        return pandas.DataFrame(rows)


@dataclasses.dataclass(frozen=True, eq=False)
class Equivariance(Result, format="circuits-equivariance"):
    """Whether a symmetry of the data exchanges units of a layer (equivariance, Olah et al. 2020): of each layer the matching of
    the smallest gap between a_i(g x) and a_pi(i)(x), found on half of the prompts, judged on the other half."""

    model: str
    weights_sha256: str
    symmetry: str
    units: Literal["heads", "neurons"]
    layers: tuple[int, ...]
    matching: Int[Tensor, "layer unit"]
    """pi: which unit does on x what this one does on g x."""
    unit_gaps: Float[Tensor, "layer unit"]
    """Each unit's part of its layer's gap, and of what the gap is where units stay (`unit_stays`)."""
    unit_stays: Float[Tensor, "layer unit"]
    gaps: Float[Tensor, " layer"]
    """Squared, summed over units, as a share of both sides' squares: 0 where g exchanges units and does nothing else, 1 where
    partners have nothing in common."""
    stays: Float[Tensor, " layer"]
    """The same where every unit stays where it is: 0 for a layer that g does not change."""
    gains: Float[Tensor, "layer 3"]
    """By how much the matching is better than staying, with its 95 % interval over prompts (Student)."""
    random: Float[Tensor, "layer draw"]
    """Gaps of random matchings."""
    relabelled: Float[Tensor, "layer run"]
    """Gaps of the best matchings where what g changes becomes random tokens."""
    p_values: Float[Tensor, " layer"]
    """Of the gap among random matchings."""
    prompts: int
    seed: int

    def __post_init__(self) -> None:
        if {len(getattr(self, name)) for name in ("matching", "gaps", "stays", "gains", "random")} != {len(self.layers)}:
            raise CircuitsError("equivariance needs a row a layer in every column")

    @property
    def relabelled_p(self) -> tuple[float, ...]:
        """One-sided p-values of the gaps among those of random relabellings; 1 without any."""
        return tuple(p_value(-gap - TIE, (-row).tolist()) for gap, row in zip(self.gaps.tolist(), self.relabelled, strict=True))

    def name(self, row: int, unit: int) -> str:
        """A unit's name."""
        return f"a{self.layers[row]}.h{unit}" if self.units == "heads" else f"m{self.layers[row]}.n{unit}"

    @property
    def exchanged(self) -> tuple[tuple[str, str], ...]:
        """Units that change places, in layers where that is surely better than staying: the largest gains first."""
        found = []
        for row, (_, low, _) in enumerate(self.gains.tolist()):
            for unit, partner in enumerate(self.matching[row].tolist()):
                if partner != unit and low > 0:
                    gain = float(self.unit_stays[row, unit] - self.unit_gaps[row, unit])
                    found.append((-gain, self.name(row, unit), self.name(row, partner)))
        return tuple((one, other) for gain, one, other in sorted(found) if gain < 0)

    @property
    def summary(self) -> str:
        """How far g is from an exchange of units, and which change places."""
        least, most = (f"{float(gap):.3g}" for gap in (self.gaps.min(), self.gaps.max()))
        words = f"{self.model}, {self.symmetry or 'a symmetry'}: gaps of {self.units} from {least} to {most} by layer"
        count = len(self.exchanged)
        if not count:
            return f"{words}; none surely change places."
        one, other = self.exchanged[0]
        return f"{words}; {count} change places, first {one} to {other}."

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a unit: the one that takes its place, its part of the gap along the matching and where it stays; and of its
        layer the gap, that of staying, the gain with its interval, and what chance gives."""
        import pandas

        rows = []
        for row in range(len(self.layers)):
            gain, low, high = self.gains[row].tolist()
            layer = {"layer_gap": float(self.gaps[row]), "layer_stays": float(self.stays[row])}
            layer |= {"gain": gain, "low": low, "high": high, "random": float(self.random[row].mean())}
            layer |= {"p_value": float(self.p_values[row])}
            runs = self.relabelled[row]
            layer |= {"relabelled": float(runs.mean()) if len(runs) else None, "relabelled_p": self.relabelled_p[row]}
            for unit, partner in enumerate(self.matching[row].tolist()):
                own = {"unit": self.name(row, unit), "partner": self.name(row, partner)}
                own |= {"gap": float(self.unit_gaps[row, unit]), "stays": float(self.unit_stays[row, unit])}
                rows.append({**own, **layer})
        return pandas.DataFrame(rows)
