"""What a model says when a concept's direction is moved, or taken out, while it runs."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.concepts.results import ConceptCurve, ConceptTest
from circuits.concepts.vectors import ConceptVectors
from circuits.models import Model
from circuits.patching.engine.reading import Reading
from circuits.probes.reading import final_stream, layer_by_layer
from circuits.statistics import standard_error
from circuits.tasks import PromptPairs
from circuits.tasks.metric import Metric

RANDOM = 5
"""Random directions that a concept's is held against."""


@dataclasses.dataclass(frozen=True, eq=False)
class Continued:
    """What is asked while a direction is changed: prompts and their metric; at all tokens or at that of the answer."""

    model: Model
    pairs: PromptPairs
    metric: Metric
    everywhere: bool
    budget: int

    def stream(self, layer: int) -> Float[Tensor, "prompt position d_model"]:
        """The residual stream before a layer, of the clean prompts."""
        return dict(layer_by_layer(self.model, self.pairs.clean, "residual", only={layer}))[layer]

    def scores(self, layer: int, x: Float[Tensor, "prompt position d_model"]) -> Float[Tensor, " prompt"]:
        """The metric where a run goes on from a stream, a few prompts at a time."""
        model, tokens = self.model, self.pairs.clean
        size = x.element_size() * (10 * model.d_model + 3 * model.d_mlp + 4 * model.n_heads * model.d_head)
        most = max(1, self.budget // (size * x.shape[1]))
        parts = torch.arange(len(tokens), device=x.device).split(most)
        final = torch.cat([final_stream(model, tokens[some], layer, x[some]) for some in parts])
        reading = Reading.of(self.metric, self.pairs)
        return reading.scores(model.weights, reading.at_columns(final)[None])[0].double()

    def put(self, x: Float[Tensor, "prompt position d_model"], changed: Tensor) -> Float[Tensor, "prompt position d_model"]:
        """A stream with its tokens changed, all of them or that of the answer."""
        if self.everywhere:
            return changed
        found, rows = x.clone(), torch.arange(len(x), device=x.device)
        found[rows, self.pairs.answer_columns] = changed[rows, self.pairs.answer_columns]
        return found


@torch.no_grad()
def with_curves(
    asked: Continued,
    found: ConceptTest,
    vectors: Mapping[str, tuple[ConceptVectors, ConceptVectors]],
    count: int,
    steps: Sequence[float],
) -> ConceptTest:
    """The test with curves at the `count` places where the concept counts most; none where it counts nowhere."""
    strongest = sorted(found.significant, key=lambda site: -abs(float(found.slope[found.sites.index(site)])))
    curves = [_curve(asked, site, vectors[site], steps) for site in strongest[:count]]
    return dataclasses.replace(found, curves=tuple(curves))


def _curve(asked: Continued, site: str, vectors: tuple[ConceptVectors, ConceptVectors], steps: Sequence[float]) -> ConceptCurve:
    """Random directions are those between random sets, moved as far."""
    own, random = vectors
    layer, step = int(site.removeprefix("resid")), float(own.spread.mean())
    mean, stream = own.directions.double().mean(dim=0), asked.stream(layer)
    directions = [(mean / mean.norm()).to(stream), *random.directions[:RANDOM].to(stream)]
    middle = own.middle.double().mean(dim=0).to(stream)
    whole, rows = asked.scores(layer, stream), []
    for one in directions:
        moved = [asked.scores(layer, asked.put(stream, stream + size * step * one)) for size in steps]
        erased = stream - ((stream - middle) @ one)[..., None] * one
        rows.append(torch.stack([*moved, asked.scores(layer, asked.put(stream, erased))]))
    scores = torch.stack(rows)
    errors = standard_error(scores[0] - whole).nan_to_num(0.0)
    values, chance = scores.mean(dim=2), scores[1:].mean(dim=(0, 2))
    return ConceptCurve(
        site=site,
        steps=tuple(steps),
        values=tuple(values[0, :-1].tolist()),
        errors=tuple(errors[:-1].tolist()),
        random=tuple(chance[:-1].tolist()),
        erased=float(values[0, -1]),
        erased_error=float(errors[-1]),
        random_erased=float(chance[-1]),
    )
