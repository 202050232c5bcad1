"""A search that is repeated: chance is what counting finds, planted edges always return, and what cannot be said is refused."""

import dataclasses
import functools
import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import circuits
from circuits.errors import CircuitsError, GraphError, PromptError
from circuits.graph import Circuit, Graph, Roles
from circuits.models import Model
from circuits.patching.subgraphs.members import Members
from circuits.search import Recurrence, Searching, repeat_search
from circuits.search.stability.chance import (
    NULLS,
    blocks_of,
    counts_in,
    expected_overlap,
    jaccard,
    mean_over_pairs,
    returning_by_chance,
    shared_by_chance,
)
from circuits.search.stability.consensus import members_of
from circuits.search.stability.samples import check_sample, require_one_graph, samples_of
from circuits.statistics import t_interval
from circuits.tasks import PromptPairs
from circuits.tasks.library.planted import carrying, carrying_roles, planted_roles, planted_task

metric = circuits.metrics.logit_difference
SMALL = Graph(n_layers=1, n_heads=2, n_key_value_heads=1, d_mlp=4)
SHAPES = [
    SMALL,
    Graph(n_layers=2, n_heads=2, n_key_value_heads=2, d_mlp=0),
    Graph(n_layers=2, n_heads=2, n_key_value_heads=1, d_mlp=4, parallel=True),
    Graph(n_layers=2, n_heads=1, n_key_value_heads=1, d_mlp=3, neurons=True),
    Graph(n_layers=2, n_heads=2, n_key_value_heads=1, d_mlp=4, roles=Roles.causal("a", "b", "end")),
]


def key(graph: Graph, edge: Any, null: str) -> tuple:
    """The block of an edge, by its names and, between roles of tokens, the roles at the other end."""
    layer = -1 if edge.writer.layer is None else edge.writer.layer
    into = (edge.target.node.layer, edge.target.node.kind)
    ends = edge.writer.at, edge.target.node.at
    names = {"readers": (str(edge.target), ends[0]), "writers": (str(edge.writer), ends[1])}
    return {"size": (), "layers": (layer, *into, *ends), **names}[null]


@pytest.mark.parametrize("graph", SHAPES, ids=str)
@pytest.mark.parametrize("null", NULLS)
def test_blocks_are_those_of_the_edges_names(graph: Graph, null: Any) -> None:
    edges = list(graph.edges())
    named = Counter(key(graph, edge, null) for edge in edges)
    writers = torch.tensor([graph.writer_index(edge.writer) for edge in edges])
    readers = torch.tensor([graph.reader_index(edge.target) for edge in edges])
    blocks, sizes = blocks_of(graph, writers, readers, null)
    pairs = {(key(graph, edge, null), block) for edge, block in zip(edges, blocks.tolist(), strict=True)}
    assert len(pairs) == len(named) == len(sizes), "a block has one name, and a name one block"
    assert all(sizes[block] == named[name] for name, block in pairs)


def alike(every: list[int], chosen: set[int], blocks: list[int]) -> list[set[int]]:
    """All sets of edges with as many of each block."""
    wanted = Counter(blocks[edge] for edge in chosen)
    parts = [itertools.combinations([edge for edge in every if blocks[edge] == one], count) for one, count in wanted.items()]
    return [set(itertools.chain(*several)) for several in itertools.product(*parts)]


