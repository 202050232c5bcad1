"""How fast a metric changes with what stands at each place of a model."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attribution.batches import batches, prompts_at_once
from circuits.concepts.places import ConceptSite
from circuits.errors import NonFiniteError
from circuits.models import Edit, Model
from circuits.models.edits import compile_edits
from circuits.models.forward import forward
from circuits.progress import Progress
from circuits.tasks import PromptPairs
from circuits.tasks.metric import Metric


@dataclasses.dataclass(frozen=True, eq=False)
class ConceptSlopes:
    """The gradient of each prompt's number by what stands at each place, summed over the tokens that are moved."""

    at: dict[str, Float[Tensor, "prompt width"]]
    scores: Float[Tensor, " prompt"]


def slopes(
    model: Model,
    pairs: PromptPairs,
    metric: Metric,
    sites: Sequence[ConceptSite],
    *,
    everywhere: bool,
    budget: int,
    report: Progress,
) -> ConceptSlopes:
    """One way back for all places. `everywhere`: the sum over all tokens of a prompt; else at the token of the answer alone.
    Raises NonFiniteError where the metric or a gradient is no number."""
    found: dict[str, list[Tensor]] = {site.name: [] for site in sites}
    scores, size = [], prompts_at_once(model, pairs, budget, edges=False)
    keep = "writes" if all(site.family == "residual" for site in sites) else "factors"
    edits = compile_edits((Edit("input", lambda x: x.detach().requires_grad_(True)),), model.graph())
    for batch in batches(model, pairs, metric, size, lambda part: iter([()])):
        reading, tokens = batch.reading(0), batch.pairs.clean
        with torch.enable_grad():
            run = forward(model.weights, tokens, edits=edits, keep=keep, logits=False)
            value = reading.scores(model.weights, reading.at_columns(run.residuals[-1])[None])[0]
            arrays = {(site.family, site.layer): site.taken(run) for site in sites}
            several = torch.autograd.grad(value.sum(), list(arrays.values()), allow_unused=True, materialize_grads=True)
            ways = dict(zip(arrays, several, strict=True))
        if not all(bool(way.isfinite().all()) for way in (*several, value)):
            raise NonFiniteError("the metric or its gradient holds NaN or infinity: try --dtype float32")
        rows = torch.arange(len(tokens), device=tokens.ids.device)
        for site in sites:
            way = site.of(ways[site.family, site.layer])
            moved = (way * tokens.mask[..., None]).sum(dim=1) if everywhere else way[rows, batch.pairs.answer_columns]
            found[site.name].append(moved.detach())
        # A metric that sees all prompts at once is given all in each batch: the numbers of this batch's own count.
        scores.append(value.detach() if len(value) == len(tokens) else value.detach()[batch.rows])
        report("going back from the metric", batch.rows.stop, len(pairs))
    return ConceptSlopes({name: torch.cat(parts) for name, parts in found.items()}, torch.cat(scores))
