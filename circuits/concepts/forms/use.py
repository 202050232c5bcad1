"""What neurons do for the model: by how much the loss of the next token rises with each held at its mean."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.concepts.forms.activity import Activity
from circuits.concepts.forms.units import Units
from circuits.errors import PromptError
from circuits.heads.text_loss import next_token_losses, predicted
from circuits.models import Edit, Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.memory import BUDGET
from circuits.probes.reading import layer_by_layer
from circuits.progress import Progress, silent
from circuits.statistics import clustered_errors

TOKENS = 1000
"""Tokens of the text that losses are measured on, about."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rises:
    """By how much the mean loss of the next token rises (nats), with standard errors, tokens of one row taken together."""

    rise: Float[Tensor, " neuron"]
    errors: Float[Tensor, " neuron"]
    whole: float
    """The loss of the whole model."""
    tokens: int


@torch.no_grad()
def loss_rises(
    model: Model,
    units: Units,
    activity: Activity,
    neurons: Sequence[int],
    *,
    tokens: int = TOKENS,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Rises:
    """Hold each of some neurons (by number in `activity`) at its mean over the words read, everywhere, on drawn rows of the
    text. A run without a neuron begins at its layer. Raises PromptError where no row has a next token."""
    rows, report, done = _drawn(units, tokens, seed), progress or silent, 0
    by_layer: dict[int, list[int]] = {}
    for number in neurons:
        by_layer.setdefault(activity.neurons[number].layer or 0, []).append(number)
    found, whole, sentence = list[Tensor](), list[Tensor](), list[Tensor]()
    size = model.weights.W_E.element_size() * model.n_layers * (6 * model.d_model + 2 * model.d_mlp)
    most = max(1, budget // (4 * size * max(len(units.rows[row]) for row in rows)))
    for start in range(0, len(rows), most):
        part = rows[start : start + most]
        batch = model.prepare(TokenBatch.from_rows([list(units.rows[row]) for row in part]))
        counted, changed = predicted(batch), torch.zeros(len(neurons), int(predicted(batch).sum()), dtype=torch.float64)
        for layer, x in layer_by_layer(model, batch, "residual", only=set(by_layer)):
            if layer == model.n_layers:
                whole.append(next_token_losses(model.weights, x, batch, budget=budget)[counted].double().cpu())
            for number in by_layer.get(layer, []):
                lost = _without(model, batch, layer, x, activity, number, budget)
                changed[neurons.index(number)] = lost[counted].double().cpu()
                done += len(part)
                report("taking neurons out", done, len(neurons) * len(rows))
        found.append(changed)
        sentence.append(torch.arange(start, start + len(part)).repeat_interleave(counted.sum(dim=1).cpu()))
    before = torch.cat(whole)
    rises = torch.cat(found, dim=1) - before
    errors = clustered_errors(rises.T, torch.cat(sentence))
    return Rises(rises.mean(dim=1), errors, float(before.mean()), len(before))


def _drawn(units: Units, tokens: int, seed: int) -> list[int]:
    """Rows of two tokens or more, in a drawn order, until there are so many tokens."""
    order = torch.randperm(len(units.rows), generator=torch.Generator().manual_seed(seed)).tolist()
    found, there = list[int](), 0
    for row in order:
        if there < tokens and len(units.rows[row]) > 1:
            found.append(row)
            there += len(units.rows[row])
    if not found:
        raise PromptError("no row of the text has a next token to predict: give longer ones")
    return found


def _without(
    model: Model, batch: TokenBatch, layer: int, x: Tensor, activity: Activity, number: int, budget: int
) -> Float[Tensor, "prompt before"]:
    """The loss of each next token with one neuron at its mean, from the stream before its layer."""
    node = activity.neurons[number]
    held = Edit(node, float(activity.mean[number]))
    edits = {("input", 0): [(None, Edit("input", x))], ("neuron", 0): [(node.index, held)]}
    run = forward(model.weights.of_layers(layer), batch, edits=edits, keep="writes", logits=False)
    return next_token_losses(model.weights, run.residuals[-1], batch, budget=budget)
