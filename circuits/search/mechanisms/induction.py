"""Finding induction heads and the previous-token heads that feed their keys (Elhage et al. 2021, Olsson et al. 2022)."""

import dataclasses
import importlib.metadata
import itertools
import math
import random

import torch

from circuits.graph import Circuit, Node
from circuits.heads import HeadScores, score_heads
from circuits.models import Model
from circuits.progress import Progress, silent
from circuits.search.mechanisms.induction_edges import (
    EdgePatching,
    Feed,
    Reason,
    Thresholds,
    best,
    left_out,
    patched,
    tried_edges,
)
from circuits.search.mechanisms.induction_evidence import ABLATIONS, AblationKind, RepeatAblations, Repeats
from circuits.statistics import bootstrap, p_value
from circuits.tasks import repeated_tokens

SEGMENT = 25
"""Tokens in the segment that is said twice, as in Olsson et al. 2022."""
_SIGNIFICANT, _FEWEST = 0.05, 19
"""The largest p that proves, and how many random sets it takes to get there."""


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

    An edge from one to the keys of the other is taken where taking it out lowers the prefix matching by the share `min_drop`
    at least (95 % interval above zero), and where path patching confirms it (share of the gap that noising costs, on prompts
    without a prefix to match, interval above zero) or the K-composition of the two lies above that of random matrices; a low
    composition alone rejects nothing. Further evidence: patching of all edges together; the rise of the loss on the second
    copy of random segments, in nats (positive: the model needs the heads), when single heads and the whole set are ablated,
    by zero and by mean, patterns frozen and not, with bootstrap intervals; the same for random sets of as many other heads.

    The result's metadata says `verdict`: "found", where the interval of ablating the set by zero lies above zero and
    at most one in twenty random sets reaches it (so 19 sets are the fewest; of a model that has fewer other sets, all are
    tried, none may reach it, and patching the edges must cost); "unproven"; or "none", with an empty circuit. `rejected`
    says of each candidate head that was left out which test failed, with its figure and its threshold; `summary`, in
    words. Raises PromptError where the vocabulary or the context is too small for repeated tokens.

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
        limits = Thresholds(min_prefix_matching, min_previous_token, min_drop)
        candidates = {name: _above(scores, name, getattr(limits, name)) for name in ("prefix_matching", "previous_token")}
        tried = tried_edges(model, ablations, candidates, seed, report)
        lowering = any(feed.lowers(min_drop) for feed in tried)
        patching = EdgePatching(model, sequences, seed, repeats.start, report) if lowering else None
        tried = tried if patching is None else patched(tried, patching, min_drop)
        feeds = [feed for feed in tried if feed.fault(min_drop) is None]
        rejected = left_out(scores, candidates, tried, limits)
        about = _about(model, ablations, sequences, seed, limits, rejected)
        if patching is None or not feeds:
            summary = _why_none(scores, candidates, tried, limits)
            return Circuit(model.graph(), metadata={**about, "verdict": "none", "summary": summary})
        about["edges_patched"] = patching.effects([feeds])[0].as_json()
        heads = sorted({feed.writer for feed in feeds} | {feed.head for feed in feeds})
        singles = _single_ablations(ablations, heads, seed, report)
        about |= _set_evidence(model, ablations, heads, control_sets, seed, report)
    doubt = _why_unproven(about)
    summary = _summary(feeds, about) + (f" Not proven: {doubt}." if doubt else _held_against_few(about))
    return _circuit(model, scores, feeds, singles, {**about, "verdict": "unproven" if doubt else "found", "summary": summary})


def _repeats(model: Model, sequences: int, seed: int) -> Repeats:
    tokens, length = repeated_tokens(model, count=sequences, length=SEGMENT, copies=2, seed=seed)
    return Repeats(tokens, tokens.ids.shape[1] - 2 * length, length)


def _above(scores: HeadScores, name: str, threshold: float) -> list[Node]:
    layers, heads = (scores.scores[name] >= threshold).nonzero(as_tuple=True)
    return [Node("head", int(layer), int(head)) for layer, head in zip(layers, heads, strict=True)]


