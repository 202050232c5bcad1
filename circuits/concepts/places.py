"""Where in a model a concept is looked for: residual streams, heads, the neurons of a layer.

No neuron by itself: it has one direction, along which every concept's slope is as large.
"""

import dataclasses
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from circuits.errors import GraphError
from circuits.models import Edit, Model, TokenBatch
from circuits.models.edits import Compiled
from circuits.models.run import Run
from circuits.probes.reading import layer_by_layer
from circuits.probes.sites import SiteKind, sites_of

_NEURON = re.compile(r"m[0-9]+\.n[0-9]+", re.ASCII)
_EDITED = {"residual": "input", "heads": "head", "neurons": "neuron"}
EACH_HEAD = "each-head"
"""Stands for every head of the model by itself."""


@dataclasses.dataclass(frozen=True)
class ConceptSite:
    """One place: its family and layer and, for a head by itself, its number."""

    name: str
    family: SiteKind
    layer: int
    head: int | None = None

    def of(self, x: Tensor) -> Tensor:
        """What of a layer's array stands here, as vectors: `[... width]`. The array is a residual stream `[... d_model]`, heads
        `[... head d_head]` or neurons `[... d_mlp]`."""
        if self.family != "heads":
            return x
        return x.flatten(-2) if self.head is None else x[..., self.head, :]

    def put(self, x: Tensor, changed: Tensor) -> Tensor:
        """The layer's array with other vectors here."""
        if self.head is None:
            return changed.reshape(x.shape)
        found = x.clone()
        found[..., self.head, :] = changed
        return found

    def taken(self, run: Run) -> Tensor:
        """The layer's array in a run that kept its factors."""
        if self.family == "residual":
            return run.residuals[self.layer]
        return (run.z if self.family == "heads" else run.neurons)[self.layer]

    def edits(self, x: Tensor, stream: Tensor) -> Compiled:
        """How a run over the layers from this one on goes on: from the stream before it, with the layer's array in place."""
        given: Compiled = {("input", 0): [(None, Edit("input", stream))]}
        if self.family == "residual":
            return {("input", 0): [(None, Edit("input", x))]}
        site = _EDITED[self.family]
        return {**given, (site, 0): [(None, Edit("input", x))]}


def concept_sites(model: Model, names: str | Sequence[str]) -> list[ConceptSite]:
    """Places by name: resid3, a3 (all heads of a layer), a3.h1, m3 (its neurons); or all of a kind: residual, heads, each-head,
    neurons. Raises GraphError for what the model lacks, and for places where no direction can be moved."""
    found: list[ConceptSite] = []
    for name in [names] if isinstance(names, str) else names:
        if name == EACH_HEAD:
            every = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
            found += [ConceptSite(f"a{layer}.h{head}", "heads", layer, head) for layer, head in every]
            continue
        if _NEURON.fullmatch(name):
            layer = name.partition(".")[0]
            raise GraphError(f"{name} has one direction, along which every concept's slope is as large: expected {layer}")
        found += [ConceptSite(one.name, one.family, one.layer, one.head) for one in sites_of(model, name)]
    wrong = next((place.name for place in found if place.family not in _EDITED), None)
    if wrong is not None or not found:
        raise GraphError(
            f"{wrong or 'nothing'} is no place of a concept; expected resid3, a3 (all heads of a layer), a3.h1, m3, or "
            f"residual, heads, {EACH_HEAD}, neurons"
        )
    return list(dict.fromkeys(found))


@torch.no_grad()
def last_tokens(model: Model, tokens: TokenBatch, sites: Sequence[ConceptSite]) -> dict[str, Tensor]:
    """What each place holds at the last token of every text, `[text width]`."""
    rows, found = torch.arange(len(tokens), device=tokens.ids.device), {}
    families: list[SiteKind] = list(dict.fromkeys(site.family for site in sites))
    for family in families:
        wanted = [site for site in sites if site.family == family]
        for layer, x in layer_by_layer(model, tokens, family, only={site.layer for site in wanted}):
            found |= {site.name: site.of(x[rows, tokens.last]) for site in wanted if site.layer == layer}
    return found