@pytest.mark.parametrize("null", NULLS)
def test_chance_is_what_counting_all_circuits_finds(null: Any) -> None:
    whole = Members.whole(SMALL)
    assert len(whole) == 11
    blocks, sizes = blocks_of(SMALL, whole.writers, whole.readers, null)
    draw = torch.Generator().manual_seed(0)
    chosen = [set(torch.randperm(11, generator=draw)[:size].tolist()) for size in (3, 4, 2)]
    rows = torch.tensor([[edge in one for edge in range(11)] for one in chosen])
    counts = counts_in(blocks, rows)
    every = [alike(list(range(11)), one, blocks.tolist()) for one in chosen]
    shared = Counter(len(one & other) for one in every[0] for other in every[1])
    total = len(every[0]) * len(every[1])
    found = shared_by_chance(counts[0], counts[1], sizes)
    assert found.tolist() == pytest.approx([shared[both] / total for both in range(len(found))], abs=1e-12)
    assert sum(shared.values()) == sum(shared[both] for both in range(len(found)))
    slow = sum(jaccard(both, 3, 4) * count for both, count in shared.items()) / total
    assert expected_overlap(found, 3, 4) == pytest.approx(slow, abs=1e-12)
    share = [[sum(edge in one for one in several) / len(several) for several in every] for edge in range(11)]
    times = [0.0] * 4
    for own in share:  # circuits are drawn each by itself
        for there in itertools.product((True, False), repeat=3):
            times[sum(there)] += math.prod(p if yes else 1 - p for p, yes in zip(own, there, strict=True))
    known = {int(block): int((blocks == block).sum()) for block in blocks.unique()}
    assert returning_by_chance(counts, known).tolist() == pytest.approx(times, abs=1e-12)


def test_the_interval_of_pairs_that_share_nothing_is_students() -> None:
    values = torch.tensor([0.2, 0.5, 0.4, 0.6])
    found, plain = mean_over_pairs(values, [(one, one) for one in range(4)], 4), t_interval(values.double())
    assert (found.effect, found.low, found.high) == pytest.approx((plain.effect, plain.low, plain.high))


def test_pairs_that_share_units_do_not_count_as_many() -> None:
    """Values that are sums of what belongs to units: the interval over units holds the mean as often as it says."""
    units, hits, narrow = 6, 0, 0
    draw = torch.Generator().manual_seed(1)
    members = list(itertools.combinations(range(units), 2))
    first, second = torch.tensor(members).T
    for _ in range(400):
        own = 0.5 + 0.05 * torch.randn(units, generator=draw, dtype=torch.float64)
        values = (own[first] + own[second]) / 2
        found, naive = mean_over_pairs(values, members, units), t_interval(values)
        hits += found.low <= 0.5 <= found.high
        narrow += naive.low <= 0.5 <= naive.high
    assert 0.92 < hits / 400 < 0.98 and narrow / 400 < 0.85, (hits, narrow)
    with pytest.raises(CircuitsError, match="in every pair"):
        mean_over_pairs(torch.tensor([0.5]), [(0, 1)], 2)


def test_a_search_between_roles_is_repeated(tmp_path: Path) -> None:
    planted, pairs = planted_task("induction", 0, count=24)
    pairs = planted_roles("induction", pairs)
    truth = carrying_roles(planted, pairs)
    searching = Searching(method="eap-ig", steps=3, edges=len(truth), roles=True)
    found = repeat_search(planted.model, pairs, metric, searching=searching, seeds=3, sample="parts")
    assert found.graph.roles == pairs.roles.roles and set(truth.edges) == set(found.circuit.edges)
    assert 0 < found.expected("size") < min(found.expected("layers"), found.expected("readers")) < 1
    assert all(one.faithfulness.effect > 0.8 for one in found.consensus if one.rule == "half")
    found.save(tmp_path / "stability.json")
    assert Recurrence.load(tmp_path / "stability.json").names() == found.names()


@functools.cache
def planted_induction() -> tuple[Model, PromptPairs, Circuit]:
    planted, pairs = planted_task("induction", 0, count=24)
    return planted.model, pairs, carrying(planted, pairs)


@pytest.fixture(scope="module")
def repeated() -> Recurrence:
    model, pairs, truth = planted_induction()
    return repeat_search(model, pairs, metric, searching=Searching(method="eap-ig", edges=len(truth)), seeds=3, task="again")


def test_planted_edges_return_in_every_circuit(repeated: Recurrence) -> None:
    _, _, truth = planted_induction()
    assert set(repeated.names()) == {str(edge) for edge in truth.edges} and repeated.times().tolist() == [6] * len(truth)
    found = repeated.overlap()
    assert found is not None and (found.effect, found.low, found.high) == (1.0, 1.0, 1.0)
    assert repeated.expected("size") < repeated.expected("readers") < 1
    assert repeated.circuit is not None and repeated.circuit.edges.keys() == truth.edges.keys()
    assert {evidence["times"] for evidence in repeated.circuit.evidence.values()} == {6}
    for one in repeated.consensus:
        assert one.edges == len(truth) and one.faithfulness is not None and one.more is not None, one.rule
        assert one.faithfulness.effect == pytest.approx(1, abs=0.01) and one.more.effect == pytest.approx(0, abs=1e-6)
    assert {one.prompts for one in repeated.runs} == {6} and repeated.held_out == 12
    assert set(repeated.to_dataframe()["times"]) == {6} and "share 100%" in repeated.summary


