"""What feedback has changed."""

import dataclasses
from typing import TYPE_CHECKING

from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.statistics import Effect

if TYPE_CHECKING:
    import pandas


@dataclasses.dataclass(frozen=True)
class WordChange:
    """A word of the feedback: its share of what all words of a text are attributed (sizes), before and after, the mean over
    judged texts that hold it."""

    word: str
    matters: bool
    texts: int
    before: Effect
    after: Effect
    change: Effect


@dataclasses.dataclass(frozen=True, eq=False)
class FeedbackEffects(Result, format="circuits-feedback-effects"):
    """A classifier trained again with what people said of its explanations (XMD, Lee et al. 2022), beside what it was."""

    model: str
    before_sha256: str
    """Of the classifier that the feedback is about."""
    after_sha256: str
    """Of the one that was trained with it."""
    items: int
    """Items of feedback."""
    unused: tuple[str, ...]
    """Words of items that are in no training text."""
    told: int
    """Training texts in which something is said of a word."""
    strength: float
    splits: tuple[str, ...]
    before: tuple[Effect, ...]
    """The share of texts that is right, one a split; `after` likewise, and the gain, text by text."""
    after: tuple[Effect, ...]
    gains: tuple[Effect, ...]
    changed: tuple[int, ...]
    """Predictions that changed, one a split."""
    words: tuple[WordChange, ...]
    """Those of the feedback that are in judged texts."""
    texts: tuple[str, ...] = ()
    """Some of the texts whose prediction changed, the surest first."""
    predictions: tuple[tuple[str, str], ...] = ()
    """What was predicted of them, and what is."""
    trained: str = dataclasses.field(default="", metadata=stored(optional=True))
    """How it was trained again."""
    control: tuple[Effect, ...] = dataclasses.field(default=(), metadata=stored(optional=True))
    """The share of texts that is right after a training in the same way that is held to nothing, one a split."""
    over_control: tuple[Effect, ...] = dataclasses.field(default=(), metadata=stored(optional=True))
    """By how much more is right with feedback than after that, text by text. As of `gains`, the intervals are over texts of one
    training: they say nothing of other seeds."""

    @property
    def summary(self) -> str:
        """Gains by split."""
        said = [
            f"{name} {before.effect:.0%} → {after.effect:.0%} ({gain.effect:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}])"
            for name, before, after, gain in zip(self.splits, self.before, self.after, self.gains, strict=True)
        ]
        over = ", ".join(f"{name} {one.effect:+.2f}" for name, one in zip(self.splits, self.over_control, strict=False))
        told = f"; more than without feedback: {over}" if over else ""
        return f"{self.model}, {self.items} items of feedback on {self.told} training texts: {'; '.join(said)}{told}."

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a split, then one a word of the feedback."""
        import pandas

        rows = []
        for at, name in enumerate(self.splits):
            row = {"what": "accuracy", "of": name, "before": self.before[at].effect, "after": self.after[at].effect}
            row |= {"change": self.gains[at].effect, "low": self.gains[at].low, "high": self.gains[at].high}
            if self.control:
                row |= {"control": self.control[at].effect, "over_control": self.over_control[at].effect}
                row |= {"over_low": self.over_control[at].low, "over_high": self.over_control[at].high}
            rows.append(row)
        for one in self.words:
            row = {"what": "attribution", "of": one.word, "before": one.before.effect, "after": one.after.effect}
            rows.append(row | {"change": one.change.effect, "low": one.change.low, "high": one.change.high})
        return pandas.DataFrame(rows)
