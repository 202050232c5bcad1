"""Edges of the recall search by themselves: what is estimated and what is patched, on a model whose heads share keys."""

from typing import Any

import torch

from circuits.graph import Edge, Node, Reader
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.models.planted import planted_recall
from circuits.patching import patch_edges, patch_nodes
from circuits.patching.engine.directions import difference, reading_change
from circuits.search.mechanisms.recall_edges import claims, trials
from circuits.search.mechanisms.recall_evidence import Evidence
from circuits.tasks import PromptPairs, planted_pairs
from circuits.tasks.metrics import logit_difference
from tests.models.native import native_bridge

HEADS: tuple[str, ...] = ("a0.h0", "a0.h1", "a1.h0", "a1.h3")
"""The heads that are patched: of those of a1 that share keys one each, and not always the one that readers are named after."""
LEAST = 0.02


def shared_keys() -> tuple[Model, PromptPairs]:
    shape: dict[str, Any] = {"n_layers": 2, "n_heads": 4, "n_key_value_heads": 2, "d_vocab": 60, "n_ctx": 8}
    return Model.from_bridge(native_bridge(1, **shape)), planted_pairs(planted_recall(seed=0, entities=6, relations=2))


def evidence(model: Model, pairs: PromptPairs) -> Evidence:
    found = Evidence(model, pairs, min_effect=LEAST, seed=0, budget=BUDGET, progress=None)
    found.measure_nodes([Node.parse(name) for name in HEADS], "")
    return found


def test_an_edge_costs_what_patching_it_costs_on_the_prompts_where_its_nodes_matter() -> None:
    model, pairs = shared_keys()
    found, some = evidence(model, pairs), 0
    alone = patch_nodes(model, pairs, logit_difference, HEADS, direction="noising")
    matters = dict(zip(HEADS, alone.per_prompt() >= LEAST, strict=True))
    for name in ("a1.h0", "a1.h3"):
        for slot in ("q", "k", "v"):
            reader = found.graph.reader_of(name, slot)
            writers = [node for node in found.graph.writers(reader) if str(node) in HEADS]
            costs = claims(found, reader, trials(found, writers, reader))
            edges = [Edge(writer, reader.node, reader.slot) for writer in writers]
            exact = patch_edges(model, pairs, logit_difference, edges, direction="noising")
            for writer, moved in zip(writers, exact.clean - exact.scores, strict=True):
                rows = matters[name] & matters[str(writer)]
                assert (writer in costs) == bool(rows.any())
                if bool(rows.any()):
                    effect = float(moved[rows].sum() / (exact.clean - exact.corrupt)[rows].sum())
                    assert costs[writer][0].prompts == int(rows.sum()) and abs(costs[writer][0].effect.effect - effect) < 1e-10
                    some += 0 < int(rows.sum()) < len(pairs)
    assert some > 3, "some edges are measured on some prompts alone"


def test_estimates_are_what_a_small_change_costs_and_decide_what_is_tested() -> None:
    model, pairs = shared_keys()
    found, small = evidence(model, pairs), 1e-5
    writer, everywhere, everyone = Node.parse("a0.h1"), found.pair.mask, list(range(len(pairs)))
    readers = [*(found.graph.reader_of("a1.h3", slot) for slot in ("q", "k", "v")), Reader(Node.parse("m1.n3"))]
    for reader in readers:
        delta = small * difference(found.clean, found.pair.other, writer)
        exact = found.moved([(reading_change(found.graph, reader, delta, everywhere),)], "")
        estimate = found.slopes.lost(found.clean, reader, [delta], everyone)
        torch.testing.assert_close(estimate, exact, rtol=1e-3, atol=1e-9)
    reader, heads = found.graph.reader_of("a1.h0", "q"), [Node.parse(name) for name in HEADS[:2]]
    every = trials(found, heads, reader, least=-1e9)
    middle = sum(trial.estimate for trial in every) / 2
    assert every[0].estimate > every[1].estimate and 0 < every[0].price < 1
    assert [trial.writer for trial in trials(found, heads, reader, least=middle)] == [every[0].writer]
