"""What looking for shortcuts has found."""

import dataclasses
from typing import TYPE_CHECKING

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.statistics import Effect
from circuits.uses.shortcuts.early import EarlyStep

if TYPE_CHECKING:
    import pandas


LEVEL = 0.05
"""The corrected p-value below which predictions hang on a word."""


@dataclasses.dataclass(frozen=True)
class ShortcutWord:
    """A word of the head of the list, and what the classifier does with it. Shares are of the judged texts that hold it."""

    word: str
    label: str
    """The class that it goes along with in the training texts."""
    lmi: float
    """Local mutual information with that class, nats."""
    texts: int
    """Judged texts that hold it and were asked."""
    top: Effect
    """How often it is the word that adds most to the margin, less how often a word of the text drawn at random would be it."""
    counterpart: str | None
    """The word of another class that was put in its place; None: it was taken out."""
    change: Effect
    """By how much the margin of its class falls, in nats, when it is swapped."""
    flips: Effect
    """Predictions that change when it is swapped, less those that change when another word of the text is."""
    outside: float | None = None
    """The share of its occurrences outside of the rationales; None where there are none."""
    p_value: float | None = dataclasses.field(default=None, metadata=stored(optional=True))
    """That of McNemar's exact one-sided test of the predictions that change, corrected over all words asked (Holm 1979); None
    in files from before it was made, of which intervals above 0 decide."""

    @property
    def favoured(self) -> bool:
        """Whether it is the top attributed word more often than by chance, surely so."""
        return self.top.low > 0

    @property
    def leaned_on(self) -> bool:
        """Whether margins and predictions hang on it, the latter more than on other words: the chance of calling any word so
        where predictions hang on none is at most `LEVEL`."""
        more = self.flips.low > 0 if self.p_value is None else self.p_value < LEVEL
        return self.change.low > 0 and more

    @property
    def shortcut(self) -> bool | None:
        """Leaned on although no rationale holds it; None where that cannot be told: it is leaned on, and there are no
        rationales."""
        if not self.leaned_on:
            return False
        return None if self.outside is None else self.outside > 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Shortcuts(Result, format="circuits-shortcuts"):
    """Words by local mutual information with the label, and how far a classifier leans on the head of that list (Du 2021)."""

    model: str
    weights_sha256: str
    """Of the classifier: its base's weights as trained, and its head."""
    classes: tuple[str, ...]
    method: str
    """How words were attributed to."""
    training_texts: int
    types: int
    """Different words of the training texts."""
    head: int
    """So many of them are the head of the list."""
    texts: int
    """Judged texts."""
    in_head: Effect
    """The share of judged texts whose top attributed word lies in the head."""
    expected: float
    """That share for words drawn from each text at random."""
    above: Effect
    """The one less the other."""
    words: tuple[ShortcutWord, ...]
    """Of the head, those in five judged texts or more; the largest LMI first."""
    swapped: tuple[str, ...]
    """The words that were swapped for `accuracy`: the shortcuts; without rationales those that are leaned on."""
    accuracy: dict[str, Effect]
    """Of the judged texts as they are, with those words at random and flipped; and of other splits. Words that were found were
    chosen on these texts, so that `flipped` is somewhat too low; words that were asked for were not."""
    early: tuple[EarlyStep, ...] = ()
    """While it was trained."""
    degree: Effect | None = None
    """The mean shortcut degree of training texts."""
    rationales: bool = False
    seed: int = dataclasses.field(default=0, metadata=stored(optional=True))

    def __post_init__(self) -> None:
        if not 1 <= self.head <= self.types:
            raise CircuitsError(f"a head of {self.head} of {self.types} words: expected 1 or more, and no more than there are")

    @property
    def leaned_on(self) -> tuple[str, ...]:
        """Words that predictions hang on, those first that flip most."""
        return tuple(one.word for one in sorted(self.words, key=lambda one: -one.flips.effect) if one.leaned_on)

    @property
    def shortcuts(self) -> tuple[str, ...]:
        """Those of them that no rationale holds."""
        return tuple(one.word for one in self.words if one.shortcut)

    @property
    def summary(self) -> str:
        """What it goes by, and what is lost where that tells nothing."""
        said = (
            f"{self.model}: the word that adds most is one of the {self.head} that tell most of the label in "
            f"{self.in_head.effect:.0%} of {self.texts} texts; at random {self.expected:.0%}."
        )
        if not self.leaned_on:
            return f"{said} No single word is surely leaned on."
        named = ", ".join(self.shortcuts or self.leaned_on[:5])
        what = "Shortcuts" if self.shortcuts else "Leaned on"
        after = "" if self.rationales else " (whether that is their meaning, no count can tell)"
        falls = [f"{name} {self.accuracy[name].effect:.0%}" for name in ("as they are", "random", "flipped")]
        return f"{said} {what}: {named}{after}. Accuracy: {', '.join(falls)}."

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a word of the head."""
        import pandas

        rows = []
        for one in self.words:
            row = {"word": one.word, "label": one.label, "lmi": one.lmi, "texts": one.texts}
            for name in ("top", "change", "flips"):
                of = getattr(one, name)
                row |= {name: of.effect, f"{name}_low": of.low, f"{name}_high": of.high}
            row |= {"p_value": one.p_value, "counterpart": one.counterpart, "outside": one.outside}
            rows.append(row | {"favoured": one.favoured, "leaned_on": one.leaned_on, "shortcut": one.shortcut})
        return pandas.DataFrame(rows)
