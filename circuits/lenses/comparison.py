"""How far each layer's lens is from what the model says at last, on text that the tuned lens was not trained on."""

import dataclasses
import math

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError, PromptError
from circuits.files.results import Result
from circuits.lenses.streaming import Source, read_sources
from circuits.lenses.tuned_lens import TunedLens
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.layers import normalise
from circuits.models.memory import BUDGET
from circuits.progress import Progress, silent
from circuits.statistics import standard_error

COLUMNS = ("logit", "tuned")
_TOKENS = 2**12


@dataclasses.dataclass(frozen=True, eq=False)
class LensComparison(Result, format="circuits-lens-comparison"):
    """KL(final ‖ lens) in bits a token by the layer that is read, of both lenses; lower = nearer to what the model says."""

    model: str
    logit: Float[Tensor, "layer prompt"]
    """Means over each prompt's tokens."""
    tuned: Float[Tensor, "layer prompt"]
    tokens: int

    def __post_init__(self) -> None:
        if self.logit.shape != self.tuned.shape or self.logit.ndim != 2 or self.logit.shape[1] < 2:
            raise CircuitsError("a comparison needs both lenses' divergences of every layer on two prompts or more")

    @property
    def summary(self) -> str:
        """Bits of both lenses, averaged over layers."""
        logit, tuned = (float(values.mean()) for values in (self.logit, self.tuned))
        bits = f"{logit:.3g} bits a token by the logit lens, {tuned:.3g} by the tuned one"
        return f"{self.model}: KL to the output {bits} ({len(self.logit)} layers, {self.tokens:,} tokens)."

    def by_layer(self, column: str) -> tuple[Tensor, Tensor]:
        """The mean of "logit", "tuned" or "gain" (logit minus tuned, pair by pair) in each layer, and its standard error
        over prompts."""
        if column not in (*COLUMNS, "gain"):
            raise CircuitsError(f"no column {column!r}: there are {', '.join(COLUMNS)}, gain")
        values = self.logit - self.tuned if column == "gain" else getattr(self, column)
        return values.mean(dim=1), standard_error(values)

    def to_dataframe(self) -> pd.DataFrame:
        """One row a layer: bits of both lenses and of the gain, each with its standard error over prompts."""
        table: dict[str, object] = {"layer": range(len(self.logit))}
        for column in (*COLUMNS, "gain"):
            mean, error = self.by_layer(column)
            table |= {f"{column}_bits": mean.tolist(), f"{column}_error": error.tolist()}
        return pd.DataFrame(table)


@torch.no_grad()
def compare_lenses(
    model: Model, tokens: TokenBatch, tuned: TunedLens, *, budget: int = BUDGET, progress: Progress | None = None
) -> LensComparison:
    """KL(final ‖ lens) in bits of the logit lens and of a tuned one, before every layer, on prompts.

    Raises PromptError for a single prompt (it has no standard error), ModelError for a tuned lens of another model,
    MemoryBudgetError where one block of logits does not fit `budget`.

    Args:
        model: the model whose streams are read.
        tokens: text that `tuned` was not trained on.
        tuned: the trained lens.
        budget: bytes of logits that are held at once.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    tuned.require_model(model)
    batch = model.prepare(tokens)
    if len(batch) < 2:
        raise PromptError("one prompt gives no standard error: compare on two or more")
    report = progress or silent
    size = max(1, _TOKENS // batch.ids.shape[1])
    found = []
    for start in range(0, len(batch), size):
        report("comparing lenses", start, len(batch))
        found.append(_divergences(model, batch[start : start + size], tuned, budget))
    report("comparing lenses", len(batch), len(batch))
    bits = torch.cat(found, dim=1) / math.log(2)
    return LensComparison(model.name, bits[: model.n_layers], bits[model.n_layers :], int(batch.mask.sum()))


def _divergences(model: Model, batch: TokenBatch, tuned: TunedLens, budget: int) -> Float[Tensor, "lens_layer prompt"]:
    """Means over each prompt's tokens, in nats: every layer by the logit lens, then by the tuned one."""
    weights, mask = model.weights, batch.mask
    run = forward(weights, batch, logits=False)
    streams = [x[mask] for x in run.residuals]
    final = Source(normalise(streams[-1], weights.final_norm))
    plain = [Source(normalise(x, weights.final_norm)) for x in streams[:-1]]
    tuned_streams = [tuned.translate(x, layer) for layer, x in enumerate(streams[:-1])]
    sources = plain + [Source(normalise(x, weights.final_norm)) for x in tuned_streams]
    none = batch.ids.new_zeros(len(final.normed), 0)
    readings = read_sources(weights, final, sources, none, top=0, budget=budget)
    spread = final.normed.new_zeros(len(sources), *mask.shape, dtype=readings[0].divergence.dtype)
    spread[:, mask] = torch.stack([reading.divergence for reading in readings])
    return spread.cpu().double().sum(dim=-1) / mask.cpu().sum(dim=-1)
