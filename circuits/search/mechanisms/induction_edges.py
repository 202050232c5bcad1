"""Which previous-token heads an induction head's keys read: the tests of an edge, and why others are left out."""

import dataclasses
import itertools
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Edge, Node, Reader
from circuits.heads import HeadScores
from circuits.heads.composition import composition, output_matrices, random_composition, reading_matrices
from circuits.models import Model
from circuits.patching.engine.directions import difference, reading_change
from circuits.patching.nodes import Pair, both_runs
from circuits.progress import Progress
from circuits.search.mechanisms.induction_evidence import RepeatAblations
from circuits.statistics import Effect, bootstrap, ratio_intervals
from circuits.tasks import induction
from circuits.tasks.metrics import logit_difference
from circuits.tasks.repeats import sampling_pool

_FEW, _NARROW = 8, 0.1
"""Prompts that edges are patched on at first, and the width from which on an interval (of a share of the gap) asks for all."""
_LONGEST = 12
"""Tokens in the segment of the prompts that edges are patched on, where vocabulary and context have room."""


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """From where on a head is a candidate, and what an edge must carry."""

    prefix_matching: float
    previous_token: float
    prefix_matching_drop: float
    """A share of the head's own prefix matching."""


@dataclasses.dataclass(frozen=True)
class Reason:
    """Why a head or an edge is left out: the test that failed, what was measured and what was asked for, and all in words."""

    test: str
    value: float
    threshold: float
    words: str

    def as_json(self) -> dict[str, Any]:
        """Plain values, as they stand in circuit files."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Feed:
    """A previous-token head and the keys of an induction head, with everything that was measured about the edge."""

    writer: Node
    head: Node
    reader: Reader
    matching: float
    """The head's prefix matching in the whole model."""
    drop: Effect
    """How much of it goes when the writer is taken out of the keys."""
    composition: float
    """K-composition in the Frobenius norm, less that of random matrices (`composition_random`)."""
    composition_random: float
    patched: Effect | None = None
    """Share of the logit difference's gap that noising the edge costs; None where the drop failed already."""
    confirmed: bool = False
    """Whether that share lies above zero with its whole interval."""
    prompts: int = 0
    """On how many prompts it was patched."""

    @property
    def edge(self) -> Edge:
        """The edge in the model's graph."""
        return Edge(self.writer, self.reader.node, self.reader.slot)

    def lowers(self, min_drop: float) -> bool:
        """Whether taking the edge out surely lowers prefix matching, and by the share `min_drop` at least."""
        return self.drop.effect >= min_drop * self.matching and self.drop.low > 0

    def fault(self, min_drop: float) -> Reason | None:
        """The first test that the edge fails; None where it holds.

        It holds where taking it out lowers prefix matching by the share `min_drop`, and where either patching it costs some of
        the answer or the two heads' weights compose more than chance. Weights alone refuse nothing: in wide heads the
        directions that carry a token are few among many, so that the Frobenius norm hardly sees them.
        """
        asked, said = min_drop * self.matching, _interval(self.drop)
        fell = f"without {self.writer} in its keys, {self.head} matches prefixes less by {said}"
        if self.drop.effect < asked:
            words = f"{fell}; {asked:.2f} are asked for, {min_drop:.0%} of its {self.matching:.2f}"
            return Reason("prefix_matching_drop", self.drop.effect, asked, words)
        if self.drop.low <= 0:
            return Reason("prefix_matching_drop_low", self.drop.low, 0.0, f"{fell}, an interval that holds zero")
        if self.composition > 0 or self.confirmed:
            return None
        measured = "nothing that could be measured" if self.patched is None else f"{_interval(self.patched)} of the gap"
        words = (
            f"patching {self.edge} costs {measured}, which is not surely above zero, and its K-composition is "
            f"{-self.composition:.3f} below the {self.composition_random:.3f} of random matrices"
        )
        return Reason("path_patching_low", 0.0 if self.patched is None else self.patched.low, 0.0, words)


