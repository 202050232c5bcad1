"""Pointers from pronouns by place, beside the nearest noun, the embeddings and random weights."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import PromptError
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.models.random_weights import with_random_weights
from circuits.probes.coreference.mentions import Referring, passages, referring
from circuits.probes.coreference.pointing import Choices, fit_pointer
from circuits.probes.coreference.results import CoreferenceProbes
from circuits.probes.probing import FIRST
from circuits.probes.reading import Pooling, WordText
from circuits.probes.sites import sites_of
from circuits.probes.splitting import split_words
from circuits.probes.storing import activations
from circuits.progress import Found, Progress, heard, silent
from circuits.runs import shards
from circuits.statistics import clustered_errors
from circuits.tasks.sources.conllu import Sentence

PASSAGE = 60
"""Words of a passage at most, unless it is said."""


def probe_coreference(
    model: Model,
    sentences: Sequence[Sentence],
    *,
    sites: str | Sequence[str] = "residual",
    pooling: Pooling = "last",
    words: int | None = None,
    passage: int = PASSAGE,
    rank: int = 32,
    epochs: int = 100,
    seeds: int = 3,
    random_weights: bool = True,
    folder: str | Path | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
    found: Found | None = None,
) -> CoreferenceProbes:
    """How well is read off each place what a pronoun refers to: two maps are trained so that the pronoun's vector is most like
    those of its antecedents, among all nouns, names and pronouns before it in the passage (Sorodoc et al. 2020).

    Antecedents are earlier mentions of the same entity, as `Entity=` in MISC brackets them (CorefUD, GUM); each counts by its
    head. A fifth of the passages is judged on, the same one for all seeds. Beside it: the nearest noun, a candidate drawn at
    random, the embeddings (resid0, always among the places), and the same architecture with random weights.

    Raises PromptError where fewer than 10 passages have a pronoun with an antecedent, and for numbers below 1; GraphError for
    places that the model lacks, and what `activations` raises.

    Args:
        model: what is probed.
        sentences: with their mentions (`circuits.tasks.read_conllu`, `coreference_sentences`).
        sites: places by name, or all of a family: residual, middle, heads, patterns, neurons.
        pooling: what stands for a word of several tokens, "last" or "mean".
        words: read passages until there are so many words (default: all).
        passage: words of a passage at most; a longer sentence stands by itself.
        rank: directions of the maps at most.
        epochs: how often each pronoun is trained on at most.
        seeds: how many times passages to train on are drawn, and maps.
        random_weights: whether a model with random weights is probed too.
        folder: where activations are kept for the next time (default: nowhere).
        budget: bytes that reading may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
        found: hears the result so far, when all places of the model itself are there.
    """
    if min(passage, rank, epochs, seeds) < 1:
        raise PromptError(f"passage={passage}, rank={rank}, epochs={epochs}, seeds={seeds}: expected at least 1 of each")
    tell, report = heard(found), progress or silent
    text = WordText.of(model, passages(sentences, passage), words=words)
    rows, left_out = referring(text)
    splits = [_split(text, rows, seed) for seed in range(seeds)]
    judge = splits[0][2]
    named = list(dict.fromkeys([FIRST, *(site.name for site in sites_of(model, sites))]))
    options: dict[str, Any] = {"sites": named, "pooling": pooling, "folder": folder, "budget": budget, "progress": progress}

    def pointed(asked: Model, what: str) -> list[tuple[float, float]]:
        """The accuracy at each place of a model, with its error."""
        shares = []
        with activations(asked, text, **options) as read:

            def at_place(place: int) -> tuple[float, float]:
                """The accuracy at one place."""
                return _share(_judged(read.of(named[place]), splits, rank=rank, epochs=epochs), judge)

            report(what, 0, len(named))
            for share in shards(what, len(named), at_place):
                shares.append(share)
                report(what, len(shares), len(named))
        return shares

    accuracy, errors = torch.tensor(pointed(model, "pointing from pronouns"), dtype=torch.float64).T
    result = CoreferenceProbes(
        model=model.name,
        weights_sha256=model.fingerprint,
        pooling=pooling,
        rank=rank,
        passage=passage,
        sites=tuple(named),
        accuracy=accuracy,
        errors=errors,
        baselines=_baselines(judge),
        judged=len(judge),
        trained=len(splits[0][0]),
        passages=len({row.passage for row in rows}),
        candidates=sum(len(row.candidates) for row in judge) / len(judge),
        left_out={why: count for why, count in left_out.items() if count},
        seeds=tuple(range(seeds)),
    )
    tell(result)
    if not random_weights:
        return result
    shares, spread = zip(*pointed(with_random_weights(model), "pointing, random weights"), strict=True)
    return dataclasses.replace(result, random=shares, random_errors=spread)


def _split(text: WordText, rows: Sequence[Referring], seed: int) -> tuple[list[Referring], list[Referring], list[Referring]]:
    """Pronouns to train on, to say when to stop, and to judge on, document by document: who is spoken of in one is spoken of in
    all of its passages. Raises PromptError for too few."""
    where = text.sentences[0].place
    if not rows:
        raise PromptError(
            f"{where}: no pronoun has an antecedent among the words before it; expected Entity= in MISC, as CorefUD has it"
        )
    document = torch.tensor([row.document for row in rows])
    if (there := len(document.unique())) < _LEAST:
        raise PromptError(f"{where}: {there} documents have a pronoun with an antecedent: a probe needs {_LEAST} or more")
    split = split_words(torch.zeros(len(rows), dtype=torch.long), document, seed=seed)
    train, develop, judge = ([rows[at] for at in part.tolist()] for part in (split.train, split.develop, split.judge))
    return train, develop, judge


_LEAST = 10


def _judged(
    x: Float[Tensor, "word width"], splits: Sequence[tuple[list[Referring], list[Referring], list[Referring]]], **how: Any
) -> Float[Tensor, " pronoun"]:
    """Of each judged pronoun the share of seeds that are right."""
    found = []
    for seed, (train, develop, judge) in enumerate(splits):
        found.append(fit_pointer(x, train, develop, seed=seed, **how).is_right(x, Choices.of(judge)).double())
    return torch.stack(found).mean(dim=0)


def _share(right: Float[Tensor, " pronoun"], judge: Sequence[Referring]) -> tuple[float, float]:
    """The mean, and its standard error by document."""
    document = torch.tensor([row.document for row in judge])
    return float(right.mean()), float(clustered_errors(right[:, None], document)[0])


def _baselines(judge: Sequence[Referring]) -> dict[str, tuple[float, float]]:
    """What needs no model."""
    nearest = torch.tensor([float(row.right[row.nearest]) for row in judge]).double()
    chance = torch.tensor([sum(row.right) / len(row.right) for row in judge]).double()
    return {"nearest noun": _share(nearest, judge), "chance": _share(chance, judge)}
