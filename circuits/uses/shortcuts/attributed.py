"""Which word of each text a classifier goes by most."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.models import TokenBatch
from circuits.models.memory import BUDGET
from circuits.progress import Progress, silent
from circuits.uses.attributing.gradients import Baseline, input_gradients
from circuits.uses.classifying.classifier import Classifier, batches
from circuits.uses.classifying.words import spelt_texts, word_sums
from circuits.uses.shortcuts.label_words import form_of

STEPS = 14
"""A backward pass with second derivatives kept apart takes about so many times the bytes of a forward."""


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
    baseline: Baseline = "zero",
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Attributed:
    """Input times gradient of the margin of each text's class (nats), summed over the tokens of each word."""
    spelt, report = spelt_texts(classifier, texts), progress or silent
    found: list[Tensor] = [torch.empty(0)] * len(texts)
    done = 0
    for places, batch in batches(classifier.model, [list(one.ids) for one in spelt], max(1, budget // STEPS)):
        some = [spelt[place] for place in places]
        values = word_sums(_of(classifier, batch, labels[places], baseline), some).cpu()
        for row, place in enumerate(places):
            found[place] = values[row, : len(spelt[place].words)]
        done += len(places)
        report("attributing to words", done, len(texts))
    return Attributed(tuple(tuple(map(form_of, one.words)) for one in spelt), tuple(found))


def _of(classifier: Classifier, batch: TokenBatch, labels: Int[Tensor, " text"], baseline: Baseline) -> Tensor:
    weights = classifier.model.weights
    return input_gradients(weights, batch, labels.to(batch.ids.device), baseline=baseline)
