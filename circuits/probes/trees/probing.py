"""Structural probes by place, beside the order of words, the embeddings and random weights."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from circuits.errors import PromptError
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.models.random_weights import with_random_weights
from circuits.probes.probing import FIRST
from circuits.probes.reading import Pooling, WordText
from circuits.probes.sites import sites_of
from circuits.probes.splitting import split_words
from circuits.probes.storing import activations
from circuits.probes.trees.gold import GoldTree, gold_trees
from circuits.probes.trees.judging import TreeReader, attachment, chain_score, drop, fit_reader, judge_trees
from circuits.probes.trees.nonsense import in_nonsense, pseudo_words
from circuits.probes.trees.results import ShownTree, TreeDetails, TreeProbes
from circuits.probes.trees.scoring import TreeScore, by_length
from circuits.probes.trees.structural import TreeSpace
from circuits.progress import Found, Progress, heard, silent
from circuits.runs import shards
from circuits.statistics import standard_error
from circuits.tasks.sources.conllu import Sentence

SHOWN, SHORTEST_SHOWN, LONGEST_SHOWN = 4, 6, 14
"""Sentences that are kept to be shown, and their words."""


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
    geometry: TreeSpace = "euclidean",
    ranks: Sequence[int] = (),
    jabberwocky: bool = False,
    random_weights: bool = True,
    folder: str | Path | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
    found: Found | None = None,
) -> TreeProbes:
    """How much of the sentences' dependency trees is read off each place by structural probes (Hewitt & Manning 2019): one for
    distances between words, one for depths. A fifth of the sentences is judged on.

    Beside it: each word attached to the next one, the embeddings (resid0, always among the places), the same architecture with
    random weights. In a causal model a word cannot know what follows it: figures of models that see both sides are higher.

    Raises PromptError where fewer than 10 sentences have two words or more, and for numbers below 1; GraphError for places that
    the model lacks, and what `activations` raises.

    Args:
        model: what is probed.
        sentences: with their dependencies (`circuits.tasks.read_conllu`).
        sites: places by name, or all of a family: residual, middle, heads, patterns, neurons.
        pooling: what stands for a word of several tokens, "last" or "mean".
        words: read sentences until there are so many words (default: all).
        rank: directions of the projections at most.
        epochs: how often each sentence is trained on.
        seed: that of the first projections and of the order of sentences.
        geometry: where distances are taken: "euclidean", or in the "poincare" ball (Chen et al. 2021).
        ranks: other ranks, tried at the best place.
        jabberwocky: whether the same probes are also judged where content words are pseudo-words with the same endings.
        random_weights: whether a model with random weights is probed too.
        folder: where activations are kept for the next time (default: nowhere).
        budget: bytes that reading may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
        found: hears the result so far, when all places of the model itself are there.
    """
    if min(rank, epochs, *ranks) < 1:
        raise PromptError(f"rank={rank}, epochs={epochs}, ranks={(*ranks,)}: expected at least 1 of each")
    if geometry not in get_args(TreeSpace):
        raise PromptError(f"geometry={geometry!r}: expected {' or '.join(get_args(TreeSpace))}")
    tell, report = heard(found), progress or silent
    text = sentences if isinstance(sentences, WordText) else WordText.of(model, sentences, words=words)
    train, judge = split_trees(text)
    named = list(dict.fromkeys([FIRST, *(site.name for site in sites_of(model, sites))]))
    how: dict[str, Any] = {"rank": rank, "epochs": epochs, "seed": seed, "space": geometry}
    options: dict[str, Any] = {"sites": named, "pooling": pooling, "folder": folder, "budget": budget, "progress": progress}
    about: dict[str, Any] = {"pooling": pooling, "rank": rank, "seed": seed, "trained": len(train)}
    scores, readers = list[list[TreeScore]](), list[TreeReader]()
    with activations(model, text, **options) as read:

        def at_place(place: int) -> list[Any]:
            """The probes of one place, and how near they come."""
            x = read.of(named[place])
            reader = fit_reader(x, train, **how)
            return [_parts(reader), [_parts(score) for score in reader.scores(x, judge)]]

        report("probing for trees", 0, len(named))
        for reader, told in shards("probing for trees", len(named), at_place):
            readers.append(TreeReader(**reader))
            scores.append([TreeScore(**score) for score in told])
            report("probing for trees", len(scores), len(named))
        best = max(range(len(named)), key=lambda place: (attachment(scores[place])[0], -place))
        tried = [attachment(judge_trees(read.of(named[best]), train, judge, depths=False, **{**how, "rank": n})) for n in ranks]
    by_rank = tuple((n, *share) for n, share in zip(ranks, tried, strict=True))
    drops, nonsense = (), ""
    if jabberwocky:
        drops, nonsense = _nonsense(model, text, judge, scores, dict(zip(named, readers, strict=True)), options, seed)
    about["details"] = TreeDetails(geometry, shown_trees(text, judge, scores[best]), by_rank, drops, nonsense)
    result = _result(model, named, scores, [chain_score(tree) for tree in judge], about)
    tell(result)
    if not random_weights:
        return result
    random = []
    with activations(with_random_weights(model), text, **options) as read:

        def attached(place: int) -> tuple[float, float]:
            """How near the probe of one place comes."""
            return attachment(judge_trees(read.of(named[place]), train, judge, depths=False, **how))

        report("probing random weights", 0, len(named))
        for share in shards("probing random weights", len(named), attached):
            random.append(share)
            report("probing random weights", len(random), len(named))
    shares, errors = (tuple(values) for values in zip(*random, strict=True))
    return dataclasses.replace(result, random=shares, random_errors=errors)


def _parts(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


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


def _nonsense(
    model: Model,
    text: WordText,
    judge: Sequence[GoldTree],
    scores: Sequence[Sequence[TreeScore]],
    readers: Mapping[str, TreeReader],
    options: dict[str, Any],
    seed: int,
) -> tuple[tuple[tuple[float, float], ...], str]:
    """How much less the same probes find at each place where content words of the judged sentences are pseudo-words, and one of
    these sentences."""
    words = pseudo_words(text.sentences, seed=seed)
    made = [
        dataclasses.replace(in_nonsense(text.sentences[tree.sentence], words), name=f"{number}")
        for number, tree in enumerate(judge)
    ]
    other = WordText.of(model, made)
    trees = {int(other.sentences[tree.sentence].name): tree for tree in gold_trees(other)}
    both = sorted(trees)  # but for those that have become too long
    found = []
    with activations(model, other, **options) as read:
        for own, (name, reader) in zip(scores, readers.items(), strict=True):
            changed = reader.scores(read.of(name), [trees[number] for number in both])
            found.append(drop([own[number] for number in both], changed))
    return tuple(found), made[both[0]].text


def shown_trees(text: WordText, judge: Sequence[GoldTree], scores: Sequence[TreeScore]) -> tuple[ShownTree, ...]:
    """Some sentences that can be drawn: the first ones of 6 to 14 words, or else of other lengths."""
    fits = [tree for tree in judge if SHORTEST_SHOWN <= len(tree.words) <= LONGEST_SHOWN]
    chosen = {id(tree) for tree in (fits or judge)[:SHOWN]}
    found = []
    for tree, score in zip(judge, scores, strict=True):
        if id(tree) in chosen:
            places = [text.places[word] for word in tree.words.tolist()]
            words = tuple(text.aligned[number].sentence.words[word].form for number, word in places)
            gold = tuple((head, word) for head, word in tree.edges if tree.scored[head] and tree.scored[word])
            found.append(ShownTree(words, gold, score.told))
    return tuple(found)


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
