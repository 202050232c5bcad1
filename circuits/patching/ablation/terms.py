"""Order of terms: how much of what a model knows needs no head, single heads, heads that read heads (Elhage et al. 2021)."""

import dataclasses
import itertools
from typing import TYPE_CHECKING, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError, PromptError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.heads.text_loss import check_text, next_token_losses, predicted, prompt_means, text_batches
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.memory import BUDGET
from circuits.models.model import Prompts
from circuits.patching.ablation.expansion import Expansion, MLPs, expand, frozen_final
from circuits.patching.engine.base import refuse_non_finite
from circuits.progress import Progress, silent
from circuits.runs.runner import shards
from circuits.statistics import Effect, bootstrap

if TYPE_CHECKING:
    import pandas

HeldMLPs = Literal["frozen", "zero", "none"]


@dataclasses.dataclass(frozen=True, eq=False)
class Terms(Result, format="circuits-terms"):
    """Loss on a text (nats a token, mean of each prompt) with the terms up to each order alone, and of the model itself.

    `losses[0]`: the direct path; `losses[1]`: with single heads; `losses[2]`: with virtual heads of two; and so on.
    `heads[n - 1]`: by how much the loss of order n rises when one head's term of order n is left out (positive: the term
    helps), over all tokens.
    """

    model: str
    mlps: HeldMLPs
    """What became of MLPs; "none": there are none."""
    losses: Float[Tensor, "order prompt"]
    full: Float[Tensor, " prompt"]
    counts: Int[Tensor, " prompt"]
    heads: Float[Tensor, "head_order layer head"] = dataclasses.field(metadata=stored(shape="heads_shape"))
    uniform: float
    """The loss of a model that knows nothing, log of the vocabulary."""

    def __post_init__(self) -> None:
        if self.losses.ndim != 2 or self.losses.shape[1] != len(self.full) or self.full.shape != self.counts.shape:
            raise CircuitsError("losses, full and counts must have one entry a prompt")
        if self.heads.ndim != 3 or self.mlps not in get_args(HeldMLPs):
            raise CircuitsError("heads must be [order layer head], and mlps one of frozen, zero, none")

    @property
    def summary(self) -> str:
        """The loss by order, beside the model's own."""
        losses = ", ".join(f"{self.loss(order):.3g} up to order {order}" for order in range(len(self.losses)))
        return f"{self.model}: loss {losses}, {self.full_loss:.3g} of the model itself, in nats a token."

    def loss(self, order: int) -> float:
        """Mean loss a token with the terms up to an order."""
        return self._mean(self.losses[order])

    @property
    def full_loss(self) -> float:
        """Mean loss a token of the model itself."""
        return self._mean(self.full)

    def interval(self, order: int) -> Effect:
        """By how much the terms of an order (1 or more) lower the loss, with its 95 % bootstrap interval over prompts."""
        return bootstrap(self.losses[order - 1] - self.losses[order])

    def _mean(self, values: Tensor) -> float:
        return float((values * self.counts).sum() / self.counts.sum())

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row an order: loss with the terms up to it, and how much lower it is than with one order less; then the model."""
        import pandas

        means = [self.loss(order) for order in range(len(self.losses))]
        gains = [float("nan"), *(before - after for before, after in itertools.pairwise(means))]
        rows = [{"order": str(order), "loss": means[order], "gain": gains[order]} for order in range(len(means))]
        return pandas.DataFrame([*rows, {"order": "model", "loss": self.full_loss, "gain": float("nan")}])

    def heads_dataframe(self) -> "pandas.DataFrame":
        """One row a head and order: by how much the loss rises without its term."""
        import pandas

        orders, layers, heads = self.heads.shape
        places = [(n, layer, head) for n in range(orders) for layer in range(layers) for head in range(heads)]
        rows = [
            {"order": n + 1, "head": f"a{layer}.h{head}", "rise": float(self.heads[n, layer, head])}
            for n, layer, head in places
        ]
        return pandas.DataFrame(rows, columns=["order", "head", "rise"])


def order_of_terms(
    model: Model,
    tokens: Prompts,
    *,
    mlps: MLPs = "frozen",
    heads: int = 1,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Terms:
    """Loss on a text with the direct path alone, with single heads on it, with virtual heads, up to as many orders as layers.

    Attention patterns and all norms' scales stay those of the whole model's run; biases belong to the direct path. An
    attention-only model is the clean case, where the last order is the model itself. Raises PromptError for text without a
    next token, NonFiniteError.

    Args:
        model: the model that is taken apart.
        tokens: the text, as text, token ids or a batch.
        mlps: what MLPs wrote in the run is part of the direct path ("frozen": the last order is the model, but order 0 holds
            all that MLPs made of heads), or is left out ("zero": the last order is the model's heads alone).
        heads: up to which order single heads' terms are left out in turn (0: none).
        budget: bytes of runs and logits that are held at once, beside the run of one prompt.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if mlps not in get_args(MLPs) or heads < 0:
        raise PromptError(f"mlps={mlps!r}, heads={heads}: expected frozen or zero, and a number of orders")
    batch = model.prepare(tokens)
    check_text(batch)
    report = progress or silent
    orders = min(heads, model.n_layers)
    losses, full, rises = [], [], torch.zeros(orders, model.n_layers, model.n_heads, dtype=torch.float64)
    batches, done = list(text_batches(model.weights, batch, budget=budget)), 0

    @torch.no_grad()
    def read(number: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Of some prompts the loss, that of each sum of terms, and the rises."""
        part = batches[number]
        expansion, frozen = _expanded(model, part, mlps, orders)
        whole = next_token_losses(model.weights, expansion.run.residuals[-1], part, budget=budget)
        sums = [_loss(expansion, frozen, expansion.up_to(n), budget) for n in range(model.n_layers + 1)]
        of_sums = torch.stack([prompt_means(one, part) for one in sums])
        totals = [float(sums[order].double().sum()) for order in range(orders + 1)]
        raised = [_rises(expansion, frozen, order, totals[order], budget) for order in range(1, orders + 1)]
        return prompt_means(whole, part), of_sums, raised

    report("reading terms", 0, len(batch))
    for part, (whole, of_sums, raised) in zip(batches, shards("reading terms", len(batches), read), strict=True):
        full.append(whole)
        losses.append(of_sums)
        for order, rise in enumerate(raised):
            rises[order] += rise
        done += len(part)
        report("reading terms", done, len(batch))
    counts = predicted(batch).sum(dim=1).cpu()
    held: HeldMLPs = mlps if model.d_mlp else "none"
    uniform = float(torch.tensor(float(model.weights.W_U.shape[1])).log())
    return Terms(model.name, held, torch.cat(losses, dim=1), torch.cat(full), counts, rises / int(counts.sum()), uniform)


def _expanded(model: Model, part: TokenBatch, mlps: MLPs, orders: int) -> tuple[Expansion, Model]:
    """The terms of a run, and a model without a final norm, which they are unembedded with."""
    run = forward(model.weights, part, keep="patterns", logits=False)
    refuse_non_finite(run)
    bare = dataclasses.replace(model.weights, final_norm=None)
    return expand(run, mlps=mlps, heads=orders), dataclasses.replace(model, weights=bare)


def _loss(
    expansion: Expansion, frozen: Model, x: Float[Tensor, "prompt position d_model"], budget: int
) -> Float[Tensor, "prompt before"]:
    return next_token_losses(frozen.weights, frozen_final(expansion.run, x), expansion.run.tokens, budget=budget)


def _rises(expansion: Expansion, frozen: Model, order: int, whole: float, budget: int) -> Float[Tensor, "layer head"]:
    """By how much the summed loss of an order rises without each head's term of that order."""
    x, rows = expansion.up_to(order), []
    for layer in range(frozen.n_layers):
        for head in range(frozen.n_heads):
            if order > len(expansion.mixed[layer]):
                rows.append(0.0)  # a head this early reads no term of the order before
                continue
            loss = _loss(expansion, frozen, x - expansion.head_term(order, layer, head), budget)
            rows.append(float(loss.double().sum()) - whole)
    return torch.tensor(rows, dtype=torch.float64).reshape(frozen.n_layers, frozen.n_heads)
