"""How fast a metric changes with the residual stream, at the token that it is read at."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attribution.batches import batches, prompts_at_once
from circuits.errors import NonFiniteError
from circuits.models import Edit, Model
from circuits.models.edits import compile_edits
from circuits.models.forward import forward
from circuits.progress import Progress
from circuits.tasks import PromptPairs
from circuits.tasks.metric import Metric


@dataclasses.dataclass(frozen=True, eq=False)
class StreamSlopes:
    """The gradient of each prompt's number by the residual stream at each place, summed over the tokens that are moved."""

    by_layer: dict[int, Float[Tensor, "prompt d_model"]]
    scores: Float[Tensor, " prompt"]


def slopes(
    model: Model, pairs: PromptPairs, metric: Metric, layers: Sequence[int], *, everywhere: bool, budget: int, report: Progress
) -> StreamSlopes:
    """One way back for all layers. `everywhere`: the sum over all tokens of a prompt; else at the token of the answer alone.
    Raises NonFiniteError where the metric or a gradient is no number."""
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    scores, size = [], prompts_at_once(model, pairs, budget, edges=False)
    edits = compile_edits((Edit("input", lambda x: x.detach().requires_grad_(True)),), model.graph())
    for batch in batches(model, pairs, metric, size, lambda part: iter([()])):
        reading, tokens = batch.reading(0), batch.pairs.clean
        with torch.enable_grad():
            run = forward(model.weights, tokens, edits=edits, keep="writes", logits=False)
            value = reading.scores(model.weights, reading.at_columns(run.residuals[-1])[None])[0]
            streams = [run.residuals[layer] for layer in layers]
            ways = torch.autograd.grad(value.sum(), streams, allow_unused=True, materialize_grads=True)
        if not all(bool(way.isfinite().all()) for way in (*ways, value)):
            raise NonFiniteError("the metric or its gradient holds NaN or infinity: try --dtype float32")
        rows = torch.arange(len(tokens), device=tokens.ids.device)
        for layer, way in zip(layers, ways, strict=True):
            moved = (way * tokens.mask[..., None]).sum(dim=1) if everywhere else way[rows, batch.pairs.answer_columns]
            found[layer].append(moved.detach())
        # A metric that sees all prompts at once is given all in each batch: the numbers of this batch's own count.
        scores.append(value.detach() if len(value) == len(tokens) else value.detach()[batch.rows])
        report("going back from the metric", batch.rows.stop, len(pairs))
    return StreamSlopes({layer: torch.cat(parts) for layer, parts in found.items()}, torch.cat(scores))
