"""What the model itself says of a circuit's nodes and edges on a few prompts: attention, activations, what is written, and on
which prompts an edge matters."""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.attribution import attribute_edges
from circuits.attribution.rules import RULES
from circuits.graph import Circuit, Edge, Node
from circuits.graph.places import places
from circuits.lenses.readout import top_tokens
from circuits.models import Model, Run, TokenBatch
from circuits.models.memory import BUDGET
from circuits.models.outputs import node_output
from circuits.progress import Progress, silent
from circuits.search.judging.compare import supporting_sign
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, Metric, Relative

PROMPTS = 8
"""Prompts that are shown, at most."""
TOKENS = 8
"""Tokens that a node raises and lowers most."""
_TRIGGERS = 5
"""Places at which a neuron is most active."""
ROOM = 900_000
"""Characters of the page that attention patterns may take."""
_CHARACTERS = 9
"""Of a number in the page, about."""
_AROUND = (8, 3)
"""Tokens shown before and after a trigger."""


@dataclasses.dataclass(frozen=True)
class Looked:
    """What the model says of a circuit, and beside it, or in its place, what is missing, each with what would bring it."""

    closer: "Closer | None" = None
    missing: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Closer:
    """What there is to show of a few prompts, of nodes and of edges, as plain values."""

    prompts: Sequence[Mapping[str, Any]]
    """Each with `tokens`, the `column` at which the answer is read, and where known `answer` and `distractor`."""
    nodes: Mapping[str, Mapping[str, Any]]
    edges: Mapping[str, Sequence[float]]
    """Each edge's effect on every one of the prompts."""
    causal: bool = True
    about: str = ""
    """What the edges' numbers are."""

    def of_node(self, item: Node) -> Mapping[str, Any]:
        """What there is of a node."""
        return self.nodes.get(str(item), {})

    def of_edge(self, edge: Edge) -> list[float] | None:
        """An edge's effect on every prompt."""
        found = self.edges.get(str(edge))
        return None if found is None else list(found)