def test_edges_that_one_half_lacks_count_against_it(repeated: Recurrence) -> None:
    chosen = repeated.chosen.clone()
    chosen[1::2, 0] = False  # the second half of every seed
    found = dataclasses.replace(repeated, chosen=chosen)
    count = len(found.writers)
    overlap, times = found.overlap(), found.times()
    assert overlap is not None and overlap.effect == pytest.approx((count - 1) / count)
    assert times[0] == 3 and [one.ceiling for one in found.between("other prompts")] == pytest.approx([(count - 1) / count] * 3)
    kept = {rule: len(members_of(found, rule, found.models[0])) for rule in ("all", "half", "as many")}  # type: ignore[arg-type]
    assert kept["half"] == count and kept["all"] < count, "in half of the circuits is enough for one, not for the other"
    assert [row[1] for row in found.returning()] == [count] * 3 + [count - 1] * 3
    across = found.overlap("shared prompts")
    assert across is not None and len(found.between("shared prompts")) == 12 and across.low <= across.effect <= across.high


def test_models_are_compared_on_the_same_prompts() -> None:
    model, pairs, truth = planted_induction()
    how = Searching(method="eap", edges=len(truth) - 1)
    found = repeat_search(model, pairs, metric, searching=how, seeds=3, sample="bootstrap", against=[(model, pairs, metric)])
    first, second = found.models
    assert second == f"{first} (2)" and torch.equal(found.chosen[found.rows(first)], found.chosen[found.rows(second)])
    same = found.overlap("models")
    assert same is not None and same.effect == 1 and len(found.between("models")) == 3, "the same model, the same prompts"
    assert set(found.overlap_table()["between"]) == {"shared prompts", "models"}


def test_samples_keep_pairs_together_that_share_a_prompt() -> None:
    _, pairs, _ = planted_induction()
    several = pairs[[0, 0, 1, 2, 3, 4, 4, 5]]
    for sample in ("halves", "parts"):
        for seed in range(4):
            found = [half for halves in samples_of(several, sample, 3, seed) for half in halves]  # type: ignore[arg-type]
            assert all((0 in half) == (1 in half) and (5 in half) == (6 in half) for half in found)
    parts = samples_of(several, "parts", 3)
    assert sorted(row for part in parts for row in part[0]) == list(range(8))
    assert samples_of(several, "halves", 3) != samples_of(several, "halves", 3, 1) and samples_of(several, "all", 3)[2] == [
        list(range(8))
    ]


def test_what_cannot_be_said_is_refused_in_one_line() -> None:
    model, pairs, _ = planted_induction()
    with pytest.raises(CircuitsError, match="1 seeds: it takes 3 or more"):
        repeat_search(model, pairs, metric, seeds=1)
    with pytest.raises(CircuitsError, match="unknown sample 'thirds': there are halves, parts, bootstrap, all"):
        check_sample("thirds", 3)  # types of `repeat_search` are checked when it is called first, whoever does
    with pytest.raises(PromptError, match="2 prompts searched on, of which 1 share nothing, are too few to halve"):
        repeat_search(model, pairs[[0, 0, 1, 1]], metric)
    with pytest.raises(GraphError, match=r"models of different shapes: one .1 layers of 2 heads.* and other .2 layers"):
        require_one_graph(SHAPES[0], {"one": SHAPES[0], "other": SHAPES[1]})
    wrong = dataclasses.replace(planted_task("recall", 0, count=24)[0].model, name="other")
    against = [(wrong, pairs, metric), (dataclasses.replace(model, name="other"), pairs, metric)]
    with pytest.raises(GraphError, match=r"models of different shapes: .* and other "):
        repeat_search(model, pairs, metric, seeds=3, against=against)