def tried_edges(
    model: Model,
    ablations: RepeatAblations,
    candidates: dict[str, list[Node]],
    seed: int,
    report: Progress,
) -> list[Feed]:
    """Every previous-token head before every induction head: the drop of prefix matching and the composition."""
    inductors, feeders = (candidates[name] for name in ("prefix_matching", "previous_token"))
    pairs = [(writer, head) for head in inductors for writer in feeders if (writer.layer or 0) < (head.layer or 0)]
    chance = random_composition(model.d_model, model.d_head, seed=seed) if pairs else 0.0
    readers = [head for head in inductors if any(head == one for _, one in pairs)]
    layers = [list(some) for _, some in itertools.groupby(readers, key=lambda head: head.layer)]
    clean = [ablations.prefix_matching(heads) for heads in layers]
    graph, reads = model.graph(), [torch.stack(_matrices(model, readers, name)) for name in ("W_K", "W_Q")] if pairs else []
    found: dict[tuple[Node, Node], Feed] = {}
    for writer in dict.fromkeys(writer for writer, _ in pairs):
        above = ablations.above_mean(writer)
        strengths = dict(zip(readers, (_k_composition(model, writer, *reads) - chance).tolist(), strict=True))
        for heads, whole in zip(layers, clean, strict=True):
            if (writer.layer or 0) >= (heads[0].layer or 0):
                continue
            report("testing edges", len(found), len(pairs))
            # One norm and one product of keys serve all heads of a layer.
            drops = whole - ablations.prefix_matching(heads, without=above)
            for head, own, drop in zip(heads, whole, drops, strict=True):
                reader, effect = graph.reader_of(head, "k"), bootstrap(drop, seed=seed)
                found[writer, head] = Feed(writer, head, reader, float(own.mean()), effect, strengths[head], chance)
    report("testing edges", len(pairs), len(pairs))
    return [found[pair] for pair in pairs]


def _matrices(model: Model, heads: list[Node], name: Literal["W_Q", "W_K"]) -> list[Float[Tensor, "d_model d_head"]]:
    """What each of these heads reads with."""
    layers = {head.layer or 0: reading_matrices(model.weights.blocks[head.layer or 0], name) for head in heads}
    return [layers[head.layer or 0][head.index or 0].double() for head in heads]


def _k_composition(
    model: Model, writer: Node, W_K: Float[Tensor, "head d_model d_head"], W_Q: Float[Tensor, "head d_model d_head"]
) -> Float[Tensor, " head"]:
    """K-composition of a head with some others: those of all pairs take minutes in models of many heads."""
    block, index = model.weights.blocks[writer.layer or 0], [writer.index or 0]
    W_V, W_O = reading_matrices(block, "W_V")[index].double(), output_matrices(block)[index].double()
    return composition(W_V, W_O, W_K, W_Q)[0].cpu()


class EdgePatching:
    """Path patching of edges into keys, on prompts whose corrupt ones have another token before the answer's first
    appearance: the share of the logit difference's gap that noising costs."""

    def __init__(self, model: Model, sequences: int, seed: int, opening: int, report: Progress) -> None:
        room = min(_LONGEST, len(sampling_pool(model)) - 2, (model.max_positions or _LONGEST + 2) - 1 - opening)
        self.model, self.graph, self.seed, self.report = model, model.graph(), seed, report
        self.pairs = induction(model, sequences, seed, length=room, differ="prefix")
        self.whole = both_runs(model, self.pairs, logit_difference, "noising")

    def effects(self, sets: list[list[Feed]], *, prompts: int | None = None) -> list[Effect]:
        """What each set of edges costs when all in it are noised together, on the first `prompts` (None: on all). Heads that
        share a group of keys share an edge, which is noised once."""
        few = prompts is not None and prompts < len(self.pairs)
        pair = both_runs(self.model, self.pairs[:prompts], logit_difference, "noising") if few else self.whole
        changes = {feed.edge: self._change(pair, feed) for one in sets for feed in one}
        variants = [tuple(changes[edge] for edge in dict.fromkeys(feed.edge for feed in one)) for one in sets]
        # Heads that share a group of keys ask for the same variant, which the sweep computes once.
        scores = pair.sweep.evaluate(variants, progress=self.report, what="patching edges")
        clean, corrupt = pair.ends
        return ratio_intervals(clean - scores, clean - corrupt, seed=self.seed)

    def _change(self, pair: Pair, feed: Feed) -> Any:
        delta = difference(pair.sweep.base, pair.other, feed.writer)
        return reading_change(self.graph, feed.reader, delta, pair.mask, str(feed.edge))

    @property
    def gap(self) -> float:
        """The logit difference that the corruption takes away, in nats; where it takes none, shares of it mean nothing."""
        clean, corrupt = self.whole.ends
        return float((clean - corrupt).mean())


