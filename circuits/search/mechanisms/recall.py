"""Finding the circuit behind a recalled fact: positions, heads and single neurons (Meng et al. 2022, Geva et al. 2023)."""

import importlib.metadata
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.errors import PromptError
from circuits.graph import Circuit, Graph, Node
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.patching.ablation.ablation import ablate
from circuits.patching.effects import Effects
from circuits.patching.nodes import patch_nodes
from circuits.progress import Found, Progress, heard
from circuits.search.mechanisms.recall_evidence import Evidence
from circuits.search.mechanisms.recall_search import Effort, RecallSearch
from circuits.statistics import p_value
from circuits.tasks import Fact, PromptPairs, fact_pairs, mini_facts
from circuits.tasks.metrics import logit_difference

ROLES = ("previous token", "subject gather", "entity neuron", "answer neuron", "attribute fetch", "relation")
_STEPS, _SITES = 3, 16
"""Points on the way from corrupt to clean prompts at which gradients are taken, where nodes and edges are screened; pairs
on which the residual stream is put back there."""
_PLACES = ("subject_first", "subject_last", "last")
"""Where the clean residual stream is put back."""


def find_factual_recall_circuit(
    model: Model,
    prompts: PromptPairs | Sequence[Fact] | None = None,
    *,
    min_effect: float = 0.1,
    most_heads: int | None = None,
    most_neurons: int | None = None,
    most_nodes: int = 400,
    most_forwards: float | None = None,
    control_sets: int = 20,
    count: int = 32,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
    found: Found | None = None,
) -> Circuit:
    """Find the heads, single neurons and edges that carry facts from their subject to the answer, and prove that they matter.

    The search goes backwards from the logits: an edge is taken where noising it alone, exactly, costs `min_effect` of the
    clean-corrupt gap of the logit difference on the prompts where both its nodes matter (95 % interval above zero), with the
    writer's value from the paired prompt or averaged over all tokens. Neurons are proposed to first order, each verified by
    exact patching.

    The result is a circuit of heads and single neurons with roles; every node and edge carries its effect and interval.
    Metadata: `sites` (what restoring the residual stream brings back, by position and layer), `set` and `control` (the
    logit difference lost without all found nodes, and without random sets of as many), `verdict` ("found", "unproven",
    "none") and `summary`. Raises PromptError for pairs without subject positions.

    Args:
        model: the model that is searched.
        prompts: pairs whose corrupt prompt has another subject, with positions `subject_first` and `subject_last` (as
            `fact_pairs` makes them), or facts to pair (default: the bundled model's).
        min_effect: share of the gap that an edge must cost.
        most_heads: how many heads are patched: those that count most to first order (default: all; where forwards are
            counted, 36 for 40 of them and others in proportion).
        most_neurons: how many neurons are verified, likewise (default: 512; where forwards are counted, 48 for 40 of them).
        most_nodes: how many nodes are followed at most.
        most_forwards: how many plain forwards over both prompts of all pairs the whole takes, about (default: 40 in models of
            more than 64 heads, no limit in smaller ones; infinity: no limit). With a limit nodes are followed from the one
            whose patch costs most until it is reached, and only edges are tested whose estimates reach half of `min_effect`,
            of those into each reader the 16 largest first; the residual stream is put back on 16 pairs. The circuit's
            `patched`, `followed`, `tested`, `left_out` and `sites_prompts` say how much was looked at, `forwards` what it took.
        control_sets: how many random sets of as many nodes.
        count: how many of the bundled facts, where no `prompts` are given.
        seed: that of the sets and of the bootstrap.
        budget: bytes that a pass may take above the model and its base runs; a smaller one takes longer and changes nothing.
        progress: hears what is being done, how much of it is done, and how much there is.
        found: gets what restoring the residual stream brings back (`Effects`), then, each time that the search has found more
            edges, the circuit of those with the verdict "searching", the whole with the verdict "unjudged" (where there is a
            circuit), and the judged one, each as soon as it is there.
    """
    give, pairs = heard(found), _pairs(model, prompts, count, seed)
    effort = Effort.of(model, most_heads, most_neurons, most_forwards)
    common: dict[str, Any] = {"min_effect": min_effect, "seed": seed, "budget": budget, "progress": progress}
    evidence = Evidence(model, pairs, steps=_STEPS if effort.screens else 0, **common)
    with torch.no_grad():
        some = pairs[:_SITES] if effort.screens else pairs
        restored = _restored(model, some, seed, budget, progress)
        give(restored)
        layers = [evidence.price(layer, evidence.pair.mask[: len(some)]) for layer in range(model.n_layers)]
        evidence.spent += len(some) / len(pairs) + 2 * sum(layers)  # the last position costs next to nothing
        reserved = (control_sets + 1) * evidence.price(0, pairs.clean.mask)
        search = RecallSearch(evidence, min_effect, most_nodes, effort, reserved)
        search.measure()
        about = {**_about(model, pairs, seed, min_effect, sites_of(restored)), "sites_prompts": len(some)}
        search.grow(lambda: give(_growing(evidence.graph, search, {**about, "followed_all": False, "verdict": "searching"})))
        about |= search.about()
        if not search.edges:
            why = _why_none(min_effect, tested=effort.screens) + (_how_much(about) if effort.screens else "")
            took = {"forwards": round(evidence.spent, 1)} if effort.screens else {}
            circuit = Circuit(evidence.graph, metadata={**about, **took, "verdict": "none", "summary": why})
        else:
            unjudged = _circuit(evidence, search, {**about, "verdict": "unjudged"})
            give(unjudged)
            proof = _proof(model, pairs, search.nodes(), control_sets, seed, budget, progress)
            took = {"forwards": round(evidence.spent + reserved, 1)} if effort.screens else {}
            circuit = _saying(unjudged, {**about, **proof, **took})
    give(circuit)
    return circuit


