"""Whether heads divide the kinds of words between them (branch specialisation, Voss et al. 2021), beside shuffled labels."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.concepts.branches.results import TIE, Specialisation
from circuits.errors import PromptError
from circuits.heads.attention.words import Aligned, align_sentences, stream_attention
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.probes.columns import label_words
from circuits.progress import Progress, silent
from circuits.statistics import p_value
from circuits.tasks.sources.conllu import Sentence

PLACES = 16
"""Words with so many before them or more are of one place."""
_TINY = 1e-30


@dataclasses.dataclass(frozen=True, eq=False)
class _Looks:
    """How much each head looks at each word, the mean over the words behind it, and what is known of the word."""

    weights: Float[Tensor, "word head"]
    labels: Int[Tensor, " word"]
    place: Int[Tensor, " word"]
    sentence: Int[Tensor, " word"]


def specialise(
    model: Model,
    sentences: Sequence[Sentence],
    *,
    column: str = "upos",
    least: int = 20,
    permutations: int = 200,
    resamples: int = 200,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Specialisation:
    """Whether heads look at words of different classes, and whether layers do.

    A head's profile is the share of its attention that falls on each class, each word counted by the mean over the words
    behind it. With every head (or layer) as likely as another, I(class; head) is how much knowing the head tells of the class
    of the word that it looks at, here as a share of the smaller of both entropies: 0 where all heads look alike, 1 where each
    class has heads of its own. In the null the words' classes are shuffled among words that have as many words before them:
    heads look where they look, but not at classes. A head that looks at one frequent word looks at its class, too. Layers stand
    beside a second null, in which whole heads are shuffled over layers: are heads of a layer more alike than any? Where prompts
    open without BOS, heads rest on the first word instead: it is left out.

    Raises PromptError for a property that the words lack or that has one class, and for numbers below 1; what
    `stream_attention` raises.

    Args:
        model: the model whose heads are looked at.
        sentences: with the property of each word.
        column: the property: upos, relation, a feature such as Number, or a key of MISC (`circuits.probes.columns`).
        least: words of a class, below which it is none.
        permutations: shuffles of classes, and of heads.
        resamples: of sentences, for intervals.
        seed: of all that is drawn.
        budget: bytes of attention patterns that are held at once.
        progress: hears what is being done.
    """
    if min(permutations, resamples) < 2:
        raise PromptError(f"permutations={permutations}, resamples={resamples}: expected at least 2 of each")
    aligned, left_out = align_sentences(model, sentences)
    looks, classes = _looks(model, aligned, column, least, budget, progress)
    shape, generator = (model.n_layers, model.n_heads), torch.Generator().manual_seed(seed)
    profile = _profile(looks.weights, looks.labels, len(classes))
    own, informations = _divergence(profile), _informations(profile, shape)
    null, divergences = _null(looks, len(classes), shape, permutations, generator, progress)
    orders = [torch.randperm(len(profile), generator=generator) for _ in range(permutations)]
    grouped = torch.stack([_informations(profile[order], shape)[1] for order in orders])
    spread = _resampled(looks, len(classes), shape, resamples, generator)
    return Specialisation(
        model=model.name,
        weights_sha256=model.fingerprint,
        column=column,
        classes=classes,
        counts=looks.labels.bincount(minlength=len(classes)),
        profile=profile.unflatten(0, shape),
        divergence=own.unflatten(0, shape),
        p_values=_largest(own, divergences).unflatten(0, shape),
        information=informations,
        errors=spread,
        null=null,
        chance=torch.tensor(
            [p_value(float(one) - TIE, row.tolist()) for one, row in zip(informations, null, strict=True)], dtype=torch.float64
        ),
        grouped=grouped,
        grouped_chance=p_value(float(informations[1]) - TIE, grouped.tolist()),
        sentences=len(aligned),
        left_out=left_out,
        seed=seed,
    )


def _looks(
    model: Model, aligned: Sequence[Aligned], column: str, least: int, budget: int, progress: Progress | None
) -> tuple[_Looks, tuple[str, ...]]:
    """Looks at every word that has a token and a class, and some word behind it."""
    places: list[tuple[int, int]] = []
    weights = []
    for batch in stream_attention(model, aligned, budget=budget, progress=progress):
        size = batch.own.shape[1]
        behind = torch.ones(size, size, dtype=torch.bool, device=batch.own.device).tril(-1)
        pairs = behind & batch.own[:, :, None] & batch.own[:, None, :]
        counts = pairs.sum(dim=1)
        looked = torch.einsum("sqkh,sqk->skh", batch.attention, pairs.to(batch.attention.dtype))
        there = counts > 0
        if not model.opening():
            there[:, 0] = False  # heads rest on the first token, which elsewhere is BOS
        weights.append((looked / counts.clamp(min=1)[..., None])[there].double().cpu())
        places += [(batch.places[row], word) for row, word in there.nonzero().tolist()]
    if not places:
        raise PromptError(f"none of {len(aligned)} sentences has two words: nothing is looked at")
    labels = label_words([one.sentence for one in aligned], places, column, least=least)
    kept = labels.labels >= 0
    at = torch.tensor(places)[kept]
    return _Looks(torch.cat(weights)[kept], labels.labels[kept], at[:, 1].clamp(max=PLACES - 1), at[:, 0]), labels.classes


def _profile(weights: Float[Tensor, "word head"], labels: Int[Tensor, " word"], classes: int) -> Float[Tensor, "head class"]:
    """The share of each head's looks that falls on each class."""
    sums = torch.zeros(classes, weights.shape[1], dtype=weights.dtype).index_add_(0, labels, weights)
    return (sums / sums.sum(dim=0).clamp(min=_TINY)).T


