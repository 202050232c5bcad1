"""Which word of each text a classifier goes by most."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.models.memory import BUDGET
from circuits.progress import Progress
from circuits.uses.attributing.attribute import Attributing, word_numbers
from circuits.uses.classifying.classifier import Classifier
from circuits.uses.classifying.words import spelt_texts
from circuits.uses.shortcuts.label_words import form_of


@dataclasses.dataclass(frozen=True, eq=False)
class Attributed:
    """Texts with what each word adds to the margin of a class."""

    forms: tuple[tuple[str, ...], ...]
    values: tuple[Float[Tensor, " word"], ...]

    @property
    def top(self) -> tuple[str, ...]:
        """The word of each text that adds most."""
        return tuple(forms[int(values.argmax())] for forms, values in zip(self.forms, self.values, strict=True))


def attributed(
    classifier: Classifier,
    texts: Sequence[str],
    labels: Int[Tensor, " text"],
    *,
    how: Attributing | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Attributed:
    """What each word adds to the margin of its text's class (nats), as `attribute_words` has it; unless told otherwise by input
    times gradient from the mean embedding."""
    spelt, how = spelt_texts(classifier, texts), how or Attributing(method="gradient")
    found = word_numbers(classifier, spelt, labels, how, budget=budget, progress=progress)
    values = tuple(torch.tensor(row, dtype=torch.float64) for row in found.numbers)
    return Attributed(tuple(tuple(map(form_of, one.words)) for one in spelt), values)
