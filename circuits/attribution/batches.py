"""Prompts in batches that fit a memory budget, with what reads the metric off each of their gradient runs."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from circuits.attribution.factors.pulls import AT_ONCE
from circuits.attribution.factors.roles import Columns
from circuits.graph import Roles
from circuits.models import Edit, Model
from circuits.patching.engine.base import plain_run
from circuits.patching.engine.reading import Reading
from circuits.tasks import PromptPairs
from circuits.tasks.metric import Metric

Runs = Callable[[PromptPairs], Iterable[tuple[Edit, ...]]]
"""From some pairs to the edits of each gradient run on their clean prompts, in order."""


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Some of the prompts. `reading(run)` is for the gradient run of that place in the order of `Runs`."""

    rows: slice
    pairs: PromptPairs
    reading: Callable[[int], Reading]


def batches(model: Model, pairs: PromptPairs, metric: Metric, size: int | Sequence[int], runs: Runs) -> Iterator[Batch]:
    """Batches of at most `size` prompts, or of as many prompts as each of several sizes says.

    A metric that scores each prompt by itself is cut along with them. Any other has to see all prompts at every gradient
    run, or it would be another function in every batch: so the final streams of all prompts are taken first, batch by batch
    and without gradients (they are small), and in each batch those of the other prompts stand still beside its own.
    """
    ends = range(size, len(pairs) + size, size) if isinstance(size, int) else itertools.accumulate(size)
    edges = [0, *(min(end, len(pairs)) for end in ends)]
    rows = [slice(first, last) for first, last in itertools.pairwise(edges)]
    if len(rows) == 1 or metric.by_prompt:
        for some in rows:
            part = pairs[some]
            reading = Reading.of(metric.on(some), part)
            yield Batch(some, part, lambda run, reading=reading: reading)
        return
    whole = Reading.of(metric, pairs)
    finals: list[list[torch.Tensor]] = []
    for some in rows:
        reading, part = Reading.of(metric, pairs[some]), pairs[some]
        for run, edits in enumerate(runs(part)):
            finals += [[]] if run == len(finals) else []
            finals[run].append(reading.at_columns(plain_run(model, part.clean, edits).residuals[-1]))
    streams = [torch.cat(parts) for parts in finals]
    for some in rows:
        yield Batch(some, pairs[some], lambda run, some=some: whole.among(some, model.weights, streams[run]))


def prompts_at_once(model: Model, pairs: PromptPairs, budget: int, *, edges: bool = True, roles: Roles | None = None) -> int:
    """How many prompts' runs, gradients and, for edges, differences fit the budget; at least one. Batches come out alike."""
    width, graph = pairs.clean.ids.shape[1], model.graph()
    held = width * (_for_edges(model) if edges else _for_nodes(model)) + model.n_layers * 2 * model.n_heads * width**2
    if roles is not None:
        held += 2 * sum(Columns(graph, roles, len(roles)).sizes())
        held += width * model.n_layers * 2 * len(roles) * model.n_key_value_heads * model.d_head
    elif edges:
        held += 3 * graph.writer_count * graph.reader_count
    most = max(1, budget // (held * torch.finfo(model.dtype).bits // 8))
    return -(-len(pairs) // -(-len(pairs) // most))


def _for_edges(model: Model) -> int:
    """Numbers held at one token: by a gradient run with its gradients by what readers read, what is summed of it and what the
    clean and the corrupt run wrote; or, when the run is gone, by the differences of all writers and the pulls of a layer's
    readers."""
    d_model, graph = model.d_model, model.graph()
    gated = any(block.mlp is not None and block.mlp.W_gate is not None for block in model.weights.blocks)
    kept = model.n_layers * (6 + 6 + AT_ONCE) * d_model
    run = model.n_layers * (16 * d_model + (4 if gated else 2) * model.d_mlp)
    return kept + max(run, (graph.writer_count + 3 * graph.head_readers) * d_model)


def _for_nodes(model: Model) -> int:
    """The same where nodes are scored: gradients by all that they write, of runs with their factors."""
    return model.n_layers * (24 * model.d_model + 8 * model.d_mlp)