def _pairs(model: Model, prompts: PromptPairs | Sequence[Fact] | None, count: int, seed: int) -> PromptPairs:
    if prompts is None:
        prompts = mini_facts()
    pairs = prompts if isinstance(prompts, PromptPairs) else fact_pairs(model, prompts, count=count, seed=seed)
    missing = [name for name in ("subject_first", "subject_last") if name not in pairs.positions]
    if missing:
        raise PromptError(f"the pairs name no position {missing[0]}: make them with fact_pairs, or give subjects")
    return pairs


def _restored(model: Model, pairs: PromptPairs, seed: int, budget: int, progress: Progress | None) -> Effects:
    """What putting the clean residual stream back brings, at each position and layer."""
    options: dict[str, Any] = {"positions": _PLACES, "seed": seed, "budget": budget, "progress": progress}
    return patch_nodes(model, pairs, logit_difference, "residual", **options)


def sites_of(effects: Effects) -> dict[str, list]:
    """By position and layer, the share of the gap that the clean residual stream brings back there."""
    sites: dict[str, list] = {role: [] for role in _PLACES}
    for name, effect in zip(effects.names, effects.intervals(), strict=True):
        sites[name.split("@")[1]].append(effect.as_json())
    return sites


def _proof(
    model: Model, pairs: PromptPairs, nodes: list[Node], control_sets: int, seed: int, budget: int, progress: Progress | None
) -> dict[str, Any]:
    """What is lost without all found nodes, and without random sets of as many heads and neurons."""
    draw, found = random.Random(seed), set(nodes)
    heads = [node for node in model.graph().nodes() if node.kind == "head" and node not in found]
    wanted = {kind: sum(node.kind == kind for node in nodes) for kind in ("head", "neuron")}
    sets = [[str(node) for node in nodes]]
    for _ in range(control_sets):
        chosen = [str(node) for node in draw.sample(heads, min(wanted["head"], len(heads)))]
        neurons: set[str] = set()
        while len(neurons) < min(wanted["neuron"], model.n_layers * model.d_mlp - wanted["neuron"]):
            node = Node("neuron", draw.randrange(model.n_layers), draw.randrange(model.d_mlp))
            neurons |= set() if node in found else {str(node)}
        sets.append([*chosen, *sorted(neurons)])
    sets = [one for one in sets if one]
    result = ablate(model, pairs, logit_difference, sets, kind="mean", seed=seed, budget=budget, progress=progress)
    lost = (-result.change()).tolist()
    interval = result.intervals()[0]
    whole = {"effect": -interval.effect, "low": -interval.high, "high": -interval.low}
    control: dict[str, Any] = {"sets": len(sets) - 1, "size": len(sets[-1]) if len(sets) > 1 else 0}
    if len(sets) > 1:
        control |= {"mean": sum(lost[1:]) / (len(lost) - 1), "max": max(lost[1:]), "p_value": p_value(lost[0], lost[1:])}
    proven = whole["low"] > 0 and control.get("p_value", 1.0) <= 0.05
    return {"set": whole, "control": control, "verdict": "found" if proven else "unproven"}


def _about(model: Model, pairs: PromptPairs, seed: int, min_effect: float, sites: dict[str, list]) -> dict[str, Any]:
    return {
        "task": "factual recall",
        "model": model.name,
        "weights_sha256": model.fingerprint,
        "created_by": f"transformer-circuits {importlib.metadata.version('transformer-circuits')}",
        "seed": seed,
        "prompts": len(pairs),
        "min_effect": min_effect,
        "sites": sites,
    }


