"""The frozen record of a language model's weights, as plain tensors, that `forward.py` runs on.

Every matrix maps a row vector from left to right (`y = x @ W + b`). The tensors are views of the loaded checkpoint
wherever the layout allows it, so one copy of the weights is held. Nothing here knows a family by name: a family is a
setting of the switches below (`families.py`).
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import einops
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import ModelError

Activation = Literal["gelu", "gelu_tanh", "relu", "silu", "quick_gelu", "solu"]


@dataclasses.dataclass(frozen=True, eq=False)
class Norm:
    """LayerNorm (`layer`: centred) or RMSNorm (`rms`), with the gain as it is multiplied (any offset folded in)."""

    kind: Literal["layer", "rms"]
    weight: Float[Tensor, " width"] | None
    bias: Float[Tensor, " width"] | None
    eps: float


@dataclasses.dataclass(frozen=True, eq=False)
class Attention:
    """One attention layer. Query head `h` reads key-value group `h // (n_heads // n_key_value_heads)`."""

    W_Q: Float[Tensor, "d_model head_d_head"]
    W_K: Float[Tensor, "d_model group_d_head"]
    W_V: Float[Tensor, "d_model group_d_head"]
    W_O: Float[Tensor, "head_d_head d_model"]
    b_Q: Float[Tensor, " head_d_head"] | None
    b_K: Float[Tensor, " group_d_head"] | None
    b_V: Float[Tensor, " group_d_head"] | None
    b_O: Float[Tensor, " d_model"] | None
    n_heads: int
    n_key_value_heads: int
    scale: float
    """Scores are multiplied by it before the soft cap."""
    soft_cap: float | None = None
    """Scores become `soft_cap * tanh(scores / soft_cap)`."""
    window: int | None = None
    """A position sees itself and the `window - 1` positions before it."""
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    norm_over_heads: bool = False
    """q_norm and k_norm run over all heads together (OLMo 2) instead of over each head (Qwen 3)."""

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.W_Q.shape[1] // self.n_heads

    def per_head(self, name: Literal["W_Q", "W_K", "W_V", "W_O"]) -> Float[Tensor, "head rows columns"]:
        """One matrix a head: `W_Q, W_K, W_V` as `[head d_model d_head]`, `W_O` as `[head d_head d_model]`, heads in
        place of key-value groups: a group's matrix is repeated for each of its heads (a view, without a copy)."""
        if name == "W_O":
            return einops.rearrange(self.W_O, "(head d_head) d_model -> head d_head d_model", head=self.n_heads)
        groups = self.n_heads if name == "W_Q" else self.n_key_value_heads
        matrix = einops.rearrange(getattr(self, name), "d_model (head d_head) -> head d_model d_head", head=groups)
        return matrix if groups == self.n_heads else matrix.repeat_interleave(self.n_heads // groups, dim=0)


@dataclasses.dataclass(frozen=True, eq=False)
class MLP:
    """One feed-forward layer. A neuron's activation is `f(x W_in + b_in)`, or `f(x W_gate + b_gate) * (x W_in + b_in)`
    where there is a gate; its output is that number times its row of `W_out`."""

    W_in: Float[Tensor, "d_model d_mlp"]
    W_out: Float[Tensor, "d_mlp d_model"]
    b_in: Float[Tensor, " d_mlp"] | None
    b_out: Float[Tensor, " d_model"] | None
    activation: Activation
    W_gate: Float[Tensor, "d_model d_mlp"] | None = None
    b_gate: Float[Tensor, " d_mlp"] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """One layer: `x += post(attention(norm(x)))`, then `x += post(mlp(norm(x)))`; in a parallel block both read the
    same x. Absent norms are None; an attention-only block has no MLP."""

    attention_norm: Norm | None
    attention: Attention
    mlp_norm: Norm | None = None
    mlp: MLP | None = None
    attention_post_norm: Norm | None = None
    mlp_post_norm: Norm | None = None

    @property
    def device(self) -> torch.device:
        """Where the layer is."""
        return self.attention.W_Q.device


@dataclasses.dataclass(frozen=True, eq=False)
class Rotary:
    """Rotary positions on the first `2 * len(inverse_frequencies)` entries of each head. The angle table is computed in
    float32 whatever the model's type, as the original implementations do."""

    inverse_frequencies: Float[Tensor, " pair"]
    adjacent: bool
    """Pairs are entries (0, 1), (2, 3) … (GPT-J); otherwise entry i pairs with i + half (GPT-NeoX)."""
    scaling: float = 1.0
    position_scale: float = 1.0
    """Positions are divided by it (linear scaling of models native to TransformerLens)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """A whole model: embedding, positions, blocks, final norm, unembedding, and the switches they need."""

    W_E: Float[Tensor, "d_vocab d_model"]
    W_U: Float[Tensor, "d_model d_vocab_out"]
    b_U: Float[Tensor, " d_vocab_out"] | None
    blocks: tuple[Block, ...]
    final_norm: Norm | None
    max_positions: int | None
    W_pos: Float[Tensor, "position d_model"] | None = None
    """Row p is added at position p (any offset of the original is already cut off)."""
    rotary: Rotary | tuple[Rotary | None, ...] | None = None
    """One for all layers, or one a layer where they differ (None: a layer without rotary positions)."""
    alibi_slopes: Float[Tensor, " head"] | None = None
    """Scores of head h gain `slope[h] * (key position)`."""
    embedding_scale: float = 1.0
    embedding_norm: Norm | None = None
    parallel: bool = False
    causal: bool = True
    logit_soft_cap: float | None = None

    def rotary_at(self, layer: int) -> Rotary | None:
        """The rotary positions of a layer, or None where it has none."""
        return self.rotary[layer] if isinstance(self.rotary, tuple) else self.rotary

    def of_layers(self, first: int, end: int | None = None) -> "Weights":
        """The same with the layers from `first` on, up to `end`, alone; each keeps its own rotary positions."""
        rotary = self.rotary[first:end] if isinstance(self.rotary, tuple) else self.rotary
        return dataclasses.replace(self, blocks=self.blocks[first:end], rotary=rotary)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor with its dotted name, in a fixed order."""
        yield from _tensors(self, "")

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> "Weights":
        """The same with other tensors at some dotted names, as `tensors()` gives them. Raises ModelError for a name that there
        is none of, and for a tensor of another shape."""
        known = {name: tensor.shape for name, tensor in self.tensors()}
        for name, tensor in tensors.items():
            if name not in known or tensor.shape != known[name]:
                expected = f"expected {tuple(known[name])}" if name in known else "there is no tensor of that name"
                raise ModelError(f"{name} of shape {tuple(tensor.shape)}: {expected}")
        return _replaced(self, tensors, "")

    @property
    def nbytes(self) -> int:
        """Bytes held, shared storage counted once."""
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for _, t in self.tensors()}.values())

    def fingerprint(self) -> str:
        """SHA-256 over names, shapes and values: ties saved results to the weights they came from."""
        digest = hashlib.sha256()
        for name, tensor in self.tensors():
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def all_finite(tensor: Tensor) -> bool:
    """Whether no entry is NaN or infinite. One pass, and nothing of the tensor's size is made beside it."""
    if not tensor.numel() or not tensor.is_floating_point():
        return True
    # The least and the largest number are finite where all are; NaN is passed on to both. Of a matrix that lies transposed (an
    # unembedding tied to the embedding) PyTorch would first make a copy.
    lying = tensor.mT if tensor.ndim > 1 and not tensor.is_contiguous() else tensor
    return bool(torch.stack(lying.aminmax()).isfinite().all())


def _tensors(record: object, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for field in dataclasses.fields(record):  # type: ignore[arg-type]
        value, name = getattr(record, field.name), f"{prefix}{field.name}"
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, tuple):
            for index, item in enumerate(value):
                if item is not None:
                    yield from _tensors(item, f"{name}.{index}.")
        elif dataclasses.is_dataclass(value):
            yield from _tensors(value, f"{name}.")


def _replaced(record: Any, tensors: Mapping[str, Tensor], prefix: str) -> Any:
    """A record with the tensors that are named in place of its own, and those of records inside."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value, name = getattr(record, field.name), f"{prefix}{field.name}"
        if isinstance(value, Tensor):
            changes[field.name] = tensors.get(name, value)
        elif isinstance(value, tuple):
            items = enumerate(value)
            changes[field.name] = tuple(one and _replaced(one, tensors, f"{name}.{index}.") for index, one in items)
        elif dataclasses.is_dataclass(value):
            changes[field.name] = _replaced(value, tensors, f"{name}.")
    return dataclasses.replace(record, **changes)
