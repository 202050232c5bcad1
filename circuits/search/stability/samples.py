"""On which prompts a search is repeated."""

import dataclasses
import random
from collections.abc import Mapping, Sequence

from circuits.errors import CircuitsError, GraphError, PromptError, shown
from circuits.graph import Graph
from circuits.models import Model
from circuits.search.stability.results import SAMPLES, Sample
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, Metric, Relative
from circuits.tasks.roles import required_roles
from circuits.tasks.sharing import groups_of, halves

LEAST = 3
"""Seeds that an interval takes: one can be left out, and two to compare are left."""


def check_sample(sample: str, seeds: int) -> None:
    """Raise CircuitsError for what is no way to sample, or too few seeds for it."""
    if sample not in SAMPLES:
        raise CircuitsError(f"unknown sample {shown(sample)}: there are {', '.join(SAMPLES)}")
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < LEAST:
        raise CircuitsError(f"{shown(seeds)} seeds: it takes {LEAST} or more to say how sure an overlap is")


def samples_of(pairs: PromptPairs, sample: Sample, seeds: int, seed: int = 0) -> list[list[list[int]]]:
    """For every seed, from `seed` on, the rows of each of its samples: two halves, or one. Pairs that share a prompt stay
    together. Raises PromptError for too few that do not, CircuitsError for too few seeds."""
    check_sample(sample, seeds)
    if sample == "all":
        return [[list(range(len(pairs)))] for _ in range(seeds)]
    numbers = groups_of(pairs)
    if int(numbers.max()) == 0:  # all hang together: those with the same clean prompt still do
        numbers = groups_of(pairs, corrupt=False)
    groups = [(numbers == group).nonzero()[:, 0].tolist() for group in range(int(numbers.max()) + 1)]
    least = seeds if sample == "parts" else 2
    if len(groups) < least:
        wanted = {"halves": "to halve", "parts": f"for {seeds} samples", "bootstrap": "to draw from"}[sample]
        raise PromptError(
            f"{len(pairs)} prompts searched on, of which {len(groups)} share nothing, are too few {wanted}: give "
            f"at least {least} more than are held out"
        )
    if sample == "halves":
        return [[list(half) for half in halves(pairs, seed + place)] for place in range(seeds)]
    if sample == "parts":
        random.Random(seed).shuffle(groups)
        return [[sorted(row for group in groups[place::seeds] for row in group)] for place in range(seeds)]
    found = []
    for place in range(seeds):
        draw = random.Random(seed + place)
        drawn = [groups[draw.randrange(len(groups))] for _ in groups]
        found.append([sorted(row for group in drawn for row in group)])
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class SearchedModel:
    """One model with its prompts: what is searched on and what is judged on."""

    model: Model
    pairs: PromptPairs
    metric: AnyMetric
    held_out: PromptPairs
    judged_by: AnyMetric

    @classmethod
    def halved(cls, model: Model, pairs: PromptPairs, metric: AnyMetric, seed: int, *, roles: bool = False) -> "SearchedModel":
        """Half of the pairs, drawn at random, are held out; with `roles` all have roles of tokens, and samples the same."""
        pairs = required_roles(pairs, causal=model.weights.causal) if roles else pairs
        rows, others = halves(pairs, seed)
        return cls(model, pairs[rows], _on(metric, rows), pairs[others], _on(metric, others))

    def graph(self, *, neurons: bool = False) -> Graph:
        """The graph that is searched: that of roles of tokens where the pairs have such."""
        roles = self.pairs.roles
        return self.model.graph(neurons=neurons, roles=None if roles is None else roles.roles)

    def on(self, rows: list[int]) -> tuple[PromptPairs, AnyMetric]:
        """Some of the pairs that are searched on, with the metric for these."""
        return self.pairs[rows], _on(self.metric, rows)


def _on(metric: AnyMetric, rows: list[int]) -> AnyMetric:
    """One that was made for certain pairs is cut with them."""
    return metric if isinstance(metric, Relative) else Metric.of(metric).on(rows)


def require_one_graph(graph: Graph, graphs: Mapping[str, Graph]) -> None:
    """Raise GraphError for a model of another shape."""
    first = next(iter(graphs))
    for name, other in graphs.items():
        if other != graph:
            shapes = [one.describe().splitlines()[0] for one in (graph, other)]
            raise GraphError(f"models of different shapes: {first} ({shapes[0]}) and {name} ({shapes[1]})")


def names_of(names: Sequence[str]) -> list[str]:
    """Names that differ: of the same ones, such as checkpoints in folders of one name, the later get a number."""
    return [name if names.index(name) == place else f"{name} ({place + 1})" for place, name in enumerate(names)]
