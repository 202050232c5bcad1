"""Random small models of every kind: a shape for the reference, raw weights, and the same as the package's record."""

import dataclasses
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuits.models.loading.families import activation_of
from circuits.models.weights import MLP, Attention, Block, Norm, Rotary, Weights
from tests.models.reference import Array, Shape

D_VOCAB, LENGTH = 13, 9


def random_shape(rng: random.Random) -> Shape:
    """Every switch of the record, at random."""
    n_heads = rng.choice([1, 2, 3, 4, 6])
    n_layers, d_head = rng.randint(1, 3), rng.choice([2, 4, 6])
    positions = rng.choice(["learned", "rotary", "alibi"])
    parallel = rng.random() < 0.4
    shape = Shape(
        n_layers=n_layers,
        n_heads=n_heads,
        n_key_value_heads=rng.choice([g for g in range(1, n_heads + 1) if n_heads % g == 0]),
        d_head=d_head,
        activation=rng.choice(["gelu", "gelu_new", "relu", "silu", "quick_gelu", "solu"]),
        norm=rng.choice(["LN", "LNPre", "RMS", "RMSPre", None]),
        final_rms=rng.random() < 0.2,
        eps=rng.choice([1e-5, 1e-2]),
        positions=positions,
        adjacent=rng.random() < 0.5,
        rotary_dim=rng.choice([d for d in (2, 4, 6) if d <= d_head]),
        rotary_base=rng.choice([10000.0, 50.0]),
        position_scale=rng.choice([1.0, 2.0]),
        slopes=tuple(rng.uniform(-0.5, 0.5) for _ in range(n_heads)) if positions == "alibi" else (),
        parallel=parallel,
        one_norm=parallel and rng.random() < 0.5,
        post_norms=rng.random() < 0.3,
        key_norm=rng.choice([None, None, "head", "all"]),
        score_scale=rng.choice([d_head**-0.5, 0.7]),
        score_cap=rng.choice([None, 2.0]),
        logit_cap=rng.choice([None, None, 3.0]),
        windows=tuple(rng.choice([None, 1, 2, 4]) for _ in range(n_layers)),
        causal=rng.random() < 0.8,
        embedding_scale=rng.choice([1.0, 3.3]),
        embedding_norm=rng.random() < 0.2,
    )
    own = random.Random(repr(shape))
    if positions == "rotary" and own.random() < 0.4:
        shape = dataclasses.replace(shape, rotary_bases=tuple(own.choice([None, 50.0, 10000.0]) for _ in range(n_layers)))
    return shape


def random_weights(shape: Shape, rng: random.Random) -> dict[str, Array]:
    """Raw weights of a shape under TransformerLens's names; heads' widths need not add up to d_model. Without norms
    they are small, or the residual stream would explode."""
    noise, weights = np.random.default_rng(rng.randrange(2**32)), {}
    d_model, d_mlp = rng.choice([5, 8, 12]), rng.choice([0, 3, 10])
    q_width, k_width = shape.n_heads * shape.d_head, shape.n_key_value_heads * shape.d_head
    gated, biased, size = rng.random() < 0.4, rng.random() < 0.7, 1.0 if shape.norm else 0.3

    def matrix(name: str, out: int, into: int, bias: bool = biased) -> None:
        weights[f"{name}.weight"] = size * noise.normal(size=(out, into)) / into**0.5
        if bias:
            weights[f"{name}.bias"] = 0.3 * noise.normal(size=out)

    def gain(name: str, width: int = d_model, bias: bool = shape.norm == "LN") -> None:
        weights[f"{name}.weight"] = 1 + 0.3 * noise.normal(size=width)
        if bias:
            weights[f"{name}.bias"] = 0.3 * noise.normal(size=width)

    gains = shape.norm in ("LN", "RMS")
    weights["embed.weight"] = size * noise.normal(size=(D_VOCAB, d_model))
    weights["pos_embed.weight"] = size * noise.normal(size=(LENGTH, d_model))
    for layer in range(shape.n_layers):
        name = f"blocks.{layer}"
        for slot, width in (("q", q_width), ("k", k_width), ("v", k_width)):
            matrix(f"{name}.attn.{slot}", width, d_model)
            if shape.key_norm is not None and slot != "v":
                gain(f"{name}.attn.{slot}_norm", width if shape.key_norm == "all" else shape.d_head, bias=False)
        matrix(f"{name}.attn.o", d_model, q_width)
        if d_mlp:
            matrix(f"{name}.mlp.in", d_mlp, d_model)
            matrix(f"{name}.mlp.out", d_model, d_mlp)
            if gated:
                matrix(f"{name}.mlp.gate", d_mlp, d_model)
        for norm in ("ln1", "ln2", "ln1_post", "ln2_post"):
            if gains:
                gain(f"{name}.{norm}")
    if gains:
        gain("ln_final", bias=shape.norm == "LN" and not shape.final_rms)
        gain("embed_ln")
    matrix("unembed", D_VOCAB, d_model)
    return weights


