"""Edge attribution patching: what every edge of heads and MLPs would do to a metric, to first order."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from circuits.attribution.batches import Batch, batches, prompts_at_once
from circuits.attribution.changes import add_scores, column_blocks, counting
from circuits.attribution.completeness import Ends, completeness, ends_of
from circuits.attribution.factors.pulls import AT_ONCE, Pulls
from circuits.attribution.factors.roles import Columns, RoleOrder
from circuits.attribution.factors.writers import writes_alone
from circuits.attribution.gathering import Gathered, Total
from circuits.attribution.gradients import gradients
from circuits.attribution.points import Point
from circuits.attribution.rules import EXACT, RULES, Rule
from circuits.attribution.scores import EdgeScores
from circuits.attribution.topk import KEPT
from circuits.errors import CircuitsError
from circuits.graph import Node
from circuits.models import Edit, Model, Run
from circuits.models.choosing import Positions
from circuits.models.memory import BUDGET
from circuits.patching.engine.base import held_nodes, plain_run
from circuits.patching.engine.sites import position_masks
from circuits.patching.nodes import about
from circuits.progress import Progress, silent
from circuits.runs import shards
from circuits.statistics import standard_error
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, Metric, fitted
from circuits.tasks.roles import required_roles

_KEPT = 4
"""Positions a reader, up to which an interrupted run keeps the scores of each batch: those of more would fill the disk."""


def attribute_edges(
    model: Model,
    pairs: PromptPairs,
    metric: AnyMetric,
    *,
    method: str = "eap-ig",
    steps: int | None = None,
    neurons: bool = False,
    positions: Positions = None,
    roles: bool = False,
    without: Sequence[str | Node] = (),
    keep: int = KEPT,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> EdgeScores:
    """Score every edge: an estimate of how far the metric on the clean prompts moves if this edge alone carries what its
    writer says on the corrupt prompts, mean over prompts. Negative: the edge supports the metric.

    "eap" takes the gradient on the clean run (Syed et al. 2023); "eap-ig" the mean gradient over inputs between corrupt and
    clean, at the middles of equal steps (Hanna et al. 2024); "eap-ig-activations" interpolates the outputs of one layer's
    attention or MLP at a time; "relp" goes back by relevance propagation's rules (Jafari et al. 2025; nothing passes through
    queries and keys); "exact" patches every edge (noising), at the price of a run each. Raises NonFiniteError,
    MemoryBudgetError, and CircuitsError for options that do not exist.

    Args:
        model: the model whose edges are scored.
        pairs: clean and corrupt prompts with their answers.
        metric: what is measured: a metric of `circuits.metrics`, or a function of one's own from logits and pairs.
        method: one of the five above.
        steps: inputs or activations between corrupt and clean, of the two integrated methods (default: 10 and 5).
            `metadata["completeness"]` says how far the input's edges are from adding up to the whole gap: where that is far,
            take more.
        neurons: score every edge between single neurons, heads, input and logits.
        positions: where readers read: everywhere, summed (None); "each"; names or places as in `patch_nodes`, a score each,
            which is the mean over the prompts that have the position.
        roles: score the edges between roles of tokens: those that the pairs have (`circuits.tasks.roles`), or else those of
            their named positions. A plain edge's score is the sum of its roles'.
        without: heads and MLPs that stay at their corrupt values throughout, so that what stands in for them is seen.
        keep: how many edges between neurons are kept: the largest by size.
        budget: bytes of what is held beside the runs' own activations; with `neurons`, beside those of one prompt.
        progress: hears what is being done, how much of it is done, and how much there is.

    >>> import circuits
    >>> model = circuits.load_model("mini")
    >>> pairs = circuits.PromptPairs.from_text(
    ...     model,
    ...     clean=["When Mary and John went to the store, Mary gave a drink to"],
    ...     corrupt=["When Mary and John went to the store, John gave a drink to"],
    ...     answers=[" John"],
    ...     distractors=[" Mary"],
    ... )
    >>> scores = circuits.attribute_edges(model, pairs, circuits.metrics.logit_difference, method="eap")
    >>> len(scores), len(scores.top(10))
    (1519, 10)
    """
    if method not in RULES and method != EXACT:
        raise CircuitsError(f"unknown method {method!r}: there are {', '.join((*RULES, EXACT))}")
    rule = RULES.get(method)
    count = 1 if rule is None else rule.points_of(steps)
    if neurons:
        from circuits.attribution.neurons import attribute_neuron_edges

        if positions is not None or without:
            raise CircuitsError("edges of single neurons are scored over all positions of the whole model: leave out the rest")
        if roles:
            raise CircuitsError("edges of single neurons have no roles of tokens: score those of whole MLPs")
        where = {"keep": keep, "budget": budget, "progress": progress}
        return attribute_neuron_edges(model, pairs, metric, method=method, steps=steps, **where)
    if roles:
        _check_roles(method, positions)
        pairs = required_roles(pairs, causal=model.weights.causal)
    if without and not (rule and rule.without):
        able = " and ".join(name for name, one in RULES.items() if one.without)
        raise CircuitsError(f"nodes can be left out with {able}, not with {method}")
    metric = fitted(metric, model, pairs, gradient=rule is not None)
    gone = [model.graph().node(name) for name in without]
    if rule is None:
        return _exact(model, pairs, metric, positions, budget, progress, roles=roles)
    masks = role_masks_of(pairs) if roles else position_masks(pairs, positions)
    columns = Columns(model.graph(), pairs.roles.roles if roles and pairs.roles else None, len(masks))
    total = Total.empty(columns, masks)
    report, ends = progress or silent, list[Ends]()

    def runs(part: PromptPairs) -> Iterator[tuple[Edit, ...]]:
        """The edits of each gradient run on some of the prompts."""
        return (point.edits for point in _runs(model, part, rule, count, gone).points)

    held = columns.roles if rule.points is not None else None  # scores of one gradient run are summed as they come
    parts = list(batches(model, pairs, metric, prompts_at_once(model, pairs, budget, roles=held), runs))

    def scored(place: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of some prompts, the sums of scores and of their squares, and the ends."""
        batch = parts[place]
        some = [mask[batch.rows] for mask in masks.values()]
        found, end = _part(model, batch, rule, count, some, gone, budget, columns)
        return *found.sums(), end.clean, end.corrupt

    kept = len(masks) <= _KEPT and not roles
    done = shards("attributing edges", len(parts), scored) if kept else map(scored, range(len(parts)))
    for batch in parts:
        report("attributing edges", batch.rows.start, len(pairs))
        sums, squares, *end = next(done)
        having = [len(batch.pairs) if roles else int(mask[batch.rows].any(dim=1).sum()) for mask in masks.values()]
        total.add(sums, squares, having, len(batch.pairs))
        ends.append(Ends(*(side.to(model.device) for side in end)))
    report("attributing edges", len(pairs), len(pairs))
    details = about(model, metric, method=method, steps=count, prompts=len(pairs))
    if positions in (None, "each"):  # elsewhere a part of the way is left out
        details["completeness"] = completeness(model, pairs, metric, ends, total.from_input, budget)
    return total.scores(model, details)


