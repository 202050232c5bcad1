"""Whether the words that count most are those that decide: what is left of a class without them, and with them alone."""

import dataclasses
import random
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError, PromptError
from circuits.files.fields import stored
from circuits.models.forward import forward
from circuits.models.memory import BUDGET
from circuits.progress import Progress, silent
from circuits.statistics import Effect, bootstrap
from circuits.uses.classifying.classifier import Classifier, batches
from circuits.uses.classifying.words import SpeltText

SHARES = (0.1, 0.2, 0.5)
"""Shares of a text's words that are taken out, or left alone."""
DRAWS = 2
"""Random choices of as many words, beside the words that count most."""
_COLUMNS = ("without", "without_random", "alone", "alone_random")


@dataclasses.dataclass(frozen=True, eq=False)
class Faithfulness:
    """The probability of each text's class when words are taken out of it (DeYoung et al. 2020). Missing for texts of fewer
    than two words, of which nothing can be taken out."""

    shares: tuple[float, ...] = dataclasses.field(metadata=stored(axis="share"))
    whole: Float[Tensor, " text"]
    """Of the text as it is."""
    without: Float[Tensor, "share text"] = dataclasses.field(metadata=stored(missing=True))
    """Without the share of its words that speak most for the class."""
    without_random: Float[Tensor, "share text"] = dataclasses.field(metadata=stored(missing=True))
    """Without as many random words, the mean over draws."""
    alone: Float[Tensor, "share text"] = dataclasses.field(metadata=stored(missing=True))
    """Of these words alone."""
    alone_random: Float[Tensor, "share text"] = dataclasses.field(metadata=stored(missing=True))
    """Of as many random words alone."""
    draws: int = DRAWS

    def __post_init__(self) -> None:
        expected = (len(self.shares), len(self.whole))
        if not self.shares or any(tuple(getattr(self, name).shape) != expected for name in _COLUMNS):
            raise CircuitsError("what taking words out does needs a number a share and text in every column")

    def comprehensiveness(self, place: int) -> tuple[Effect, Effect]:
        """By how much the probability falls without the words that count most, and how much more than without random ones;
        means over texts with their intervals. Large = the words decide.

        Args:
            place: which share.
        """
        return self._falls(self.without[place], self.without_random[place])

    def sufficiency(self, place: int) -> tuple[Effect, Effect]:
        """By how much the probability falls with these words alone, and how much less than with random ones alone. Small, and
        far less: the words are enough.

        Args:
            place: which share.
        """
        return self._falls(self.alone[place], self.alone_random[place], less=True)

    def _falls(
        self, own: Float[Tensor, " text"], chance: Float[Tensor, " text"], *, less: bool = False
    ) -> tuple[Effect, Effect]:
        there = own.isfinite() & chance.isfinite()
        if not bool(there.any()):
            nothing = Effect(0.0, 0.0, 0.0)
            return nothing, nothing
        return bootstrap((self.whole - own)[there]), bootstrap((own - chance if less else chance - own)[there])


def faithfulness(
    classifier: Classifier,
    texts: Sequence[SpeltText],
    numbers: Sequence[Sequence[float]],
    labels: Int[Tensor, " text"],
    *,
    shares: Sequence[float] = SHARES,
    draws: int = DRAWS,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Faithfulness:
    """Take words out of texts, those that count most and random ones, and read the classes' probabilities. The tokens of words
    that are taken out are left away; at least one word stays. Raises PromptError for shares that are none.

    Args:
        classifier: whose classes are read.
        texts: as it reads them.
        numbers: of each word, how much it speaks for the class.
        labels: the class of each text that is read.
        shares: of the words that are taken out, or left alone.
        draws: random choices of as many words.
        seed: theirs.
        budget: bytes that a pass may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if draws < 1 or not shares or not all(0 < share < 1 for share in shares):
        raise PromptError(f"shares {', '.join(map(str, shares))}, {draws} draws: expected shares between 0 and 1, and draws")
    rows, places = [list(one.ids) for one in texts], list[tuple[str, int, int]]()
    draw = random.Random(seed)
    for number, (text, values) in enumerate(zip(texts, numbers, strict=True)):
        for at, share in enumerate(shares):
            for column, left in _variants(text, values, share, draws, draw):
                rows.append(left)
                places.append((column, at, number))
    chances = row_chances(classifier, rows, labels, [number for _, _, number in places], budget, progress or silent)
    found = {name: torch.zeros(len(shares), len(texts), dtype=torch.float64) for name in _COLUMNS}
    counts = {name: torch.zeros(len(shares), len(texts), dtype=torch.float64) for name in _COLUMNS}
    for (column, at, number), chance in zip(places, chances[len(texts) :].tolist(), strict=True):
        found[column][at, number] += chance
        counts[column][at, number] += 1
    columns = {name: found[name] / counts[name] for name in _COLUMNS}  # 0 / 0: missing
    return Faithfulness(tuple(shares), chances[: len(texts)], **columns, draws=draws)


def row_chances(
    classifier: Classifier,
    rows: Sequence[Sequence[int]],
    labels: Int[Tensor, " text"],
    sources: Sequence[int],
    budget: int,
    report: Progress,
) -> Float[Tensor, " row"]:
    """The probability of a class for rows of token ids: the texts themselves, then what was made of those in `sources`."""
    wanted = torch.cat([labels.cpu(), labels.cpu()[list(sources)]]).to(classifier.model.device)
    found, done = torch.zeros(len(rows), dtype=torch.float64), 0
    with torch.no_grad():
        for places, batch in batches(classifier.model, rows, budget):
            logits = forward(classifier.model.weights, batch, keep="logits", columns=batch.last).logits[:, 0].double()
            found[places] = logits.softmax(dim=1).gather(1, wanted[places][:, None])[:, 0].cpu()
            done += len(places)
            report("taking words out", done, len(rows))
    return found


def _variants(
    text: SpeltText, values: Sequence[float], share: float, draws: int, draw: random.Random
) -> Iterator[tuple[str, list[int]]]:
    """What is left of a text's tokens without some words, and with them alone; nothing for a text of fewer than two words."""
    there = sorted({owner for owner in text.owners if owner >= 0})
    if len(there) < 2:
        return
    count = min(len(there) - 1, max(1, round(share * len(there))))
    top = sorted(there, key=lambda word: (-values[word], word))[:count]
    for kind, words in [("", top), *(("_random", draw.sample(there, count)) for _ in range(draws))]:
        chosen = frozenset(words)
        yield f"without{kind}", text.without(chosen)
        yield f"alone{kind}", text.without(frozenset(there) - chosen)
