"""Which words a classifier goes by: one number a word."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.uses.attributing.faithful import Faithfulness
from circuits.uses.classifying.forms import form_of

if TYPE_CHECKING:
    import pandas

METHODS: Mapping[str, str] = {
    "integrated": "integrated gradients",
    "gradient": "input times gradient",
    "direct": "direct attribution",
    "attention": "attention",
    "rollout": "attention rollout",
}
"""The methods, and what they are called."""


@dataclasses.dataclass(frozen=True, eq=False)
class WordAttributions(Result, format="circuits-word-attributions"):
    """How much each word of some texts speaks for a class, by one method.

    Positive: the word speaks for the class over the mean of the others (in logits). "integrated" sums to the margin less that
    of the baseline, "direct" with `rest` to the margin itself; "gradient" is the slope at the text and sums to nothing. The
    numbers of "attention" (mean over layers and heads of the last token's weights) and "rollout" are never negative and know
    no class.
    """

    model: str
    weights_sha256: str
    """Of the classifier."""
    classes: tuple[str, ...]
    method: str
    baseline: str
    """What stands for no token; "" where the method needs none."""
    texts: tuple[str, ...] = dataclasses.field(metadata=stored(axis="text"))
    words: tuple[tuple[str, ...], ...] = dataclasses.field(metadata=stored(axis="text"))
    numbers: tuple[tuple[float, ...], ...] = dataclasses.field(metadata=stored(axis="text"))
    """One a word; 0 for a word that was not read."""
    labels: tuple[int, ...]
    """The class that each text has, as a place in `classes`; none at all where that is not known."""
    predictions: tuple[int, ...] = dataclasses.field(metadata=stored(axis="text"))
    explained: tuple[int, ...] = dataclasses.field(metadata=stored(axis="text"))
    """The class that the numbers speak for."""
    margins: Float[Tensor, " text"]
    """The logit of the explained class over the mean of the others'."""
    totals: Float[Tensor, " text"] = dataclasses.field(metadata=stored(missing=True))
    """What numbers and rest are to sum to; missing where the method promises no sum."""
    rest: Float[Tensor, " text"]
    """What belongs to no word."""
    errors: Float[Tensor, " text"] = dataclasses.field(metadata=stored(missing=True))
    """How far they sum beside it, as a share of it (of at least 0.1 logits); of "integrated" the pieces of the way together."""
    steps: tuple[int, ...] = ()
    """Gradients that were taken on the way from the baseline, of each text; none for other methods."""
    faithfulness: Faithfulness | None = None

    def __post_init__(self) -> None:
        count = len(self.texts)
        several = (
            self.words,
            self.numbers,
            self.predictions,
            self.explained,
            self.margins,
            self.totals,
            self.rest,
            self.errors,
        )
        fits = all(len(values) == count for values in several) and {len(self.labels), len(self.steps)} <= {0, count}
        fits = fits and all(len(one) == len(other) for one, other in zip(self.words, self.numbers, strict=True))
        places = (*self.labels, *self.predictions, *self.explained)
        if not count or not fits or not all(0 <= place < len(self.classes) for place in places):
            raise CircuitsError("word attributions need a number a word, and a class and a margin a text")
        if self.faithfulness is not None and len(self.faithfulness.whole) != count:
            raise CircuitsError(f"word attributions of {count} texts, tested on {len(self.faithfulness.whole)}")

    @property
    def signed(self) -> bool:
        """Whether a number says for or against a class."""
        return self.method not in ("attention", "rollout")

    @property
    def worst(self) -> float | None:
        """The largest completeness error; None where the method promises no sum."""
        found = self.errors[self.errors.isfinite()]
        return float(found.max()) if len(found) else None

    @property
    def summary(self) -> str:
        """What was attributed, how complete, and what taking the words out does."""
        name = METHODS.get(self.method, self.method)
        said = f"{self.model}: {name} of {len(self.texts)} texts"
        if self.worst is not None:
            said += f", complete to {self.worst:.2g}"
        if self.faithfulness is not None:
            place = min(1, len(self.faithfulness.shares) - 1)
            falls, more = self.faithfulness.comprehensiveness(place)
            said += (
                f"; without the {self.faithfulness.shares[place]:.0%} of the words that count most the class loses "
                f"{falls.effect:.2f} of its probability, {more.effect:.2f} [{more.low:.2f}, {more.high:.2f}] more than without "
                "as many random words"
            )
        return f"{said}."

    def top_words(self, *, least: int = 2) -> "pandas.DataFrame":
        """Words by how much they speak for each class, the mean over the texts in which they stand and that class is explained:
        class, word, mean number, number of times. Words are told apart by their letters alone, not by capitals or the
        punctuation around them.

        Args:
            least: times that a word stands there at least.
        """
        import pandas

        rows = [
            (self.classes[place], form_of(word), number)
            for words, numbers, place in zip(self.words, self.numbers, self.explained, strict=True)
            for word, number in zip(words, numbers, strict=True)
        ]
        table = pandas.DataFrame(rows, columns=["class", "word", "number"])
        found = table.groupby(["class", "word"])["number"].agg(["mean", "count"]).reset_index()
        found = pandas.DataFrame(found[found["count"] >= least])
        return found.sort_values(by=["class", "mean", "word"], ascending=[True, False, True]).reset_index(drop=True)

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a word: the text's number, the word's place, the word, its number, and the classes."""
        import pandas

        rows: list[dict[str, Any]] = []
        for text, (words, numbers) in enumerate(zip(self.words, self.numbers, strict=True)):
            about = {"label": self.classes[self.labels[text]]} if self.labels else {}
            about |= {
                "prediction": self.classes[self.predictions[text]],
                "explained": self.classes[self.explained[text]],
            }
            for place, (word, number) in enumerate(zip(words, numbers, strict=True)):
                rows.append({"text": text, "place": place, "word": word, "number": number, **about})
        return pandas.DataFrame(rows)


def missing(count: int) -> Float[Tensor, " text"]:
    """No number for any text."""
    return torch.full((count,), torch.nan, dtype=torch.float64)
