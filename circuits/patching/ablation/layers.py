"""Layers taken out of a model on running text: what is lost, and what later layers make up for (McGrath et al. 2023)."""

import dataclasses
from typing import TYPE_CHECKING, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError, PromptError
from circuits.files.results import Result
from circuits.heads.text_loss import check_text, next_token_losses, predicted, prompt_means, run_from, text_batches
from circuits.models import Model, Run, TokenBatch
from circuits.models.folding import through_norm
from circuits.models.forward import forward
from circuits.models.layers import normalise
from circuits.models.memory import BUDGET
from circuits.models.model import Prompts
from circuits.models.weights import Block, Weights
from circuits.patching.engine.base import refuse_non_finite
from circuits.progress import Progress, silent
from circuits.runs.runner import shards
from circuits.statistics import Effect, bootstrap

if TYPE_CHECKING:
    import pandas

RemovedPart = Literal["attention", "mlp", "both"]
Removal = Literal["zero", "mean"]
MEASURES = ("loss", "direct", "total", "compensation")


@dataclasses.dataclass(frozen=True, eq=False)
class LayerRemoval(Result, format="circuits-layer-removal"):
    """What each layer's removal changes on a text, `[part layer prompt]`, means over each prompt's tokens.

    `loss`: rise of the loss (nats a token; positive: the layer helps). The others are about the logit of the true next
    token less the mean over the vocabulary, before any cap: `direct` = what the removed part adds to it itself, through the
    final norm with the whole run's scale (less what stands in for it); `total` = by how much it falls; `compensation` = by
    how much the later layers' own contributions grow, of which `later` `[part layer later_layer]` is the share of each later
    layer (0 for others), over all tokens. total = direct − compensation but for the change of the final norm's scale.
    """

    model: str
    kind: Removal
    parts: tuple[RemovedPart, ...]
    full: Float[Tensor, " prompt"]
    counts: Int[Tensor, " prompt"]
    loss: Float[Tensor, "part layer prompt"]
    direct: Float[Tensor, "part layer prompt"]
    total: Float[Tensor, "part layer prompt"]
    compensation: Float[Tensor, "part layer prompt"]
    later: Float[Tensor, "part layer later_layer"]

    def __post_init__(self) -> None:
        shapes = {tuple(getattr(self, name).shape) for name in MEASURES}
        if len(shapes) > 1 or self.loss.ndim != 3 or len(self.parts) != len(self.loss):
            raise CircuitsError(f"the measures must have one shape [part layer prompt], not {sorted(shapes)}")

    @property
    def full_loss(self) -> float:
        """Mean loss a token of the whole model."""
        return float((self.full * self.counts).sum() / self.counts.sum())

    @property
    def summary(self) -> str:
        """The model's loss, and the layer without which it rises most."""
        rises = self.mean("loss")
        part, layer = divmod(int(rises.argmax()), rises.shape[1])
        what = "all" if self.parts[part] == "both" else self.parts[part]
        most = f"without {what} of layer {layer} it rises most, by {float(rises.max()):.3g}"
        return f"{self.model}: loss {self.full_loss:.4g} nats a token; {most} ({self.kind})."

    def mean(self, measure: str) -> Float[Tensor, "part layer"]:
        """A measure ("loss", "direct", "total", "compensation") over all tokens."""
        if measure not in MEASURES:
            raise CircuitsError(f"no measure {measure!r}: there are {', '.join(MEASURES)}")
        return (getattr(self, measure) * self.counts).sum(dim=-1) / self.counts.sum()

    def interval(self, measure: str, part: RemovedPart, layer: int) -> Effect:
        """A measure's mean over prompts with its 95 % bootstrap interval."""
        return bootstrap(getattr(self, measure)[self.parts.index(part), layer])

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a part and layer: loss, direct, total, compensation, over all tokens."""
        import pandas

        means = {measure: self.mean(measure) for measure in MEASURES}
        rows = [
            {"part": part, "layer": layer, **{name: float(values[index, layer]) for name, values in means.items()}}
            for index, part in enumerate(self.parts)
            for layer in range(self.loss.shape[1])
        ]
        return pandas.DataFrame(rows, columns=["part", "layer", *MEASURES])


def remove_layers(
    model: Model, tokens: Prompts, *, kind: Removal = "zero", budget: int = BUDGET, progress: Progress | None = None
) -> LayerRemoval:
    """Take each layer's attention, its MLP, and both out of a model on a text, one layer at a time.

    Raises PromptError for text without a next token, NonFiniteError.

    Args:
        model: the model whose layers go.
        tokens: the text, as text, token ids or a batch.
        kind: what the part adds to the residual stream, biases included, becomes 0 ("zero") or its mean over the text's
            tokens ("mean").
        budget: bytes of runs and logits that are held at once, beside the run of one prompt.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if kind not in get_args(Removal):
        raise PromptError(f"kind={kind!r}: expected zero or mean")
    batch = model.prepare(tokens)
    check_text(batch)
    report = progress or silent
    parts: tuple[RemovedPart, ...] = ("attention", "mlp", "both") if model.d_mlp else ("attention",)
    found: dict[str, list[Tensor]] = {name: [] for name in ("full", "measures", "later")}
    batches, done = list(text_batches(model.weights, batch, budget=budget)), 0
    with torch.no_grad():
        nothing = torch.zeros(model.n_layers, 2, model.d_model).to(model.weights.W_E)
        values = _means(model, batch, budget) if kind == "mean" else nothing

    @torch.no_grad()
    def removed(part: int) -> dict[str, Tensor]:
        """What some prompts lose."""
        return _removed(model, batches[part], parts, values, budget)

    report("removing layers", 0, len(batch))
    for rows, one in zip(batches, shards("removing layers", len(batches), removed), strict=True):
        for name, value in one.items():
            found[name].append(value)
        done += len(rows)
        report("removing layers", done, len(batch))
    measures = torch.cat(found["measures"], dim=-1)
    counts = predicted(batch).sum(dim=1).cpu()
    later = torch.stack(found["later"]).sum(dim=0) / int(counts.sum())
    return LayerRemoval(model.name, kind, parts, torch.cat(found["full"]), counts, *measures, later=later)


