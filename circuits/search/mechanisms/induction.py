"""Finding induction heads and the previous-token heads that feed their keys (Elhage et al. 2021, Olsson et al. 2022)."""

import dataclasses
import importlib.metadata
import random

import torch

from circuits.graph import Circuit, Edge, Node, Reader
from circuits.heads import HeadScores, composition_scores, score_heads
from circuits.models import Model
from circuits.patching.engine.directions import difference, reading_change
from circuits.patching.nodes import both_runs
from circuits.progress import Progress, silent
from circuits.search.mechanisms.induction_evidence import ABLATIONS, AblationKind, RepeatAblations, Repeats
from circuits.statistics import Effect, bootstrap, p_value, ratio_intervals
from circuits.tasks import induction, repeated_tokens
from circuits.tasks.metrics import logit_difference
from circuits.tasks.repeats import sampling_pool

SEGMENT = 25
"""Tokens in the segment that is said twice, as in Olsson et al. 2022."""


def find_induction_circuit(
    model: Model,
    *,
    sequences: int = 32,
    seed: int = 0,
    min_prefix_matching: float = 0.3,
    min_previous_token: float = 0.3,
    min_drop: float = 0.1,
    control_sets: int = 20,
    progress: Progress | None = None,
) -> Circuit:
    """Find the induction heads of a model, the previous-token heads that their keys read, and prove that they matter.

    An edge from one to the keys of the other is taken where their K-composition lies above that of random matrices and where
    taking it out lowers the prefix matching by the share `min_drop` at least (95 % interval above zero). Evidence: path
    patching of each such edge, and of all together, into keys (share of the gap that noising costs, on prompts without a
    prefix to match); the rise of the loss on the second copy of random segments, in nats (positive: the model needs the
    heads), when single heads and the whole set are ablated, by zero and by mean, patterns frozen and not, with bootstrap
    intervals; the same for random sets of as many other heads.

    The result's metadata says `verdict`: "found", where the interval of ablating the set by zero lies above zero and
    at most one in twenty random sets reaches it (so 19 sets are the fewest); "unproven"; or "none", with an empty circuit
    and the reason in `summary`. Raises PromptError where the vocabulary or the context is too small for repeated tokens.

    Args:
        model: the model that is searched.
        sequences: random segments, each said twice.
        seed: that of segments, sets and bootstrap.
        min_prefix_matching: score from which a head is an induction head.
        min_previous_token: score from which a head is a previous-token head.
        min_drop: share of the prefix matching that an edge must carry.
        control_sets: random sets of as many other heads.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    report = progress or silent
    report("scoring heads", 0, 1)
    scores = score_heads(model, seed=seed)
    repeats = _repeats(model, sequences, seed)
    with torch.no_grad():
        ablations = RepeatAblations(model, repeats)
        report("scoring heads", 1, 1)
        inductors = _above(scores, "prefix_matching", min_prefix_matching)
        feeders = _above(scores, "previous_token", min_previous_token)
        feeds = _feeds(model, ablations, inductors, feeders, min_drop, seed, report)
        heads = sorted({feed.writer for feed in feeds} | {feed.head for feed in feeds})
        about = _about(model, ablations, sequences, seed, (min_prefix_matching, min_previous_token, min_drop))
        if not feeds:
            return Circuit(model.graph(), metadata={**about, "verdict": "none", "summary": _why_none(inductors, feeders)})
        patched, together = _patched_edges(model, feeds, sequences, seed, report)
        singles = _single_ablations(ablations, heads, seed, report)
        whole = _set_evidence(model, ablations, heads, control_sets, seed, report)
    proven = whole["set"]["ablation"]["zero"]["low"] > 0 and whole["control"].get("zero", {}).get("p_value", 1.0) <= 0.05
    summary = _summary(feeds, whole) + ("" if proven else f" Not proven: {_why_unproven(whole)}.")
    metadata = {**about, **whole, "edges_patched": together, "verdict": "found" if proven else "unproven", "summary": summary}
    return _circuit(model, scores, feeds, patched, singles, metadata)


@dataclasses.dataclass(frozen=True)
class _Feed:
    """A previous-token head that an induction head's keys read."""

    writer: Node
    head: Node
    reader: Reader
    composition: float
    composition_random: float
    drop: Effect

    @property
    def edge(self) -> Edge:
        return Edge(self.writer, self.reader.node, self.reader.slot)


