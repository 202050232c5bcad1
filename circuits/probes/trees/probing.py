"""Structural probes by place, beside the order of words, the embeddings and random weights."""

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
from circuits.probes.probing import FIRST
from circuits.probes.reading import Pooling, WordText
from circuits.probes.regression import Scale
from circuits.probes.sites import sites_of
from circuits.probes.splitting import split_words
from circuits.probes.storing import activations
from circuits.probes.trees.gold import GoldTree, gold_trees
from circuits.probes.trees.results import TreeProbes
from circuits.probes.trees.scoring import TreeScore, by_length, score_tree
from circuits.probes.trees.structural import fit_tree, squared_distances
from circuits.progress import Found, Progress, heard, silent
from circuits.statistics import standard_error
from circuits.tasks.sources.conllu import Sentence


def probe_trees(
    model: Model,
    sentences: Sequence[Sentence] | WordText,
    *,
    sites: str | Sequence[str] = "residual",
    pooling: Pooling = "last",
    words: int | None = None,
    rank: int = 64,
    epochs: int = 24,
    seed: int = 0,
    random_weights: bool = True,
    folder: str | Path | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
    found: Found | None = None,
) -> TreeProbes:
    """How much of the sentences' dependency trees is read off each place by structural probes (Hewitt & Manning 2019): one for
    distances between words, one for depths. A fifth of the sentences is judged on, the same one as in `probe`.

    Beside it: each word attached to the next one, the embeddings (resid0, always among the places), the same architecture with
    random weights. In a causal model a word cannot know what follows it: figures of models that see both sides are higher.

    Raises PromptError where fewer than 10 sentences have two words or more, and for numbers below 1; GraphError for places that
    the model lacks, and what `activations` raises.

    Args:
        model: what is probed.
        sentences: with their dependencies (`circuits.tasks.read_conllu`).
        sites: places by name, or all of a family: residual, middle, heads, neurons.
        pooling: what stands for a word of several tokens, "last" or "mean".
        words: read sentences until there are so many words (default: all).
        rank: directions of the projections at most.
        epochs: how often each sentence is trained on.
        seed: that of the first projections and of the order of sentences.
        random_weights: whether a model with random weights is probed too.
        folder: where activations are kept for the next time (default: nowhere).
        budget: bytes that reading may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
        found: hears the result so far, when all places of the model itself are there.
    """
    if rank < 1 or epochs < 1:
        raise PromptError(f"rank={rank}, epochs={epochs}: expected at least 1 of each")
    tell, report = heard(found), progress or silent
    text = sentences if isinstance(sentences, WordText) else WordText.of(model, sentences, words=words)
    train, judge = split_trees(text)
    named = list(dict.fromkeys([FIRST, *(site.name for site in sites_of(model, sites))]))
    how: dict[str, Any] = {"rank": rank, "epochs": epochs, "seed": seed}
    options: dict[str, Any] = {"sites": named, "pooling": pooling, "folder": folder, "budget": budget, "progress": progress}
    scores = []
    with activations(model, text, **options) as read:
        for done, name in enumerate(named):
            report("probing for trees", done, len(named))
            scores.append(judge_trees(read.of(name), train, judge, **how))
        report("probing for trees", len(named), len(named))
    about = {"pooling": pooling, "rank": rank, "seed": seed, "trained": len(train)}
    result = _result(model, named, scores, [chain_score(tree) for tree in judge], about)
    tell(result)
    if not random_weights:
        return result
    random = []
    with activations(with_random_weights(model), text, **options) as read:
        for done, name in enumerate(named):
            report("probing random weights", done, len(named))
            random.append(attachment(judge_trees(read.of(name), train, judge, depths=False, **how)))
        report("probing random weights", len(named), len(named))
    shares, errors = (tuple(values) for values in zip(*random, strict=True))
    return dataclasses.replace(result, random=shares, random_errors=errors)


def split_trees(text: WordText) -> tuple[list[GoldTree], list[GoldTree]]:
    """Trees to train and to judge on. Raises PromptError for fewer than 10."""
    trees = gold_trees(text)
    there = torch.zeros(len(text.places), dtype=torch.long)
    split = split_words(there, text.sentence_of)
    judged = set(text.sentence_of[split.judge].tolist())
    train = [tree for tree in trees if tree.sentence not in judged]
    judge = [tree for tree in trees if tree.sentence in judged]
    if not train or not judge:
        raise PromptError(f"{len(trees)} sentences of two words or more: a structural probe needs more of them")
    return train, judge


def judge_trees(
    x: Float[Tensor, "word width"],
    train: Sequence[GoldTree],
    judge: Sequence[GoldTree],
    *,
    rank: int,
    epochs: int,
    seed: int,
    depths: bool = True,
) -> list[TreeScore]:
    """Fit both probes at a place, and score the trees that are judged on."""
    scale = Scale.of(x[torch.cat([tree.words for tree in train])])
    scaled = x / scale.deviation  # not centred: a root's length is to be 0 where the model has it so
    how = {"rank": rank, "epochs": epochs, "seed": seed}
    by_distance = scaled @ fit_tree(scaled, train, "distance", **how)
    by_depth = scaled @ fit_tree(scaled, train, "depth", **how) if depths else None
    scores = []
    for tree in judge:
        told = None if by_depth is None else by_depth[tree.words].square().sum(dim=1)
        scores.append(score_tree(tree, squared_distances(by_distance[tree.words]), told))
    return scores


def chain_score(tree: GoldTree) -> TreeScore:
    """What the order of words alone tells of a tree: each word that is no punctuation is attached to the next such one."""
    rank = torch.where(tree.scored, tree.scored.cumsum(0), torch.arange(len(tree.words)) + 1).float()
    place = torch.arange(len(tree.words)).float()
    chained = score_tree(tree, (rank[:, None] - rank).abs())
    return dataclasses.replace(chained, distance=score_tree(tree, (place[:, None] - place).abs()).distance)


def attachment(scores: Sequence[TreeScore]) -> tuple[float, float]:
    """UUAS, and its standard error with the relations of one sentence taken together."""
    attached, edges = (torch.tensor([getattr(one, name) for one in scores]).double() for name in ("attached", "edges"))
    share = float(attached.sum() / edges.sum())
    return share, float((attached - share * edges).square().sum().sqrt() / edges.sum())


def _result(
    model: Model, names: Sequence[str], scores: Sequence[Sequence[TreeScore]], chain: Sequence[TreeScore], about: dict[str, Any]
) -> TreeProbes:
    rows = []
    for place in scores:
        roots = torch.tensor([one.root for one in place]).double()
        error = float(standard_error(roots))
        rows.append([*attachment(place), by_length(place, "distance"), by_length(place, "depth"), float(roots.mean()), error])
    columns = torch.tensor(rows, dtype=torch.float64).T
    share, error = attachment(chain)
    return TreeProbes(
        model=model.name,
        weights_sha256=model.fingerprint,
        sites=tuple(names),
        **dict(zip(("uuas", "errors", "distance", "depth", "root", "root_errors"), columns, strict=True)),
        chain={"uuas": share, "error": error, "distance": by_length(chain, "distance")},
        judged=len(chain),
        relations=sum(one.edges for one in chain),
        **about,
    )
