"""Models with a neuron that overflows on every processor."""

import dataclasses
from typing import Literal

import torch

from circuits.models import Model
from circuits.models.weights import Activation, Norm

Part = Literal["W_in", "gated W_in", "W_gate"]


def with_overflow(model: Model, layer: int, index: int, *, part: Part, activation: Activation, sign: int) -> Model:
    """The model with the pre-activation of one neuron (with the part `W_gate`: its gate's) at plus or minus infinity.

    Its MLP reads ones, and the neuron's input weights are the largest floats of one sign: their sum leaves the range in
    whatever order a matrix kernel adds, and in the direction of the sign.
    """
    block = model.weights.blocks[layer]
    assert block.mlp is not None
    zeros = torch.zeros(model.d_model, dtype=model.dtype)
    huge = block.mlp.W_in.clone()
    huge[:, index] = sign * torch.finfo(model.dtype).max
    W_in = block.mlp.W_in if part == "W_gate" else huge
    W_gate = {"W_in": None, "gated W_in": block.mlp.W_in, "W_gate": huge}[part]
    mlp = dataclasses.replace(block.mlp, W_in=W_in, W_gate=W_gate, b_gate=None, activation=activation)
    broken = dataclasses.replace(block, mlp=mlp, mlp_norm=Norm("layer", zeros, zeros + 1, eps=1e-5))
    blocks = (*model.weights.blocks[:layer], broken, *model.weights.blocks[layer + 1 :])
    return dataclasses.replace(model, weights=dataclasses.replace(model.weights, blocks=blocks))
