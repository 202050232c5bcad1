"""Facts in the weights: the change does what it says, no more than it must, and the search finds it."""

import dataclasses
import itertools
import math
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from circuits.errors import CircuitsError, MemoryBudgetError, ModelError, PromptError
from circuits.models import Edit, Model, TokenBatch, WeightEdit
from circuits.models.devices import spread
from circuits.models.edits import Compiled
from circuits.models.forward import forward
from circuits.models.layers import linear, mlp_output, normalise
from circuits.models.planted import Planted, planted_recall
from circuits.models.weights import Weights
from circuits.tasks.rewrites import Rewrite
from circuits.uses.editing import (
    EditedFact,
    EditOutcome,
    EditScores,
    Factored,
    KeyMoments,
    Lookup,
    Odds,
    ValueSearch,
    edit_fact,
    edit_facts,
    key_moments,
    localisation,
    score_edits,
    score_together,
    search_value,
)
from circuits.uses.editing.endings import Endings
from circuits.uses.editing.moments import RIDGE, KeyText
from circuits.uses.editing.updates import reading_keys
from circuits.uses.editing.writing import likeness, names, ngram_entropy, rarity
from tests.models.random_models import random_shape, random_weights, record_of

FACT = EditedFact("p", "s", "o", "n")


def random_model(seed: int) -> Model:
    """A model of a random family with an MLP, in float64."""
    while True:
        rng = random.Random(seed)
        shape = random_shape(rng)
        weights = record_of(shape, random_weights(shape, rng))
        if weights.causal and all(block.mlp is not None for block in weights.blocks) and len(weights.blocks) > 1:
            return Model(f"random-{seed}", "random", weights, None)
        seed += 1000


def random_lookup(model: Model, rng: random.Random, rows: int = 3) -> Lookup:
    """Rows of random tokens that end alike, as prefixes make them, and one that is kept."""
    end = [rng.randrange(model.d_vocab) for _ in range(3)]
    found = [(*(rng.randrange(model.d_vocab) for _ in range(place)), *end) for place in range(rows)]
    kept = (*end[:1], rng.randrange(model.d_vocab))
    return Lookup(tuple(found), tuple(range(rows)), rng.randrange(model.d_vocab), (kept,), (0,))


def slow_logits(weights: Weights, row: tuple[int, ...], layer: int, column: int, added: Tensor) -> Tensor:
    """Logits behind a row with something added to what an MLP's output weights write at one column: the whole forward, with the
    output weights' bias moved there alone."""
    tokens = TokenBatch.unpadded(torch.tensor([row]))
    run = forward(weights, tokens, keep="factors")
    block = weights.blocks[layer]
    assert block.mlp is not None
    neurons = run.neurons[layer]
    written = mlp_output(neurons, block.mlp, block.mlp_post_norm)
    moved = linear(neurons, block.mlp.W_out, block.mlp.b_out)
    moved[0, column] += added
    state = run.residuals[layer + 1] - written + normalise(moved, block.mlp_post_norm)
    above = weights.of_layers(layer + 1)
    edits: Compiled = {("input", 0): [(None, Edit("input", state))]}
    return forward(above, tokens, edits=edits, keep="logits").logits[0, -1]


