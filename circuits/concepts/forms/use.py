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
from circuits.runs.runner import shards
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
    rows, report = _drawn(units, tokens, seed), progress or silent
    by_layer: dict[int, list[int]] = {}
    for number in neurons:
        by_layer.setdefault(activity.neurons[number].layer or 0, []).append(number)
    size = model.weights.W_E.element_size() * model.n_layers * (6 * model.d_model + 2 * model.d_mlp)
    most = max(1, budget // (4 * size * max(len(units.rows[row]) for row in rows)))

    @torch.no_grad()
    def lost(part: int) -> tuple[Tensor, Tensor, Tensor]:
        """For the next tokens of some rows: their losses without each neuron, those of the whole model, and the row of each."""
        start, done = part * most, part * most * len(neurons)
        some = rows[start : start + most]
        batch = model.prepare(TokenBatch.from_rows([list(units.rows[row]) for row in some]))
        counted = predicted(batch)
        changed, whole = torch.zeros(len(neurons), int(counted.sum()), dtype=torch.float64), torch.empty(0)
        for layer, x in layer_by_layer(model, batch, "residual", only=set(by_layer)):
            if layer == model.n_layers:
                whole = next_token_losses(model.weights, x, batch, budget=budget)[counted].double().cpu()
            for number in by_layer.get(layer, []):
                without = _without(model, batch, layer, x, activity, number, budget)
                changed[neurons.index(number)] = without[counted].double().cpu()
                done += len(some)
                report("taking neurons out", done, len(neurons) * len(rows))
        return changed, whole, torch.arange(start, start + len(some)).repeat_interleave(counted.sum(dim=1).cpu())

    found = list(shards("taking neurons out", -(-len(rows) // most), lost))
    before = torch.cat([whole for _, whole, _ in found])
    rises = torch.cat([changed for changed, _, _ in found], dim=1) - before
    errors = clustered_errors(rises.T, torch.cat([row for _, _, row in found]))
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
