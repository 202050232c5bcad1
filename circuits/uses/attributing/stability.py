"""Whether a classifier goes by the same words when synonyms take their places, where its answer holds and where it turns."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError, PromptError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.models.memory import BUDGET
from circuits.progress import Progress
from circuits.statistics import Effect, bootstrap, kendall, percentile_interval, spearman
from circuits.uses.attributing.attribute import Attributing, word_numbers
from circuits.uses.attributing.replacing import MOST_WORDS, ReplacedText, attacked, replaced_at_random
from circuits.uses.attributing.results import METHODS
from circuits.uses.attributing.synonyms import Synonyms
from circuits.uses.classifying.classifier import Classifier
from circuits.uses.classifying.words import spelt_texts

if TYPE_CHECKING:
    import pandas

FEW = 3
"""Words that two rankings are compared over, at least."""
_RESAMPLES = 2000


@dataclasses.dataclass(frozen=True, eq=False)
class Stability(Result, format="circuits-stability"):
    """Texts, what synonyms made of them, and how far the words' numbers are in the same order in both (Chen & Ji 2022). Both
    speak for the class that the classifier gave to the text itself."""

    model: str
    weights_sha256: str
    """Of the classifier."""
    method: str
    synonyms: str
    """Where they are from."""
    texts: tuple[str, ...] = dataclasses.field(metadata=stored(axis="pair"))
    others: tuple[str, ...] = dataclasses.field(metadata=stored(axis="pair"))
    replaced: Int[Tensor, " pair"]
    """How many words were replaced."""
    kept: tuple[bool, ...] = dataclasses.field(metadata=stored(axis="pair"))
    """Whether the class is the same: robust."""
    searched: tuple[bool, ...] = dataclasses.field(metadata=stored(axis="pair"))
    """Whether the words were searched for, to turn the class, or drawn."""
    kendall: Float[Tensor, " pair"] = dataclasses.field(metadata=stored(missing=True))
    """Kendall's tau-b of the words' numbers in both; missing where all are equal."""
    spearman: Float[Tensor, " pair"] = dataclasses.field(metadata=stored(missing=True))
    tried: int
    """Texts that the search began with, those without a word that has a synonym left out."""
    seed: int = 0

    def __post_init__(self) -> None:
        several = (self.others, self.replaced, self.kept, self.searched, self.kendall, self.spearman)
        if not self.texts or any(len(values) != len(self.texts) for values in several):
            raise CircuitsError("stability needs a pair or more, and every number of each")

    def agreement(self, *, kept: bool, searched: bool | None = None) -> Effect | None:
        """The mean of Kendall's tau over the pairs with the same class, or with another one, with its interval; None where
        there are none.

        Args:
            kept: the same class, or another one.
            searched: of pairs that were searched for, or drawn (default: both).
        """
        found = self._taus(kept, searched)
        return bootstrap(found, seed=self.seed) if len(found) else None

    @property
    def difference(self) -> Effect | None:
        """By how much more robust pairs agree than the others, with the interval over pairs of both kinds; None where one kind
        has no pair."""
        robust, turned = self._taus(True, None), self._taus(False, None)
        if not len(robust) or not len(turned):
            return None
        draw = torch.Generator().manual_seed(self.seed)
        means = [
            values[torch.randint(len(values), (_RESAMPLES, len(values)), generator=draw)].mean(dim=1)
            for values in (robust, turned)
        ]
        low, high = percentile_interval(means[0] - means[1])
        return Effect(float(robust.mean() - turned.mean()), float(low), float(high))

    @property
    def turned(self) -> float:
        """The share of searched texts whose class was turned."""
        own = [kept for kept, searched in zip(self.kept, self.searched, strict=True) if searched]
        return 1 - sum(own) / len(own) if own else 0.0

    @property
    def summary(self) -> str:
        """How many texts were turned, and how far pairs of both kinds agree."""
        said = f"{self.model}: synonyms turn {self.turned:.0%} of {sum(self.searched)} texts"
        for kept, words in ((True, "class is kept"), (False, "class turns")):
            found = self.agreement(kept=kept)
            if found is not None:
                said += f"; where the {words} Kendall's tau is {found.effect:.2f} [{found.low:.2f}, {found.high:.2f}]"
        more = self.difference
        if more is not None:
            said += f", {more.effect:+.2f} [{more.low:.2f}, {more.high:.2f}] apart"
        return f"{said} ({METHODS.get(self.method, self.method)})."

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a pair."""
        import pandas

        columns: dict[str, Any] = {"text": self.texts, "other": self.others, "replaced": self.replaced.tolist()}
        columns |= {"kept": self.kept, "searched": self.searched}
        return pandas.DataFrame(columns | {"kendall": self.kendall.tolist(), "spearman": self.spearman.tolist()})

    def _taus(self, kept: bool, searched: bool | None) -> Float[Tensor, " pair"]:
        rows = zip(self.kept, self.searched, self.kendall.tolist(), strict=True)
        found = [tau for same, sought, tau in rows if same == kept and searched in (None, sought) and tau == tau]
        return torch.tensor(found, dtype=torch.float64)


