"""A search repeated with several seeds on several samples of the prompts, its circuits compared and their consensus judged."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from circuits.files.plain import thaw
from circuits.graph import Circuit, Graph
from circuits.graph.places import places
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.progress import Progress
from circuits.runs.runner import shards
from circuits.search.searching import Searching
from circuits.search.stability.consensus import Edges, consensus_circuit, judged_circuits, with_judged
from circuits.search.stability.results import Recurrence, Sample, SearchRun, SizeOverlap
from circuits.search.stability.samples import SearchedModel, check_sample, names_of, require_one_graph, samples_of
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, fitted

Job = tuple[int, int, int, list[int]]
"""A search: whose it is, its seed, its part (-1: all), the rows that it is on."""
TIMES_SIZE = (0.25, 0.5, 1.0, 2.0, 4.0)
"""At which other sizes circuits of scored edges are compared, in shares of the size asked for."""


def repeat_search(
    model: Model,
    pairs: PromptPairs,
    metric: AnyMetric,
    *,
    searching: Searching | None = None,
    seeds: int = 5,
    sample: Sample = "halves",
    against: Sequence[tuple[Model, PromptPairs, AnyMetric]] = (),
    task: str = "",
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Recurrence:
    """Search time and again, and say which edges return, how far the circuits meet, beside chance, and how the circuit of the
    edges that hold does beside the single ones.

    Half of the pairs are held out; all searches are on samples of the others, and one is on all of those. Raises CircuitsError
    for fewer than three seeds, PromptError for too few pairs, GraphError for models of different shapes.

    Args:
        model: the model that is searched.
        pairs: clean and corrupt prompts with their answers.
        metric: what is measured.
        searching: by which method, and how many edges (default: as `discover`).
        seeds: how many seeds; each gives what a method draws, and a sample of the prompts, of halves two.
        sample: on which prompts: "halves", two random halves for each seed, which share no prompt; "parts", prompts of its own
            for each seed; "bootstrap", as many drawn with replacement; "all", the same, so that a seed is only what a method
            draws.
        against: other models of the same shape, each with its pairs and its metric: the same searches.
        task: what the prompts are, in a word, for the result.
        seed: the first of the seeds, and that of what is held out.
        budget: bytes that a pass may take above the model and its base runs; a smaller one takes longer and changes nothing.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    searching = Searching() if searching is None else searching
    check_sample(sample, seeds)
    every = [SearchedModel.halved(*one, seed, roles=searching.roles) for one in ((model, pairs, metric), *against)]
    graph = every[0].graph(neurons=searching.neurons)
    names = names_of([one.model.name for one in every])
    graphs = (one.graph(neurons=searching.neurons) for one in every)
    require_one_graph(graph, dict(zip(names, graphs, strict=True)))
    drawn = [samples_of(one.pairs, sample, seeds, seed) for one in every]
    jobs = [
        (who, seed + place, part, rows)
        for who, samples in enumerate(drawn)
        for place, several in enumerate(samples)
        for part, rows in enumerate(several)
    ]
    jobs += [(who, seed, -1, list(range(len(one.pairs)))) for who, one in enumerate(every)]
    how: dict[str, Any] = {"budget": budget, "progress": progress}

    def searched(shard: int) -> Any:
        """One of the searches, whose progress says which it is."""
        place = f"search {shard + 1} of {len(jobs)}"
        return _search(every, searching, jobs[shard], {**how, "progress": _placed(progress, place)})

    found = list(shards("searching time and again", len(jobs), searched))
    runs = [SearchRun(names[who], seeded, part, len(rows), None) for who, seeded, part, rows in jobs[: -len(every)]]
    whole = {names[who]: one["own"] for (who, *_), one in zip(jobs[-len(every) :], found[-len(every) :], strict=True)}
    gathered = _gathered(graph, runs, [one["own"] for one in found[: len(runs)]])
    about = {"task": task, "method": searching.chosen.name, "metric": fitted(every[0].judged_by, model, every[0].held_out).name}
    result = Recurrence(graph=graph, sample=sample, runs=tuple(runs), held_out=len(every[0].held_out), **about, **gathered)
    circuit = consensus_circuit(result, found[0]["metadata"])
    result = dataclasses.replace(result, circuit=circuit, by_size=_by_size(result, found[: len(runs)]))
    judged = list(
        shards("judging the circuits", len(every), lambda who: judged_circuits(every[who], names[who], result, whole, how))
    )
    return with_judged(result, judged, names)


