"""What planted models are built from: orthogonal subspaces of a rotated residual stream, and matrices between them."""

import dataclasses
import math
import re

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Circuit
from circuits.models.model import Model
from circuits.models.planted.words import HopWords, OperandWords
from circuits.models.weights import MLP, Attention, Block, Norm, Weights

POSITIONS, FREQUENCIES = 128, 16
COPY_GAIN = 0.13
"""What one copied token adds to the residual stream, against the token's own length 1, before the norm's scale."""


@dataclasses.dataclass(frozen=True)
class PlantedFact:
    """What a planted model knows: after BOS and these two subject tokens, the relation calls for the answer."""

    subject: tuple[int, int]
    relation: int
    answer: int

    @property
    def prompt(self) -> list[int]:
        """Token ids that the answer follows."""
        return [0, *self.subject, self.relation]


@dataclasses.dataclass(frozen=True)
class Planted:
    """A model and the circuit that was written into its weights."""

    model: Model
    circuit: Circuit
    facts: tuple[PlantedFact, ...] = ()
    words: OperandWords | HopWords | None = None
    """What its tokens mean, for the models that compute and hop."""
    redundant: tuple[tuple[str, ...], ...] = ()
    """Groups of edges of `whole` that stand in for each other: cutting fewer than all of a group leaves the answer."""

    @property
    def whole(self) -> Circuit:
        """The circuit in the graph of heads and whole MLPs."""
        edges = dict.fromkeys(_with_whole_mlps(str(edge)) for edge in self.circuit.edges)
        roles = {_with_whole_mlps(str(element)): role for element, role in self.circuit.roles.items()}
        return Circuit(self.model.graph(), list(edges), roles=roles)


def _with_whole_mlps(name: str) -> str:
    return re.sub(r"\b(m\d+)\.n\d+", r"\1", name)


@dataclasses.dataclass(frozen=True, eq=False)
class Space:
    """Named orthonormal subspaces `[width d_model]` of a residual stream, in a random rotation orthogonal to the vector
    of ones (so that LayerNorm's centring leaves them alone)."""

    parts: dict[str, Float[Tensor, "width d_model"]]

    @classmethod
    def random(cls, widths: dict[str, int], generator: torch.Generator) -> "Space":
        """Subspaces of these widths; d_model is their sum plus one for the vector of ones."""
        size = sum(widths.values()) + 1
        drawn = torch.randn(size, size, generator=generator, dtype=torch.float64)
        drawn[:, 0] = 1.0
        basis = torch.linalg.qr(drawn)[0].T[1:]
        return cls(dict(zip(widths, basis.split(list(widths.values())), strict=True)))

    def __getitem__(self, name: str) -> Float[Tensor, "width d_model"]:
        return self.parts[name]

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return next(iter(self.parts.values())).shape[1]


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """One head's matrices: `W_Q, W_K, W_V` `[d_model d_head]`, `W_O` `[d_head d_model]`."""

    W_Q: Tensor
    W_K: Tensor
    W_V: Tensor
    W_O: Tensor


def factor(
    pairs: list[tuple[Tensor, Tensor, float]], d_head: int, turn: Float[Tensor, "d_head d_head"]
) -> tuple[Tensor, Tensor]:
    """Two `[d_model d_head]` matrices A, B with A B^T = sum of gain * left^T right over the `(left, right, gain)` of pairs
    (`[rank d_model]` each), inside a rotation of the head's own coordinates."""
    d_model = pairs[0][0].shape[1]
    left, right = (torch.zeros(d_model, d_head, dtype=torch.float64) for _ in range(2))
    start = 0
    for a, b, gain in pairs:
        stop = start + a.shape[0]
        left[:, start:stop], right[:, start:stop] = a.T * math.sqrt(gain), b.T * math.sqrt(gain)
        start = stop
    return left @ turn, right @ turn


def random_rotation(size: int, generator: torch.Generator) -> Float[Tensor, "size size"]:
    """A random orthogonal matrix."""
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]


def random_matrix(rows: int, columns: int, norm: float, generator: torch.Generator) -> Float[Tensor, "rows columns"]:
    """A normal random matrix of a given Frobenius norm."""
    drawn = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return drawn * (norm / drawn.norm())