def _check_roles(method: str, positions: Positions) -> None:
    """Raise CircuitsError for what edges between roles are not scored with."""
    able = [name for name, one in RULES.items() if one.roles]
    if method not in (*able, EXACT):
        raise CircuitsError(f"edges between roles of tokens are scored by {', '.join(able)} and {EXACT}, not by {method}")
    if positions is not None:
        raise CircuitsError("roles say where edges read: leave out positions")


def role_masks_of(pairs: PromptPairs) -> dict[str, Tensor]:
    """Label → mask `[prompt position]` of each role of the pairs."""
    assert pairs.roles is not None
    return dict(zip(pairs.roles.names, pairs.roles.masks(), strict=True))


@dataclasses.dataclass(frozen=True, eq=False)
class _Runs:
    """The clean run (None where the only gradient run is just that), the corrupt one, and where gradients are taken."""

    own: Run | None
    other: Run
    points: Iterable[Point]


def _runs(model: Model, pairs: PromptPairs, rule: Rule, steps: int, gone: list[Node]) -> _Runs:
    # What nodes wrote is all that is read of the two; nodes are held at their neurons.
    other = plain_run(model, pairs.corrupt, keep="factors" if gone else "writes")
    held = held_nodes(other, gone)
    if rule.points is None and not held:
        return _Runs(None, other, (Point(),))
    own = plain_run(model, pairs.clean, held, keep="writes")
    points = rule.at(model, own, other, steps)
    return _Runs(own, other, (dataclasses.replace(point, edits=(*point.edits, *held)) for point in points))