def _repeats(model: Model, sequences: int, seed: int) -> Repeats:
    tokens, length = repeated_tokens(model, count=sequences, length=SEGMENT, copies=2, seed=seed)
    return Repeats(tokens, tokens.ids.shape[1] - 2 * length, length)


def _above(scores: HeadScores, name: str, threshold: float) -> list[Node]:
    layers, heads = (scores.scores[name] >= threshold).nonzero(as_tuple=True)
    return [Node("head", int(layer), int(head)) for layer, head in zip(layers, heads, strict=True)]


def _feeds(
    model: Model,
    ablations: RepeatAblations,
    inductors: list[Node],
    feeders: list[Node],
    min_drop: float,
    seed: int,
    report: Progress,
) -> list[_Feed]:
    """Pairs of a previous-token head and an induction head that passes both tests of an edge."""
    pairs = [(writer, head) for head in inductors for writer in feeders if (writer.layer or 0) < (head.layer or 0)]
    composition = composition_scores(model, seed=seed) if pairs else None
    feeds = []
    for done, (writer, head) in enumerate(pairs):
        report("testing edges", done, len(pairs))
        assert composition is not None
        strength = composition.of("k", writer, head)
        clean = ablations.prefix_matching(head)
        drop = bootstrap(clean - ablations.prefix_matching_without(head, writer), seed=seed)
        if strength > 0 and drop.low > 0 and drop.effect >= min_drop * float(clean.mean()):
            feeds.append(_Feed(writer, head, model.graph().reader_of(head, "k"), strength, composition.random, drop))
    report("testing edges", len(pairs), len(pairs))
    return feeds


def _about(model: Model, ablations: RepeatAblations, sequences: int, seed: int, thresholds: tuple[float, ...]) -> dict:
    names = ("prefix_matching", "previous_token", "prefix_matching_drop")
    return {
        "task": "induction",
        "model": model.name,
        "weights_sha256": model.fingerprint,
        "created_by": f"transformer-circuits {importlib.metadata.version('transformer-circuits')}",
        "seed": seed,
        "sequences": sequences,
        "length": ablations.repeats.length,
        "copies": 2,
        "thresholds": dict(zip(names, thresholds, strict=True)),
        "loss": dict(zip(("first_copy", "second_copy"), ablations.clean.mean(dim=0).tolist(), strict=True)),
    }


def _single_ablations(ablations: RepeatAblations, heads: list[Node], seed: int, report: Progress) -> dict[Node, dict]:
    evidence = {}
    for done, head in enumerate(heads):
        report("ablating single heads", done, len(heads))
        evidence[head] = {kind: bootstrap(ablations.rise([head], kind), seed=seed).as_json() for kind in ABLATIONS}
    report("ablating single heads", len(heads), len(heads))
    return evidence


def _set_evidence(
    model: Model, ablations: RepeatAblations, heads: list[Node], control_sets: int, seed: int, report: Progress
) -> dict:
    """Ablation of all the found heads together, and of random sets of as many heads of the rest."""
    effects = {kind: bootstrap(ablations.rise(heads, kind), seed=seed).as_json() for kind in ABLATIONS}
    rest = [node for node in model.graph().nodes() if node.kind == "head" and node not in heads]
    sizes = min(len(heads), len(rest))
    draw = random.Random(seed)
    control: dict = {"sets": control_sets if sizes else 0, "size": sizes}
    kinds: tuple[AblationKind, ...] = ("zero", "mean")
    null: dict[str, list[float]] = {kind: [] for kind in kinds}
    for done in range(control["sets"]):
        report("ablating random heads", done, control_sets)
        chosen = draw.sample(rest, sizes)
        for kind in kinds:
            null[kind].append(float(ablations.rise(chosen, kind).mean()))
    report("ablating random heads", control_sets, control_sets)
    for kind in kinds if control["sets"] else ():
        values = null[kind]
        share = p_value(effects[kind]["effect"], values)
        control[kind] = {"mean": sum(values) / len(values), "max": max(values), "p_value": share}
    return {"set": {"heads": [str(head) for head in heads], "ablation": effects}, "control": control}


