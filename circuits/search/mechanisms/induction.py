"""Finding induction heads and the previous-token heads that feed their keys (Elhage et al. 2021, Olsson et al. 2022)."""

import dataclasses
import importlib.metadata
from collections.abc import Mapping

import torch

from circuits.graph import Circuit, Node
from circuits.heads import HeadScores, score_heads
from circuits.models import Model
from circuits.progress import Found, Progress, heard, silent
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
from circuits.search.mechanisms.induction_evidence import RepeatAblations, Repeats
from circuits.search.mechanisms.induction_worth import held_against_few, set_evidence, single_evidence, why_unproven
from circuits.tasks import repeated_tokens

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
    found: Found | None = None,
) -> Circuit:
    """Find the induction heads of a model, the previous-token heads that their keys read, and prove that they matter.

    An edge from one to the keys of the other is taken where taking it out lowers the prefix matching by the share `min_drop`
    at least (95 % interval above zero), and where path patching confirms it (share of the gap that noising costs, on prompts
    without a prefix to match, interval above zero) or the K-composition of the two lies above that of random matrices; a low
    composition alone rejects nothing. Further evidence: patching of all edges together; the rise of the loss on the second
    copy of random segments, in nats (positive: the model needs the heads), when single heads and the whole set are ablated,
    by zero and by mean, patterns frozen and not, with 95 % intervals; the same for random sets of as many other heads.

    Work stops where it is decided. What all found heads cost when set to zero is measured on all sequences; everything else on
    four, and on as many again time after time until the interval is narrower than 2 % of that cost, or leaves out zero and is
    no wider than the effect (`sequences`, beside each interval; of fewer than 16 it is Student's, as a bootstrap of few is too
    narrow). A random set is measured on four, and on more while it may cost as much as the found heads on the same sequences
    (one-sided t-test, p of 0.01); once so many do that nothing can be proven, no more sets are tried (Besag & Clifford 1991;
    `control` says how many were `tried`, and why it `stopped`).

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
        found: called with what there is as soon as it is there: the head scores, then the circuit with the verdict
            "unjudged", then the circuit that is returned.
    """
    report, give = progress or silent, heard(found)
    report("scoring heads", 0, 1)
    scores = score_heads(model, seed=seed)
    report("scoring heads", 1, 1)
    give(scores)
    limits = Thresholds(min_prefix_matching, min_previous_token, min_drop)
    candidates = {name: _above(scores, name, getattr(limits, name)) for name in ("prefix_matching", "previous_token")}
    with torch.no_grad():
        report("running repeated tokens", 0, 1)
        ablations = RepeatAblations(model, _repeats(model, sequences, seed))
        report("running repeated tokens", 1, 1)
        tried = tried_edges(model, ablations, candidates, seed, report)
        lowering = any(feed.lowers(min_drop) for feed in tried)
        patching = EdgePatching(model, sequences, seed, ablations.repeats.start, report) if lowering else None
        tried = tried if patching is None else patched(tried, patching, min_drop)
        feeds = [feed for feed in tried if feed.fault(min_drop) is None]
        rejected = left_out(scores, candidates, tried, limits)
        about = _about(model, ablations, sequences, seed, limits, rejected)
        if patching is None or not feeds:
            summary = _why_none(scores, candidates, tried, limits)
            circuit = Circuit(model.graph(), metadata={**about, "verdict": "none", "summary": summary})
            give(circuit)
            return circuit
        about["edges_patched"] = patching.effects([feeds])[0].as_json()
        unjudged = {**about, "verdict": "unjudged", "summary": f"{_members(feeds)}; not ablated yet."}
        give(_circuit(model, scores, feeds, {}, unjudged))
        heads = tuple(sorted({feed.writer for feed in feeds} | {feed.head for feed in feeds}))
        whole, control = set_evidence(model, ablations, heads, control_sets, seed, report)
        about |= {"set": whole, "control": control}
        singles = single_evidence(ablations, heads, whole["ablation"]["zero"]["effect"], seed, report)
    doubt = why_unproven(about)
    summary = _summary(feeds, about) + (f" Not proven: {doubt}." if doubt else held_against_few(about))
    about |= {"verdict": "unproven" if doubt else "found", "summary": summary}
    circuit = _circuit(model, scores, feeds, singles, about)
    give(circuit)
    return circuit


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


def _circuit(
    model: Model,
    scores: HeadScores,
    feeds: list[Feed],
    singles: Mapping[Node, dict],
    metadata: dict,
) -> Circuit:
    """The circuit's edges: input to every q, k and v that matters, previous-token heads to keys, induction heads to
    logits. `singles`: what each head costs by itself; empty before that was measured."""
    graph = model.graph()
    writers, inductors = sorted({feed.writer for feed in feeds}), sorted({feed.head for feed in feeds})
    worth = {head: one["zero"]["effect"] for head, one in singles.items()}
    edges: dict[str, float | None] = {str(feed.edge): feed.drop.effect for feed in feeds}
    for head in writers:
        edges.update({f"input->{graph.reader_of(head, slot)}": None for slot in ("q", "k", "v")})
    for head in inductors:
        edges.update({f"input->{graph.reader_of(head, slot)}": None for slot in ("q", "v")})
        edges[f"{head}->logits"] = worth.get(head)
    about: dict[str, dict] = {}
    for head in (*writers, *inductors):
        about[str(head)] = {**_head_scores(scores, head), **({"ablation": singles[head]} if head in singles else {})}
    for feed in feeds:
        about[str(feed.edge)] = {
            "k_composition": feed.composition,
            "k_composition_random": feed.composition_random,
            "prefix_matching_drop": feed.drop.as_json(),
            "path_patching": None if feed.patched is None else {**feed.patched.as_json(), "prompts": feed.prompts},
        }
    roles = {str(head): "previous token" for head in writers} | {str(head): "induction" for head in inductors}
    nodes = {str(head): worth.get(head) for head in (*writers, *inductors)}
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


def _summary(feeds: list[Feed], whole: dict) -> str:
    zero = whole["set"]["ablation"]["zero"]
    return (
        f"{_members(feeds)}; without them the loss on repeated tokens rises by {zero['effect']:.2f} nats "
        f"(95 % interval {zero['low']:.2f} to {zero['high']:.2f})."
    )


def _members(feeds: list[Feed]) -> str:
    writers, inductors = sorted({feed.writer for feed in feeds}), sorted({feed.head for feed in feeds})
    return f"{_names(inductors, 'induction head')}, fed through the keys by {_names(writers, 'previous-token head')}"


def _names(heads: list[Node], what: str) -> str:
    return f"{len(heads)} {what}{'s' if len(heads) != 1 else ''} ({', '.join(map(str, heads))})"
