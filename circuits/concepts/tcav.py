"""Testing with concept activation vectors, layer by layer."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.concepts.changing import Continued, with_curves
from circuits.concepts.places import ConceptSite, concept_sites, last_tokens
from circuits.concepts.results import ConceptTest
from circuits.concepts.slopes import slopes
from circuits.concepts.texts import FEWEST
from circuits.concepts.vectors import ConceptVectors, concept_vectors
from circuits.errors import PromptError
from circuits.models import Model, TokenBatch
from circuits.models.memory import BUDGET
from circuits.progress import Progress, silent
from circuits.statistics import bootstrap
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, fitted, named

AGAINST = 5
"""Random sets that each random concept is held against."""
STEPS = (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)


def tcav(
    model: Model,
    examples: TokenBatch,
    others: TokenBatch,
    pairs: PromptPairs,
    metric: AnyMetric,
    *,
    name: str = "the concept",
    target: str = "",
    sites: str | Sequence[str] = "residual",
    sets: int = 30,
    everywhere: bool = True,
    curves: int = 1,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> ConceptTest:
    """Whether what a model says hangs on a concept (TCAV, Kim et al. 2018).

    At each place a linear classifier tells the concept's examples from as many random ones, by what stands there at their last
    tokens; its normal is the concept's direction. The score is the share of prompts whose metric grows along it;
    with `sets` random sets there are as many scores. Beside the score, which knows signs alone, stands the slope: how fast the
    metric grows along the mean direction.

    Whether the concept counts is told by its slope against those of `sets` random concepts, each a random set in the concept's
    place. The test as it was published (`published`: Welch's t-test between scores and those of directions between random sets)
    is too sure: all its directions share the concept's own examples, and with them what is chance in these. At the places with
    the largest significant slopes the direction is then moved and erased while the model runs.

    Raises PromptError for fewer than 5 examples or 10 other texts and for numbers out of range, GraphError for
    places that the model lacks, NonFiniteError where activations or gradients are no numbers.

    Args:
        model: what is asked.
        examples: texts of the concept, read at their last tokens.
        others: a pool of other texts, from which random sets are drawn. Where it has fewer than twice as many as there are
            examples, sets are half as large as the pool, and as many examples are drawn for each.
        pairs: prompts with answers; the clean ones are asked.
        metric: what is measured on them.
        name: the concept's, for tables.
        target: what the prompts ask, for tables (default: the metric's name).
        sites: places by name (resid3, a3, a3.h1, m3), or all of a kind (residual, heads, each-head, neurons).
        sets: random sets, and random concepts (30 or more, or a t-test says little).
        everywhere: whether directions are followed, and moved, at all tokens of a prompt, or at that of the answer alone.
        curves: at how many places the direction is moved and erased.
        seed: that of the random sets.
        budget: bytes that a pass may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    places = concept_sites(model, sites)
    if len(examples) < FEWEST or len(others) < 2 * FEWEST:
        raise PromptError(
            f"{len(examples)} examples of {name} and {len(others)} other texts: expected {FEWEST} or more, and {2 * FEWEST} "
            "or more of the others"
        )
    if sets < 2 or curves < 0:
        raise PromptError(f"sets={sets}, curves={curves}: expected 2 random sets or more, and 0 curves or more")
    report, measure = progress or silent, fitted(metric, model, pairs, gradient=True)
    read = _read(model, [examples, others], places, budget, report)
    drawn = _drawn(len(examples), len(others), sets, seed)
    against = _against(drawn, len(others), seed)
    ways = slopes(model, pairs, measure, places, everywhere=everywhere, budget=budget, report=report)
    vectors, rows = {}, []
    for done, place in enumerate(places):
        report("telling the concept from other texts", done, len(places))
        x, slope = read[place.name], ways.at[place.name]
        vectors[place.name] = _vectors(x, len(examples), drawn)
        rows.append(
            _tested(slope, vectors[place.name], _random_slopes(x[len(examples) :], drawn, against, slope), len(places), seed)
        )
    report("telling the concept from other texts", len(places), len(places))
    columns: dict[str, Any] = {key: torch.tensor([row[key] for row in rows], dtype=torch.float64) for key in rows[0]}
    found = ConceptTest(
        model=model.name,
        weights_sha256=model.fingerprint,
        concept=name,
        target=target or named(metric),
        sites=tuple(place.name for place in places),
        **columns,
        sets=sets,
        examples=drawn.shape[2],
        prompts=len(pairs),
        whole=float(ways.scores.double().mean()),
        seed=seed,
    )
    asked = Continued(model, pairs, measure, everywhere, budget)
    return with_curves(asked, found, places, vectors, curves, STEPS)


def _read(
    model: Model, parts: Sequence[TokenBatch], places: Sequence[ConceptSite], budget: int, report: Progress
) -> dict[str, Float[Tensor, "example width"]]:
    """What each place holds at the last token of every text, the concept's first."""
    found: dict[str, list[Tensor]] = {place.name: [] for place in places}
    size = model.weights.W_E.element_size() * (10 * model.d_model + 3 * model.d_mlp + 4 * model.n_heads * model.d_head)
    done, total = 0, sum(len(part) for part in parts)
    for part in parts:
        most = max(1, budget // (size * part.ids.shape[1]))
        for start in range(0, len(part), most):
            some = part[torch.arange(start, min(start + most, len(part)))]
            for name, x in last_tokens(model, some, places).items():
                found[name].append(x)
            done += len(some)
            report("reading examples", done, total)
    return {name: torch.cat(rows) for name, rows in found.items()}


def _drawn(examples: int, others: int, sets: int, seed: int) -> Int[Tensor, "set three one"]:
    """For each set two random ones that share no text, as places in the pool, and examples: all, or as many as fit."""
    generator, size = torch.Generator().manual_seed(seed), min(examples, others // 2)
    found = []
    for _ in range(sets):
        two = torch.randperm(others, generator=generator)[: 2 * size].reshape(2, size)
        own = torch.arange(examples) if size == examples else torch.randperm(examples, generator=generator)[:size]
        found.append(torch.cat([two, own[None]]))
    return torch.stack(found)


def _vectors(x: Tensor, examples: int, drawn: Int[Tensor, "set three one"]) -> tuple[ConceptVectors, ConceptVectors]:
    """The concept against each random set, and random sets against each other."""
    one, other = drawn[:, 0] + examples, drawn[:, 1] + examples
    return concept_vectors(x, drawn[:, 2], one), concept_vectors(x, other, one)


def _against(drawn: Int[Tensor, "set three one"], others: int, seed: int) -> Int[Tensor, "set against one"]:
    """For each random concept a few sets of other texts that it is held against, as places in the pool."""
    generator, found = torch.Generator().manual_seed(seed), []
    for one in drawn[:, 0]:
        rest = torch.ones(others, dtype=torch.bool)
        rest[one] = False
        left = rest.nonzero()[:, 0]
        found.append(torch.stack([left[torch.randperm(len(left), generator=generator)[: len(one)]] for _ in range(AGAINST)]))
    return torch.stack(found)


def _random_slopes(
    pool: Tensor,
    drawn: Int[Tensor, "set three one"],
    against: Int[Tensor, "set against one"],
    slope: Float[Tensor, "prompt width"],
) -> Float[Tensor, " set"]:
    """The slopes along the directions of random concepts: each a random set, held against a few sets of other texts."""
    found = concept_vectors(pool, drawn[:, 0].repeat_interleave(AGAINST, dim=0), against.flatten(0, 1))
    means = found.directions.double().unflatten(0, (len(drawn), AGAINST)).mean(dim=1)
    units = means / means.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    return (slope.double() @ units.T).mean(dim=0)


def _tested(
    ways: Float[Tensor, "prompt width"],
    vectors: tuple[ConceptVectors, ConceptVectors],
    chance: Float[Tensor, " set"],
    tried: int,
    seed: int,
) -> dict[str, float]:
    """One place's numbers."""
    own, random = vectors
    slope = ways.double()
    scores, null = ((slope @ one.directions.double().T > 0).double().mean(dim=0) for one in (own, random))
    along = slope @ _mean_direction(own)
    grown = bootstrap(along * float(own.spread.mean()), seed=seed)
    return {
        "accuracy": float(own.accuracy.mean()),
        "chance": float(random.accuracy.mean()),
        "score": float(scores.mean()),
        "spread": float(scores.std()),
        "null": float(null.mean()),
        "null_spread": float(null.std()),
        "p_values": min(1.0, tried * _among(float(along.mean()), chance)),
        "published": min(1.0, tried * _welch(scores, null)),
        "slope": grown.effect,
        "low": grown.low,
        "high": grown.high,
    }


def _mean_direction(vectors: ConceptVectors) -> Float[Tensor, " width"]:
    """The unit vector along the mean of the directions."""
    mean = vectors.directions.double().mean(dim=0)
    return mean / mean.norm().clamp(min=torch.finfo(torch.float64).tiny)


def _among(value: float, chance: Float[Tensor, " set"]) -> float:
    """The two-sided p-value of one more value among some, by Student's t: their mean is as uncertain as it is, and the value
    varies as they do."""
    from scipy.stats import t

    count, spread = len(chance), float(chance.std())
    if spread == 0:  # other texts that are all alike at a place are no random concepts: nothing is proved there
        return 1.0
    return float(2 * t.sf(abs(value - float(chance.mean())) / (spread * (1 + 1 / count) ** 0.5), count - 1))


def _welch(one: Float[Tensor, " set"], other: Float[Tensor, " set"]) -> float:
    """The two-sided p-value of Welch's t-test; where neither side varies, 0 or 1."""
    from scipy.stats import ttest_ind_from_stats

    (mean, spread, count), others = ((float(side.mean()), float(side.std()), len(side)) for side in (one, other))
    if spread == others[1] == 0:
        return float(mean == others[0])
    return float(ttest_ind_from_stats(mean, spread, count, *others, equal_var=False).pvalue)
