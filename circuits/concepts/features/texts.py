"""A text as a dictionary reads it: what stands at its place, which features are active there, and how the model goes on."""

import dataclasses
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.concepts.features.dictionary import Dictionary
from circuits.concepts.features.places import FeaturePlace
from circuits.concepts.features.standing import onward, standing
from circuits.heads.text_loss import next_token_losses, text_batches
from circuits.lenses.neurons.triggers import counted_places
from circuits.lenses.readout import ends_of_tokens
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.run import Run
from circuits.models.weights import Weights
from circuits.progress import Progress, silent


@dataclasses.dataclass(frozen=True, eq=False)
class FeaturesRead:
    """One batch of the text, as far as the dictionary, and how it goes on from what stands there."""

    tokens: TokenBatch
    run: Run
    place: FeaturePlace
    y: Float[Tensor, "prompt position width"]
    """What the dictionary takes apart."""
    z: Float[Tensor, "prompt position feature"]
    made: Float[Tensor, "prompt position width"]
    """What it makes of that."""
    there: Bool[Tensor, "prompt position"]
    """Places that count: no pads, no opening BOS."""

    def losses(self, weights: Weights, y: Float[Tensor, "prompt position width"]) -> Float[Tensor, "prompt before"]:
        """The loss of each next token with this in place of what stands there."""
        return next_token_losses(weights, onward(weights, self.run, self.place, y), self.tokens)


@torch.no_grad()
def features_read(
    model: Model, own: Dictionary, tokens: TokenBatch, budget: int, progress: Progress | None
) -> Iterator[FeaturesRead]:
    """A text, batch by batch; `own` fits the model."""
    batch, report, done = model.prepare(tokens), progress or silent, 0
    place, reads = FeaturePlace.parse(own.site), FeaturePlace.parse(own.reads or own.site)
    report("reading the text", 0, len(batch))
    for some in text_batches(model.weights, batch, budget=budget // 2):
        run = forward(model.weights, some, logits=False)
        y, r = standing(run, place), standing(run, reads)
        z = own.encode(r)
        yield FeaturesRead(some, run, place, y, z, own.decode(z) + own.skipped(r), counted_places(model, some))
        done += len(some)
        report("reading the text", done, len(batch))


def end_words(
    model: Model, rows: Float[Tensor, "feature d_model"], k: int
) -> tuple[list[tuple[tuple[str, float], ...]], list[tuple[tuple[str, float], ...]]]:
    """The tokens that each row raises and lowers most, in logits before the final norm's scale."""
    found = []
    for amounts, ids in ends_of_tokens(model, rows, k):
        words = [model.to_token_strings(row) for row in ids]
        found.append([tuple(zip(texts, row.tolist(), strict=True)) for texts, row in zip(words, amounts, strict=True)])
    return found[0], found[1]
