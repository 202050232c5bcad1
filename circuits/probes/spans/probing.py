"""Edge probes by place and off a mix of layers, beside the spans' words, the embeddings and random weights."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import PromptError
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.models.random_weights import with_random_weights
from circuits.probes.probing import FIRST
from circuits.probes.reading import Pooling
from circuits.probes.sites import ActivationSite, parse_site, sites_of, width_of
from circuits.probes.spans.asking import SpanQuestion
from circuits.probes.spans.edges import fit_edges, told
from circuits.probes.spans.results import ScalarMix, SpanProbes
from circuits.probes.spans.scoring import baselines, counts, expected_layer, label_f1, micro_f1
from circuits.probes.spans.stack import stacked
from circuits.probes.spans.targets import SpanSentence
from circuits.probes.storing import Activations, activations
from circuits.progress import Found, Progress, heard, silent
from circuits.runs import shards


def probe_spans(
    model: Model,
    sentences: Sequence[SpanSentence],
    *,
    asked: str = "labels",
    sites: str | Sequence[str] = "residual",
    pooling: Pooling = "last",
    words: int | None = None,
    least: int = 20,
    rank: int = 64,
    hidden: int = 64,
    epochs: int = 30,
    seed: int = 0,
    mix: bool = True,
    random_weights: bool = True,
    folder: str | Path | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
    found: Found | None = None,
) -> SpanProbes:
    """How well the labels of spans are told by edge probes (Tenney et al. 2019b): from each place, and from a scalar mix of
    residual streams (Tenney et al. 2019a) whose weights, and whose gains where it sees one layer more, say in which layers the
    answer comes about.

    A span is made of words, each with one vector. A probe projects them, pools them by attention, puts one or two spans side
    by side and tells each label by a hidden layer. A fifth of the sentences is judged on; when
    training ends is chosen on a tenth. Beside it: the most frequent label and that of the very same words, the embeddings
    (resid0, always among the places: the spans' words alone), the same architecture with random weights.

    Raises PromptError where fewer than two labels or 10 sentences are left, where targets have one span and others two, and for
    numbers below 1; GraphError for places that the model lacks, and what `activations` raises.

    Args:
        model: what is probed.
        sentences: with spans and labels: of `read_spans`, or of `tree_spans` for annotated ones.
        asked: what the labels are, in a word.
        sites: places by name, or all of a family: residual, middle, heads, patterns, neurons.
        pooling: what stands for a word of several tokens, "last" or "mean".
        words: read sentences until there are so many words (default: all).
        least: leave out labels that fewer targets have.
        rank: directions that spans are projected on.
        hidden: units of the hidden layer.
        epochs: how often each target is trained on at most.
        seed: that of the first values, of the order, and of the sentences that choose when to stop.
        mix: whether the residual streams among the places are mixed, where there are two or more.
        random_weights: whether a model with random weights is probed too.
        folder: where activations are kept for the next time (default: nowhere).
        budget: bytes that reading may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
        found: hears the result so far: all places, the mix.
    """
    if min(rank, hidden, epochs, least) < 1:
        raise PromptError(f"rank={rank}, hidden={hidden}, epochs={epochs}, least={least}: expected at least 1 of each")
    tell, report = heard(found), progress or silent
    named = list(dict.fromkeys([FIRST, *(site.name for site in sites_of(model, sites))]))
    question = SpanQuestion.of(model, sentences, words=words, least=least, seed=seed)
    how: dict[str, Any] = {"rank": rank, "hidden": hidden, "epochs": epochs, "seed": seed}
    options: dict[str, Any] = {"sites": named, "pooling": pooling, "folder": folder, "budget": budget, "progress": progress}
    groups = _of_one_width(model, named)
    with activations(model, question.text, **options) as read:
        judged: dict[str, JudgedPlace] = {}
        mixed: ScalarMix | None = None
        for group in groups:
            with _stack(read, group, question, budget, report) as x:
                judged |= judge_alone(x, group, question, report, **how)
                if mix and FIRST in group:
                    mixed = mix_layers(x, group, question, report, **how)
        result = _result(model, question, named, judged, asked=asked, pooling=pooling, rank=rank, hidden=hidden, seed=seed)
        result = dataclasses.replace(result, mix=mixed)
        tell(result)
    if not random_weights:
        return result
    others: dict[str, JudgedPlace] = {}
    with activations(with_random_weights(model), question.text, **options) as read:
        for group in groups:
            with _stack(read, group, question, budget, report) as x:
                others |= judge_alone(x, group, question, report, what="probing random weights", **how)
    shares, errors = zip(*((others[name].f1, others[name].error) for name in named), strict=True)
    return dataclasses.replace(result, random=shares, random_errors=errors)


@dataclasses.dataclass(frozen=True, eq=False)
class JudgedPlace:
    """What a probe tells of judged targets."""

    f1: float
    error: float
    by_label: Float[Tensor, " label"]


def judge_alone(
    x: Float[Tensor, "word source width"],
    names: Sequence[str],
    question: SpanQuestion,
    progress: Progress,
    *,
    what: str = "probing spans",
    **how: Any,
) -> dict[str, JudgedPlace]:
    """A probe a place, side by side."""

    def judged(shard: int) -> list[list[Any]]:
        """What each probe tells; they are trained together, so that they are one shard."""
        bank = fit_edges(x, question, torch.eye(len(names), dtype=torch.bool), progress=progress, what=what, **how)
        answers, gold = told(bank, x, question, question.split.judge), question.gold[question.split.judge]
        shares, errors = micro_f1(counts(answers, gold), _judged_sentences(question))
        return [[*row] for row in zip(shares.tolist(), errors.tolist(), label_f1(answers, gold), strict=True)]

    (rows,) = shards(what, 1, judged)
    return {name: JudgedPlace(*row) for name, row in zip(names, rows, strict=True)}


def mix_layers(
    x: Float[Tensor, "word source width"], names: Sequence[str], question: SpanQuestion, progress: Progress, **how: Any
) -> ScalarMix | None:
    """A probe for each residual stream that reads a mix of those up to it; None for fewer than two streams."""
    streams = sorted((int(name.removeprefix("resid")), place) for place, name in enumerate(names) if name.startswith("resid"))
    if len(streams) < 2:
        return None
    layers, places = (tuple(part) for part in zip(*streams, strict=True))
    x = x if places == tuple(range(x.shape[1])) else x[:, list(places)]
    allowed = torch.ones(len(layers), len(layers), dtype=torch.bool).tril()
    bank = fit_edges(x, question, allowed, progress=progress, what="mixing layers", **how)
    judge, sentence = question.split.judge, _judged_sentences(question)
    found = counts(told(bank, x, question, judge), question.gold[judge])
    shares, errors = micro_f1(found, sentence)
    expected = expected_layer(found, sentence, torch.tensor(layers).float(), seed=how["seed"])
    weights = tuple(bank.mix[-1].double().tolist())
    return ScalarMix(layers, weights, tuple(shares.tolist()), tuple(errors.tolist()), expected)


def _judged_sentences(question: SpanQuestion) -> Int[Tensor, " target"]:
    return question.sentence[question.split.judge]


def _of_one_width(model: Model, names: Sequence[str]) -> list[list[str]]:
    """Places whose vectors are of one length stand side by side."""

    def width(site: ActivationSite) -> int:
        return width_of(model, site.family) // (1 if site.head is None else model.n_heads)

    groups: dict[int, list[str]] = {}
    for name in names:
        groups.setdefault(width(parse_site(model, name)), []).append(name)
    return list(groups.values())


@contextlib.contextmanager
def _stack(
    read: Activations, names: Sequence[str], question: SpanQuestion, budget: int, progress: Progress
) -> Iterator[Float[Tensor, "word source width"]]:
    """Places side by side, scaled on the words of sentences that are trained on, as long as they are needed."""
    chosen = question.sentence[question.split.train].unique()
    train = torch.isin(question.text.sentence_of, chosen).nonzero()[:, 0]
    with tempfile.TemporaryDirectory(prefix="circuits-spans-") as folder:
        yield stacked(read.of, names, train, Path(folder), budget=budget, progress=progress)


def _result(
    model: Model, question: SpanQuestion, names: Sequence[str], judged: dict[str, JudgedPlace], **about: Any
) -> SpanProbes:
    order = [judged[name] for name in names]
    return SpanProbes(
        model=model.name,
        weights_sha256=model.fingerprint,
        labels=question.classes,
        spans=question.starts.shape[1],
        sites=tuple(names),
        trained=len(question.split.train),
        judged=len(question.split.judge),
        sentences=len(question.text.aligned),
        left_out=question.left_out,
        f1=torch.tensor([one.f1 for one in order], dtype=torch.float64),
        errors=torch.tensor([one.error for one in order], dtype=torch.float64),
        by_label=torch.stack([one.by_label for one in order]),
        baselines=baselines(question),
        **about,
    )