def _patched_edges(
    model: Model, feeds: list[_Feed], sequences: int, seed: int, report: Progress
) -> tuple[dict[Edge, dict[str, float]], dict[str, float]]:
    """Path patching of the edges into keys, on prompts whose corrupt ones have another token before the answer's first
    appearance: the share of the logit difference's gap that noising an edge costs, one by one and all together."""
    room = min(12, len(sampling_pool(model)) - 2, (model.max_positions or 14) - 2)
    pairs = induction(model, sequences, seed, length=room, differ="prefix")
    pair = both_runs(model, pairs, logit_difference, "noising")
    graph, variants = model.graph(), []
    for feed in feeds:
        delta = difference(pair.sweep.base, pair.other, feed.writer)
        variants.append((reading_change(graph, feed.reader, delta, pair.mask, str(feed.edge)),))
    variants.append(tuple(change for variant in variants for change in variant))
    scores = pair.sweep.evaluate(variants, progress=report, what="patching edges")
    clean, corrupt = pair.ends
    effects = [effect.as_json() for effect in ratio_intervals(clean - scores, clean - corrupt, seed=seed)]
    return {feed.edge: effect for feed, effect in zip(feeds, effects[:-1], strict=True)}, effects[-1]


def _circuit(
    model: Model,
    scores: HeadScores,
    feeds: list[_Feed],
    patched: dict[Edge, dict[str, float]],
    singles: dict[Node, dict],
    metadata: dict,
) -> Circuit:
    """The circuit's edges: input to every q, k and v that matters, previous-token heads to keys, induction heads to
    logits."""
    graph = model.graph()
    writers, inductors = sorted({feed.writer for feed in feeds}), sorted({feed.head for feed in feeds})
    edges: dict[str, float | None] = {str(feed.edge): feed.drop.effect for feed in feeds}
    for head in writers:
        edges.update({f"input->{graph.reader_of(head, slot)}": None for slot in ("q", "k", "v")})
    for head in inductors:
        edges.update({f"input->{graph.reader_of(head, slot)}": None for slot in ("q", "v")})
        edges[f"{head}->logits"] = singles[head]["zero"]["effect"]
    about = {str(head): {**_head_scores(scores, head), "ablation": singles[head]} for head in (*writers, *inductors)}
    for feed in feeds:
        about[str(feed.edge)] = {
            "k_composition": feed.composition,
            "k_composition_random": feed.composition_random,
            "prefix_matching_drop": feed.drop.as_json(),
            "path_patching": patched[feed.edge],
        }
    roles = {str(head): "previous token" for head in writers} | {str(head): "induction" for head in inductors}
    nodes = {str(head): singles[head]["zero"]["effect"] for head in (*writers, *inductors)}
    return Circuit(graph, edges, nodes, evidence=about, roles=roles, metadata=metadata)


def _head_scores(scores: HeadScores, head: Node) -> dict[str, float]:
    names = ("prefix_matching", "copying", "previous_token")
    return {name: float(scores.scores[name][head.layer or 0, head.index or 0]) for name in names}


def _why_none(inductors: list[Node], feeders: list[Node]) -> str:
    if not inductors:
        return "No induction circuit: no head attends to what followed earlier copies of its token."
    names = ", ".join(map(str, inductors))
    if not feeders:
        return f"No induction circuit: {names} match prefixes, but no previous-token head was found to feed them."
    return f"No induction circuit: {names} match prefixes, but taking previous-token heads out of their keys changes little."


def _why_unproven(whole: dict) -> str:
    control = whole["control"]
    if whole["set"]["ablation"]["zero"]["low"] <= 0:
        return "the interval holds zero"
    if control["sets"] < 19:
        return f"{control['sets']} random sets of other heads are too few to compare with"
    return f"random sets of as many heads reach it (p = {control['zero']['p_value']:.2f})"


def _summary(feeds: list[_Feed], whole: dict) -> str:
    writers, inductors = sorted({feed.writer for feed in feeds}), sorted({feed.head for feed in feeds})
    zero = whole["set"]["ablation"]["zero"]
    return (
        f"{_names(inductors, 'induction head')}, fed through the keys by {_names(writers, 'previous-token head')}; "
        f"without them the loss on repeated tokens rises by {zero['effect']:.2f} nats "
        f"(95 % interval {zero['low']:.2f} to {zero['high']:.2f})."
    )


def _names(heads: list[Node], what: str) -> str:
    return f"{len(heads)} {what}{'s' if len(heads) != 1 else ''} ({', '.join(map(str, heads))})"