def _placed(progress: Progress | None, place: str) -> Progress | None:
    """Progress that says of all that it hears where it stands."""
    if progress is None:
        return None
    return lambda what, done, total: progress(f"{place}: {what}", done, total)


def _search(
    every: Sequence[SearchedModel], searching: Searching, job: tuple[int, int, int, list[int]], how: Mapping[str, Any]
) -> Any:
    """One search, as a shard leaves it: its circuit, and those of other sizes where edges have scores."""
    who, seed, _, rows = job
    asked = every[who]
    pairs, metric = asked.on(rows)
    found = searching.run(asked.model, pairs, metric, seed=seed, **how)
    own = _edges(found.circuit)
    sizes: dict[str, Any] = {}
    scores = found.scores
    if scores is not None and not searching.chosen.gives_circuit and not searching.verify:
        size, most = searching.size(scores.graph), len(scores)
        for count in sorted({round(times * size) for times in TIMES_SIZE} - {0}):
            if count <= most:
                chosen = scores.rows(count, by=searching.by or "size", connected=True)
                sizes[str(count)] = [scores.writers[chosen], scores.readers[chosen]]
    return {"own": own, "sizes": sizes, "metadata": _plain(found.circuit)}


def _plain(circuit: Circuit) -> dict[str, Any]:
    """What the circuit says of its model and method, which a consensus says too."""
    kept: Any = thaw(circuit.metadata)
    names = ("model", "weights_sha256", "method", "metric", "supporting_sign", "prepend_bos", "steps")
    return {name: kept[name] for name in names if name in kept}


def _edges(circuit: Circuit) -> Edges:
    writers, readers = places(circuit.graph, circuit.edges)
    scores = [float("nan") if score is None else score for score in circuit.edges.values()]
    return {
        "writers": torch.tensor(writers, dtype=torch.long),
        "readers": torch.tensor(readers, dtype=torch.long),
        "scores": torch.tensor(scores, dtype=torch.float64),
    }


def _gathered(graph: Graph, runs: Sequence[SearchRun], circuits: Sequence[Edges]) -> dict[str, Any]:
    """All edges of the circuits, each once, and which circuit has which."""
    keys = [one["writers"] * graph.reader_count + one["readers"] for one in circuits]
    every = torch.cat(keys).unique()
    chosen = torch.zeros(len(runs), len(every), dtype=torch.bool)
    scores = torch.full((len(runs), len(every)), float("nan"), dtype=torch.float64)
    for row, (own, one) in enumerate(zip(keys, circuits, strict=True)):
        at = torch.searchsorted(every, own)
        chosen[row, at] = True
        scores[row, at] = one["scores"]
    count = graph.reader_count
    return {"writers": every // count, "readers": every % count, "chosen": chosen, "scores": scores}


def _by_size(result: Recurrence, found: Sequence[Mapping[str, Any]]) -> tuple[SizeOverlap, ...]:
    """The overlap of circuits of other sizes, by the scores of the same searches."""
    overlaps = []
    for size in [size for size in found[0]["sizes"] if all(size in one["sizes"] for one in found)]:
        cut: list[Edges] = []
        for one in found:
            writers, readers = one["sizes"][size]
            cut.append({"writers": writers, "readers": readers, "scores": torch.full((len(writers),), float("nan")).double()})
        other = dataclasses.replace(result, circuit=None, **_gathered(result.graph, result.runs, cut))
        for model in result.models:
            mean = other.overlap(models=(model,))
            if mean is not None:
                overlaps.append(SizeOverlap(model, int(size), mean, other.expected("readers", models=(model,))))
    return tuple(overlaps)
