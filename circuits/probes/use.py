"""Whether a model uses what a probe reads: the probe's directions are changed while the model runs (Elazar et al. 2021)."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import GraphError, PromptError
from circuits.heads.text_loss import losses_of, predicted
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.probes.directions import ReadDirections
from circuits.probes.question import Question
from circuits.probes.reading import Pooling, WordBatch, WordText, final_stream, layer_by_layer
from circuits.probes.results import PARTS, Probes, PropertyUse
from circuits.probes.sites import ActivationSite, parse_site
from circuits.probes.storing import activations
from circuits.progress import Progress, silent
from circuits.statistics import clustered_errors
from circuits.tasks.sources.conllu import Sentence

SENTENCES = 48
"""Sentences that losses are measured on, unless another number is asked for."""


def property_use(
    model: Model,
    sentences: Sequence[Sentence] | WordText,
    probes: Probes,
    *,
    sites: Sequence[str] | None = None,
    count: int = SENTENCES,
    draws: int = 3,
    words: int | None = None,
    folder: str | Path | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> PropertyUse:
    """What the model loses when the directions that probes of a property read are changed in the residual stream.

    At each place the probe is fitted once more, as `probes` has it; what it reads is a subspace of at most one direction fewer
    than there are classes. Then the model runs on from there, on sentences that no probe was trained on, with that part of the
    stream set to its mean at every token (erased), with the part at the words set to another class's mean (moved, the class
    drawn as often as words have it), to their own class's (kept: what moving costs without a change of class), and with as many
    directions erased as a probe with random weights reads (random), whose mean over draws is compared with.

    Losses are of the next token, in nats: of tokens that follow a word with the property, and apart from them of all others,
    which follow the inner tokens of words and words without it.

    Raises PromptError where `probes` are of another model or other words, GraphError for places that are no residual stream.

    Args:
        model: the model that was probed.
        sentences: those that it was probed on.
        probes: what `probe` has found.
        sites: residual streams (default: about seven of those that were probed, the best one among them).
        count: sentences that losses are measured on.
        draws: probes with random weights a place.
        words: as it was given to `probe`.
        folder: where activations are kept.
        budget: bytes that a pass may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    text = sentences if isinstance(sentences, WordText) else WordText.of(model, sentences, words=words)
    question, report = Question.of(text, probes.column, least=1, classes=probes.classes, baselines=False), progress or silent
    if probes.weights_sha256 != model.fingerprint or len(question.gold) != probes.judged:
        raise PromptError(f"these probes are of {probes.model}, {probes.judged:,} words judged: give the same model and words")
    if count < 2 or draws < 1:
        raise PromptError(f"count={count}, draws={draws}: expected at least 2 sentences and a draw")
    places = _places(model, probes, sites)
    pooling: Pooling = probes.pooling  # type: ignore[assignment]
    options: dict[str, Any] = {"pooling": pooling, "folder": folder, "budget": budget, "progress": progress}
    with activations(model, text, sites=[place.name for place in places], **options) as read:
        changes = [ReadDirections.of(read.of(place.name), question, probes, place, draws) for place in places]
    judged = question.asked.sentence[question.split.judge].unique()
    chosen = judged[torch.randperm(len(judged), generator=torch.Generator().manual_seed(0))][:count].tolist()
    found = [*_measured(model, question, changes, chosen, pooling, budget, report)]
    return _result(model, probes, changes, found, draws, len(chosen))


