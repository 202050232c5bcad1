"""What happens to repeated tokens when heads are taken out: the evidence behind an induction circuit."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Node
from circuits.models import Edit, Model, Run, TokenBatch, node_output
from circuits.models.edits import compile_edits
from circuits.models.forward import forward
from circuits.models.layers import Geometry, attention_pattern, normalise, placed, project, unembed
from circuits.models.memory import BUDGET

AblationKind = Literal["zero", "mean", "zero_frozen", "mean_frozen"]
ABLATIONS: tuple[AblationKind, ...] = ("zero", "mean", "zero_frozen", "mean_frozen")
"""A head's mixed values z set to zero or to their mean over the other sequences (at each position); `frozen`: every attention
pattern stays as it was, so that only what the heads write changes and not where later heads look."""


@dataclasses.dataclass(frozen=True)
class Repeats:
    """A random segment of tokens said twice, after BOS where the model has one."""

    tokens: TokenBatch
    start: int
    """Column of the first token of the first copy."""
    length: int

    @property
    def second(self) -> Tensor:
        """Columns of the second copy whose next token the first copy tells: all but its last."""
        return torch.arange(self.start + self.length, self.start + 2 * self.length - 1, device=self.tokens.ids.device)


def chunks(count: int, size: int) -> list[slice]:
    """Slices of at most `size` rows."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def rows_at_once(model: Model, width: int, *, budget: int = BUDGET) -> int:
    """How many prompts of this width fit the budget (bytes), counting logits in double precision twice."""
    return max(1, budget // (width * model.d_vocab * 16))


def copy_losses(logits: Tensor, repeats: Repeats, rows: slice) -> Float[Tensor, "sequence copy"]:
    """Cross-entropy in nats of the tokens after the first one, in the first and the second copy, a sequence each."""
    copies = (repeats.second - repeats.length, repeats.second)
    return torch.stack([_loss(logits[:, columns], repeats, rows, columns) for columns in copies], dim=1)


def _loss(logits: Float[Tensor, "sequence column d_vocab"], repeats: Repeats, rows: slice, columns: Tensor) -> Tensor:
    """Mean cross-entropy of the tokens after these columns, a sequence each."""
    following = repeats.tokens.ids[rows][:, columns + 1, None]
    return -logits.log_softmax(dim=-1).gather(-1, following)[..., 0].mean(dim=1).double().cpu()


def prefix_matching(pattern: Float[Tensor, "sequence query key"], repeats: Repeats) -> Float[Tensor, " sequence"]:
    """Mean attention from the second copy to the token after the same token's first copy."""
    queries = repeats.second
    return pattern[:, queries, queries - repeats.length + 1].mean(dim=1).double().cpu()


class RepeatAblations:
    """Losses of one model on one set of repeats with heads taken out. Clean runs are made once and kept: their mixed
    values and patterns serve every ablation."""

    def __init__(self, model: Model, repeats: Repeats) -> None:
        self.model, self.repeats = model, repeats
        tokens = repeats.tokens
        self.rows = chunks(len(tokens), rows_at_once(model, tokens.ids.shape[1]))
        self.runs: list[Run] = []
        losses = []
        for rows in self.rows:
            run = model.run(tokens[rows], keep="patterns")
            losses.append(copy_losses(run.logits, repeats, rows))
            self.runs.append(dataclasses.replace(run, logits=run.logits[:, :0]))
        self.clean = torch.cat(losses)
        self.sums = [torch.cat([run.z[layer] for run in self.runs]).sum(dim=0) for layer in range(model.n_layers)]

    def rise(self, heads: Sequence[Node], kind: AblationKind) -> Float[Tensor, " sequence"]:
        """How much the loss on the second copy rises, in nats a sequence, when these heads are ablated."""
        losses, columns, weights = [], self.repeats.second, self.model.weights
        for rows, run in zip(self.rows, self.runs, strict=True):
            edits = compile_edits([Edit(head, self._value(head, kind, run)) for head in heads], self.model.graph())
            patterns = run.patterns if kind.endswith("_frozen") else None
            ablated = forward(weights, self.repeats.tokens[rows], edits=edits, patterns=patterns, logits=False)
            logits = unembed(weights, ablated.residuals[-1][:, columns])  # of the second copy alone
            losses.append(_loss(logits, self.repeats, rows, columns))
        return torch.cat(losses) - self.clean[:, 1]

    def _value(self, head: Node, kind: AblationKind, run: Run) -> float | Tensor:
        """Zero, or the mean over all other sequences: a sequence's own value in its mean would soften the ablation."""
        if kind.startswith("zero"):
            return 0.0
        layer, index, others = head.layer or 0, head.index, len(self.repeats.tokens) - 1
        return (self.sums[layer][:, index] - run.z[layer][:, :, index]) / max(1, others)

    def prefix_matching(self, head: Node) -> Float[Tensor, " sequence"]:
        """The clean prefix-matching score of a head, a sequence each."""
        return torch.cat([prefix_matching(run.patterns[head.layer or 0][:, head.index], self.repeats) for run in self.runs])

    def prefix_matching_without(self, head: Node, writer: Node) -> Float[Tensor, " sequence"]:
        """The score of a head when an earlier head is taken out of what its keys read, and out of nothing else: the
        writer's output is replaced by its mean, the norm recomputed, queries and all other nodes stay."""
        layer = head.layer or 0
        outputs = [node_output(run, writer) for run in self.runs]
        mean = torch.cat(outputs).mean(dim=(0, 1))
        scores = []
        for run, output in zip(self.runs, outputs, strict=True):
            block = self.model.weights.blocks[layer]
            geometry = Geometry(self.model.weights, run.tokens, self.model.dtype)
            normed = normalise(run.residuals[layer] - output + mean, block.attention_norm)
            keys = placed(project(normed, block.attention, "k"), "k", geometry.rotation(layer))
            pattern = attention_pattern(run.q[layer], keys, block.attention, geometry.bias(block.attention.window))
            scores.append(prefix_matching(pattern[:, head.index], self.repeats))
        return torch.cat(scores)
