"""What neurons do for the model: by how much the loss of the next token rises with each held at its mean."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.concepts.forms.activity import Activity, row_batches
from circuits.concepts.forms.units import Units
from circuits.errors import PromptError
from circuits.graph import Node
from circuits.heads.text_loss import next_token_losses, predicted
from circuits.models import Edit, Model, TokenBatch
from circuits.models.edits import Compiled
from circuits.models.forward import forward
from circuits.models.memory import BUDGET
from circuits.probes.reading import final_stream, layer_by_layer
from circuits.progress import Progress, silent
from circuits.statistics import clustered_errors

TOKENS = 1000
"""Tokens of the text that losses are measured on, about."""
_ROWS = 256
"""Tokens of rows that are run side by side, at most: of more, the shorter ones would be mostly pads."""


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
    for place, number in enumerate(neurons):
        by_layer.setdefault(activity.neurons[number].layer or 0, []).append(place)
    found, whole, sentence = list[Tensor](), list[Tensor](), list[Tensor]()
    most = _tokens_at_once(model, max(len(units.rows[row]) for row in rows), budget)
    # Few rows at a time, so that they are of like lengths; a batch is filled with several neurons.
    for part in row_batches(units, rows, min(most, _ROWS)):
        batch = _batch(model, units, part)
        counted = predicted(batch)
        changed = torch.zeros(len(neurons), int(counted.sum()), dtype=torch.float64)
        for layer, x in layer_by_layer(model, batch, "residual", only=set(by_layer)):
            if layer == model.n_layers:
                whole.append(next_token_losses(model.weights, x, batch, budget=budget)[counted].double().cpu())
            for places in _split(by_layer.get(layer, []), most // batch.ids.numel()):
                held = [(activity.neurons[neurons[place]], float(activity.mean[neurons[place]])) for place in places]
                lost = _without(model, _batch(model, units, part * len(places)), layer, x, held, budget)
                changed[places] = lost[:, counted].double().cpu()
                done += len(part) * len(places)
                report("taking neurons out", done, len(neurons) * len(rows))
        found.append(changed)
        sentence.append(torch.tensor(part).repeat_interleave(counted.sum(dim=1).cpu()))
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


def _tokens_at_once(model: Model, longest: int, budget: int) -> int:
    """Tokens whose run, one layer at a time, fits half of the budget: the logits take the other half."""
    scores = 2 * model.n_heads * longest
    each = 12 * model.d_model + 3 * model.d_mlp + 4 * model.n_heads * model.d_head + scores
    return max(1, budget // 2 // (model.weights.W_E.element_size() * each))


def _batch(model: Model, units: Units, rows: Sequence[int]) -> TokenBatch:
    """Rows of the text as the model reads them."""
    return model.prepare(TokenBatch.from_rows([list(units.rows[row]) for row in rows]))


def _split(places: list[int], most: int) -> list[list[int]]:
    """Places in parts, of at least one."""
    size = max(1, most)
    return [places[start : start + size] for start in range(0, len(places), size)]


def _without(
    model: Model, batch: TokenBatch, layer: int, x: Tensor, held: Sequence[tuple[Node, float]], budget: int
) -> Float[Tensor, "neuron prompt before"]:
    """The loss of each next token with each neuron of a layer at a value, from the stream before that layer: `batch` has the
    prompts once a neuron."""
    copy = torch.arange(len(batch), device=x.device)[:, None] // len(x)
    edits: Compiled = {("input", 0): [(None, Edit("input", x.repeat(len(held), 1, 1)))]}
    edits["neuron", 0] = [
        (node.index, Edit(node, value, positions=(copy == place).expand(batch.ids.shape)))
        for place, (node, value) in enumerate(held)
    ]
    run = forward(model.weights.of_layers(layer, layer + 1), batch, edits=edits, keep="writes", logits=False)
    end = final_stream(model, batch, layer + 1, run.residuals[-1])
    return next_token_losses(model.weights, end, batch, budget=budget).unflatten(0, (len(held), len(x)))
