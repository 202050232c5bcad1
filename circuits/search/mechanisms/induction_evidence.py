"""What happens to repeated tokens when heads are taken out: the evidence behind an induction circuit."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Node
from circuits.models import Model, Run, TokenBatch, node_output
from circuits.models.forward import FACTORS, forward
from circuits.models.geometry import Geometry
from circuits.models.layers import attention_pattern, normalise, placed, project, unembed
from circuits.models.memory import prompts_at_once
from circuits.patching.engine.change import Change, Variant
from circuits.patching.engine.reading import Reading
from circuits.patching.engine.sweep import Sweep
from circuits.progress import Progress, silent
from circuits.tasks.metric import widened

AblationKind = Literal["zero", "mean", "zero_frozen", "mean_frozen"]
ABLATIONS: tuple[AblationKind, ...] = ("zero", "mean", "zero_frozen", "mean_frozen")
"""A head's mixed values z set to zero or to their mean over the other sequences (at each position); `frozen`: every attention
pattern stays as it was, so that only what the heads write changes and not where later heads look."""
FEW = 4
"""Sequences that an ablation is measured on at first; on more where these leave open what is asked."""
Heads = tuple[Node, ...]
Asked = tuple[Heads, AblationKind]
"""Heads that are ablated together, and how."""
Enough = Callable[[Asked, Tensor], bool]
"""Whether the rises so far of one ablation are enough."""


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


def doubling(first: int, count: int) -> list[slice]:
    """Slices of `count` rows: `first` of them, and then each time as many as there were."""
    ends = [min(first, count)]
    while ends[-1] < count:
        ends.append(min(2 * ends[-1], count))
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def mean_loss(logits: Float[Tensor, "*row column d_vocab"], following: Tensor) -> Float[Tensor, "*row"]:
    """Mean cross-entropy, in nats, of the tokens that follow these columns."""
    # A row at a time: what a softmax of all rows holds besides the logits does not fit the processor's cache.
    rows = zip(logits.flatten(0, -3), following.flatten(0, -2), strict=True)
    found = [-widened(one).log_softmax(dim=-1).gather(-1, ids[:, None]).mean() for one, ids in rows]
    return torch.stack(found).reshape(logits.shape[:-2])


class RepeatAblations:
    """Losses of one model on one set of repeats with heads taken out. The clean runs are made once and kept: every ablation
    starts from them, at its own layer."""

    def __init__(self, model: Model, repeats: Repeats) -> None:
        self.model, self.repeats, self.tokens = model, repeats, model.prepare(repeats.tokens)
        room = prompts_at_once(model.weights, self.tokens.ids.shape[1])
        self.at_once = max(FEW, 2 ** (room.bit_length() - 1))
        """Sequences of a run: a power of two, so that no round of `doubling` has rows of two runs but whole ones."""
        self.runs: list[Run] = []
        losses = []
        for rows in self._pieces(slice(0, len(self.tokens))):
            self.runs.append(forward(model.weights, self.tokens[rows], logits=False))
            losses.append(self._losses(self.runs[-1].residuals[-1], rows))
        self.clean = torch.cat(losses)
        self.sums = [torch.cat(parts).sum(dim=0) for parts in zip(*(run.z for run in self.runs), strict=True)]

    def _pieces(self, rows: slice) -> list[slice]:
        """The same sequences, those of one run at a time."""
        return [slice(start, min(start + self.at_once, rows.stop)) for start in range(rows.start, rows.stop, self.at_once)]

    def _losses(self, final: Float[Tensor, "sequence position d_model"], rows: slice) -> Float[Tensor, "sequence copy"]:
        """Mean loss on the tokens after the first one, in the first and the second copy, a sequence each."""
        columns, found = torch.stack([self.repeats.second - self.repeats.length, self.repeats.second]), []
        for streams, ids in zip(final.split(2), self.tokens.ids[rows].split(2), strict=True):  # the logits of two at a time
            found.append(mean_loss(unembed(self.model.weights, streams[:, columns]), ids[:, columns + 1]))
        return torch.cat(found).double().cpu()

    def rises(
        self,
        asked: Sequence[Asked],
        *,
        first: int = FEW,
        enough: Enough = lambda one, rises: False,
        report: Progress = silent,
        what: str = "ablating heads",
    ) -> list[Float[Tensor, " used"]]:
        """How much the loss on the second copy rises, in nats a sequence, when heads are ablated: for each that is asked.

        On the `first` sequences, and on as many again time after time until `enough` says yes of the rises so far, or all are
        used. `report` counts sequences: those that turn out not to be needed count as done.
        """
        rises: list[list[Tensor]] = [[] for _ in asked]
        still, done, total = list(range(len(asked))), 0, len(asked) * len(self.tokens)
        for rows in doubling(first, len(self.tokens)):
            for piece in self._pieces(rows) if still else ():
                run, each = self._run(piece), piece.stop - piece.start
                for frozen in (False, True):
                    places = [place for place in still if asked[place][1].endswith("_frozen") == frozen]
                    if not places:
                        continue
                    tell = _counting(report, what, done, each, total)
                    found = self._swept([asked[place] for place in places], run, piece, frozen, tell)
                    for place, new in zip(places, found, strict=True):
                        rises[place].append(new)
                    done += len(places) * each
            decided = [place for place in still if enough(asked[place], torch.cat(rises[place]))]
            still = [place for place in still if place not in decided]
            done += len(decided) * (len(self.tokens) - rows.stop)
            report(what, done, total)
        return [torch.cat(parts) for parts in rises]

    def _run(self, rows: slice) -> Run:
        """The clean run of some sequences."""
        run, before = self.runs[rows.start // self.at_once], rows.start // self.at_once * self.at_once
        return _rows_of(run, slice(rows.start - before, rows.stop - before))

    def _swept(
        self, asked: Sequence[Asked], run: Run, rows: slice, frozen: bool, report: Progress
    ) -> Float[Tensor, "asked sequence"]:
        """The rises on some sequences, all that is asked in one sweep."""
        second, ids = self.repeats.second, self.tokens.ids[rows]
        reading = Reading(second.expand(len(ids), -1), lambda logits: mean_loss(logits, ids[:, second + 1]))
        sweep = Sweep(self.model, run, reading, freeze_patterns=frozen)
        return sweep.evaluate(self._variants(asked, run), progress=report).double().cpu() - self.clean[rows, 1]

    def _variants(self, asked: Sequence[Asked], run: Run) -> list[Variant]:
        """What is changed in the clean run for each that is asked."""
        made = {(head, kind): self._change(head, kind, run) for heads, kind in asked for head in heads}
        return [tuple(made[head, kind] for head in heads) for heads, kind in asked]

    def _change(self, head: Node, kind: AblationKind, run: Run) -> Change:
        """Zero, or the mean over all other sequences: a sequence's own value in its mean would soften the ablation."""
        layer, index, others = head.layer or 0, head.index, len(self.tokens) - 1
        own, everywhere = run.z[layer][:, :, index], torch.ones_like(run.tokens.mask[:1])
        value = torch.zeros_like(own[:1]) if kind.startswith("zero") else (self.sums[layer][:, index] - own) / max(1, others)
        return Change("head", layer, index, value, everywhere, label=str(head))

    def above_mean(self, head: Node) -> list[Float[Tensor, "sequence position d_model"]]:
        """What a head writes in each run, less its mean over all sequences and positions."""
        wrote = [node_output(run, head) for run in self.runs]
        mean = torch.cat(wrote).mean(dim=(0, 1))
        return [output - mean for output in wrote]

    def prefix_matching(
        self, heads: Sequence[Node], *, without: Sequence[Tensor] | None = None
    ) -> Float[Tensor, "head sequence"]:
        """The prefix-matching scores of heads of one layer, a sequence each.

        `without`: what is taken out of what their keys read in each run, and out of nothing else: the norm is recomputed,
        queries and all other nodes stay. With `above_mean` of an earlier head this sets it to its mean.
        """
        layer, indices = heads[0].layer or 0, [head.index or 0 for head in heads]
        scores = []
        for place, run in enumerate(self.runs):
            reads = run.residuals[layer] if without is None else run.residuals[layer] - without[place]
            scores.append(self._matching(run, layer, indices, reads))
        return torch.cat(scores, dim=1)

    def _matching(self, run: Run, layer: int, heads: list[int], reads: Tensor) -> Float[Tensor, "head sequence"]:
        """Mean attention from the second copy to the token after the same token's first copy, when the keys read `reads`."""
        block, queries = self.model.weights.blocks[layer], self.repeats.second
        attention, geometry = block.attention, Geometry(self.model.weights, run.tokens, self.model.dtype)
        keys = placed(project(normalise(reads, block.attention_norm), attention, "k"), "k", geometry.rotation(layer))
        groups = [head // (attention.n_heads // attention.n_key_value_heads) for head in heads]
        bias = geometry.bias_at(attention.window, queries[None])
        bias = bias[:, heads] if bias.shape[1] > 1 else bias
        alone = dataclasses.replace(attention, n_heads=len(heads), n_key_value_heads=len(heads))
        pattern = attention_pattern(run.q[layer][:, queries][:, :, heads], keys[:, :, groups], alone, bias)
        looked = pattern[:, :, torch.arange(len(queries)), queries - self.repeats.length + 1]
        return looked.mean(dim=-1).T.double().cpu()


def _counting(report: Progress, what: str, before: int, each: int, total: int) -> Progress:
    """Progress of a part, one of whose steps is `each` of the whole's."""
    return lambda _, done, __: report(what, before + done * each, total)


def _rows_of(run: Run, rows: slice) -> Run:
    """The run of some of its prompts; nothing is copied."""
    some: dict[str, Any] = {name: tuple(value[rows] for value in getattr(run, name)) for name in (*FACTORS, "residuals")}
    return dataclasses.replace(run, tokens=run.tokens[rows], logits=run.logits[rows], **some)