def stability(
    classifier: Classifier,
    texts: Sequence[str],
    synonyms: Synonyms,
    *,
    named: str = "given",
    how: Attributing | None = None,
    most: int = MOST_WORDS,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Stability:
    """Replace words of texts by synonyms, in search of another answer and at random, and compare which words count in both.

    Raises PromptError where no text has a word with a synonym, or none lowers a class.

    Args:
        classifier: whose answers are turned and explained.
        texts: to begin with.
        synonyms: what may stand for a word.
        named: where they are from, for the result.
        how: the method (default: input times gradient, which costs two runs a text).
        most: words of a text that are replaced, at most.
        seed: what is drawn by.
        budget: bytes that a pass may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    how = how or Attributing(method="gradient")
    sought = attacked(classifier, texts, synonyms, most=most, budget=budget, progress=progress)
    sought = [pair for pair in sought if len(pair.text.split()) >= FEW]
    if not sought:
        raise PromptError(f"no synonym lowers the class of a text of {FEW} words or more: there is nothing to compare")
    own = [*sought, *replaced_at_random(classifier, sought, synonyms, seed=seed, budget=budget)]
    taus, rhos = _agreement(classifier, own, how, budget, progress)
    searched = (*(True for _ in sought), *(False for _ in sought))
    return Stability(
        model=classifier.model.name,
        weights_sha256=classifier.model.fingerprint,
        method=how.method,
        synonyms=named,
        texts=tuple(pair.text for pair in own),
        others=tuple(pair.other for pair in own),
        replaced=torch.tensor([len(pair.places) for pair in own]),
        kept=tuple(pair.kept for pair in own),
        searched=searched,
        kendall=taus,
        spearman=rhos,
        tried=len(texts),
        seed=seed,
    )


def _agreement(
    classifier: Classifier, pairs: Sequence[ReplacedText], how: Attributing, budget: int, progress: Progress | None
) -> tuple[Float[Tensor, " pair"], Float[Tensor, " pair"]]:
    """Kendall's and Spearman's correlation of the words' numbers of each pair, for the class of its text."""
    distinct = list(dict.fromkeys(pair.text for pair in pairs))
    classes = dict(zip(distinct, classifier.logits(distinct, budget=budget).argmax(dim=1).tolist(), strict=True))
    labels = torch.tensor([classes[pair.text] for pair in pairs], device=classifier.model.device)
    one = torch.tensor(list(classes.values()), device=classifier.model.device)
    options = {"budget": budget, "progress": progress}
    before = word_numbers(classifier, spelt_texts(classifier, distinct), one, how, **options).numbers
    known = dict(zip(distinct, before, strict=True))
    after = word_numbers(classifier, spelt_texts(classifier, [pair.other for pair in pairs]), labels, how, **options).numbers
    sides = [(torch.tensor(known[pair.text]), torch.tensor(numbers)) for pair, numbers in zip(pairs, after, strict=True)]
    taus, rhos = ([rank(first, second) for first, second in sides] for rank in (kendall, spearman))
    return torch.tensor(taus, dtype=torch.float64), torch.tensor(rhos, dtype=torch.float64)
