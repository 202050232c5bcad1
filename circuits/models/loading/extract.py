"""From a TransformerBridge to the frozen record: claims every tensor of the checkpoint, or says which one it cannot."""

import dataclasses
import math
from typing import Any, Literal, overload

import einops
import torch
from torch import Tensor, nn

from circuits.errors import ModelError, NonFiniteError
from circuits.models.loading.families import NATIVE, Family, activation_of, find_family
from circuits.models.loading.unread import Recorded
from circuits.models.weights import MLP, Attention, Block, Norm, Rotary, Weights, all_finite

_READ_FOR_US = ("num_attention_heads", "max_position_embeddings")
"""What TransformerLens reads of every configuration and the shapes of tensors do not tell: `bridge.cfg` says it here."""


@dataclasses.dataclass
class _Checkpoint:
    """A bridge's tensors by name, and which of them have been claimed."""

    bridge: Any
    family: Family
    tensors: dict[str, Tensor]
    claimed: set[str]
    epsilons: set[float]

    def get(self, name: str) -> Tensor | None:
        """The tensor of that name, marked as claimed, or None."""
        self.claimed.add(name)
        tensor = self.tensors.get(name)
        return None if tensor is None else tensor.detach()

    def unclaimed(self) -> list[str]:
        """Names that no part of the record has asked for."""
        return sorted(set(self.tensors) - self.claimed)


def architecture_of(bridge: Any) -> str:
    """The class name by which `families.py` knows a bridge's model."""
    return str(bridge.cfg.architecture or type(bridge.original_model).__name__)


def extract_weights(bridge: Any, read: set[str] | None = None) -> Weights:
    """The record of a bridge's model, raw or in compatibility mode, sharing its storage where the layout allows. The names of
    the configuration values that switches read are added to `read`.

    Raises ModelError naming the part or tensor that is not represented, NonFiniteError naming a tensor with NaN or
    infinity in it.
    """
    architecture = architecture_of(bridge)
    native = architecture == NATIVE
    config = bridge.cfg if native else Recorded(bridge.original_model.config, set() if read is None else read)
    family = _native_family(config) if native else find_family(architecture, config)
    checkpoint = _Checkpoint(bridge, family, dict(bridge.state_dict()), set(), set())
    blocks = tuple(_block(checkpoint, config, layer, native) for layer in range(bridge.cfg.n_layers))
    embedding, unembedding = checkpoint.get("embed.weight"), checkpoint.get("unembed.weight")
    if embedding is None or unembedding is None:
        raise ModelError(f"{architecture}: no token embedding or unembedding was found")
    if embedding.shape[1] != bridge.cfg.d_model:
        raise ModelError(f"{architecture}: a projection between embedding and residual stream is not represented")
    positions, logit_scale = checkpoint.get("pos_embed.weight"), _logit_scale(bridge, config, family)
    weights = Weights(
        W_E=embedding,
        W_U=_scaled(unembedding.T, logit_scale),
        b_U=_scaled(_unless_zero(checkpoint.get("unembed.bias")), logit_scale),
        blocks=blocks,
        final_norm=_norm(checkpoint, bridge, "ln_final", _final_kind(config, native)),
        max_positions=None if family.positions == "alibi" else int(bridge.cfg.n_ctx),
        W_pos=None if positions is None else positions[family.position_offset :],
        rotary=_rotary(bridge, config, family, native),
        alibi_slopes=_alibi_slopes(bridge.cfg.n_heads, embedding.device) if family.positions == "alibi" else None,
        embedding_scale=family.embedding_scale(config),
        embedding_norm=_norm(checkpoint, bridge, "embed_ln", None),
        parallel=family.parallel(config),
        causal=bridge.cfg.attention_dir == "causal",
        logit_soft_cap=family.logit_soft_cap(config),
    )
    if isinstance(config, Recorded):
        config.note(*_READ_FOR_US, values=checkpoint.epsilons)
    if unclaimed := checkpoint.unclaimed():
        raise ModelError(f"{architecture}: the tensor {unclaimed[0]} is not represented ({len(unclaimed)} such tensors)")
    _refuse_non_finite(weights)
    return weights


def _block(checkpoint: _Checkpoint, config: Any, layer: int, native: bool) -> Block:
    component, name = checkpoint.bridge.blocks[layer], f"blocks.{layer}"
    kind = _block_kind(config, native)
    attention_norm = _norm(checkpoint, component, "ln1", kind, name)
    mlp = None if getattr(checkpoint.bridge.cfg, "attn_only", False) else _mlp(checkpoint, config, layer, native)
    mlp_norm = None if mlp is None else _norm(checkpoint, component, "ln2", kind, name)
    if mlp is not None and mlp_norm is None and checkpoint.family.parallel(config):
        mlp_norm = attention_norm
    post = [_norm(checkpoint, component, part, kind, name) for part in ("ln1_post", "ln2_post")]
    if post != [None, None] and checkpoint.family.residual_scale(config) != 1.0:
        # folded into output weights, the norm behind them would divide it out again
        raise ModelError(f"{architecture_of(checkpoint.bridge)}: a residual multiplier behind a norm is not represented")
    return Block(
        attention_norm=attention_norm,
        attention=_attention(checkpoint, config, layer),
        mlp_norm=mlp_norm,
        mlp=mlp,
        attention_post_norm=post[0],
        mlp_post_norm=post[1],
    )