def distractor_head(space: Space, like: Head, generator: torch.Generator) -> Head:
    """A random head with the norms of another that reads everything and writes where nobody reads."""
    d_model, d_head = like.W_Q.shape
    scratch = space["scratch"]
    written = random_matrix(d_head, scratch.shape[0], float(like.W_O.norm()), generator) @ scratch
    W_Q, W_K, W_V = (random_matrix(d_model, d_head, float(w.norm()), generator) for w in (like.W_Q, like.W_K, like.W_V))
    return Head(W_Q, W_K, W_V, written)


def decoy_of(space: Space, like: Head, generator: torch.Generator) -> Head:
    """A head that attends and reads as another does, and writes as much where nobody reads."""
    scratch = space["scratch"]
    written = random_matrix(like.W_O.shape[0], scratch.shape[0], float(like.W_O.norm()), generator) @ scratch
    return Head(like.W_Q, like.W_K, like.W_V, written)


def attention_of(heads: list[Head]) -> Attention:
    """An attention layer of these heads, scores unscaled, without biases."""
    joined = {name: torch.cat([getattr(head, name) for head in heads], dim=1) for name in ("W_Q", "W_K", "W_V")}
    W_O = torch.cat([head.W_O for head in heads], dim=0)
    absent = dict.fromkeys(("b_Q", "b_K", "b_V", "b_O"))
    return Attention(**joined, W_O=W_O, **absent, n_heads=len(heads), n_key_value_heads=len(heads), scale=1.0)


def block_of(space: Space, heads: list[Head], mlp: MLP) -> Block:
    """A sequential block with unit-gain LayerNorms."""
    norm = unit_norm(space)
    return Block(attention_norm=norm, attention=attention_of(heads), mlp_norm=norm, mlp=mlp)


def bare_block(heads: list[Head], mlp: MLP | None) -> Block:
    """A sequential block without norms."""
    return Block(attention_norm=None, attention=attention_of(heads), mlp=mlp)


def planted_model(name: str, weights: Weights) -> Model:
    """A model without a tokenizer; token 0 opens every prompt."""
    return Model(name=name, architecture="planted", weights=weights, tokenizer=None, bos=0)


def unit_norm(space: Space) -> Norm:
    """A LayerNorm without gain or bias."""
    return Norm("layer", torch.ones(space.d_model, dtype=torch.float64), None, 1e-8)


def position_codes(space: Space, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Unit codes `[position d_model]` made of cosines and sines, and the matrix `[rank rank]` that steps one forward."""
    frequencies = torch.rand(FREQUENCIES, generator=generator, dtype=torch.float64) * 0.9 * math.pi + 0.1
    while _second_peak(frequencies) > 0.62:
        frequencies = torch.rand(FREQUENCIES, generator=generator, dtype=torch.float64) * 0.9 * math.pi + 0.1
    angles = torch.arange(POSITIONS, dtype=torch.float64)[:, None] * frequencies
    codes = torch.cat([angles.cos(), angles.sin()], dim=1) / math.sqrt(FREQUENCIES)
    cos, sin = torch.diag(frequencies.cos()), torch.diag(frequencies.sin())
    step = torch.cat([torch.cat([cos, -sin], dim=1), torch.cat([sin, cos], dim=1)], dim=0)
    return codes @ space["position"], step


def _second_peak(frequencies: Tensor) -> float:
    offsets = torch.arange(1, POSITIONS, dtype=torch.float64)
    return float((offsets[:, None] * frequencies).cos().mean(dim=1).max())


def previous_token_head(space: Space, step: Tensor, d_head: int, generator: torch.Generator) -> Head:
    """A head that attends to the position before and copies the token there into `previous`."""
    turn = random_rotation(d_head, generator)
    position = space["position"]
    W_Q, W_K = factor([(position, step @ position, 4.0)], d_head, turn)
    W_V, W_O = factor([(space["token"], space["previous"], COPY_GAIN)], d_head, random_rotation(d_head, generator))
    return Head(W_Q, W_K, W_V, W_O.T)


def distractor_mlp(space: Space, like: Head, generator: torch.Generator, *, d_mlp: int = 32) -> MLP:
    """Random neurons, as a matrix of the norms of a head's, that read everything and write where nobody reads."""
    scratch = space["scratch"]
    return MLP(
        W_in=random_matrix(space.d_model, d_mlp, float(like.W_V.norm()), generator),
        W_out=random_matrix(d_mlp, scratch.shape[0], float(like.W_O.norm()), generator) @ scratch,
        b_in=None,
        b_out=None,
        activation="relu",
    )