def patched(tried: list[Feed], patching: EdgePatching, min_drop: float) -> list[Feed]:
    """The same edges, those whose drop is large and sure with what patching each by itself costs: on all prompts where the
    weights do not speak for the edge, so that this decides; else on a few, unless these leave open whether it costs much."""
    chosen = [feed for feed in tried if feed.lowers(min_drop)]
    found: dict[tuple[Node, Node], Feed] = {}
    for prompts in (_FEW, None) if len(patching.pairs) > _FEW else (None,):
        asked = [feed for feed in chosen if (feed.writer, feed.head) not in found and (prompts is None or feed.composition > 0)]
        effects = patching.effects([[feed] for feed in asked], prompts=prompts) if asked else []
        for feed, effect in zip(asked, effects, strict=True):
            if prompts is None or effect.low > 0 or effect.high - effect.low < _NARROW:
                # A cost over a gap of the wrong sign would seem to confirm what it refutes.
                confirmed = effect.low > 0 and patching.gap > 0
                used = len(patching.pairs[:prompts])
                found[feed.writer, feed.head] = dataclasses.replace(feed, patched=effect, confirmed=confirmed, prompts=used)
    return [found.get((feed.writer, feed.head), feed) for feed in tried]


def left_out(scores: HeadScores, candidates: dict[str, list[Node]], tried: list[Feed], limits: Thresholds) -> dict[str, Reason]:
    """Why each candidate that is on no edge is left out, by its name; where no head reaches a score, why the highest does not.

    `candidates`: the heads above the threshold of each score.
    """
    found: dict[str, Reason] = {}
    held = {node for feed in tried if feed.fault(limits.prefix_matching_drop) is None for node in (feed.writer, feed.head)}
    for score, nodes in candidates.items():
        asked = getattr(limits, score)
        if not nodes:
            node, value = scores.top(score, 1)[0]
            words = f"the highest {score.replace('_', ' ')} of a head is {value:.2f}; {asked:.2f} is asked for"
            found[str(node)] = Reason(score, value, asked, words)
        for node in nodes:
            if node not in held:
                found[str(node)] = _nearest(node, [feed for feed in tried if node in (feed.writer, feed.head)], score, limits)
    return found


def _nearest(node: Node, own: list[Feed], score: str, limits: Thresholds) -> Reason:
    """Why the best edge of a head fails."""
    if not own:
        there = "no previous-token head stands in an earlier layer"
        if score == "previous_token":
            there = "no head that matches prefixes stands in a later layer"
        return Reason("layers", 0.0, 1.0, there)
    reason = best(own).fault(limits.prefix_matching_drop)
    assert reason is not None, f"{node} is on an edge that holds"
    return reason


def best(tried: list[Feed]) -> Feed:
    """The edge that came nearest to holding: of those that were patched, or of all, the one that carries the largest share of
    its head's prefix matching."""
    return max(tried, key=lambda feed: (feed.patched is not None, feed.drop.effect / max(feed.matching, 1e-9)))


def _interval(effect: Effect) -> str:
    return f"{effect.effect:.2f} ({effect.low:.2f} to {effect.high:.2f})"
