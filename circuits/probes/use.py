"""Whether a model uses what a probe reads: the probe's directions are changed while the model runs (Elazar et al. 2021)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from circuits.errors import GraphError, PromptError
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.probes.directions import ReadDirections
from circuits.probes.next_tokens import SENTENCES, NextTokens, judged_sentences, loss_batches
from circuits.probes.question import Question
from circuits.probes.reading import Pooling, WordText, final_stream, layer_by_layer
from circuits.probes.results import Probes, PropertyUse
from circuits.probes.sites import ActivationSite, parse_site
from circuits.probes.storing import activations
from circuits.progress import Progress, silent
from circuits.tasks.sources.conllu import Sentence


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
    chosen = judged_sentences(question, count)
    found = NextTokens.joined([*_measured(model, question, changes, chosen, pooling, budget, report)])
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


@torch.no_grad()
def _measured(
    model: Model,
    question: Question,
    changes: Sequence[ReadDirections],
    chosen: Sequence[int],
    pooling: Pooling,
    budget: int,
    report: Progress,
) -> Iterator[NextTokens]:
    """Every change on some sentences at a time, `[site variant token]`."""
    variants, done = 3 + len(changes[0].random), 0
    size = model.weights.W_E.element_size() * (10 * model.d_model + 3 * model.d_mlp + 4 * model.n_heads * model.d_head)
    for batch in loss_batches(model, question, chosen, pooling=pooling, most=budget // (4 * size * variants)):
        own, read = batch.words.tokens, {one.place.layer for one in changes}
        streams = dict(layer_by_layer(model, own, "residual", only=read))
        whole = batch.losses(model, streams[model.n_layers], budget=budget)[0]
        changed = []
        for one in changes:
            x = one.variants(streams[one.place.layer], batch.at, batch.own, batch.other).flatten(0, 1)
            tokens = own[torch.arange(len(own)).repeat(variants)]
            changed.append(batch.losses(model, final_stream(model, tokens, one.place.layer, x), budget=budget))
            done += len(own)
            report("erasing what probes read", done, len(changes) * len(chosen))
        yield batch.measured(whole, torch.stack(changed))


def _result(
    model: Model, probes: Probes, changes: Sequence[ReadDirections], found: NextTokens, draws: int, sentences: int
) -> PropertyUse:
    lost = found.lost
    kinds = torch.cat([lost[:, :3], lost[:, 3:].mean(dim=1, keepdim=True)], dim=1)
    means, errors = found.by_part(kinds)
    beyond, beyond_errors = found.by_part(kinds[:, 0] - kinds[:, 3])
    return PropertyUse(
        model=model.name,
        weights_sha256=model.fingerprint,
        column=probes.column,
        sites=tuple(one.place.name for one in changes),
        ranks=torch.tensor([len(one.directions) for one in changes]),
        whole=found.whole_losses,
        counts=found.counts,
        lost=means,
        errors=errors,
        beyond=beyond[:, 0],
        beyond_errors=beyond_errors[:, 0],
        draws=draws,
        sentences=sentences,
        seed=0,
    )