@dataclasses.dataclass(frozen=True)
class _Raw:
    shape: Shape
    weights: dict[str, Array]
    dtype: torch.dtype

    def tensor(self, name: str) -> Tensor | None:
        array = self.weights.get(name)
        return None if array is None else torch.tensor(array, dtype=self.dtype)

    def needed(self, name: str) -> Tensor:
        tensor = self.tensor(name)
        assert tensor is not None, name
        return tensor

    def norm(self, name: str, final_rms: bool = False) -> Norm | None:
        rms = (self.shape.norm or "").startswith("RMS") or final_rms
        if self.shape.norm is None and not rms:
            return None
        kind = "rms" if rms else "layer"
        return Norm(kind, self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"), self.shape.eps)

    def key_norm(self, name: str) -> Norm | None:
        gain = self.tensor(f"{name}.weight")
        return None if gain is None else Norm("rms", gain, None, self.shape.eps)


def record_of(shape: Shape, weights: dict[str, Array], dtype: torch.dtype = torch.float64) -> Weights:
    """The package's record of a shape and its raw weights."""
    raw = _Raw(shape, weights, dtype)
    return Weights(
        W_E=raw.needed("embed.weight"),
        W_U=raw.needed("unembed.weight").T,
        b_U=raw.tensor("unembed.bias"),
        blocks=tuple(_block(raw, layer) for layer in range(shape.n_layers)),
        final_norm=raw.norm("ln_final", shape.final_rms),
        max_positions=None,
        W_pos=raw.tensor("pos_embed.weight") if shape.positions == "learned" else None,
        rotary=_rotary(shape),
        alibi_slopes=torch.tensor(shape.slopes, dtype=torch.float64) if shape.slopes else None,
        embedding_scale=shape.embedding_scale,
        embedding_norm=raw.norm("embed_ln") if shape.embedding_norm else None,
        parallel=shape.parallel,
        causal=shape.causal,
        logit_soft_cap=shape.logit_cap,
    )


def _rotary(shape: Shape) -> Rotary | tuple[Rotary | None, ...] | None:
    def table(base: float) -> Rotary:
        frequencies = 1.0 / base ** (torch.arange(0, shape.rotary_dim, 2).float() / shape.rotary_dim)
        return Rotary(frequencies, adjacent=shape.adjacent, position_scale=shape.position_scale)

    if shape.positions != "rotary":
        return None
    if not shape.rotary_bases:
        return table(shape.rotary_base)
    tables = {base: table(base) for base in shape.rotary_bases if base is not None}
    return tuple(None if base is None else tables[base] for base in shape.rotary_bases)


def _block(raw: _Raw, layer: int) -> Block:
    shape, name = raw.shape, f"blocks.{layer}"
    attention_norm, mlp = raw.norm(f"{name}.ln1"), _mlp(raw, f"{name}.mlp")
    mlp_norm = attention_norm if shape.one_norm else raw.norm(f"{name}.ln2")
    return Block(
        attention_norm=attention_norm,
        attention=_attention(raw, f"{name}.attn", shape.windows[layer]),
        mlp_norm=None if mlp is None else mlp_norm,
        mlp=mlp,
        attention_post_norm=raw.norm(f"{name}.ln1_post") if shape.post_norms else None,
        mlp_post_norm=raw.norm(f"{name}.ln2_post") if shape.post_norms and mlp is not None else None,
    )


def _attention(raw: _Raw, name: str, window: int | None) -> Attention:
    shape = raw.shape
    parts: dict[str, Any] = {}
    for slot in ("q", "k", "v", "o"):
        parts[f"W_{slot.upper()}"] = raw.needed(f"{name}.{slot}.weight").T
        parts[f"b_{slot.upper()}"] = raw.tensor(f"{name}.{slot}.bias")
    return Attention(
        **parts,
        n_heads=shape.n_heads,
        n_key_value_heads=shape.n_key_value_heads,
        scale=shape.score_scale,
        soft_cap=shape.score_cap,
        window=window,
        q_norm=raw.key_norm(f"{name}.q_norm"),
        k_norm=raw.key_norm(f"{name}.k_norm"),
        norm_over_heads=shape.key_norm == "all",
    )


def _mlp(raw: _Raw, name: str) -> MLP | None:
    if raw.tensor(f"{name}.in.weight") is None:
        return None
    gate = raw.tensor(f"{name}.gate.weight")
    return MLP(
        W_in=raw.needed(f"{name}.in.weight").T,
        W_out=raw.needed(f"{name}.out.weight").T,
        b_in=raw.tensor(f"{name}.in.bias"),
        b_out=raw.tensor(f"{name}.out.bias"),
        activation=activation_of(raw.shape.activation, name),
        W_gate=None if gate is None else gate.T,
        b_gate=raw.tensor(f"{name}.gate.bias"),
    )
