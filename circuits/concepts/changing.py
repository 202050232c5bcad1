"""What a model says when a concept's direction is moved, or taken out, while it runs."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.concepts.places import ConceptSite
from circuits.concepts.results import ConceptCurve, ConceptTest
from circuits.concepts.vectors import ConceptVectors
from circuits.models import Model
from circuits.models.forward import forward
from circuits.patching.engine.reading import Reading
from circuits.probes.reading import layer_by_layer
from circuits.probes.sites import SiteKind
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

    def stream(self, layer: int, family: SiteKind = "residual") -> Tensor:
        """An array of a layer, of the clean prompts: the residual stream before it, its heads or its neurons."""
        return dict(layer_by_layer(self.model, self.pairs.clean, family, only={layer}))[layer]

    def scores(
        self, site: ConceptSite, x: Tensor, stream: Float[Tensor, "prompt position d_model"]
    ) -> Float[Tensor, " prompt"]:
        """The metric where a run goes on from the stream before a layer with another array there, a few prompts at a time."""
        model, tokens = self.model, self.pairs.clean
        size = x.element_size() * (10 * model.d_model + 3 * model.d_mlp + 4 * model.n_heads * model.d_head)
        most = max(1, self.budget // (size * tokens.ids.shape[1]))
        rest, final = model.weights.of_layers(site.layer), []
        for some in torch.arange(len(tokens), device=x.device).split(most):
            given = site.edits(x[some], stream[some])
            final.append(forward(rest, tokens[some], edits=given, keep="writes", logits=False).residuals[-1])
        reading = Reading.of(self.metric, self.pairs)
        return reading.scores(model.weights, reading.at_columns(torch.cat(final))[None])[0].double()

    def put(self, x: Float[Tensor, "prompt position width"], changed: Tensor) -> Float[Tensor, "prompt position width"]:
        """Vectors with those of some tokens changed, of all of them or of the answer's."""
        if self.everywhere:
            return changed
        found, rows = x.clone(), torch.arange(len(x), device=x.device)
        found[rows, self.pairs.answer_columns] = changed[rows, self.pairs.answer_columns]
        return found


@torch.no_grad()
def with_curves(
    asked: Continued,
    found: ConceptTest,
    places: Sequence[ConceptSite],
    vectors: Mapping[str, tuple[ConceptVectors, ConceptVectors]],
    count: int,
    steps: Sequence[float],
) -> ConceptTest:
    """The test with curves at the `count` places where the concept counts most; none where it counts nowhere."""
    strongest = sorted(found.significant, key=lambda site: -abs(float(found.slope[found.sites.index(site)])))
    known = {place.name: place for place in places}
    curves = [_curve(asked, known[site], vectors[site], steps) for site in strongest[:count]]
    return dataclasses.replace(found, curves=tuple(curves))


def _curve(
    asked: Continued, site: ConceptSite, vectors: tuple[ConceptVectors, ConceptVectors], steps: Sequence[float]
) -> ConceptCurve:
    """Random directions are those between random sets, moved as far."""
    own, random = vectors
    step, mean = float(own.spread.mean()), own.directions.double().mean(dim=0)
    stream = asked.stream(site.layer)
    whole = stream if site.family == "residual" else asked.stream(site.layer, site.family)
    x = site.of(whole)
    directions = [(mean / mean.norm()).to(x), *random.directions[:RANDOM].to(x)]
    middle = own.middle.double().mean(dim=0).to(x)

    def score(changed: Tensor) -> Float[Tensor, " prompt"]:
        """The metric with other vectors at the place."""
        return asked.scores(site, site.put(whole, asked.put(x, changed)), stream)

    rows = []
    for one in directions:
        erased = x - ((x - middle) @ one)[..., None] * one
        rows.append(torch.stack([*(score(x + size * step * one) for size in steps), score(erased)]))
    scores = torch.stack(rows)
    errors = standard_error(scores[0] - score(x)).nan_to_num(0.0)
    values, chance = scores.mean(dim=2), scores[1:].mean(dim=2)
    spread = chance.std(dim=0)
    return ConceptCurve(
        site=site.name,
        steps=tuple(steps),
        values=tuple(values[0, :-1].tolist()),
        errors=tuple(errors[:-1].tolist()),
        random=tuple(chance[:, :-1].mean(dim=0).tolist()),
        erased=float(values[0, -1]),
        erased_error=float(errors[-1]),
        random_erased=float(chance[:, -1].mean()),
        random_spread=tuple(spread[:-1].tolist()),
        random_erased_spread=float(spread[-1]),
    )
