"""What was found of a dictionary and of its features."""

import dataclasses
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.lenses.neurons.contexts import Context

if TYPE_CHECKING:
    import pandas

_COLUMNS = ("active", "mean", "largest", "effect")


@dataclasses.dataclass(frozen=True, eq=False)
class DictionaryReport(Result, format="circuits-dictionary-report"):
    """How well a dictionary stands for what it takes apart, and what each of its features does, over a text."""

    model: str
    weights_sha256: str
    dictionary: str
    made_by: str
    site: str
    kind: str
    places: int
    """Tokens of the text that were looked at."""
    at_once: float
    """Features that are active at a token, the mean (L0)."""
    explained: float
    """The share of the variance of what stands at its place; below 0 where its mean would do better."""
    loss: float
    """Nats a token: the model's own; with the dictionary's output in place; with the mean over the text in place."""
    loss_kept: float
    loss_removed: float
    active: Float[Tensor, " feature"]
    """The share of tokens at which a feature is active."""
    mean: Float[Tensor, " feature"]
    """Its mean activation there, and its largest."""
    largest: Float[Tensor, " feature"]
    effect: Float[Tensor, " feature"]
    """By how much the loss would rise without it, to first order, nats a token of the text."""
    triggers: tuple[str, ...]
    """The token where it is largest; empty for one that never is active."""
    raises: tuple[str, ...]
    """The tokens that it raises most."""

    def __post_init__(self) -> None:
        sizes = {len(getattr(self, name)) for name in (*_COLUMNS, "triggers", "raises")}
        if len(sizes) != 1 or not len(self.active):
            raise CircuitsError("a dictionary's report needs one entry a feature in every column")

    @property
    def dead(self) -> int:
        """Features that are active nowhere in the text."""
        return int((self.active == 0).sum())

    @property
    def recovered(self) -> float:
        """How much of what stands at its place does for the loss the dictionary does: 1 all, 0 no more than the mean; NaN where
        that makes no difference."""
        does = self.loss_removed - self.loss
        return (self.loss_removed - self.loss_kept) / does if does else float("nan")

    @property
    def summary(self) -> str:
        """What it explains, how many features do so at a time, how many are dead, and what the loss says."""
        return (
            f"{self.dictionary} ({self.site} of {self.model}): {len(self.active):,} features, {self.at_once:.3g} at a time, "
            f"explain {self.explained:.1%} of the variance and {self.recovered:.1%} of the loss; {self.dead:,} are dead."
        )

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a feature: how often and how strongly it is active, the loss without it to first order, its first trigger and
        what it raises."""
        import pandas

        columns = {name: getattr(self, name).tolist() for name in _COLUMNS}
        rows = {"feature": range(len(self.active)), **columns, "trigger": self.triggers, "raises": self.raises}
        return pandas.DataFrame(rows)


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureReport(Result, format="circuits-feature"):
    """One feature of a dictionary, read like a neuron: where it is active, what it writes, what is lost without it."""

    model: str
    weights_sha256: str
    dictionary: str
    site: str
    feature: int
    triggers: tuple[Context, ...]
    """Where it is largest, the largest first; none for a dead one."""
    places: int
    active: float
    """The share of these at which it is active."""
    mean: float
    """Its mean activation there."""
    norm: float
    """Length of what it writes, a unit of activation."""
    raises: tuple[tuple[str, float], ...]
    """Tokens with the logits that a unit of activation adds, before the final norm's scale."""
    lowers: tuple[tuple[str, float], ...]
    cost: float
    """By how much the loss of the next token rises without it where it is active, nats: the mean over prompts of their means,
    with its 95 % interval (Student; NaN for fewer than two prompts)."""
    cost_low: float = dataclasses.field(metadata=stored(missing=True))
    cost_high: float = dataclasses.field(metadata=stored(missing=True))
    whole: float
    """The same over all tokens of the text."""
    prompts: int
    """Prompts in which it is active."""

    @property
    def name(self) -> str:
        """The feature's."""
        return f"{self.site}.f{self.feature}"

    @property
    def largest(self) -> float:
        """Its largest activation; 0 for a dead one."""
        return self.triggers[0].activation if self.triggers else 0.0

    @property
    def summary(self) -> str:
        """What triggers it, how often, what it raises, and what is lost without it."""
        raised = ", ".join(repr(token) for token, _ in self.raises[:3])
        if not self.triggers:
            return f"{self.name} of {self.model}: never active at {self.places:,} tokens, raises {raised}."
        first = self.triggers[0]
        interval = f"[{self.cost_low:.3g}, {self.cost_high:.3g}]"
        often = f"active at {self.active:.2%} of {self.places:,} tokens"
        cost = f"without it the loss there changes by {self.cost:+.3g} {interval} nats"
        most = f"most at {first.tokens[first.at]!r} ({first.activation:.3g})"
        return f"{self.name} of {self.model}: {most}, {often}, raises {raised}; {cost}."

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a trigger, the largest first: rank, activation, prompt, position, token, the token that follows, and the text
        around with the token between marks."""
        import pandas

        names = ["rank", "activation", "prompt", "position", "token", "following", "context"]
        rows = [
            (rank, one.activation, one.prompt, one.position, one.tokens[one.at], one.following, one.marked())
            for rank, one in enumerate(self.triggers, start=1)
        ]
        return pandas.DataFrame(rows, columns=names)