def _about(
    model: Model,
    ablations: RepeatAblations,
    sequences: int,
    seed: int,
    limits: Thresholds,
    rejected: dict[str, Reason],
) -> dict:
    return {
        "task": "induction",
        "model": model.name,
        "weights_sha256": model.fingerprint,
        "created_by": f"transformer-circuits {importlib.metadata.version('transformer-circuits')}",
        "seed": seed,
        "sequences": sequences,
        "length": ablations.repeats.length,
        "copies": 2,
        **({} if model.prepend_bos is None else {"prepend_bos": model.prepend_bos}),
        "thresholds": dataclasses.asdict(limits),
        "rejected": {name: reason.as_json() for name, reason in rejected.items()},
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
    """Ablation of all the found heads together, and of random sets of as many heads of the rest: of all such sets, where
    there are no more than are asked for."""
    effects = {kind: bootstrap(ablations.rise(heads, kind), seed=seed).as_json() for kind in ABLATIONS}
    rest = [node for node in model.graph().nodes() if node.kind == "head" and node not in heads]
    size = min(len(heads), len(rest))
    sets = _other_sets(rest, size, control_sets, seed)
    control: dict = {"sets": len(sets), "size": size, "all": len(sets) >= math.comb(len(rest), size) or not size}
    kinds: tuple[AblationKind, ...] = ("zero", "mean")
    null: dict[str, list[float]] = {kind: [] for kind in kinds}
    for done, chosen in enumerate(sets):
        report("ablating random heads", done, len(sets))
        for kind in kinds:
            null[kind].append(float(ablations.rise(chosen, kind).mean()))
    report("ablating random heads", len(sets), len(sets))
    for kind in kinds if sets else ():
        values = null[kind]
        share = p_value(effects[kind]["effect"], values)
        control[kind] = {"mean": sum(values) / len(values), "max": max(values), "p_value": share}
    return {"set": {"heads": [str(head) for head in heads], "ablation": effects}, "control": control}


def _other_sets(rest: list[Node], size: int, count: int, seed: int) -> list[list[Node]]:
    """Random sets of heads, or all that there are, where these are fewer: a set drawn twice tells nothing new."""
    if not size:
        return []
    if math.comb(len(rest), size) <= count:
        return [list(chosen) for chosen in itertools.combinations(rest, size)]
    draw = random.Random(seed)
    return [draw.sample(rest, size) for _ in range(count)]


def _circuit(
    model: Model,
    scores: HeadScores,
    feeds: list[Feed],
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
            "path_patching": None if feed.patched is None else feed.patched.as_json(),
        }
    roles = {str(head): "previous token" for head in writers} | {str(head): "induction" for head in inductors}
    nodes = {str(head): singles[head]["zero"]["effect"] for head in (*writers, *inductors)}
    return Circuit(graph, edges, nodes, evidence=about, roles=roles, metadata=metadata)


def _head_scores(scores: HeadScores, head: Node) -> dict[str, float]:
    names = ("prefix_matching", "copying", "previous_token")
    return {name: float(scores.scores[name][head.layer or 0, head.index or 0]) for name in names}


def _why_none(scores: HeadScores, candidates: dict[str, list[Node]], tried: list[Feed], limits: Thresholds) -> str:
    """The measured reason why there is no circuit."""
    inductors, feeders = (", ".join(map(str, candidates[name])) for name in ("prefix_matching", "previous_token"))
    said = {name: "{} with {:.2f}".format(*scores.top(name, 1)[0]) for name in candidates}
    none = "No induction circuit:"
    if not inductors:
        return (
            f"{none} no head attends to what followed earlier copies of its token: the highest prefix matching has "
            f"{said['prefix_matching']}, and {limits.prefix_matching:.2f} is asked for."
        )
    if not feeders:
        return (
            f"{none} {inductors} match prefixes, but no previous-token head was found to feed them: the highest previous-token "
            f"score has {said['previous_token']}, and {limits.previous_token:.2f} is asked for."
        )
    if not tried:
        return f"{none} {inductors} match prefixes, but no previous-token head ({feeders}) stands in an earlier layer."
    nearest = best(tried).fault(limits.prefix_matching_drop)
    assert nearest is not None, "no edge holds"
    return f"{none} {inductors} match prefixes, but no edge from a previous-token head holds. The nearest: {nearest.words}."


def _why_unproven(about: dict) -> str | None:
    """Why the set of found heads proves nothing; None where it does."""
    control, zero = about["control"], about["set"]["ablation"]["zero"]
    if zero["low"] <= 0:
        return "the interval holds zero"
    if control["sets"] < _FEWEST and not control["all"]:
        return f"{control['sets']} random sets of other heads are too few to compare with"
    share = control.get("zero", {}).get("p_value", 0.0)
    if share > max(_SIGNIFICANT, 1 / (1 + control["sets"])):
        return f"random sets of as many heads reach it (p = {share:.2f})"
    if control["sets"] < _FEWEST and about["edges_patched"]["low"] <= 0:
        return f"there are {control['sets']} sets of other heads to compare with, and patching the edges costs nothing for sure"
    return None


def _held_against_few(about: dict) -> str:
    """What stands in for random sets where a model has too few other heads."""
    count, cost = about["control"]["sets"], about["edges_patched"]
    if count >= _FEWEST:
        return ""
    others = (
        f"The {count} other sets of heads that there are cost less" if count else "There are no other heads to compare with"
    )
    share = f"{cost['effect']:.0%} of the logit difference ({cost['low']:.0%} to {cost['high']:.0%})"
    return f" {others}; patching the edges into the keys costs {share}."


def _summary(feeds: list[Feed], whole: dict) -> str:
    writers, inductors = sorted({feed.writer for feed in feeds}), sorted({feed.head for feed in feeds})
    zero = whole["set"]["ablation"]["zero"]
    return (
        f"{_names(inductors, 'induction head')}, fed through the keys by {_names(writers, 'previous-token head')}; "
        f"without them the loss on repeated tokens rises by {zero['effect']:.2f} nats "
        f"(95 % interval {zero['low']:.2f} to {zero['high']:.2f})."
    )


def _names(heads: list[Node], what: str) -> str:
    return f"{len(heads)} {what}{'s' if len(heads) != 1 else ''} ({', '.join(map(str, heads))})"