def _circuit(evidence: Evidence, search: RecallSearch, metadata: dict[str, Any]) -> Circuit:
    graph, nodes = evidence.graph, search.nodes()
    roles = {str(node): _role(evidence, search, node) for node in nodes}
    scores = {str(node): evidence.node_claim(node) for node in nodes}
    about: dict[str, Any] = {
        str(node): {"patched": scores[str(node)].as_json(), "patched_all_prompts": evidence.everywhere(node).as_json()}
        for node in nodes
    }
    places = {str(node): evidence.positions_of(node, search.min_effect) for node in nodes}
    for node in nodes:
        if roles[str(node)] == "attribute fetch":
            claim = evidence.knocked_out(node, evidence.pairs.positions["subject_last"])
            about[str(node)]["attention_to_subject_blocked"] = claim.as_json()
    edges = {}
    for edge, claims in sorted(search.edges.items()):
        best = max(claims, key=lambda claim: claim.effect.effect)
        edges[str(edge)] = best.effect.effect
        about[str(edge)] = {claim.kind: claim.as_json() for claim in claims}
    metadata["summary"] = _summary(roles, metadata)
    numbers = {name: claim.effect.effect for name, claim in scores.items()}
    known = {name: found for name, found in places.items() if found}
    return Circuit(graph, edges, numbers, positions=known, evidence=about, roles=roles, metadata=metadata)


def _growing(graph: Graph, search: RecallSearch, metadata: dict[str, Any]) -> Circuit:
    """The edges found so far, with what each costs."""
    edges = {str(edge): max(claim.effect.effect for claim in claims) for edge, claims in sorted(search.edges.items())}
    summary = f"{len(edges)} edges so far; the search has not come to its end."
    return Circuit(graph, edges, metadata={**metadata, "summary": summary})


def _saying(circuit: Circuit, metadata: dict[str, Any]) -> Circuit:
    """The same circuit with other metadata, and the summary that follows from them."""
    about = {**metadata, "summary": _summary({str(node): role for node, role in circuit.roles.items()}, metadata)}
    known = {"positions": circuit.positions, "evidence": circuit.evidence, "roles": circuit.roles}
    return Circuit(circuit.graph, circuit.edges, circuit.nodes, metadata=about, **known)


def _role(evidence: Evidence, search: RecallSearch, node: Node) -> str:
    """What a node does, by what it writes to and where it looks."""
    to_logits = any(edge.writer == node and edge.reader.kind == "logits" for edge in search.edges)
    if node.kind == "neuron":
        return "answer neuron" if to_logits else "entity neuron"
    if to_logits:
        return "attribute fetch"
    if not any(edge.writer == node and edge.reader.kind == "neuron" for edge in search.edges):
        return "relation" if any(edge.writer == node and edge.slot == "q" for edge in search.edges) else "subject gather"
    pattern = evidence.clean.run.pattern(node.layer or 0)[:, node.index]
    return (
        "previous token" if float(_to_previous(pattern, evidence.pairs.positions["subject_last"])) >= 0.5 else "subject gather"
    )


def _to_previous(pattern: Tensor, columns: Tensor) -> Tensor:
    rows = (columns >= 0).nonzero()[:, 0]  # the others lack the position
    return pattern[rows, columns[rows], (columns[rows] - 1).clamp(min=0)].mean()


def _why_none(min_effect: float, *, tested: bool) -> str:
    which = "none of the edges into the logits that were tested" if tested else "no edge into the logits"
    return f"No recall circuit: {which} costs {min_effect:.0%} of the gap when it is noised by itself."


def _summary(roles: dict[str, str], metadata: dict[str, Any]) -> str:
    counts = [f"{sum(role == kind for role in roles.values())} {kind}" for kind in ROLES if kind in roles.values()]
    if "set" not in metadata:
        return f"{len(roles)} nodes ({', '.join(counts)}); not ablated together yet."
    lost, control = metadata["set"], metadata["control"]
    doubts = [] if metadata["followed_all"] else [" The search stopped at its largest number of nodes."]
    if "followed" in metadata:
        doubts = [_how_much(metadata)]
    if metadata["verdict"] == "unproven":
        few = control["sets"] < 19
        reached = "too few random sets to compare with" if few else "random sets of other nodes reach this, or zero does"
        doubts.append(f" Not proven: {reached}.")
    return (
        f"{len(roles)} nodes ({', '.join(counts)}); without them the logit difference falls by {lost['effect']:.2f} "
        f"(95 % interval {lost['low']:.2f} to {lost['high']:.2f}).{''.join(doubts)}"
    )


def _how_much(metadata: dict[str, Any]) -> str:
    """What was looked at, where not everything was: nodes that were patched and followed, edges that were tested."""
    (heads, all_heads), (neurons, all_neurons) = metadata["patched"]["heads"], metadata["patched"]["neurons"]
    (tested, edges), (followed, found) = metadata["tested"], metadata["followed"]
    said = f" {heads} of {all_heads} heads, {neurons:,} of {all_neurons:,} neurons and {tested:,} of {edges:,} edges between "
    said += "them were patched, those of the largest estimates"
    if metadata["left_out"]:
        said += f" ({metadata['left_out']:,} more edges may cost enough)"
    if followed < found:
        said += f"; what feeds them was looked for in {followed} of the {found} found, from the strongest on"
    return f"{said}."