def _divergence(profile: Float[Tensor, "*group head class"]) -> Float[Tensor, "*group head"]:
    """KL divergence of each head's profile from the mean of all, in nats."""
    return torch.special.xlogy(profile, profile / profile.mean(dim=-2, keepdim=True).clamp(min=_TINY)).sum(dim=-1)


def _informations(profile: Float[Tensor, "*group head class"], shape: tuple[int, int]) -> Float[Tensor, "2 ..."]:
    """I(class; head) and I(class; layer), each as a share of the smaller entropy: 0 to 1."""
    layers = profile.unflatten(-2, shape).mean(dim=-2)
    found = []
    for rows in (profile, layers):
        mean = rows.mean(dim=-2)
        entropy = -torch.special.xlogy(mean, mean).sum(dim=-1)
        bound = entropy.clamp(max=torch.tensor(rows.shape[-2], dtype=rows.dtype).log())
        # Of a single branch, or of one class, nothing can be told.
        found.append((_divergence(rows).mean(dim=-1) / bound.clamp(min=_TINY)).clamp(min=0.0))
    return torch.stack(found)


def _null(
    looks: _Looks,
    classes: int,
    shape: tuple[int, int],
    permutations: int,
    generator: torch.Generator,
    progress: Progress | None,
) -> tuple[Float[Tensor, "branch draw"], Float[Tensor, "draw head"]]:
    """The informations and the heads' divergences where classes are shuffled among words of the same place."""
    report, drawn, divergences = progress or silent, [], []
    for draw in range(permutations):
        if draw % 20 == 0:
            report("shuffling classes", draw, permutations)
        shuffled = _profile(looks.weights, _shuffled(looks.labels, looks.place, generator), classes)
        drawn.append(_informations(shuffled, shape))
        divergences.append(_divergence(shuffled))
    report("shuffling classes", permutations, permutations)
    return torch.stack(drawn, dim=1), torch.stack(divergences)


def _shuffled(labels: Int[Tensor, " word"], place: Int[Tensor, " word"], generator: torch.Generator) -> Int[Tensor, " word"]:
    """Classes shuffled among words of the same place."""
    drawn = (place + torch.rand(len(place), generator=generator, dtype=torch.float64)).argsort()
    return torch.empty_like(labels).scatter_(0, place.argsort(stable=True), labels[drawn])


def _largest(own: Float[Tensor, " head"], null: Float[Tensor, "draw head"]) -> Float[Tensor, " head"]:
    """p-values of heads among the largest of all heads in each draw, each head in steps of its own null's spread: valid for as
    many heads as there are (Westfall & Young 1993)."""
    middle, spread = null.mean(dim=0), null.std(dim=0).clamp(min=TIE)
    largest = ((null - middle) / spread).max(dim=1).values
    above = (largest[:, None] >= (own - middle) / spread - 1e-3).sum(dim=0)
    return (1 + above).double() / (1 + len(null))


def _resampled(
    looks: _Looks, classes: int, shape: tuple[int, int], resamples: int, generator: torch.Generator
) -> Float[Tensor, " branch"]:
    """Standard deviations over resamples of sentences."""
    _, sentence = looks.sentence.unique(return_inverse=True)
    count = int(sentence.max()) + 1
    drawn = torch.randint(count, (resamples, count), generator=generator)
    times = torch.zeros(resamples, count, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(drawn.shape).double())
    # Sums by sentence and class first: a resample is then a sum over sentences.
    sums = torch.zeros(count * classes, looks.weights.shape[1], dtype=torch.float64)
    sums.index_add_(0, sentence * classes + looks.labels, looks.weights)
    drawn_sums = torch.einsum("rs,sch->rch", times, sums.unflatten(0, (count, classes)))
    profiles = (drawn_sums / drawn_sums.sum(dim=1, keepdim=True).clamp(min=_TINY)).mT
    return _informations(profiles, shape).std(dim=1)