def _part(
    model: Model,
    batch: Batch,
    rule: Rule,
    steps: int,
    chosen: list[Tensor],
    gone: list[Node],
    budget: int,
    columns: Columns,
) -> tuple[Gathered, Ends]:
    """Scores of some prompts, and what the metric is read from at either end."""
    graph, pairs = model.graph(), batch.pairs
    whole = counting(model, pairs)
    order = None if columns.roles is None else RoleOrder.of(pairs, whole)
    whole = whole if order is None else order.sort(whole) & order.there
    blocks = list(column_blocks(model, pairs, whole, budget))
    once = rule.points is None and len(blocks) <= 1
    scores = Gathered(columns, len(pairs), model.dtype, model.device, once=once)
    runs = _runs(model, pairs, rule, steps, gone)
    own = runs.own
    for points in _alike(runs.points):
        pulls = Pulls(model, points[0][1].first, order)
        for place, point in points:
            if runs.own is None:
                found = rule.clean_run(model, batch.reading(place), pairs.clean, writers=False, heads=order is not None)
                own = writes_alone(found.run)
            else:
                reading = batch.reading(place)
                found = gradients(model, reading, pairs.clean, point.edits, writers=False, heads=order is not None)
            pulls.add(found, point.weight)
            del found  # the next run's activations come before a name is bound anew
        assert own is not None
        first, last = points[0][1].writers(graph.writer_count)
        add_scores(scores, pulls, (own, runs.other), (first, last), chosen, whole, blocks)
    assert own is not None
    return scores, ends_of(batch, own, runs.other)


def _alike(points: Iterable[Point]) -> Iterator[list[tuple[int, Point]]]:
    """Gradient runs with their places, together those that tell about the same writers, at most `AT_ONCE`."""
    group: list[tuple[int, Point]] = []
    for place, point in enumerate(points):
        if group and (len(group) == AT_ONCE or point.first != group[0][1].first):
            yield group
            group = []
        group.append((place, point))
    if group:
        yield group


def _exact(
    model: Model,
    pairs: PromptPairs,
    metric: Metric,
    positions: Positions,
    budget: int,
    progress: Progress | None,
    *,
    roles: bool = False,
) -> EdgeScores:
    from circuits.patching.paths import patch_edges

    how = {"positions": positions, "direction": "noising", "roles": roles, "budget": budget, "progress": progress}
    effects = patch_edges(model, pairs, metric, **how)
    graph = model.graph(roles=pairs.roles.roles if roles and pairs.roles else None)
    labels = tuple(position_masks(pairs, positions))
    change, there = effects.scores - effects.clean, effects.having
    rows = torch.arange(len(change)).reshape(graph.edge_count, len(labels)).T
    if there is None:
        mean, errors = change.mean(dim=1), standard_error(change) if len(pairs) > 1 else torch.zeros(len(change)).double()
    else:
        counts = there.sum(dim=1)
        mean = (change * there).sum(dim=1) / counts
        spread = ((change - mean[:, None]).square() * there).sum(dim=1) / (counts - 1).clamp(min=1) / counts
        errors = spread.sqrt().where(counts > 1, 0.0)
    shares = None if there is None else there[: len(labels)].double().mean(dim=1)
    details = about(model, metric, method=EXACT, steps=1, prompts=len(pairs))
    return EdgeScores.listed(graph, mean[rows], errors[rows], labels=labels, shares=shares, metadata=details)
