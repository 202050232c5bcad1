"""What a model loses without the neurons that a ranking puts first: what can be read off a neuron need not be used."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError, PromptError
from circuits.models import Edit, Model, TokenBatch
from circuits.models.edits import compile_edits
from circuits.models.forward import forward
from circuits.models.memory import BUDGET
from circuits.models.weights import Weights
from circuits.probes.next_tokens import SENTENCES, LossBatch, NextTokens, judged_sentences, loss_batches
from circuits.probes.question import Question
from circuits.probes.ranking.means import class_means
from circuits.probes.ranking.results import KINDS, SETS, NeuronKnockout, NeuronRankings
from circuits.probes.reading import Pooling, WordText
from circuits.probes.storing import activations
from circuits.progress import Progress, silent
from circuits.runs import shards
from circuits.tasks.sources.conllu import Sentence


def knock_out(
    model: Model,
    sentences: Sequence[Sentence] | WordText,
    rankings: NeuronRankings,
    *,
    sizes: Sequence[int] = (1, 5, 20, 100),
    kinds: Sequence[str] = KINDS,
    count: int = SENTENCES,
    draws: int = 3,
    words: int | None = None,
    folder: str | Path | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> NeuronKnockout:
    """Take the first neurons of each ranking out of the model, the last ones, and as many random ones, on sentences that
    nothing was fitted to; how much does the loss of the next token rise? Tokens that follow a word with the property are told
    apart from all others.

    A neuron is set to 0 or to its mean over the words read (`zero`, `mean`) at every token, or at words with the property alone
    to its mean over another class, drawn as often as words have it (`moved`).

    Raises PromptError where `rankings` are of another model or other words, CircuitsError for kinds that there are not and
    numbers out of range.

    Args:
        model: the model whose neurons were ranked.
        sentences: those that they were ranked on.
        rankings: what `rank_neurons` has found.
        sizes: how many neurons are taken out together.
        kinds: what takes their place: zero, mean, moved.
        count: sentences that losses are measured on.
        draws: sets of random neurons of each size.
        words: as it was given to `rank_neurons`.
        folder: where activations are kept.
        budget: bytes that a pass may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    text = sentences if isinstance(sentences, WordText) else WordText.of(model, sentences, words=words)
    question = Question.of(text, rankings.property, least=1, classes=rankings.classes, baselines=False)
    if rankings.weights_sha256 != model.fingerprint or len(question.gold) != rankings.judged:
        raise PromptError(f"these rankings are of {rankings.model}, {rankings.judged:,} words judged: give the same")
    sizes = [size for size in sizes if size <= len(rankings.layers)]
    if not sizes or min(sizes) < 1 or count < 2 or draws < 1:
        raise CircuitsError(f"sizes={sizes}, count={count}, draws={draws}: expected sizes and draws from 1 on, 2 sentences")
    if not kinds or not set(kinds) <= set(KINDS):
        raise CircuitsError(f"kinds={list(kinds)}: expected some of {', '.join(KINDS)}")
    named = _sets(rankings, sizes, draws)
    pooling: Pooling = rankings.pooling  # type: ignore[assignment]
    options: dict[str, Any] = {"pooling": pooling, "folder": folder, "budget": budget, "progress": progress}
    layers = rankings.layers.unique().tolist()
    with activations(model, text, sites=[f"m{layer}" for layer in layers], **options) as read:
        used = torch.cat([one for sets in named.values() for one in sets]).unique()
        standing = _Standing.of(rankings, used, question, lambda layer: read.of(f"m{layer}"))
    chosen = judged_sentences(question, count)
    variants = [(one, kind) for kind in kinds for sets in named.values() for one in sets]
    found = NextTokens.joined([*_measured(model, question, standing, variants, chosen, pooling, budget, progress or silent)])
    return _result(model, rankings, named, list(kinds), sizes, found, draws, len(chosen))


_Name = tuple[str, str, int]
"""Ranking, set and size; random sets have no ranking."""