def _attention(checkpoint: _Checkpoint, config: Any, layer: int) -> Attention:
    bridge, family, name = checkpoint.bridge, checkpoint.family, f"blocks.{layer}.attn"
    component = bridge.blocks[layer].attn
    for part in ("q", "k", "v", "o"):
        if checkpoint.get(f"{name}.{part}.weight") is None:
            raise ModelError(f"{architecture_of(bridge)}: {name} has no {part} projection: this mixer is not represented")
        checkpoint.get(f"{name}.{part}.bias")
    joined = {w: _join_heads(getattr(component, w)) for w in ("W_Q", "W_K", "W_V")}
    biases: dict[str, Any] = {b: _flat(getattr(component, b, None)) for b in ("b_Q", "b_K", "b_V")}
    output = component.W_O
    d_head, written = output.shape[1], family.residual_scale(config)
    return Attention(
        **joined,
        **biases,
        W_O=_scaled(einops.rearrange(output.detach(), "head d_head d_model -> (head d_head) d_model"), written),
        b_O=_scaled(_detached(getattr(component, "b_O", None)), written),
        n_heads=output.shape[0],
        n_key_value_heads=component.W_K.shape[0],
        scale=family.score_scale(config, d_head, layer),
        soft_cap=family.score_soft_cap(config),
        window=family.window(config, layer),
        q_norm=_norm(checkpoint, component, "q_norm", None, name),
        k_norm=_norm(checkpoint, component, "k_norm", None, name),
        norm_over_heads=family.norm_over_heads,
    )


def _mlp(checkpoint: _Checkpoint, config: Any, layer: int, native: bool) -> MLP:
    name, component = f"blocks.{layer}.mlp", checkpoint.bridge.blocks[layer].mlp
    for part in ("in", "out", "gate"):
        for tensor in ("weight", "bias"):
            checkpoint.get(f"{name}.{part}.{tensor}")
    if f"{name}.in.weight" not in checkpoint.tensors:
        raise ModelError(f"{architecture_of(checkpoint.bridge)}: {name} has no single input matrix: it is not represented")
    gate = getattr(component, "W_gate", None)
    default = "silu" if gate is not None else "gelu"
    activation = (config.act_fn or default) if native else checkpoint.family.activation(config)
    output: Tensor = component.W_out
    written = checkpoint.family.residual_scale(config)
    return MLP(
        W_in=component.W_in.detach(),
        W_out=_scaled(output.detach(), written),
        b_in=_detached(component.b_in),
        b_out=_scaled(_detached(component.b_out), written),
        activation=activation_of(activation, name),
        W_gate=_detached(gate),
        b_gate=None if gate is None else _detached(getattr(component, "b_gate", None)),
    )


def _norm(
    checkpoint: _Checkpoint, owner: Any, part: str, kind: Literal["layer", "rms"] | None, prefix: str = ""
) -> Norm | None:
    component = getattr(owner, part, None)
    if component is None:
        return None
    module = getattr(component, "original_component", component)
    if isinstance(module, nn.Identity):
        return None
    name = f"{prefix}.{part}" if prefix else part
    weight, bias = checkpoint.get(f"{name}.weight"), checkpoint.get(f"{name}.bias")
    offset = checkpoint.family.norm_gain_offset
    if weight is not None and offset:
        weight = weight + offset
    eps = next((getattr(module, a) for a in ("eps", "variance_epsilon") if hasattr(module, a)), 1e-5)
    checkpoint.epsilons.add(float(eps))
    return Norm(kind=kind or checkpoint.family.norm, weight=weight, bias=bias, eps=float(eps))


def _native_family(config: Any) -> Family:
    """The switches of a model native to TransformerLens, from its own configuration."""
    if config.normalization_type not in ("LN", "LNPre", "RMS", "RMSPre", None):
        raise ModelError(f"{NATIVE}: the norm {config.normalization_type!r} is not represented")
    return Family(
        norm=_native_kind(config),
        positions="rotary" if config.positional_embedding_type == "rotary" else "learned",
        adjacent_pairs=True,
        score_scale=lambda c, d_head, layer: (
            1.0 / (c.attn_scale if c.use_attn_scale and c.attn_scale > 0 else math.sqrt(d_head))
        ),
        score_soft_cap=lambda c: _positive(c.attn_scores_soft_cap),
        logit_soft_cap=lambda c: _positive(c.output_logits_soft_cap),
    )


