"""The circuit of the edges that return, judged beside the single ones."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.graph import Circuit
from circuits.graph.places import edge_at, on_paths
from circuits.patching.subgraphs.members import Members
from circuits.search.judging.judge import Judge
from circuits.search.stability.results import Consensus, Recurrence, Rule
from circuits.search.stability.samples import SearchedModel
from circuits.statistics import Effect

Edges = dict[str, Tensor]
"""A circuit as a shard leaves it: `writers`, `readers` and `scores` [edge]."""


def members_of(result: Recurrence, rule: Rule, model: str) -> Members:
    """The edges that a rule keeps of a model's circuits, those that lie on paths made of them. Of edges that are found as
    often, those of the larger mean |score|, then the earlier in computation."""
    times, rows = result.times(model), result.rows(model)
    if rule == "as many":
        sizes = result.chosen[rows].sum(dim=1).double()
        strength = result.scores[rows].abs().nanmean(dim=0).nan_to_num(0.0)
        order = sorted(range(len(times)), key=lambda at: (-int(times[at]), -float(strength[at]), at))
        kept = torch.zeros(len(times), dtype=torch.bool)
        kept[order[: round(float(sizes.mean()))]] = True
        kept &= times > 0
    else:
        kept = times >= len(rows) if rule == "all" else 2 * times >= len(rows)
    writers, readers = result.writers[kept], result.readers[kept]
    lie = torch.tensor(on_paths(result.graph, writers.tolist(), readers.tolist()), dtype=torch.bool)
    return Members(result.graph, writers[lie], readers[lie])


def consensus_circuit(result: Recurrence, about: Mapping[str, object]) -> Circuit:
    """The edges that are in at least half of the first model's circuits, on paths made of them: mean score, and in how many
    each is as evidence."""
    model = result.models[0]
    members, rows, times = members_of(result, "half", model), result.rows(model), result.times(model)
    means = result.scores[rows].nanmean(dim=0)
    known = {place: at for at, place in enumerate(zip(result.writers.tolist(), result.readers.tolist(), strict=True))}
    edges: dict[Any, float | None] = {}
    evidence: dict[Any, Any] = {}
    for place in zip(members.writers.tolist(), members.readers.tolist(), strict=True):
        edge, at = edge_at(result.graph, *place), known[place]
        score = float(means[at])
        edges[edge] = None if score != score else score
        evidence[edge] = {"times": int(times[at]), "of": len(rows)}
    details = {**about, "task": result.task, "consensus": "at least half", "circuits": len(rows), "sample": result.sample}
    return Circuit(result.graph, edges, evidence=evidence, metadata=details)


def judged_circuits(
    asked: SearchedModel, name: str, result: Recurrence, whole: Mapping[str, Edges], how: Mapping[str, Any]
) -> Any:
    """Every circuit of a model by itself on held-out prompts: means with intervals, and how far each circuit of several is
    above the mean of the single ones."""
    graph = result.graph
    rules: tuple[Rule, ...] = ("all", "half", "as many")
    single = [
        Members(graph, result.writers[result.chosen[row]], result.readers[result.chosen[row]]) for row in result.rows(name)
    ]
    several: dict[Rule, Members] = {rule: members_of(result, rule, name) for rule in rules}
    several["pooled"] = Members(graph, whole[name]["writers"], whole[name]["readers"])
    several_kept = {rule: one for rule, one in several.items() if len(one)}
    judge = Judge(asked.model, asked.held_out, asked.judged_by, neurons=graph.neurons, **how)
    judge.rest()
    changes = judge.changes([*single, *several_kept.values()], "running the circuits by themselves")
    effects = [_plain_effect(one) for one in judge.effects(changes, seed=0)]
    own = changes[: len(single)].mean(dim=0)
    above = [_plain_effect(one) for one in judge.effects(changes[len(single) :] - own[None], seed=0)]
    kept = dict(zip(several_kept, zip(effects[len(single) :], above, strict=True), strict=True))
    rows = [[rule, len(one), *kept.get(rule, (None, None))] for rule, one in several.items()]
    return {"single": effects[: len(single)], "several": rows}


def _plain_effect(one: Effect) -> list[float]:
    return [one.effect, one.low, one.high]


def with_judged(result: Recurrence, judged: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Recurrence:
    """What judging found, beside what it is about."""
    runs, consensus = list(result.runs), list[Consensus]()
    for name, one in zip(names, judged, strict=True):
        for row, values in zip(result.rows(name), one["single"], strict=True):
            runs[row] = dataclasses.replace(runs[row], faithfulness=Effect(*values))
        for rule, edges, own, more in one["several"]:
            kept = None if own is None else Effect(*own)
            consensus.append(Consensus(name, rule, edges, kept, None if more is None else Effect(*more)))
    return dataclasses.replace(result, runs=tuple(runs), consensus=tuple(consensus))
