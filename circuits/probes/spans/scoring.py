"""How well labels of spans are told: micro F1 with its error by sentence, and the layer at which they come to be told."""

from collections import Counter

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.probes.spans.asking import SpanQuestion
from circuits.statistics import Effect, percentile_interval

RESAMPLES = 1000


def counts(told: Bool[Tensor, "probe target label"], gold: Bool[Tensor, "target label"]) -> Float[Tensor, "part probe target"]:
    """Numerator and denominator of F1 for each target: 2 TP, and 2 TP + FP + FN."""
    right = 2.0 * (told & gold).sum(dim=2)
    return torch.stack([right, told.sum(dim=2) + gold.sum(dim=1).expand_as(right)]).double()


def micro_f1(found: Float[Tensor, "part probe target"], sentence: Int[Tensor, " target"]) -> tuple[Tensor, Tensor]:
    """Micro F1 of each probe, 2 TP / (2 TP + FP + FN) over all labels, and its standard error with the targets of one sentence
    taken together (the error of a ratio). 0 where nothing is there and nothing told."""
    share = found[0].sum(dim=1) / found[1].sum(dim=1).clamp(min=1)
    off = by_sentence(found, sentence)
    errors = (off[0] - share[:, None] * off[1]).square().sum(dim=1).sqrt() / found[1].sum(dim=1).clamp(min=1)
    return share, errors


def by_sentence(
    found: Float[Tensor, "part probe target"], sentence: Int[Tensor, " target"]
) -> Float[Tensor, "part probe sentence"]:
    """The sums over each sentence."""
    _, index = sentence.unique(return_inverse=True)
    return found.new_zeros(*found.shape[:2], int(index.max()) + 1).index_add_(2, index, found)


def label_f1(told: Bool[Tensor, "probe target label"], gold: Bool[Tensor, "target label"]) -> Float[Tensor, "probe label"]:
    """F1 of each label; NaN for one that no judged target has and that was not told."""
    right = 2.0 * (told & gold).sum(dim=1)
    return (right / (told.sum(dim=1) + gold.sum(dim=0))).double()


def expected_layer(
    found: Float[Tensor, "part probe target"],
    sentence: Int[Tensor, " target"],
    layers: Float[Tensor, " probe"],
    *,
    seed: int = 0,
) -> Effect | None:
    """The expected layer (Tenney et al. 2019a): sum l Delta(l) / sum Delta(l), Delta(l) what F1 gains when the probe that sees
    layers 0 to l takes over from the one that sees one layer less; with the 95 % interval over resampled sentences. None where
    layers above the first gain nothing, or nothing sure.

    Args:
        found: numerators and denominators of F1 of the probes that see ever more layers.
        sentence: of each target its sentence.
        layers: the last layer that each probe sees.
        seed: that of the resamples.
    """
    sums = by_sentence(found, sentence)
    size = sums.shape[2]
    drawn = torch.randint(size, (RESAMPLES, size), generator=torch.Generator().manual_seed(seed))
    weights = torch.zeros(RESAMPLES, size, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(drawn.shape).double())
    weights = torch.cat([torch.ones(1, size).double(), weights])
    shares = torch.einsum("rs,kps->krp", weights, sums)
    gains = (shares[0] / shares[1].clamp(min=1)).diff(dim=1)
    total = gains.sum(dim=1)
    if float(total[0]) <= 0 or float((total > 0).double().mean()) < 0.975:
        return None
    layer = gains @ layers[1:].double() / total
    low, high = percentile_interval(layer[1:][total[1:] > 0])
    return Effect(float(layer[0]), float(low), float(high))


def baselines(question: SpanQuestion) -> dict[str, tuple[float, float]]:
    """Micro F1, with errors, of what needs no model: the most frequent label; and the label that targets with these very words
    most often have in training, of unknown ones the most frequent of all."""
    train, judge = question.split.train, question.split.judge
    common = question.gold[train].double().mean(dim=0)
    best = torch.zeros_like(question.gold[0]).scatter(0, common.argmax(), True)
    seen: dict[tuple[tuple[str, ...], ...], Counter[tuple[int, ...]]] = {}
    for words, row in zip(question.read(train), question.gold[train], strict=True):
        seen.setdefault(words, Counter())[tuple(row.nonzero()[:, 0].tolist())] += 1
    same = best.repeat(len(judge), 1)
    for place, words in enumerate(question.read(judge)):
        if words in seen:
            same[place] = False
            same[place, list(seen[words].most_common(1)[0][0])] = True
    both = torch.stack([best.expand_as(same), same])
    shares = micro_f1(counts(both, question.gold[judge]), question.sentence[judge])
    return {name: (float(share), float(error)) for name, share, error in zip(("majority", "same words"), *shares, strict=True)}
