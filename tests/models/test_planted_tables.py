"""The planted one-layer model says what was written into it, and its tables are read back whole."""

import functools

import pytest
import torch

from circuits.heads import bigram_table, crossed_trigrams, skip_trigram_bugs, skip_trigrams
from circuits.heads.weight_tables.skip_trigrams import SkipTrigram
from circuits.models import Edit
from circuits.models.planted import PlantedTables, planted_tables

planted_of = functools.cache(lambda seed: planted_tables(seed=seed))
SEEDS = range(12)


def named(one: SkipTrigram) -> tuple[str, int, int, int]:
    return one.head, one.source, one.destination, one.output


def whole(planted: PlantedTables) -> set[tuple[str, int, int, int]]:
    """Skip-trigrams of all heads, the forced ones among them."""
    parts = (planted.skip_trigrams, planted.forced)
    return {(head, *triple) for part in parts for head, triples in part.items() for triple in triples}


@pytest.mark.parametrize("seed", SEEDS)
def test_all_bigrams_and_nothing_else_are_found(seed: int) -> None:
    planted = planted_of(seed)
    found = bigram_table(planted.model).largest(len(planted.bigrams))
    assert {(token, after) for token, after, _ in found} == planted.bigrams


@pytest.mark.parametrize("seed", SEEDS)
def test_all_skip_trigrams_and_nothing_else_are_found(seed: int) -> None:
    planted = planted_of(seed)
    expected = whole(planted)
    found = [one for head in range(5) for one in skip_trigrams(planted.model, f"a0.h{head}", 20)]
    found.sort(key=lambda one: -one.score)
    assert {named(one) for one in found[: len(expected)]} == expected
    assert found[len(expected)].score < 0.75 * found[len(expected) - 1].score, "distractors stay well below"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_worst_bugs_are_the_forced_crossings(seed: int) -> None:
    planted = planted_of(seed)
    bugs = [bug for head in range(5) for bug in skip_trigram_bugs(planted.model, f"a0.h{head}", 3, sources=10)]
    worst = sorted(bugs, key=lambda bug: -bug.severity)[:2]
    for part, which in (("wanted", planted.skip_trigrams), ("forced", planted.forced)):
        triples = {(head, *triple) for head, held in which.items() for triple in held}
        assert {named(one) for bug in worst for one in getattr(bug, part)} <= triples
    assert {named(one) for bug in worst for one in bug.forced} == whole(planted) - {
        (head, *triple) for head, held in planted.skip_trigrams.items() for triple in held
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_the_model_says_its_phrases_and_needs_their_heads(seed: int) -> None:
    planted = planted_of(seed)
    filler = planted.fillers
    for token, after in planted.bigrams:
        logits = planted.model.run(torch.tensor([[0, filler[0], token]])).logits[0, -1]
        assert int(logits.argmax()) == after
    for head, triples in planted.skip_trigrams.items():
        for source, destination, output in triples:
            prompt = torch.tensor([[0, filler[0], source, filler[1], destination]])
            whole = planted.model.run(prompt).logits[0, -1]
            without = planted.model.run(prompt, edits=[Edit(head, 0.0)]).logits[0, -1]
            alone = planted.model.run(torch.tensor([[0, filler[0], filler[2], filler[1], destination]])).logits[0, -1]
            assert int(whole.argmax()) == output
            assert float(whole[output] - without[output]) > 5 and float(whole[output] - alone[output]) > 5


def test_crossings_of_two_phrases_have_the_same_product_of_scores() -> None:
    planted = planted_of(0)
    for head, forced in planted.forced.items():
        source = next(iter(forced))[0]
        found = [one for one in skip_trigrams(planted.model, head, 20) if one.source == source]
        first, second = (one for one in found if named(one)[1:] in planted.skip_trigrams[head])
        crossed = crossed_trigrams(planted.model, first, second)
        assert {named(one)[1:] for one in crossed} == forced
        assert crossed[0].score * crossed[1].score == pytest.approx(first.score * second.score, rel=1e-9)


def test_a_seed_gives_the_same_weights_and_another_one_others() -> None:
    assert planted_tables(seed=1).model.fingerprint == planted_of(1).model.fingerprint != planted_of(2).model.fingerprint
    assert not torch.equal(planted_of(1).model.weights.W_E, planted_of(2).model.weights.W_E)


@pytest.mark.parametrize("seed", range(3))
def test_planted_heads_rest_on_bos_where_no_source_is(seed: int) -> None:
    planted = planted_of(seed)
    pattern = planted.model.run(torch.tensor([[0, *planted.fillers[:6]]])).pattern(0)[0]
    for head in planted.skip_trigrams:
        assert float(pattern[int(head.removeprefix("a0.h")), :, 0].min()) > 0.9
