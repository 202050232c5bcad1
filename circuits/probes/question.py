"""What is asked of a model's activations: a property of words, how they are split, and what is known without a model."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import PromptError
from circuits.probes.columns import Labels, label_words
from circuits.probes.controls import WordTypes, from_neighbours, majority
from circuits.probes.fitting import Asked
from circuits.probes.reading import WordText, first_sentences
from circuits.probes.splitting import Split, split_words
from circuits.statistics import clustered_errors
from circuits.tasks.sources.conllu import Sentence


def check_property(sentences: Sequence[Sentence], column: str, *, least: int = 20, words: int | None = None) -> None:
    """Raise PromptError, with the place, for a property that can be probed in no model: one that no word has, fewer than two
    classes, too few sentences with one. A model's tokenizer and context can leave out more."""
    chosen = first_sentences(sentences, words)
    places = [(number, word) for number, sentence in enumerate(chosen) for word in range(len(sentence.words))]
    labels = label_words(chosen, places, column, least=least)
    try:
        split_words(labels.labels, torch.tensor([number for number, _ in places]))
    except PromptError as error:
        where = chosen[0].place.rpartition(":")[0]
        raise PromptError(f"{where}: {error}" if where else str(error)) from None


@dataclasses.dataclass(frozen=True, eq=False)
class Question:
    """A property of the words of a text, how they are split, and what is known of it without a model."""

    text: WordText
    labels: Labels
    types: WordTypes
    asked: Asked
    seeds: tuple[int, ...]
    baselines: dict[str, tuple[float, float]]

    @classmethod
    def of(
        cls,
        text: WordText,
        column: str,
        *,
        seeds: int = 1,
        least: int = 20,
        classes: Sequence[str] | None = None,
        baselines: bool = True,
    ) -> "Question":
        """With `classes`, these alone count. Raises what `label_words` and `split_words` raise."""
        labels = label_words(text.sentences, text.places, column, least=least, classes=classes)
        sentence, types, numbers = text.sentence_of, WordTypes.of(text.forms), tuple(range(seeds))
        splits = [split_words(labels.labels, sentence, seed=seed) for seed in numbers]
        asked = Asked.of(labels.labels, sentence, types, splits, numbers)
        own = cls(text, labels, types, asked, numbers, {})
        if not baselines:
            return own
        answers = {
            "majority": majority(types, labels.labels, splits[0]),
            "neighbours": from_neighbours(text.forms, sentence, labels.labels, splits[0]),
        }
        shares = {name: own.error((answer == own.gold).double()[None]) for name, answer in answers.items()}
        return dataclasses.replace(own, baselines=shares)

    @property
    def split(self) -> Split:
        """The first seed's."""
        return self.asked.splits[0]

    @property
    def gold(self) -> Int[Tensor, " judge"]:
        """The classes of the words that are judged on."""
        return self.labels.labels[self.split.judge]

    def labels_of(self, part: WordText, words: Int[Tensor, " word"], numbers: Sequence[int]) -> Int[Tensor, " word"]:
        """The classes of words of a part of the text, which holds the sentences of these numbers; -1 for none."""
        index = {place: number for number, place in enumerate(self.text.places)}
        places = [part.places[word] for word in words.tolist()]
        return self.labels.labels[torch.tensor([index[numbers[number], word] for number, word in places])]

    def error(self, right: Float[Tensor, "seed judge"], chosen: Tensor | None = None) -> tuple[float, float]:
        """Mean over words (the `chosen` ones) and seeds, and its standard error by sentence."""
        values, sentence = right.mean(dim=0), self.asked.sentence[self.split.judge]
        if chosen is not None:
            values, sentence = values[chosen], sentence[chosen]
        return float(values.mean()), float(clustered_errors(values[:, None], sentence)[0])