def _places(model: Model, probes: Probes, sites: Sequence[str] | None) -> list[ActivationSite]:
    """Residual streams by name, in the order of computation."""
    if sites is None:
        streams = [name for name in probes.sites if parse_site(model, name).family == "residual"]
        sites = [*streams[:: max(1, -(-len(streams) // 7))]]
        sites += [probes.sites[probes.best]] if probes.sites[probes.best] in streams else []
    found = {parse_site(model, name) for name in sites}
    wrong = next((place for place in found if place.family != "residual"), None)
    if wrong is not None or not found:
        named = "nothing" if wrong is None else wrong.name
        raise GraphError(f"{named} is no residual stream: expected resid0 to resid{model.n_layers}")
    return sorted(found, key=lambda place: place.layer)


@dataclasses.dataclass(frozen=True, eq=False)
class _Losses:
    """Losses of the next tokens of some sentences."""

    sentence: Int[Tensor, " token"]
    needed: Bool[Tensor, " token"]
    whole: Float[Tensor, " token"]
    changed: Float[Tensor, "site variant token"]


@torch.no_grad()
def _measured(
    model: Model,
    question: Question,
    changes: Sequence[ReadDirections],
    chosen: Sequence[int],
    pooling: Pooling,
    budget: int,
    report: Progress,
) -> Iterator[_Losses]:
    """Every change on some sentences at a time."""
    text, variants = question.text.only(chosen), 3 + len(changes[0].random)
    size = model.weights.W_E.element_size() * (10 * model.d_model + 3 * model.d_mlp + 4 * model.n_heads * model.d_head)
    longest = max(len(one.ids) for one in text.aligned)
    most = max(longest, budget // (4 * size * variants))
    generator, done = torch.Generator().manual_seed(0), 0
    shares = question.labels.labels[question.split.train].bincount(minlength=question.asked.classes).double().clamp(min=1e-9)
    for numbers in text.batches(most):
        batch = WordBatch.of(text, numbers, model.device)
        labels = question.labels_of(text, batch.words, chosen)
        own, other, at = _moves(batch, labels, shares, pooling, generator)
        counted = predicted(batch.tokens)
        follows = torch.zeros(batch.tokens.ids.shape, dtype=torch.bool, device=model.device)
        follows.view(-1)[batch.last[labels.to(model.device) >= 0]] = True
        streams = dict(layer_by_layer(model, batch.tokens, "residual", only={one.place.layer for one in changes}))
        wanted, rows = batch.tokens.ids[:, 1:][counted], counted.sum(dim=1)

        def loss(x: Tensor, wanted: Tensor = wanted, counted: Tensor = counted) -> Tensor:
            """Of each counted token, from the final stream of any number of variants."""
            found = x.unflatten(0, (-1, len(counted)))[:, :, :-1][:, counted]
            return losses_of(model.weights, found.flatten(0, 1), wanted.repeat(len(found)), budget=budget).view(len(found), -1)

        whole = loss(streams[model.n_layers])[0]
        changed = []
        for one in changes:
            x = one.variants(streams[one.place.layer], at, own, other).flatten(0, 1)
            tokens = batch.tokens[torch.arange(len(counted)).repeat(variants)]
            changed.append(loss(final_stream(model, tokens, one.place.layer, x)))
            done += len(numbers)
            report("erasing what probes read", done, len(changes) * len(chosen))
        sentence = torch.tensor(numbers).repeat_interleave(rows.cpu())
        parts = (sentence, follows[:, :-1][counted], whole.double(), torch.stack(changed).double())
        yield _Losses(*(part.cpu() for part in parts))


def _moves(
    batch: WordBatch, labels: Tensor, shares: Tensor, pooling: Pooling, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each token that stands for a labelled word its class and another one, drawn as often as words have it, and where the
    token stands."""
    others = shares.repeat(len(labels), 1)
    others[torch.arange(len(labels)), labels.clamp(min=0)] = 0
    other = torch.multinomial(others, 1, generator=generator)[:, 0]
    owner = torch.arange(len(labels)) if pooling == "last" else batch.owners.cpu()
    at = (batch.last if pooling == "last" else batch.places).cpu()
    used = labels[owner] >= 0
    found = (labels[owner][used], other[owner][used], at[used])
    return tuple(part.to(batch.last.device) for part in found)  # type: ignore[return-value]


def _result(
    model: Model, probes: Probes, changes: Sequence[ReadDirections], found: Sequence[_Losses], draws: int, sentences: int
) -> PropertyUse:
    sentence, needed, whole = (torch.cat([getattr(one, name) for one in found]) for name in ("sentence", "needed", "whole"))
    lost = torch.cat([one.changed for one in found], dim=2) - whole
    kinds = torch.cat([lost[:, :3], lost[:, 3:].mean(dim=1, keepdim=True)], dim=1)
    masks = dict(zip(PARTS, (needed, ~needed), strict=True))
    nothing = torch.full(kinds.shape[:2], torch.nan, dtype=torch.float64)
    means, errors = [], []
    for mask in masks.values():
        there = bool(mask.any())
        means.append(kinds[:, :, mask].mean(dim=2) if there else nothing)
        flat = kinds[:, :, mask].flatten(0, 1).T
        errors.append(clustered_errors(flat, sentence[mask]).view(kinds.shape[:2]) if there else nothing)
    beyond = (kinds[:, 0] - kinds[:, 3])[:, needed]
    return PropertyUse(
        model=model.name,
        weights_sha256=model.fingerprint,
        column=probes.column,
        sites=tuple(one.place.name for one in changes),
        ranks=torch.tensor([len(one.directions) for one in changes]),
        whole=torch.stack([whole[mask].mean() for mask in masks.values()]),
        counts=torch.tensor([int(mask.sum()) for mask in masks.values()]),
        lost=torch.stack(means, dim=2),
        errors=torch.stack(errors, dim=2),
        beyond=beyond.mean(dim=1),
        beyond_errors=clustered_errors(beyond.T, sentence[needed]),
        draws=draws,
        sentences=sentences,
        seed=0,
    )