def _sets(rankings: NeuronRankings, sizes: Sequence[int], draws: int) -> dict[_Name, list[Tensor]]:
    """Neurons by their place in `rankings`."""
    generator, total = torch.Generator().manual_seed(0), len(rankings.layers)
    found: dict[_Name, list[Tensor]] = {}
    for size in sizes:
        for way, order in zip(rankings.ways, rankings.order, strict=True):
            found[way, "top", size] = [order[:size]]
            found[way, "bottom", size] = [order[-size:]]
        found["", "random", size] = [torch.randperm(total, generator=generator)[:size] for _ in range(draws)]
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class _Standing:
    """What stands in for each neuron that is taken out somewhere: its mean, and that over each class."""

    layers: Int[Tensor, " neuron"]
    indices: Int[Tensor, " neuron"]
    mean: Float[Tensor, " neuron"]
    classes: Float[Tensor, "class neuron"]

    @classmethod
    def of(cls, rankings: NeuronRankings, used: Tensor, question: Question, read: Any) -> "_Standing":
        """From training words; of neurons that are not used, 0."""
        train, count = question.split.train, question.asked.classes
        labels, total = question.labels.labels[train], len(rankings.layers)
        mean, classes = torch.zeros(total, dtype=torch.float64), torch.zeros(count, total, dtype=torch.float64)
        for layer in rankings.layers[used].unique().tolist():
            own = used[rankings.layers[used] == layer]
            x = read(layer)[train][:, rankings.indices[own]].double()
            mean[own], classes[:, own] = x.mean(dim=0), class_means(x, labels, classes=count)
        return cls(rankings.layers, rankings.indices, mean, classes)

    def by_layer(self, neurons: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Some neurons, a layer at a time."""
        for layer in self.layers[neurons].unique().tolist():
            yield layer, neurons[self.layers[neurons] == layer]

    def without(self, weights: Weights, neurons: Tensor, *, mean: bool) -> Weights:
        """The model with neurons at 0, or at their mean: they write nothing, and the bias writes what their mean would."""
        blocks = list(weights.blocks)
        for layer, own in self.by_layer(neurons):
            block = blocks[layer]
            assert block.mlp is not None
            rows = self.indices[own].to(block.mlp.W_out.device)
            W_out, b_out = block.mlp.W_out.clone(), block.mlp.b_out
            if mean:
                written = self.mean[own].to(W_out) @ W_out[rows]
                b_out = written if b_out is None else b_out + written
            W_out[rows] = 0
            blocks[layer] = dataclasses.replace(block, mlp=dataclasses.replace(block.mlp, W_out=W_out, b_out=b_out))
        return dataclasses.replace(weights, blocks=tuple(blocks))

    def edits(self, neurons: Tensor, classes: Int[Tensor, "prompt position"]) -> list[Edit]:
        """Neurons set to their mean over a class where a token stands for a word of one (-1: left as they are)."""
        there, edits = classes >= 0, []
        for neuron in neurons.tolist():
            values = self.classes[:, neuron].to(classes.device)[classes.clamp(min=0)]
            edits.append(Edit(f"m{int(self.layers[neuron])}.n{int(self.indices[neuron])}", values, there))
        return edits


@torch.no_grad()
def _measured(
    model: Model,
    question: Question,
    standing: _Standing,
    variants: Sequence[tuple[Tensor, str]],
    chosen: Sequence[int],
    pooling: Pooling,
    budget: int,
    progress: Progress,
) -> Iterator[NextTokens]:
    """Every set taken out in every way, on some sentences at a time, `[variant token]`."""
    size, done = model.weights.W_E.element_size() * model.n_layers * (6 * model.d_model + 2 * model.d_mlp), 0
    for batch in loss_batches(model, question, chosen, pooling=pooling, most=budget // (4 * size)):
        tokens, changed = batch.words.tokens, list[Tensor]()
        moved = torch.full((tokens.ids.numel(),), -1, device=tokens.ids.device)
        moved[batch.at] = batch.other

        def loss(weights: Weights, edits: Sequence[Edit] = (), tokens: TokenBatch = tokens, batch: LossBatch = batch) -> Tensor:
            """Of each next token."""
            compiled = compile_edits(edits, model.graph(neurons=True)) if edits else {}
            run = forward(weights, tokens, edits=compiled, keep="writes", logits=False)
            return batch.losses(model, run.residuals[-1], budget=budget)[0]

        def lost(place: int, loss: Any = loss, moved: Tensor = moved, tokens: TokenBatch = tokens) -> Tensor:
            """The losses without one set."""
            neurons, kind = variants[place]
            if kind == "moved":
                return loss(model.weights, standing.edits(neurons, moved.view(tokens.ids.shape)))
            return loss(standing.without(model.weights, neurons, mean=kind == "mean"))

        for one in shards("taking neurons out", len(variants), lost):
            changed.append(one.to(tokens.ids.device))
            done += len(tokens)
            progress("taking neurons out", done, len(variants) * len(chosen))
        yield batch.measured(loss(model.weights), torch.stack(changed))


def _result(
    model: Model,
    rankings: NeuronRankings,
    named: dict[_Name, list[Tensor]],
    kinds: list[str],
    sizes: list[int],
    found: NextTokens,
    draws: int,
    sentences: int,
) -> NeuronKnockout:
    lost = iter(found.lost)
    by_name = {
        (kind, *name): torch.stack([*itertools.islice(lost, len(sets))]).mean(dim=0)
        for kind in kinds
        for name, sets in named.items()
    }
    shape = (len(rankings.ways), len(SETS), len(kinds), len(sizes))
    rows = []
    for way, kept, kind, size in itertools.product(rankings.ways, SETS, kinds, sizes):
        rows.append(by_name[kind, "" if kept == "random" else way, kept, size])
    apart = torch.stack(rows).view(*shape, -1)
    means, errors = found.by_part(apart)
    beyond, beyond_errors = found.by_part(apart[:, 0] - apart[:, 2])
    return NeuronKnockout(
        model=model.name,
        weights_sha256=model.fingerprint,
        property=rankings.property,
        ways=rankings.ways,
        kinds=tuple(kinds),
        sizes=tuple(sizes),
        whole=found.whole_losses,
        counts=found.counts,
        lost=means,
        errors=errors,
        beyond=beyond[..., 0],
        beyond_errors=beyond_errors[..., 0],
        draws=draws,
        sentences=sentences,
    )
