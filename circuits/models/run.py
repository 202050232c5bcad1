"""What one forward pass leaves behind."""

import dataclasses

from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.models.geometry import Geometry
from circuits.models.layers import attention_pattern, norm_scale
from circuits.models.tokens import TokenBatch
from circuits.models.weights import Weights


@dataclasses.dataclass(frozen=True, eq=False)
class Reads:
    """What one layer computes with, each a tensor of its own, so that a gradient by it belongs to this one reading."""

    q: Float[Tensor, "prompt position head_d_head"]
    """The linear part of the queries, before their norms and rotary positions; k and v likewise."""
    k: Float[Tensor, "prompt position group_d_head"]
    v: Float[Tensor, "prompt position group_d_head"]
    mlp: Float[Tensor, "prompt position d_model"] | None = None
    """The residual stream as the MLP reads it, before its norm."""
    pre: tuple[Float[Tensor, "prompt position d_mlp"], ...] = ()
    """Pre-activations of the neurons: the linear part and, where there is one, the gate."""


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """Logits and the factors of one run, each a tuple with one tensor a layer (empty where not kept)."""

    weights: Weights = dataclasses.field(repr=False)
    tokens: TokenBatch
    logits: Float[Tensor, "prompt position d_vocab"]
    residuals: tuple[Tensor, ...]
    """The residual stream `[prompt position d_model]` before each layer, and after the last one (n_layers + 1)."""
    middles: tuple[Tensor, ...]
    """The residual stream after attention has been added, before the MLP's output is."""
    q: tuple[Tensor, ...]
    """Queries `[prompt position head d_head]`, with norms and rotary positions applied."""
    k: tuple[Tensor, ...]
    """Keys `[prompt position group d_head]`."""
    v: tuple[Tensor, ...]
    """Values `[prompt position group d_head]`."""
    z: tuple[Tensor, ...]
    """Mixed values `[prompt position head d_head]`: head h adds `z[:, :, h] @ W_O[h]` to the residual stream."""
    neurons: tuple[Tensor, ...]
    """Neuron activations `[prompt position d_mlp]` (empty for attention-only models)."""
    patterns: tuple[Tensor, ...]
    """Attention patterns `[prompt head query key]` where asked for; `pattern(layer)` gives them in any case."""
    edited_mlps: dict[int, Tensor] = dataclasses.field(default_factory=dict, repr=False)
    """What an MLP wrote `[prompt position d_model]`, by layer, where an edit set it (elsewhere its neurons tell)."""

    reads: tuple[Reads, ...] = ()
    """What each layer read, where asked for."""
    mlps: tuple[Tensor, ...] = ()
    """What each MLP wrote `[prompt position d_model]`, where asked for (empty for attention-only models)."""

    def require_factors(self) -> None:
        """Raise CircuitsError unless the run kept its factors."""
        if not self.z:
            raise CircuitsError('this run kept only logits: run again with keep="factors"')

    def pattern(self, layer: int) -> Float[Tensor, "prompt head query key"]:
        """The attention pattern of one layer, from the kept one or from q and k; rows sum to 1."""
        if self.patterns:
            return self.patterns[layer]
        self.require_factors()
        geometry = Geometry(self.weights, self.tokens, self.logits.dtype)
        attention = self.weights.blocks[layer].attention
        return attention_pattern(self.q[layer], self.k[layer], attention, geometry.bias(attention.window))

    @property
    def final_scale(self) -> Float[Tensor, "prompt position 1"]:
        """The number by which the final norm divides."""
        self.require_factors()
        return norm_scale(self.residuals[-1], self.weights.final_norm)

    def __repr__(self) -> str:
        prompts, width = self.tokens.ids.shape
        kept = "factors" if self.z else "logits only"
        return f"Run({prompts} prompts × {width} tokens, {len(self.weights.blocks)} layers, {kept}, {self.logits.dtype})"
