"""How much of what a node reads each earlier node wrote, in one prompt and straight: through attention as it looked and norms
at the scale that they had, not through other nodes.

With patterns and scales held, all between nodes is linear: what a feature's pre-activation comes to is the sum of what all
nodes before it write into it, and of biases (Marks et al. 2024; Ameisen et al. 2025).
"""

import dataclasses
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.concepts.feature_nodes.taps import Tap
from circuits.concepts.features.places import FeaturePlace
from circuits.models import Run
from circuits.models.layers import attention_output, mlp_output, neuron_activations, norm_scale, normalise
from circuits.models.weights import Block, Norm, Weights


@dataclasses.dataclass(frozen=True, eq=False)
class Sources:
    """Nodes that write at one place: at which tokens, what, and which rows of all nodes they are."""

    rows: Int[Tensor, " source"]
    positions: Int[Tensor, " source"]
    vectors: Float[Tensor, "source width"]


@dataclasses.dataclass(frozen=True, eq=False)
class Targets:
    """Nodes that read at one place: at which tokens, by which vector, and which rows of all targets they are."""

    rows: Int[Tensor, " target"]
    positions: Int[Tensor, " target"]
    vectors: Float[Tensor, "target width"]


@dataclasses.dataclass(frozen=True, eq=False)
class StraightBack:
    """The linear part of a run of one prompt, gone through from the logits to the embeddings for many targets together."""

    run: Run
    taps: Mapping[FeaturePlace, Tap]
    sources: Mapping[FeaturePlace, Sources]
    """By where they write; the embeddings under `EMBEDDED`."""
    own: Mapping[FeaturePlace, Targets]
    """Targets that read what their dictionary takes apart, by place."""
    others: Mapping[FeaturePlace, Targets]
    """Targets that read elsewhere: transcoders', and logits in the last stream."""
    links: Float[Tensor, "target node"]
    """What every node writes into every target, filled in on the way."""
    lines: dict[FeaturePlace, Tensor] = dataclasses.field(default_factory=dict)
    """What goes back through straight lines, until the places are come to where they begin."""

    @property
    def weights(self) -> Weights:
        """The model's."""
        return self.run.weights

    @torch.no_grad()
    def go(self) -> Float[Tensor, "target node"]:
        """All of it."""
        last, width = len(self.weights.blocks), self.run.residuals[0].shape[1]
        zeros = self.run.residuals[0].new_zeros(len(self.links), width, self.run.residuals[0].shape[2])
        g = self._at(FeaturePlace("residual", last), zeros)
        for layer in reversed(range(last)):
            g = self._layer(layer, g)
        self._collect(EMBEDDED, g)
        return self.links

    def _layer(self, layer: int, g: Tensor) -> Tensor:
        """From the stream after a layer to that before it."""
        read = torch.zeros_like(g) if self.weights.blocks[layer].mlp is None else self._mlp(layer, g)
        g = g if self.weights.parallel else g + read
        g = self._at(FeaturePlace("middle", layer), g)
        g = g + self._attention(layer, g)
        g = g + read if self.weights.parallel else g
        return self._at(FeaturePlace("residual", layer), g)

    def _mlp(self, layer: int, g: Tensor) -> Tensor:
        """From what an MLP adds to the stream that it reads: nothing goes on but what reads what it reads, a transcoder's
        straight line, and features of its output, through the slope that it has there."""
        block, run = self.weights.blocks[layer], self.run
        place, reading = FeaturePlace("mlp", layer), FeaturePlace("reading", layer)
        self._collect(place, g)
        own = self._enter(place, self.own, self._line(place, g))
        source = (run.residuals[layer] if self.weights.parallel else run.middles[layer])[0]
        behind = _slope(block, source, own) if bool(own.any()) else torch.zeros_like(g)
        behind = self._enter(reading, self.others, behind + self.lines.pop(reading, torch.zeros_like(g)))
        return through(behind, block.mlp_norm, source)

    def _attention(self, layer: int, g: Tensor) -> Tensor:
        """From what attention adds to the stream that its values are read from."""
        block, run = self.weights.blocks[layer], self.run
        attention = block.attention
        g = self._at(FeaturePlace("attention", layer), g)
        mixed = attention_output(run.z[layer], attention, None)[0]
        g_z = through(g, block.attention_post_norm, mixed) @ attention.W_O.T
        g_z = self._at(FeaturePlace("heads", layer), g_z)
        by_head = g_z.unflatten(-1, (attention.n_heads, -1))
        g_v = torch.einsum("hqk,tqhd->tkhd", run.pattern(layer)[0], by_head)
        shared = attention.n_heads // attention.n_key_value_heads
        g_v = g_v.unflatten(2, (attention.n_key_value_heads, shared)).sum(dim=3).flatten(-2)
        return through(g_v @ attention.W_V.T, block.attention_norm, run.residuals[layer][0])

    def _at(self, place: FeaturePlace, g: Tensor) -> Tensor:
        """At a place of the stream, or of attention: who reads there what stands there; who wrote it; and, where a dictionary
        takes it apart, nothing goes on, but for its own features, which read what was there before."""
        g = self._enter(place, self.others, g + self.lines.pop(place, torch.zeros_like(g)))
        self._collect(place, g)
        g = self._line(place, g) if place in self.taps else g
        return self._enter(place, self.own, g)

    def _line(self, place: FeaturePlace, g: Tensor) -> Tensor:
        """What goes back through the straight line of a dictionary, where it reads what it takes apart; a transcoder's is kept
        until the place is come to where that reads."""
        tap = self.taps.get(place)
        if tap is None or tap.dictionary.W_skip is None:
            return torch.zeros_like(g)
        back = g @ tap.dictionary.W_skip.T
        if tap.reads == place:
            return back
        self.lines[tap.reads] = back
        return torch.zeros_like(g)

    def _collect(self, place: FeaturePlace, g: Tensor) -> None:
        if (one := self.sources.get(place)) is not None:
            self.links[:, one.rows] += torch.einsum("tsd,sd->ts", g[:, one.positions], one.vectors)

    def _enter(self, place: FeaturePlace, targets: Mapping[FeaturePlace, Targets], g: Tensor) -> Tensor:
        if (one := targets.get(place)) is None:
            return g
        g = g.clone()
        g[one.rows, one.positions] += one.vectors
        return g


EMBEDDED = FeaturePlace("unit", 0)
"""Stands for the embeddings, which nothing else writes."""


def through(g: Float[Tensor, "*target width"], norm: Norm | None, x: Float[Tensor, "*place width"]) -> Tensor:
    """A gradient by what a norm gives as one by what it is given, `x`, at the scale that it has there."""
    if norm is None:
        return g
    g = g if norm.weight is None else g * norm.weight
    g = g / norm_scale(x, norm)
    return g - g.mean(dim=-1, keepdim=True) if norm.kind == "layer" else g


def _slope(block: Block, source: Float[Tensor, "position d_model"], g: Tensor) -> Tensor:
    """A gradient by what an MLP writes as one by what it reads behind its norm, at what it reads."""
    assert block.mlp is not None
    with torch.enable_grad():
        normed = normalise(source, block.mlp_norm).detach().expand(len(g), -1, -1).clone().requires_grad_(True)
        written = mlp_output(neuron_activations(normed, block.mlp), block.mlp, block.mlp_post_norm)
        (found,) = torch.autograd.grad(written, normed, g)
    return found