def look_closer(
    model: Model,
    circuit: Circuit,
    prompts: PromptPairs | TokenBatch,
    *,
    metric: AnyMetric | None = None,
    most: int = PROMPTS,
    room: int = ROOM,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Closer:
    """Run a model on a few prompts and note what the nodes of a circuit do there; with pairs and a metric also on which of them
    its edges matter, by the attribution that found them (EAP-IG where another method did), with the sign of its own scores.

    Args:
        model: the model that the circuit is of.
        circuit: the nodes and edges that are looked at.
        prompts: clean and corrupt prompts, or prompts alone.
        metric: what edges are measured by; a metric of `circuits.metrics`, or a function of one's own.
        most: how many prompts are shown; the first ones. Triggers of neurons are searched for on all.
        room: characters that attention patterns may take in the page; of those that need more, what each head attends to from
            where the answer is read is kept alone.
        budget: bytes that a pass may take above the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    report = progress or silent
    pairs = prompts[slice(0, most)] if isinstance(prompts, PromptPairs) else None
    if pairs is not None:
        batch, columns = pairs.clean, pairs.answer_columns.tolist()
    else:
        assert isinstance(prompts, TokenBatch)
        batch = prompts[list(range(min(most, len(prompts.ids))))]
        columns = [int(row.nonzero()[-1]) for row in batch.mask.cpu()]
    report("looking at nodes", 0, 1)
    with torch.no_grad():
        run = model.run(batch)
    nodes = _Nodes(model, run, columns, room).all(circuit)
    report("looking at nodes", 1, 1)
    for name, found in _triggers(model, circuit, prompts, most, report).items():
        nodes[name] |= found
    edges, about = {}, ""
    if pairs is not None and metric is not None and not circuit.graph.neurons and len(circuit):
        edges, about = _by_prompt(model, circuit, pairs, metric, budget, report)
    return Closer(_prompts(model, batch, columns, pairs), nodes, edges, model.weights.causal, about)


def _prompts(model: Model, batch: TokenBatch, columns: Sequence[int], pairs: PromptPairs | None) -> list[dict[str, Any]]:
    """The prompts token by token; columns count from the first token that is no pad."""
    found = []
    for row, column in enumerate(columns):
        ids, first = batch.ids[row][batch.mask[row]], int(batch.mask[row].nonzero()[0])
        one: dict[str, Any] = {"tokens": model.to_token_strings(ids), "column": column - first}
        if pairs is not None:
            words = model.to_token_strings([int(pairs.answers[row]), int(pairs.distractors[row])])
            one |= {"answer": words[0], "distractor": words[1]}
        found.append(one)
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class _Nodes:
    """The nodes of a circuit in a run."""

    model: Model
    run: Run
    columns: Sequence[int]
    """Where each prompt's answer is read."""
    room: int
    """Characters that patterns, or activations, may take."""

    def all(self, circuit: Circuit) -> dict[str, dict[str, Any]]:
        """What there is of each node, by name."""
        nodes = [node for node in circuit.nodes if node.kind != "logits"]
        heads = [node for node in nodes if node.kind == "head"]
        found: dict[str, dict[str, Any]] = {str(node): {} for node in nodes}
        for node, writes in zip(nodes, self._writes(nodes), strict=True):
            found[str(node)]["writes"] = writes
        patterns = self._patterns(heads)
        for node in heads:
            found[str(node)]["attention"] = patterns[str(node)]
        neurons = [node for node in nodes if node.kind == "neuron"]
        if len(neurons) * int(self.run.tokens.mask.sum()) * _CHARACTERS <= self.room:
            for node in neurons:
                found[str(node)]["activations"] = _active(self.run, node)
        return found

    def _writes(self, nodes: Sequence[Node]) -> list[dict[str, Any]]:
        """The tokens that each node raises and lowers most where the answers are read, mean over prompts, as summands of the
        logits: the final norm's scale is the run's."""
        rows = torch.arange(len(self.columns))
        scale = self.run.final_scale[rows, self.columns]
        means = torch.stack([(node_output(self.run, node)[rows, self.columns] / scale).mean(dim=0) for node in nodes])
        about = "Logits that it adds where the answer is read, mean over the prompts shown; later layers not counted."
        found = []
        (up, up_ids), (down, down_ids) = (top_tokens(self.model, means, TOKENS, largest=largest) for largest in (True, False))
        for row in range(len(nodes)):
            named = [
                list(map(list, zip(self.model.to_token_strings(ids[row]), values[row].tolist(), strict=True)))
                for values, ids in ((up, up_ids), (down, down_ids))
            ]
            found.append({"up": named[0], "down": named[1], "about": about})
        return found

    def _patterns(self, heads: Sequence[Node]) -> dict[str, dict[str, Any]]:
        """Attention in hundredths, a byte each: from every token, or, where that takes too much room, from the answer's column
        alone."""
        widths = [int(mask.sum()) for mask in self.run.tokens.mask]
        causal = self.model.weights.causal
        cells = sum(width * (width + 1) // 2 if causal else width * width for width in widths)
        whole = len(heads) * cells * 4 // 3 <= self.room
        found: dict[str, dict[str, Any]] = {}
        for layer in sorted({node.layer or 0 for node in heads}):
            pattern = self.run.pattern(layer)
            for node in (one for one in heads if one.layer == layer):
                packed = [self._packed(pattern[row, node.index or 0], row, whole, causal) for row in range(len(widths))]
                found[str(node)] = {"rows": "all" if whole else "last", "prompts": packed}
        return found

    def _packed(self, pattern: Tensor, row: int, whole: bool, causal: bool) -> str:
        mask = self.run.tokens.mask[row]
        inside = pattern[mask][:, mask]
        column = self.columns[row] - int(mask.nonzero()[0])
        if not whole:
            kept = inside[column, : column + 1] if causal else inside[column]
        else:
            kept = inside[torch.ones_like(inside).tril().bool()] if causal else inside.flatten()
        return base64.b64encode(bytes((kept.double() * 100).round().clamp(0, 100).int().tolist())).decode()


def _active(run: Run, node: Node) -> list[list[float]]:
    """A neuron's activation at every token of every prompt."""
    values = run.neurons[node.layer or 0][:, :, node.index or 0].double().cpu()
    return [values[row][mask].tolist() for row, mask in enumerate(run.tokens.mask.cpu())]


def _triggers(
    model: Model, circuit: Circuit, prompts: PromptPairs | TokenBatch, at_once: int, report: Progress
) -> dict[str, dict[str, Any]]:
    """The places among all prompts, clean ones of pairs, at which each neuron is most active."""
    neurons = [node for node in circuit.nodes if node.kind == "neuron"]
    batch = prompts.clean if isinstance(prompts, PromptPairs) else prompts
    rows = list(range(len(batch.ids)))
    places: dict[Node, list[tuple[float, int, int]]] = {node: [] for node in neurons}
    for start in range(0, len(rows) if neurons else 0, at_once):
        report("looking for triggers", start, len(rows))
        with torch.no_grad():
            run = model.run(batch[rows[start : start + at_once]])
        for node in neurons:
            active = _active(run, node)
            found = [(value, start + row, at) for row, own in enumerate(active) for at, value in enumerate(own)]
            places[node] = sorted([*places[node], *found], key=lambda one: -abs(one[0]))[:_TRIGGERS]
        report("looking for triggers", min(start + at_once, len(rows)), len(rows))
    before, after = _AROUND

    def shown(value: float, row: int, at: int) -> dict[str, Any]:
        """A place with the tokens around it."""
        tokens = model.to_token_strings(batch.ids[row][batch.mask[row]])
        return {"activation": value, "tokens": tokens[max(0, at - before) : at + after + 1], "at": min(at, before)}

    about = f"Where it is most active on {len(rows)} prompts."
    return {str(node): {"triggers": {"rows": [shown(*one) for one in found], "about": about}} for node, found in places.items()}


def _by_prompt(
    model: Model, circuit: Circuit, pairs: PromptPairs, metric: AnyMetric, budget: int, report: Progress
) -> tuple[dict[str, list[float]], str]:
    """Every edge's effect on each prompt by itself, with the sign of the circuit's own scores, and what these numbers are."""
    found = circuit.metadata.get("method")
    method = found if isinstance(found, str) and found in RULES else "eap-ig"
    steps = circuit.metadata.get("steps")
    options: dict[str, Any] = {"method": method, "budget": budget}
    if method == found and isinstance(steps, int) and RULES[method].points is not None:
        options["steps"] = steps
    # A change of the metric is negative where an edge supports it; the circuit's own scores may have it the other way round.
    supports = supporting_sign(circuit)
    sign = -1 if supports > 0 else 1
    edges = list(circuit.edges)
    where = places(model.graph(), edges)
    columns = []
    for row in range(len(pairs)):
        report("looking at edges", row, len(pairs))
        rows = slice(row, row + 1)
        own = metric if isinstance(metric, Relative) else Metric.of(metric).on(rows)
        matrix = attribute_edges(model, pairs[rows], own, **options).matrix()
        columns.append((sign * matrix[where[0], where[1]]).tolist())
    report("looking at edges", len(pairs), len(pairs))
    values = dict(zip(map(str, edges), map(list, zip(*columns, strict=True)), strict=True))
    name = metric.name if isinstance(metric, Metric | Relative) else "metric"
    moves = f"{'Fall' if supports > 0 else 'Change'} of {name.replace('_', ' ')}"
    means = {1: "; positive = the edge supports the metric there", -1: "; negative = the edge supports the metric there", 0: ""}
    about = f"{moves} when the edge alone carries its corrupt value, by {method}, prompt by prompt{means[supports]}."
    return values, about
