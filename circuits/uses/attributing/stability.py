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
from circuits.statistics import Effect, bootstrap, kendall, paired_difference, percentile_interval, share_interval, spearman
from circuits.uses.attributing.attribute import Attributing, word_numbers
from circuits.uses.attributing.replacing import MOST_WORDS, ReplacedText, attacked, replaced_at_random
from circuits.uses.attributing.results import METHODS
from circuits.uses.attributing.synonyms import Synonyms, alternatives
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
    given: int
    """Different texts that there were."""
    tried: int
    """Those of them that could be turned: with a word that has a synonym, and long enough to compare."""
    seed: int = 0

    def __post_init__(self) -> None:
        several = (self.others, self.replaced, self.kept, self.searched, self.kendall, self.spearman)
        if not self.texts or any(len(values) != len(self.texts) for values in several):
            raise CircuitsError("stability needs a pair or more, and every number of each")
        if not len(self._turned()) <= self.tried <= self.given or not self.tried:
            raise CircuitsError(f"stability of {self.tried} of {self.given} texts, {len(self._turned())} of them searched")

    def agreement(self, *, kept: bool, searched: bool = True) -> Effect | None:
        """The mean over texts of Kendall's tau, of pairs with the same class or with another one, with its interval; None where
        there are none.

        Args:
            kept: the same class, or another one.
            searched: of pairs that were searched for, or drawn.
        """
        own = [tau for _, same, tau in self._taus(searched) if same == kept]
        return bootstrap(torch.tensor(own, dtype=torch.float64), seed=self.seed) if own else None

    @property
    def difference(self) -> Effect | None:
        """By how much more texts agree that the search could not turn than those that it did, with its interval over texts;
        None where one kind has no text. Drawn words stay out of it: nearly all of these keep the class, and so would stand
        for the texts that were not turned."""
        rows = self._taus(True)
        robust = torch.tensor([same for _, same, _ in rows], dtype=torch.float64)
        taus = torch.tensor([tau for _, _, tau in rows], dtype=torch.float64)
        if not robust.any() or robust.all():
            return None
        draw = torch.Generator().manual_seed(self.seed)
        places = torch.cat([torch.arange(len(rows))[None], torch.randint(len(rows), (_RESAMPLES, len(rows)), generator=draw)])
        sides = ((robust[places], taus[places]), (1 - robust[places], taus[places]))
        kept, turned = ((own * values).sum(dim=1) / own.sum(dim=1) for own, values in sides)
        apart = kept - turned  # not a number where a draw has but one kind
        low, high = percentile_interval(apart[1:][apart[1:].isfinite()])
        return Effect(float(apart[0]), float(low), float(high))

    @property
    def turned(self) -> Effect:
        """The share of the texts that could be turned whose class was, with Wilson's interval."""
        return share_interval(sum(self._turned().values()) / self.tried, self.tried)

    def less_turned(self, other: "Stability") -> Effect:
        """The share of another classifier's texts that were turned less that of this one's, of the same texts, with Newcombe's
        interval: positive = this one's hold better. Raises CircuitsError where the texts are not the same."""
        mine, theirs = self._turned(), other._turned()
        texts = {*mine, *theirs}
        if self.tried != other.tried or len(texts) > self.tried:
            raise CircuitsError(f"{self.tried} texts that could be turned against {other.tried}: expected the same texts")
        sides = [[one.get(text, False) for text in texts] + [False] * (self.tried - len(texts)) for one in (theirs, mine)]
        return paired_difference(*(torch.tensor(side) for side in sides))

    def more_agreement(self, other: "Stability") -> Effect | None:
        """By how much more these words agree under the search than another classifier's, the mean over the texts that both
        have, with its interval over texts; None where they share none."""
        theirs = {text: tau for text, _, tau in other._taus(True)}
        more = [tau - theirs[text] for text, _, tau in self._taus(True) if text in theirs]
        return bootstrap(torch.tensor(more, dtype=torch.float64), seed=self.seed) if more else None

    @property
    def summary(self) -> str:
        """How many texts were turned, and how far pairs of both kinds agree."""
        share, turned, lowered = self.turned, sum(self._turned().values()), len(self._turned())
        said = f"{self.model}: synonyms turn {turned} of {self.tried} texts ({share.effect:.0%}; "
        said += f"{self.tried - lowered} have no synonym that lowers their class, {self.given - self.tried} more none at all)"
        for kept, words in ((True, "the class holds"), (False, "it turns")):
            found = self.agreement(kept=kept)
            if found is not None:
                said += f"; where {words} Kendall's tau is {found.effect:.2f} [{found.low:.2f}, {found.high:.2f}]"
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

    def _taus(self, searched: bool) -> list[tuple[str, bool, float]]:
        """Text, whether the class is kept, and tau, of pairs that have one; each text once."""
        rows = zip(self.texts, self.kept, self.searched, self.kendall.tolist(), strict=True)
        found = {text: (text, same, tau) for text, same, sought, tau in rows if sought == searched and tau == tau}
        return list(found.values())

    def _turned(self) -> dict[str, bool]:
        """Of each text that was searched whether its class was turned."""
        rows = zip(self.texts, self.kept, self.searched, strict=True)
        return {text: not kept for text, kept, searched in rows if searched}


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

    Equal texts count once. Raises PromptError where no text has a word with a synonym, or none lowers a class.

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
    distinct = list(dict.fromkeys(" ".join(text.split()) for text in texts))
    able = [text for text in distinct if len(text.split()) >= FEW and any(alternatives(one, synonyms) for one in text.split())]
    if not able:
        raise PromptError(f"none of {len(distinct)} texts has {FEW} words or more and one with a synonym: give other synonyms")
    sought = attacked(classifier, able, synonyms, most=most, budget=budget, progress=progress)
    if not sought:
        raise PromptError(f"no synonym lowers the class of one of {len(able)} texts: there is nothing to compare")
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
        given=len(distinct),
        tried=len(able),
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
