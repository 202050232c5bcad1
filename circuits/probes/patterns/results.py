"""What patterns heads have, and what is lost without the heads of each."""

import dataclasses
from typing import TYPE_CHECKING, Any

from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.results import Result
from circuits.files.words import counted
from circuits.statistics import Effect

if TYPE_CHECKING:
    import pandas


@dataclasses.dataclass(frozen=True, eq=False)
class HeadPatterns(Result, format="circuits-head-patterns"):
    """Of every head, which pattern its attention maps have, told by a classifier that was trained on maps that are made."""

    model: str
    weights_sha256: str
    classes: tuple[str, ...]
    shares: Float[Tensor, "layer head class"]
    """Of a head's maps, one a prompt, the share that are of each class."""
    accuracy: Effect
    """Of the classifier, on made maps of prompts that it was not trained on, with Wilson's 95 % interval."""
    confusion: Int[Tensor, "class told"]
    """How those maps were told."""
    prompts: int
    tokens: int
    """Of a prompt."""
    seed: int

    def __post_init__(self) -> None:
        count = len(self.classes)
        if self.shares.shape[2] != count or tuple(self.confusion.shape) != (count, count):
            raise CircuitsError(f"{count} classes, shares {tuple(self.shares.shape)}, told {tuple(self.confusion.shape)}")

    @property
    def pattern(self) -> Int[Tensor, "layer head"]:
        """The class that most maps of each head have, as a number (of equal ones the earlier)."""
        return self.shares.argmax(dim=2)

    def heads(self, name: str) -> list[str]:
        """The heads of a class, by name. Raises CircuitsError for a class that there is not."""
        if name not in self.classes:
            raise CircuitsError(f"no pattern {name!r}: there are {', '.join(self.classes)}")
        found = (self.pattern == self.classes.index(name)).nonzero().tolist()
        return [f"a{layer}.h{head}" for layer, head in found]

    @property
    def summary(self) -> str:
        """How many heads each class has, and how far the classifier can be trusted."""
        counts = [(name, len(self.heads(name))) for name in self.classes]
        said = ", ".join(f"{name} {count}" for name, count in counts if count)
        right = f"{self.accuracy.effect:.1%} [{self.accuracy.low:.1%}, {self.accuracy.high:.1%}]"
        return f"{self.model}: {said} of {self.pattern.numel()} heads; held-out made maps are told right {right}."

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a head: its class, and the share of its maps of each."""
        import pandas

        rows: list[dict[str, Any]] = []
        for layer, heads in enumerate(self.shares.tolist()):
            for head, shares in enumerate(heads):
                about = {"head": f"a{layer}.h{head}", "layer": layer, "pattern": self.classes[int(self.pattern[layer, head])]}
                rows.append({**about, **dict(zip(self.classes, shares, strict=True))})
        return pandas.DataFrame(rows)


@dataclasses.dataclass(frozen=True)
class PrunedClass:
    """The heads of a class taken out together: what the loss rises by, in nats a token, and by what it rises without as many
    random heads."""

    pattern: str
    kind: str
    heads: int
    rise: Effect
    """Over prompts, with the 95 % bootstrap interval."""
    random: Effect
    """The mean over draws, with Student's 95 % interval over them."""

    @property
    def beyond(self) -> bool:
        """Whether more is lost than without as many random heads, beyond both intervals."""
        return self.rise.low > self.random.high


@dataclasses.dataclass(frozen=True)
class FreeHeads:
    """The largest set of heads found that may go together."""

    kind: str
    nats: float
    """What it may cost at most, on the prompts that it was chosen on."""
    heads: tuple[str, ...]
    """In the order in which they were taken out."""
    chosen: float
    """What it costs there, in nats a token."""
    rise: Effect
    """What it costs on prompts that nothing was chosen on."""
    random: Effect
    """What as many random heads cost on those."""


@dataclasses.dataclass(frozen=True, eq=False)
class HeadPruning(Result, format="circuits-head-pruning"):
    """Heads taken out of the model, class by class and as many as cost little, beside as many random heads: zero or mean stands
    for what they mix. Positive: the loss of the next token rises."""

    model: str
    weights_sha256: str
    loss: Effect
    """Of the whole model, nats a token, on the prompts that classes are judged on."""
    classes: tuple[PrunedClass, ...]
    free: FreeHeads | None
    total: int
    """Heads of the model."""
    draws: int
    prompts: int
    tokens: int
    seed: int

    @property
    def summary(self) -> str:
        """The class that is missed most, and how many heads may go."""
        said = f"loss {self.loss.effect:.3g} nats a token"
        if self.classes:
            worst = max(self.classes, key=lambda one: one.rise.effect)
            said += f"; without the {counted(worst.heads, 'head')} of class {worst.pattern} ({worst.kind}) it rises by "
            said += f"{worst.rise.effect:.3g}, without as many random ones by {worst.random.effect:.3g}"
        if self.free is not None:
            said += f"; {len(self.free.heads)} of {self.total} heads may go ({self.free.kind}) for {self.free.rise.effect:.3g}"
        return f"{self.model}: {said}."

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a class and kind, and one of the largest set."""
        import pandas

        rows: list[dict[str, Any]] = []
        sets = [(one.pattern, one.kind, one.heads, one.rise, one.random) for one in self.classes]
        if self.free is not None:
            sets.append(("largest set", self.free.kind, len(self.free.heads), self.free.rise, self.free.random))
        for name, kind, heads, rise, random in sets:
            row: dict[str, Any] = {"pattern": name, "kind": kind, "heads": heads}
            row |= {"rise": rise.effect, "low": rise.low, "high": rise.high}
            rows.append(row | {"random": random.effect, "random_low": random.low, "random_high": random.high})
        return pandas.DataFrame(rows, columns=None if rows else ["pattern", "kind", "heads", "rise"])
