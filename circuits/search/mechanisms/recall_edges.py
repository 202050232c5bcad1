"""Edges of a recall circuit one by one: which are worth a run, and what each costs when it alone is noised."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from circuits.graph import Node, Reader
from circuits.models import node_output
from circuits.patching.engine.change import Variant
from circuits.patching.engine.directions import difference, reading_change
from circuits.patching.nodes import Pair
from circuits.runs import shards
from circuits.search.mechanisms.recall_evidence import Claim, Evidence

KINDS = ("resample", "mean")
"""What a writer's value is replaced by: that of the paired prompt, or its mean over all tokens of the clean prompts."""
_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Trial:
    """An edge that may be tested: its writer, and the kinds of value that are worth it."""

    writer: Node
    kinds: tuple[str, ...]
    estimate: float
    """The largest share of the gap that it costs to first order; infinity where all edges are tested."""
    price: float
    """Plain forwards over both prompts of all pairs that the test takes, about."""


def trials(evidence: Evidence, writers: Iterable[Node], reader: Reader, *, least: float | None = None) -> list[Trial]:
    """The edges from `writers` into a reader that can have a claim: both nodes matter on some prompt. With `least` only those
    whose estimates reach such a share of the gap, and the kinds of value that do, the largest first; an edge into the logits
    costs no layer, so all of these are there."""
    matters = evidence.where_read(reader)
    writers = [writer for writer in writers if bool((evidence.where(writer) & matters).any())]
    if not writers:
        return []
    kept, pair = evidence.on(matters)
    prices = {kind: evidence.price(_layer(evidence, reader), _mask(pair, kind)) for kind in KINDS}
    if least is None or reader.node.kind == "logits":
        return [Trial(writer, KINDS, math.inf, sum(prices.values())) for writer in writers]
    _ = evidence.slopes  # counted as spent wherever the estimates come from
    parts = [writers[start : start + _AT_ONCE] for start in range(0, len(writers), _AT_ONCE)]

    def estimated(part: int) -> list[dict[str, float]]:
        """By kind of value, the estimates of some writers."""
        return [_estimates(evidence, writer, reader, kept, pair) for writer in parts[part]]

    known = itertools.chain.from_iterable(shards("estimating edges", len(parts), estimated))
    found = []
    for writer, estimates in zip(writers, known, strict=True):
        worth = tuple(kind for kind in KINDS if estimates[kind] >= least)
        if worth:
            found.append(Trial(writer, worth, max(estimates.values()), sum(prices[kind] for kind in worth)))
    return sorted(found, key=lambda trial: -trial.estimate)


def claims(evidence: Evidence, reader: Reader, tested: Sequence[Trial]) -> dict[Node, list[Claim]]:
    """For each writer what its edge into a reader is worth, with each kind of value, by patching that edge alone on the prompts
    where the reader's node matters."""
    matters = evidence.where_read(reader)
    kept, pair = evidence.on(matters)
    runs = [(trial.writer, kind) for trial in tested for kind in trial.kinds]
    found: dict[Node, list[Claim]] = {}
    for start in range(0, len(runs), _AT_ONCE):  # a value is as large as the residual stream
        some, variants = runs[start : start + _AT_ONCE], list[Variant]()
        for writer, kind in some:
            delta = _delta(evidence, writer, kind, pair)
            variants.append((reading_change(evidence.graph, reader, delta, _mask(pair, kind)),))
        for (writer, kind), moved in zip(some, evidence.moved(variants, "testing edges", kept, pair), strict=True):
            found.setdefault(writer, []).append(evidence.claim(moved, evidence.where(writer) & matters, kind))
    return found


def _layer(evidence: Evidence, reader: Reader) -> int:
    return evidence.model.n_layers if reader.node.kind == "logits" else reader.node.layer or 0


def _mask(pair: Pair, kind: str) -> Tensor:
    """Tokens at which a writer's value is replaced."""
    return pair.mask if kind == "resample" else pair.sweep.base.run.tokens.mask


@torch.no_grad()
def _delta(evidence: Evidence, writer: Node, kind: str, pair: Pair) -> Tensor:
    """What is added to what a reader reads where a writer's value is replaced."""
    base = pair.sweep.base
    if kind == "resample":
        return difference(base, pair.other, writer)
    return evidence.mean(writer) - node_output(base.run, writer)


def _estimates(evidence: Evidence, writer: Node, reader: Reader, kept: list[int], pair: Pair) -> dict[str, float]:
    """By kind of value, the share of the gap that an edge costs to first order, on the prompts where its writer matters too."""
    deltas = [_delta(evidence, writer, kind, pair) for kind in KINDS]
    with torch.no_grad():
        lost = evidence.slopes.lost(pair.sweep.base, reader, deltas, kept).double().cpu()
    rows = evidence.where(writer)[kept]
    gap = float(evidence.gaps[kept][rows].sum())
    return dict(zip(KINDS, (lost[:, rows].sum(dim=1) / gap).tolist(), strict=True))
