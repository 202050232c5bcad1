"""An MLP's output on one prompt as a sum of its neurons' updates (Geva et al. 2022)."""

import dataclasses

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import NonFiniteError, PromptError
from circuits.files.results import Result
from circuits.lenses.neurons.activations import mlp_of
from circuits.lenses.readout import direction, top_tokens
from circuits.models import Model, Run
from circuits.models.choosing import refuse_without_mlps
from circuits.models.folding import through_norm
from circuits.models.forward import forward
from circuits.models.layers import mlp_output, norm_scale, unembed


@dataclasses.dataclass(frozen=True, eq=False)
class Update:
    """What one neuron adds to the residual stream: its activation times its value."""

    neuron: str
    activation: float
    strength: float
    """Length of the update, |activation| · |value|."""
    share: float
    """Its share of the MLP's output: the part of it that points that way, over the output's length. With the biases' share,
    the shares of all neurons of a layer sum to 1."""
    logit: float
    """What it adds to the logit of the predicted token, through the run's final norm."""
    raises: tuple[str, ...]
    """Tokens that it raises most: its value's where the activation is positive, else those that the value lowers."""


@dataclasses.dataclass(frozen=True, eq=False)
class SubUpdates(Result, format="circuits-sub-updates"):
    """The strongest updates at one position of a prompt, strongest first."""

    model: str
    prompt: str
    position: int
    token: str
    """The token at the position."""
    predicted: str
    """The token that the model expects there next."""
    updates: tuple[Update, ...]
    logits: dict[int, float]
    """What the whole MLP of each layer that was read adds to the predicted token's logit."""
    biases: dict[int, tuple[float, float]]
    """The share and the logit of each MLP's biases."""

    @property
    def summary(self) -> str:
        """The strongest updates, and what is predicted."""
        most = ", ".join(f"{one.neuron} {one.strength:.3g}" for one in self.updates[:3])
        return f"{self.model} at {self.token!r}, before {self.predicted!r}: strongest updates {most}."

    def to_dataframe(self) -> pd.DataFrame:
        """One row an update."""
        fields = [field.name for field in dataclasses.fields(Update)]
        rows = [{name: getattr(update, name) for name in fields} for update in self.updates]
        table = pd.DataFrame(rows, columns=fields)
        table["raises"] = [" ".join(update.raises) for update in self.updates]
        return table


def sub_updates(
    model: Model, prompt: str | Tensor, *, layer: int | None = None, position: int = -1, top: int = 10, tokens: int = 5
) -> SubUpdates:
    """Rank the neurons of an MLP by the length of what they write on a prompt.

    The sum of a layer's updates and its biases is the MLP's output. Raises PromptError for attention-only models and
    positions outside the prompt, GraphError for a layer that the model lacks.

    Args:
        model: the model that is run.
        prompt: one prompt, as text or token ids.
        layer: the layer of the MLP (None: all of them together).
        position: a place in the prompt, negative from its end.
        top: neurons that are kept.
        tokens: tokens that each neuron raises most.
    """
    refuse_without_mlps(model)
    if top < 1 or tokens < 1:
        raise PromptError(f"top={top}, tokens={tokens}: expected numbers of at least 1")
    batch = model.prepare(prompt)
    width = batch.ids.shape[1]
    if batch.padded:
        raise PromptError("the prompt has pads: give its tokens alone")
    if len(batch) != 1:
        raise PromptError(f"position {position} of {len(batch)} prompts of {width} tokens: expected one prompt that has it")
    position = int(batch.required_columns(position)[0])
    layers = range(model.n_layers) if layer is None else [layer]
    for one in layers:
        mlp_of(model, one)
    with torch.no_grad():
        run = forward(model.weights, batch, logits=False)
        best = unembed(model.weights, run.residuals[-1][:, position])[0].argmax()
        towards = direction(model, best[None])[0] / run.final_scale[0, position]
        parts = {one: _of_layer(model, run, one, position, towards) for one in layers}
        found = [(one, index, numbers) for one, part in parts.items() for index, numbers in _strongest(part, top)]
        found = sorted(found, key=lambda row: -row[2][1])[:top]
        updates = [_named(model, one, index, numbers, tokens) for one, index, numbers in found]
    words = model.to_token_strings([int(batch.ids[0, position]), int(best)])
    logits = {one: float(part.neurons[:, 3].sum()) + part.bias[1] for one, part in parts.items()}
    text = prompt if isinstance(prompt, str) else " ".join(model.to_token_strings(batch.ids[0]))
    biases = {one: part.bias for one, part in parts.items()}
    return SubUpdates(model.name, text, position, words[0], words[1], tuple(updates), logits, biases)


@dataclasses.dataclass(frozen=True, eq=False)
class _Numbers:
    """One layer's neurons at one position: activation, strength, share and logit of each; share and logit of the biases."""

    neurons: Float[Tensor, "neuron 4"]
    bias: tuple[float, float]


def update_vectors(
    model: Model, run: Run, layer: int, *, prompt: int = 0, position: int = -1
) -> tuple[Float[Tensor, "neuron d_model"], Float[Tensor, " d_model"]]:
    """What each neuron of a layer adds to the residual stream at one place of a run (`position` in the prompt's own count,
    negative from its own end), and what the MLP's biases add. A norm after the MLP enters with the run's own scale; all of it
    sums to the MLP's output. Raises PromptError for a position that the prompt lacks."""
    position = int(run.tokens[[prompt]].required_columns(position, what=f"prompt {prompt}: "))
    mlp, post = mlp_of(model, layer), model.weights.blocks[layer].mlp_post_norm
    activations = run.neurons[layer][prompt, position][None]
    bias = torch.zeros_like(mlp.W_out[0]) if mlp.b_out is None else mlp.b_out
    scale = norm_scale(mlp_output(activations, mlp, None), post)[0]
    updates = activations[0, :, None] * through_norm(mlp.W_out, post) / scale
    bias = through_norm(bias, post) / scale
    return updates, bias if post is None or post.bias is None else bias + post.bias


def _of_layer(model: Model, run: Run, layer: int, position: int, towards: Float[Tensor, " d_model"]) -> _Numbers:
    updates, bias = update_vectors(model, run, layer, position=position)
    output = updates.sum(dim=0) + bias
    along = output / output.square().sum().clamp(min=1e-30)
    columns = (run.neurons[layer][0, position], updates.norm(dim=1), updates @ along, updates @ towards)
    numbers = torch.stack(columns, dim=1).double().cpu()
    if not bool(numbers.isfinite().all()):
        raise NonFiniteError(f"m{layer}.n{int((~numbers.isfinite()).nonzero()[0, 0])} writes NaN or infinity on this prompt")
    return _Numbers(numbers, (float(bias @ along), float(bias @ towards)))


def _strongest(part: _Numbers, top: int) -> list[tuple[int, list[float]]]:
    order = part.neurons[:, 1].argsort(descending=True, stable=True)[:top]
    return list(zip(order.tolist(), part.neurons[order].tolist(), strict=True))


def _named(model: Model, layer: int, index: int, numbers: list[float], tokens: int) -> Update:
    row = through_norm(mlp_of(model, layer).W_out[index], model.weights.blocks[layer].mlp_post_norm)
    ids = top_tokens(model, row[None], tokens, largest=numbers[0] >= 0)[1][0]
    return Update(f"m{layer}.n{index}", *numbers, raises=tuple(model.to_token_strings(ids)))