def without(block: Block, part: RemovedPart, values: Float[Tensor, "two d_model"]) -> Block:
    """A block whose attention, MLP or both add a constant: the first value in place of attention, the second of the MLP."""
    attention, mlp = block.attention, block.mlp
    if part != "mlp":
        attention = dataclasses.replace(attention, W_O=torch.zeros_like(attention.W_O), b_O=values[0])
        block = dataclasses.replace(block, attention=attention, attention_post_norm=None)
    if part != "attention" and mlp is not None:
        mlp = dataclasses.replace(mlp, W_out=torch.zeros_like(mlp.W_out), b_out=values[1])
        block = dataclasses.replace(block, mlp=mlp, mlp_post_norm=None)
    return block


def _means(model: Model, batch: TokenBatch, budget: int) -> Float[Tensor, "layer two d_model"]:
    """What each layer's attention and MLP add, the mean over tokens that are no pads."""
    total = torch.zeros(model.n_layers, 2, model.d_model, dtype=torch.float64, device=model.device)
    for rows in text_batches(model.weights, batch, budget=budget):
        run = forward(model.weights, rows, logits=False)
        for layer in range(model.n_layers):
            total[layer] += torch.stack([one[rows.mask].double().sum(dim=0) for one in _written(run, layer)])
    return (total / int(batch.mask.sum())).to(model.weights.W_E)


def _written(run: Run, layer: int) -> tuple[Tensor, Tensor]:
    """What attention and MLP of a layer added to the residual stream."""
    middle = run.middles[layer]
    return middle - run.residuals[layer], run.residuals[layer + 1] - middle


def _removed(
    model: Model, rows: TokenBatch, parts: tuple[RemovedPart, ...], values: Float[Tensor, "layer two d_model"], budget: int
) -> dict[str, Tensor]:
    """The measures `[measure part layer prompt]` of some prompts, their losses, and the sums of what later layers add."""
    weights = model.weights
    run = forward(weights, rows, logits=False)
    refuse_non_finite(run)
    losses = next_token_losses(weights, run.residuals[-1], rows, budget=budget)
    reader = _Reader(weights, run)
    before, own = reader.logit(run.residuals[-1]), torch.stack([_both(reader, run, layer) for layer in range(model.n_layers)])
    measures = torch.zeros(len(MEASURES), len(parts), model.n_layers, len(rows), dtype=torch.float64)
    later = torch.zeros(len(parts), model.n_layers, model.n_layers, dtype=torch.float64)
    for index, part in enumerate(parts):
        for layer in range(model.n_layers):
            blocks = (without(weights.blocks[layer], part, values[layer]), *weights.blocks[layer + 1 :])
            changed = dataclasses.replace(weights, blocks=(*weights.blocks[:layer], *blocks))
            other = run_from(changed, rows, layer, run.residuals[layer])
            theirs = torch.stack([_both(reader, other, at) for at in range(model.n_layers - layer)])
            growth = theirs - own[layer:]
            gone = slice(0, 1) if part == "attention" else slice(1, 2) if part == "mlp" else slice(0, 2)
            direct = -growth[0, gone].sum(dim=0)
            grown = growth.sum(dim=1)
            grown[0] = growth[0, 1] if part == "attention" else 0
            loss = next_token_losses(weights, other.residuals[-1], rows, budget=budget) - losses
            total = before - reader.logit(other.residuals[-1])
            found = (loss, direct, total, grown.sum(dim=0))
            measures[:, index, layer] = torch.stack([prompt_means(one, rows) for one in found])
            later[index, layer, layer:] = grown.double().sum(dim=(1, 2)).cpu()
    return {"full": prompt_means(losses, rows), "measures": measures, "later": later}


def _both(reader: "_Reader", run: Run, layer: int) -> Float[Tensor, "two prompt before"]:
    return torch.stack([reader.contribution(one) for one in _written(run, layer)])


@dataclasses.dataclass(frozen=True, eq=False)
class _Reader:
    """Reads the logit of the true next token, less the mean over the vocabulary, out of residual streams."""

    weights: Weights
    whole: Run

    def _directions(self) -> Float[Tensor, "prompt before d_model"]:
        W_U = self.weights.W_U
        return W_U.T[self.whole.tokens.ids[:, 1:]] - W_U.mean(dim=1)

    def contribution(self, part: Float[Tensor, "prompt position d_model"]) -> Float[Tensor, "prompt before"]:
        """What a part adds, through the final norm with the whole run's scale."""
        read = through_norm(part, self.weights.final_norm, self.whole.final_scale)[:, :-1]
        return self._counted(read)

    def logit(self, x: Float[Tensor, "prompt position d_model"]) -> Float[Tensor, "prompt before"]:
        """The logit itself, the unembedding's bias left aside as it never changes."""
        return self._counted(normalise(x, self.weights.final_norm)[:, :-1])

    def _counted(self, read: Float[Tensor, "prompt before d_model"]) -> Float[Tensor, "prompt before"]:
        found = torch.einsum("bpm,bpm->bp", read, self._directions())
        return found.masked_fill(~predicted(self.whole.tokens), 0.0)