@pytest.mark.parametrize("seed", range(8))
def test_endings_are_the_whole_forward_s(seed: int) -> None:
    model, rng = random_model(seed), random.Random(seed)
    lookup, layer = random_lookup(model, rng), rng.randrange(model.n_layers - 1)
    added = torch.randn(model.d_model, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    endings = Endings.of(model, layer, *lookup.batch())
    for change in (torch.zeros_like(added), added):
        found = endings.logits(change)
        rows = zip((*lookup.rows, *lookup.kept_rows), (*lookup.columns, *lookup.kept_columns), strict=True)
        for place, (row, column) in enumerate(rows):
            expected = slow_logits(model.weights, row, layer, column, change)
            assert torch.allclose(found[place], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_the_edited_layer_writes_the_new_value_for_the_key_exactly(seed: int) -> None:
    model, rng = random_model(seed), random.Random(seed)
    lookup, layer = random_lookup(model, rng), rng.randrange(model.n_layers - 1)
    text = TokenBatch.unpadded(torch.randint(model.d_vocab, (6, 8), generator=torch.Generator().manual_seed(seed)))
    moments = next(key_moments(model, text, [layer]))
    edit, found = edit_fact(model, FACT, lookup, Factored.of(model, moments), search=ValueSearch(steps=3))
    mlp = model.with_edits(edit).weights.blocks[layer].mlp
    assert mlp is not None
    written = linear(found.key[None], mlp.W_out, mlp.b_out)[0]
    assert torch.allclose(written, found.value + found.change, atol=1e-9)
    # The least change, as the text's keys measure it: any other with the same effect at the key moves their outputs more.
    delta, other = edit.delta(layer), torch.randn_like(edit.delta(layer))
    other -= torch.outer(found.key, found.key @ other) / found.key.square().sum()
    ridged = moments.moments + RIDGE * moments.moments.diagonal().mean() * torch.eye(len(moments.moments))
    slope = torch.einsum("nm,no,om->", delta, ridged, other)
    assert abs(float(slope)) <= 1e-8 * float(delta.norm() * other.norm() * ridged.norm())


def test_moments_are_those_of_all_keys_however_small_the_budget(tmp_path: Path) -> None:
    model = random_model(3)
    ids = torch.randint(model.d_vocab, (5, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, :3] = False
    text = TokenBatch(ids, mask)
    found = list(key_moments(model, text, [1, 0]))
    assert [one.layer for one in found] == [1, 0]
    for one in found:
        run = model.run(text)
        keys = run.neurons[one.layer][mask]
        assert torch.allclose(one.moments, torch.einsum("tn,to->no", keys, keys) / int(mask.sum()), atol=1e-12)
        assert one.tokens == int(mask.sum())
    least = 2 * model.d_mlp**2 * 8
    again = list(key_moments(model, text, [1, 0], budget=least))
    assert all(torch.allclose(a.moments, b.moments, atol=1e-12) for a, b in zip(found, again, strict=True))
    with pytest.raises(MemoryBudgetError, match="second moments of"):
        next(key_moments(model, text, [1], budget=least - 1))


def test_moments_are_kept_by_model_layer_and_text_and_computed_anew_where_damaged(tmp_path: Path) -> None:
    model, other = random_model(1), random_model(2)
    text = TokenBatch.unpadded(torch.randint(model.d_vocab, (4, 6), generator=torch.Generator().manual_seed(0)))
    first = next(key_moments(model, text, [0], folder=tmp_path))
    (file,) = tmp_path.iterdir()
    sure = KeyText(KeyText.of(text).sha256, lambda: pytest.fail("the text is not read again"))
    assert torch.equal(next(key_moments(model, sure, [0], folder=tmp_path)).moments, first.moments)
    list(key_moments(model, text, [1], folder=tmp_path))
    few = TokenBatch.unpadded(text.ids[:2] % other.d_vocab)
    list(key_moments(other, few, [0], folder=tmp_path))
    list(key_moments(model, few, [0], folder=tmp_path))
    assert len(list(tmp_path.iterdir())) == 4
    file.write_bytes(file.read_bytes()[:-3])
    assert torch.equal(next(key_moments(model, text, [0], folder=tmp_path)).moments, first.moments)
    assert KeyMoments.load(file).layer == 0
    with pytest.raises(ModelError, match="not of"):
        Factored.of(other, first)


@pytest.mark.parametrize("keep", [0.0, 3.5])
def test_the_closed_form_is_that_of_the_normal_equations(keep: float) -> None:
    generator = torch.Generator().manual_seed(1)
    keys = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    root = torch.randn(20, 8, generator=generator, dtype=torch.float64)
    moments = root.T @ root / 20
    rows = reading_keys(torch.linalg.cholesky(moments), keys, keep=keep)
    if keep:
        assert torch.allclose(rows, torch.linalg.solve(keep * moments + keys.T @ keys, keys.T).T, atol=1e-9)
    else:
        assert torch.allclose(rows @ keys.T, torch.eye(3).double(), atol=1e-9)
    with pytest.raises(PromptError, match="one key"):
        reading_keys(torch.linalg.cholesky(moments), keys[[0, 0]])


@pytest.fixture(scope="module")
def planted() -> Planted:
    return planted_recall(seed=0, entities=34, relations=3)


@pytest.fixture(scope="module")
def keys(planted: Planted) -> Factored:
    layer = next(layer for layer in (0, 1) if any(str(node).startswith(f"m{layer}.") for node in planted.circuit.nodes))
    return Factored.of(planted.model, next(key_moments(planted.model, prompts(planted), [layer])))


def prompts(planted: Planted) -> TokenBatch:
    return TokenBatch.unpadded(torch.tensor([fact.prompt for fact in planted.facts]))


def planted_lookup(planted: Planted, place: int) -> Lookup:
    """A planted fact with another answer; the entity's other relations are kept."""
    fact = planted.facts[place]
    new = next(one.answer for one in planted.facts if one.relation == fact.relation and one.answer != fact.answer)
    others = [one for one in planted.facts if one.subject == fact.subject and one.relation != fact.relation]
    kept = tuple(tuple(one.prompt) for one in others)
    return Lookup((tuple(fact.prompt),), (2,), new, kept, (2,) * len(kept))


@pytest.mark.parametrize("place", [0, 41, 100])
def test_an_edit_of_a_planted_fact_changes_it_and_no_other_of_a_hundred(planted: Planted, keys: Factored, place: int) -> None:
    model, text, lookup = planted.model, prompts(planted), planted_lookup(planted, place)
    before = model.run(text).logits[:, -1]
    edit, _ = edit_fact(model, FACT, lookup, keys)
    after = model.with_edits(edit).run(text).logits[:, -1]
    assert len(planted.facts) == 102 and int(after[place].argmax()) == lookup.answer
    changed = (before.argmax(dim=-1) != after.argmax(dim=-1)).nonzero().flatten().tolist()
    assert changed == [place]
    own = torch.tensor([fact.answer for fact in planted.facts])
    surest = after.softmax(dim=-1).gather(1, own[:, None])[:, 0]
    assert float(surest[torch.arange(len(own)) != place].min()) > 0.9


@pytest.mark.parametrize("place", [0, 57])
def test_the_right_change_of_a_planted_fact_is_found_from_its_key_and_its_value(
    planted: Planted, keys: Factored, place: int
) -> None:
    """What must be added to the output weights is known: what the model that was planted with the other answer has more."""
    lookup = planted_lookup(planted, place)
    right = planted_recall(seed=0, entities=34, relations=3, rewritten={place: lookup.answer})
    old, new = (one.model.weights.blocks[keys.layer].mlp for one in (planted, right))
    assert old is not None and new is not None
    wanted = new.W_out - old.W_out
    assert int((wanted.abs().sum(dim=1) > 1e-9).sum()) == 1, "one neuron an entity"
    key = Endings.of(planted.model, keys.layer, *lookup.batch()).keys()[0]
    found = torch.einsum("n,m->nm", reading_keys(keys.factor, key[None])[0], key @ wanted)
    neuron = int(wanted.abs().sum(dim=1).argmax())
    assert int(found.norm(dim=1).argmax()) == neuron
    assert float((found[neuron] - wanted[neuron]).norm()) < 0.05 * float(wanted[neuron].norm())
    beside = torch.arange(len(found)) != neuron
    assert float(found[beside].norm(dim=1).max()) < 0.1 * float(wanted[neuron].norm())
    # The search, which is told the answer alone, changes what that answer's relation reads and little else.
    change = search_value(planted.model, lookup, keys.layer).change
    assert float(torch.cosine_similarity(change, key @ wanted, dim=0)) > 0.5


def test_several_edits_together_each_do_what_they_do_alone(planted: Planted, keys: Factored) -> None:
    places = [0, 33, 66, 99]
    lookups = [planted_lookup(planted, place) for place in places]
    facts = [dataclasses.replace(FACT, prompt=str(place)) for place in places]
    edit = edit_facts(planted.model, facts, lookups, [keys])
    after = planted.model.with_edits(edit).run(prompts(planted)).logits[:, -1].argmax(dim=-1)
    own = torch.tensor([fact.answer for fact in planted.facts])
    assert after[places].tolist() == [lookup.answer for lookup in lookups]
    assert (after != own).nonzero().flatten().tolist() == places
    with pytest.raises(PromptError, match="edited twice"):
        edit_facts(planted.model, [facts[0], facts[0]], lookups[:2], [keys])


def test_one_fact_together_is_one_fact_alone(planted: Planted, keys: Factored) -> None:
    lookup = planted_lookup(planted, 5)
    alone, _ = edit_fact(planted.model, FACT, lookup, keys)
    together = edit_facts(planted.model, [FACT], [lookup], [keys])
    assert torch.allclose(alone.delta(keys.layer), together.delta(keys.layer), atol=1e-12)


def test_several_layers_share_what_is_to_be_written(planted: Planted) -> None:
    model = planted.model
    both = [Factored.of(model, one) for one in key_moments(model, prompts(planted), [0, 1])]
    lookups = [planted_lookup(planted, place) for place in (3, 50)]
    facts = [dataclasses.replace(FACT, prompt=str(place)) for place in (3, 50)]
    edit = edit_facts(model, facts, lookups, both)
    assert edit.layers == (0, 1) and all(float(edit.delta(layer).norm()) > 0 for layer in (0, 1))
    edited = model.with_edits(edit)
    for lookup in lookups:
        wanted = Endings.of(model, 1, *lookup.batch()).states()[0] + search_value(model, lookup, 1).change
        assert torch.allclose(Endings.of(edited, 1, *lookup.batch()).states()[0], wanted, atol=1e-8)


def test_an_edit_that_cannot_be_is_refused(planted: Planted, keys: Factored) -> None:
    model, lookup = planted.model, planted_lookup(planted, 0)
    with pytest.raises(ModelError, match="no layer 9"):
        search_value(model, lookup, 9)
    with pytest.raises(ModelError, match="no layer -1"):
        next(key_moments(model, prompts(planted), [-1]))
    with pytest.raises(PromptError, match="column"):
        Lookup(((1, 2),), (2,), 0)
    with pytest.raises(PromptError, match="expected steps"):
        ValueSearch(steps=0)


def test_entropy_is_that_of_pairs_and_triples() -> None:
    assert ngram_entropy("a a a a a a") == 0.0 and ngram_entropy("") == 0.0
    # Four different pairs and three different triples, each once.
    assert ngram_entropy("one two three four five") == pytest.approx((2 / 3 * math.log2(4) + 4 / 3 * math.log2(3)) / 2)


def test_likeness_is_the_cosine_of_rare_words() -> None:
    rare = rarity(["the cat", "the dog", "a cat"])
    assert rare["the"] == pytest.approx(math.log(4 / 3) + 1) and rare["dog"] == pytest.approx(math.log(2) + 1)
    assert likeness("the cat", ["the cat"], rare) == pytest.approx(1.0)
    assert likeness("dog", ["cat"], rare) == 0.0 and likeness("xyz", ["cat"], rare) == 0.0
    one, two = rare["the"], rare["cat"]
    assert likeness("the", ["The cat"], rare) == pytest.approx(one / math.hypot(one, two))


def test_an_answer_is_named_by_whole_words() -> None:
    assert names("They went to ROME, and on.", " Rome") and names("in New York now", " New York")
    assert not names("a promenade", " Rome") and not names("York, New", " New York") and not names("anything", " ")


def test_an_edit_has_what_it_needs(planted: Planted) -> None:
    good = WeightEdit("m", "f", "ROME", (0,), ("p",), ("s",), ("o",), ("n",), torch.ones(1, 1, 4), torch.ones(1, 1, 2))
    assert torch.equal(good.delta(0), torch.ones(4, 2))
    with pytest.raises(ModelError, match="does not change layer 1"):
        good.delta(1)


def test_what_cannot_be_edited_is_refused_before_anything_is_computed(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = planted.model
    one, other = (Rewrite(f"p{place}", "s", "o", "n") for place in range(2))
    monkeypatch.setattr("circuits.uses.editing.testing.sampled_prefixes", pytest.fail)
    for facts, layers, wrong in (
        ((one, one), [0], PromptError),
        ((one, other), [0, 0], CircuitsError),
        ((one, other), [], CircuitsError),
        ((), [0], CircuitsError),
        ((one,), [9], ModelError),
    ):
        with pytest.raises(wrong):
            score_edits(model, facts, layers=layers)
    for facts, layers, wrong in (((one, one), [0], PromptError), ((one, other), [0, 9], ModelError)):
        with pytest.raises(wrong):
            score_together(model, facts, layers=layers)


@pytest.mark.parametrize("facts", [1, 2, 3])
def test_of_few_facts_it_is_not_told_what_a_layer_explains(facts: int) -> None:
    rng = random.Random(facts)
    outcomes = list[EditOutcome]()
    for layer, fact in itertools.product(range(3), range(facts)):
        edited = Odds("p", "o", 0.5, 0.1, rng.random() / 9, rng.random())
        said = (f"p{fact}", "s", "o", "n", "", layer, 0.1, 1, 0.5, edited, (), (), None, {"states": rng.random()})
        outcomes.append(EditOutcome(*said))
    found = localisation(EditScores("m", "f", tuple(outcomes), (), prefixes=1, tokens=1, seed=0), "states")
    assert (found.over_all is None) == math.isnan(found.by_layer) == math.isnan(found.with_tracing) == (facts < 3)
    assert ("not defined for fewer than 3 facts" in found.summary) == (facts < 3)


def test_a_spread_model_is_edited_as_one_on_one_device(planted: Planted, keys: Factored) -> None:
    lookup = planted_lookup(planted, 1)
    spread_out = dataclasses.replace(planted.model, weights=spread(planted.model.weights, ["cpu", "cpu"]))
    one, other = (search_value(model, lookup, 0, ValueSearch(steps=3)) for model in (planted.model, spread_out))
    assert torch.allclose(one.change, other.change, atol=1e-9) and one.change.norm() > 0