def _native_kind(config: Any) -> Literal["layer", "rms"]:
    return "rms" if str(config.normalization_type).upper().startswith("RMS") else "layer"


def _block_kind(config: Any, native: bool) -> Literal["layer", "rms"] | None:
    return _native_kind(config) if native else None


def _final_kind(config: Any, native: bool) -> Literal["layer", "rms"] | None:
    return ("rms" if config.final_rms else _native_kind(config)) if native else None


def _rotary(bridge: Any, config: Any, family: Family, native: bool) -> Rotary | tuple[Rotary | None, ...] | None:
    """One table for all layers, or one a layer where they differ."""
    if family.positions != "rotary":
        return None
    if native:
        module = bridge.original_model.rotary
        from transformer_lens.model_bridge.sources.native.model import _resolve_rope_scaling

        _, position_scale, frequencies = _resolve_rope_scaling(config, module.rotary_dim)
        return Rotary(frequencies, adjacent=True, position_scale=position_scale)
    names = [family.rotary_table(config, layer) for layer in range(bridge.cfg.n_layers)]
    tables = {name: _rotary_table(bridge, config, family, name) for name in dict.fromkeys(names) if name is not None}
    by_layer = tuple(None if name is None else tables[name] for name in names)
    return by_layer if len(set(names)) > 1 else by_layer[0]


def _rotary_table(bridge: Any, config: Any, family: Family, name: str) -> Rotary:
    """The table that the original holds under that name, "" for its only one."""
    parameters = getattr(config, "rope_parameters", None) or {}
    parameters, prefix = (parameters[name], f"{name}_") if name else (parameters, "")
    kind = parameters.get("rope_type", "default")
    if kind not in ("default", "linear", "llama3", "yarn"):
        raise ModelError(f"{architecture_of(bridge)}: rotary scaling of type {kind!r} is not represented")
    for module in bridge.original_model.modules():
        frequencies = getattr(module, f"{prefix}inv_freq", None)
        if isinstance(frequencies, Tensor):
            scaling = float(getattr(module, f"{prefix}attention_scaling", 1.0))
            return Rotary(frequencies.detach().float(), adjacent=family.adjacent_pairs, scaling=scaling)
    width = config.rotary_dim or config.n_embd // config.n_head
    frequencies = 1.0 / (10000 ** (torch.arange(0, width, 2, dtype=torch.int64) / width))
    return Rotary(frequencies, adjacent=family.adjacent_pairs)


def _alibi_slopes(n_heads: int, device: torch.device) -> Tensor:
    """Press et al. 2022: powers of 2^(-8/n), with every other slope of the next power of two where n is none. In
    float32, as in the original implementation."""
    closest = 2 ** math.floor(math.log2(n_heads))
    base = torch.tensor(2 ** (-(2 ** -(math.log2(closest) - 3))), dtype=torch.float32)
    slopes = torch.pow(base, torch.arange(1, 1 + closest, dtype=torch.int32))
    if closest != n_heads:
        extra = torch.tensor(2 ** (-(2 ** -(math.log2(2 * closest) - 3))), dtype=torch.float32)
        rest = min(closest, n_heads - closest)
        slopes = torch.cat([slopes, torch.pow(extra, torch.arange(1, 1 + 2 * rest, 2, dtype=torch.int32))])
    return slopes.to(device)


def _logit_scale(bridge: Any, config: Any, family: Family) -> float:
    """What logits are multiplied by. Cohere's model holds it beside its configuration, and TransformerLens's compatibility
    mode, which multiplies it into the unembedding, sets it to 1 there."""
    scale = family.logit_scale(config)
    return scale if scale == 1.0 else float(getattr(bridge.original_model, "logit_scale", scale))


@overload
def _scaled(tensor: Tensor, factor: float) -> Tensor: ...
@overload
def _scaled(tensor: Tensor | None, factor: float) -> Tensor | None: ...
def _scaled(tensor: Tensor | None, factor: float) -> Tensor | None:
    """A weight or bias with a multiplier folded in: exact up to one rounding in the weights' type, where the original rounds
    once behind the product. Without a multiplier the storage stays shared."""
    return tensor if tensor is None or factor == 1.0 else tensor * factor


def _join_heads(matrix: Tensor) -> Tensor:
    return einops.rearrange(matrix.detach(), "head d_model d_head -> d_model (head d_head)")


def _flat(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach().flatten()


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()


def _unless_zero(bias: Tensor | None) -> Tensor | None:
    return None if bias is None or not bool(bias.any()) else bias


def _positive(value: float) -> float | None:
    return float(value) if value > 0 else None


def _refuse_non_finite(weights: Weights) -> None:
    for name, tensor in weights.tensors():
        if not all_finite(tensor):
            raise NonFiniteError(f"the weight {name} holds NaN or infinity: the checkpoint is damaged")
