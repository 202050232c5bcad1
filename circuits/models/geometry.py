"""Where tokens stand, for attention: rotary tables and masks of a batch, made once a run."""

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.models.tokens import TokenBatch
from circuits.models.weights import Rotary, Weights


@dataclasses.dataclass(frozen=True, eq=False)
class Rotation:
    """cos and sin of rotary angles, `[prompt position 1 rotary]` (the prompt axis is 1 without pads) or any shape that
    broadcasts to what is turned; `adjacent` as in Rotary."""

    cos: Tensor
    sin: Tensor
    adjacent: bool

    def picked(self, pick: Callable[[Tensor], Tensor]) -> "Rotation":
        """The same at some positions: `pick` is applied to cos and to sin."""
        return Rotation(pick(self.cos), pick(self.sin), self.adjacent)


@dataclasses.dataclass(frozen=True, eq=False)
class Geometry:
    """What attention needs to know about where tokens stand: rotary tables and masks, made once a run."""

    weights: Weights
    tokens: TokenBatch
    dtype: torch.dtype
    _biases: dict[int | None, Tensor | None] = dataclasses.field(default_factory=dict, repr=False)
    _rotations: dict[int, Rotation] = dataclasses.field(default_factory=dict, repr=False)

    def rotation(self, layer: int) -> Rotation | None:
        """What turns the queries and keys of a layer; None where it has no rotary positions."""
        rotary = self.weights.rotary_at(layer)
        if rotary is None:
            return None
        if id(rotary) not in self._rotations:  # layers share a table by sharing the record, which the weights keep alive
            self._rotations[id(rotary)] = self._make_rotation(rotary)
        return self._rotations[id(rotary)]

    def _make_rotation(self, rotary: Rotary) -> Rotation:
        positions = self.tokens.positions if self.tokens.padded else self.tokens.positions[:1]
        angles = (positions.float() / rotary.position_scale)[:, :, None] * rotary.inverse_frequencies.float()
        # Each angle turns two entries: neighbours (GPT-J), or one in each half (GPT-NeoX).
        angles = angles.repeat_interleave(2, dim=-1) if rotary.adjacent else torch.cat([angles, angles], dim=-1)
        cos, sin = angles.cos() * rotary.scaling, angles.sin() * rotary.scaling
        return Rotation(cos.to(self.dtype)[:, :, None], sin.to(self.dtype)[:, :, None], rotary.adjacent)

    def bias(self, window: int | None) -> Tensor | None:
        """What is added to scores, `[prompt|1 head|1 query key]`: -inf where a query may not look; None if nothing is
        needed beyond plain causal masking. A pad sees only itself."""
        if window not in self._biases:
            self._biases[window] = self._make_bias(window)
        return self._biases[window]

    def bias_at(self, window: int | None, columns: Int[Tensor, "prompt column"]) -> Tensor:
        """The rows of `bias` for these query columns, `[prompt|1 head|1 column key]`, causal masking included. `columns`
        has one row where all prompts read the same ones."""
        bias = self.bias(window)
        if bias is None:
            width = self.tokens.ids.shape[1]
            future = torch.ones(width, width, dtype=torch.bool, device=columns.device).triu(1)
            bias = torch.zeros(width, width, dtype=self.dtype, device=columns.device).masked_fill(future, -torch.inf)[
                None, None
            ]
        if columns.shape[0] == 1:
            return bias[:, :, columns[0]]
        rows = torch.arange(columns.shape[0], device=columns.device)[:, None]
        return bias.expand(columns.shape[0], -1, -1, -1)[rows, :, columns].transpose(1, 2)

    def _make_bias(self, window: int | None) -> Tensor | None:
        width = self.tokens.ids.shape[1]
        plain = not self.tokens.padded and self.weights.alibi_slopes is None and (window is None or window >= width)
        if plain and self.weights.causal:
            return None
        column = torch.arange(width, device=self.tokens.ids.device)
        ahead = column[:, None] - column[None, :]
        allowed = torch.ones_like(ahead, dtype=torch.bool) if not self.weights.causal else ahead >= 0
        if window is not None:
            allowed = allowed & (ahead.abs() < window)
        allowed = allowed[None, None] & self.tokens.mask[:, None, None, :] if self.tokens.padded else allowed[None, None]
        # A pad sees itself, or its row of scores were all minus infinity and its softmax NaN, which a backward pass spreads.
        allowed = allowed | (ahead == 0)
        bias = torch.zeros(allowed.shape, dtype=self.dtype, device=column.device).masked_fill(~allowed, -torch.inf)
        if self.weights.alibi_slopes is not None:
            slopes, positions = self.weights.alibi_slopes, self.tokens.positions
            # By the key's position alone, without the query's: along a row of scores the query's adds a constant, which softmax
            # does not see.
            alibi = slopes[None, :, None, None] * positions.float()[:, None, None, :]
            bias = bias + alibi.to(self.dtype)
        return bias


def rotate(x: Float[Tensor, "... head d_head"], rotation: Rotation) -> Float[Tensor, "... head d_head"]:
    """Apply rotary positions, given as cos and sin that broadcast to x, to queries or keys."""
    cos, sin = rotation.cos, rotation.sin
    width = cos.shape[-1]
    turned, passed = x[..., :width], x[..., width:]
    # The two entries that each angle turns: neighbours, or one in each half.
    places = (slice(0, width, 2), slice(1, width, 2)) if rotation.adjacent else (slice(width // 2), slice(width // 2, width))
    first, second = (turned[..., place] for place in places)
    if torch.is_grad_enabled():
        partners = [-second, first]
        partner = torch.stack(partners, dim=-1).flatten(-2) if rotation.adjacent else torch.cat(partners, dim=-1)
        turned = turned * cos + partner * sin
    else:
        # The same numbers, bit by bit, in place: without gradients no partners need be written down.
        turned = turned * cos
        turned[..., places[0]].sub_(second * sin[..., places[0]])
        turned[..., places[1]].add_(first * sin[..., places[1]])
    return torch.cat([turned, passed], dim=-1) if passed.shape[-1] else turned
