"""What edge probes are asked: spans as words of a text that have vectors, their labels, and which are trained and judged on."""

import dataclasses
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuits.errors import PromptError
from circuits.models import Model
from circuits.probes.reading import WordText
from circuits.probes.spans.targets import Span, SpanSentence, SpanTarget
from circuits.probes.splitting import Split, split_words

NO_TOKEN, RARE = "spans without a token of their own", "spans of rare labels"


@dataclasses.dataclass(frozen=True, eq=False)
class SpanQuestion:
    """Spans of a text and their labels. Words of a sentence stand one after the other in the text, so that a span is where it
    starts and how many words it has."""

    text: WordText
    classes: tuple[str, ...]
    """The most frequent first."""
    starts: Int[Tensor, "target span"]
    lengths: Int[Tensor, "target span"]
    gold: Bool[Tensor, "target label"]
    sentence: Int[Tensor, " target"]
    """Of each target its sentence."""
    split: Split
    """Numbers of targets; those that share a sentence are on one side."""
    left_out: dict[str, int]

    @classmethod
    def of(
        cls, model: Model, sentences: Sequence[SpanSentence], *, words: int | None = None, least: int = 20, seed: int = 0
    ) -> "SpanQuestion":
        """Of the sentences that the model can take, up to the one in which the words reach `words`. Labels that fewer than
        `least` targets have are left out. Raises PromptError where fewer than two labels or 10 sentences are left, and where
        some targets have two spans and others one."""
        asked = [one for one in sentences if one.targets]
        if not asked:
            raise PromptError(f"none of {len(sentences)} sentences has a span to ask about")
        targets_of = {id(one.sentence): one.targets for one in asked}
        text = WordText.of(model, [one.sentence for one in asked], words=words)
        rows = [(number, one) for number, own in enumerate(text.aligned) for one in targets_of[id(own.sentence)]]
        where = asked[0].sentence.place.rpartition(":")[0] or "the sentences"
        if len({one.span2 is None for _, one in rows}) > 1:
            raise PromptError(f"{where}: some targets have one span, others two: expected as many in all")
        placed = [(number, one, place) for number, one in rows if (place := _place(text, number, one)) is not None]
        counts = Counter(label for _, one, _ in placed for label in one.labels)
        classes = tuple(label for label, count in counts.most_common() if count >= least)
        if len(classes) < 2:
            raise _too_few(where, counts, len(placed), least)
        kept = [(number, one, place) for number, one, place in placed if not one.labels or set(one.labels) & set(classes)]
        index = {label: column for column, label in enumerate(classes)}
        gold = torch.zeros(len(kept), len(classes), dtype=torch.bool)
        for row, (_, one, _) in enumerate(kept):
            gold[row, [index[label] for label in one.labels if label in index]] = True
        places = torch.tensor([place for *_, place in kept])
        sentence = torch.tensor([number for number, *_ in kept])
        left_out = {**text.left_out, NO_TOKEN: len(rows) - len(placed), RARE: len(placed) - len(kept)}
        split = split_words(torch.zeros(len(kept), dtype=torch.long), sentence, seed=seed)
        return cls(text, classes, places[..., 0], places[..., 1], gold, sentence, split, left_out)

    def read(self, targets: Int[Tensor, " target"]) -> list[tuple[tuple[str, ...], ...]]:
        """The words of each target's spans."""
        forms = self.text.forms
        spans = [zip(self.starts[row].tolist(), self.lengths[row].tolist(), strict=True) for row in targets.tolist()]
        return [tuple(tuple(forms[start : start + length]) for start, length in one) for one in spans]


def check_labels(sentences: Sequence[SpanSentence], *, least: int) -> None:
    """Raise PromptError where fewer than two labels have `least` targets, whichever of them a model can take; needs none."""
    targets = [one for sentence in sentences for one in sentence.targets]
    counts = Counter(label for one in targets for label in one.labels)
    if sum(count >= least for count in counts.values()) < 2:
        raise _too_few(sentences[0].sentence.place.rpartition(":")[0] or "the sentences", counts, len(targets), least)


def _too_few(where: str, counts: Counter[str], spans: int, least: int) -> PromptError:
    enough = sum(count >= least for count in counts.values())
    return PromptError(
        f"{where}: {len(counts)} label{'' if len(counts) == 1 else 's'} of {spans:,} spans, {enough} of them {least} times or "
        "more: a probe needs two; give more sentences"
    )


def _place(text: WordText, number: int, target: SpanTarget) -> list[tuple[int, int]] | None:
    """Where the spans of a target start in the text, and how many words they have there; None where one has none."""
    found = []
    for span in (target.span1, target.span2):
        if span is not None:
            start, length = _words(text, number, span)
            if not length:
                return None
            found.append((start, length))
    return found


def _words(text: WordText, number: int, span: Span) -> tuple[int, int]:
    """The words of a span that have a token of their own: the first one's number in the text, and how many there are."""
    start, end = (bisect_left(text.places, (number, word)) for word in span)
    return start, end - start
