"""Weight tables, skip-trigrams, bugs and virtual heads against dense brute force."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import pytest
import torch

import circuits
from circuits.errors import FileFormatError, GraphError, NonFiniteError, PromptError
from circuits.heads import (
    Tables,
    bigram_table,
    crossed_trigrams,
    ov_table,
    qk_table,
    skip_trigram_bugs,
    skip_trigrams,
    virtual_heads,
    virtual_table,
)
from circuits.heads.weight_tables import ranking
from circuits.heads.weight_tables.embedded import typical_scale
from circuits.models import Model
from circuits.models.layers import normalise
from tests.heads.test_composition import folded, output, positive_share, reading
from tests.models.native import native_bridge

OPTIONS = [
    {"normalization_type": "LN", "attn_only": True},
    {"normalization_type": "RMS", "attn_only": True},
    {"normalization_type": None, "attn_only": True, "n_layers": 1},
    {"n_key_value_heads": 2, "positional_embedding_type": "rotary", "rotary_dim": 4},
    {"normalization_type": "RMS", "n_layers": 1, "d_vocab_out": 11},
]
V = 17


def random_model(seed: int = 0, **options) -> Model:
    shape = {"d_vocab": V, "n_heads": 4, "n_layers": 3}
    return Model.from_bridge(native_bridge(seed, **{**shape, **options}))


def without_positions(model: Model, ids: list[int]) -> torch.Tensor:
    """A run's attention scores, q k scaled, with learned positions taken out of the weights."""
    weights = dataclasses.replace(model.weights, W_pos=None)
    run = dataclasses.replace(model, weights=weights).run(torch.tensor([ids]))
    groups = model.n_heads // model.n_key_value_heads
    k = run.k[0].repeat_interleave(groups, dim=2)
    return torch.einsum("bqhd,bkhd->bhqk", run.q[0], k)[0] * weights.blocks[0].attention.scale


@pytest.mark.parametrize("options", OPTIONS)
def test_bigrams_are_what_the_model_says_without_its_layers(options: dict) -> None:
    model = random_model(**options)
    weights = model.weights
    logits = normalise(weights.W_E * weights.embedding_scale, weights.final_norm) @ weights.W_U
    logits = logits if weights.b_U is None else logits + weights.b_U
    dense = logits.log_softmax(dim=-1)
    table = bigram_table(model)
    assert float((table.row(list(range(V))) - dense).abs().max()) <= 1e-12
    best = sorted(itertools.product(range(V), range(dense.shape[1])), key=lambda place: (-float(dense[place]), place))[:9]
    assert [entry[:2] for entry in table.largest(9)] == best
    assert [token for token, _ in table.top(3, 4)] == dense[3].argsort(descending=True)[:4].tolist()
    assert [token for token, _ in table.top(3, 4, largest=False)] == dense[3].argsort()[:4].tolist()


def test_a_bigram_scale_of_ones_own_divides_the_logits() -> None:
    model = random_model(normalization_type="LN", attn_only=True)
    weights, norm = model.weights, model.weights.final_norm
    assert norm is not None and norm.bias is not None
    constant = norm.bias @ weights.W_U + (0 if weights.b_U is None else weights.b_U)
    logits = weights.W_E @ folded(model, norm) @ weights.W_U / 3.0 + constant
    assert float((bigram_table(model, scale=3.0).row([0, 5]) - logits[[0, 5]].log_softmax(dim=-1)).abs().max()) <= 1e-12


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("offset", [0, 2])
def test_qk_entries_are_the_scores_of_a_run_without_positions(options: dict, offset: int) -> None:
    model = random_model(**options)
    for head in (0, 3):
        table, transposed = (qk_table(model, f"a0.h{head}", offset=offset, rows=rows) for rows in ("destination", "source"))
        dense = torch.zeros(V, V, dtype=torch.float64)
        for source, destination in itertools.product(range(V), repeat=2):
            ids = [source] * 2 + [destination] if offset else [destination]
            if offset:
                dense[destination, source] = without_positions(model, ids)[head, offset, 0]
        if not offset:  # the same place: the product of both before they are turned
            block = model.weights.blocks[0]
            x = normalise(model.weights.W_E, block.attention_norm)
            q, k = (x @ reading_of(block, slot, head, model) + bias_of(block, slot, head, model) for slot in "QK")
            dense = q @ k.T * block.attention.scale
        dense = dense - dense.mean(dim=1, keepdim=True)
        assert float((table.row(list(range(V))) - dense).abs().max()) <= (1e-6 if offset else 1e-11)
        assert float((transposed.row(list(range(V))) - table.row(list(range(V))).T).abs().max()) <= 1e-11


def test_scaled_and_normed_embeddings_and_stretched_positions_are_counted_in() -> None:
    model = random_model(**OPTIONS[3])
    rotary = model.weights.rotary_at(0)
    assert rotary is not None
    rotary = dataclasses.replace(rotary, scaling=1.2, position_scale=2.0)
    changes = {"rotary": rotary, "embedding_scale": 1.5, "embedding_norm": model.weights.final_norm}
    model = dataclasses.replace(model, weights=dataclasses.replace(model.weights, **changes))
    run = model.run(torch.tensor([[source, source, 5] for source in range(V)]))
    scores = (run.q[0][:, 2, 3] * run.k[0][:, 0, 1]).sum(dim=-1) * model.weights.blocks[0].attention.scale
    assert float((qk_table(model, "a0.h3", offset=2).row(5)[0] - (scores - scores.mean())).abs().max()) <= 1e-6
    block = dataclasses.replace(model.weights.blocks[0], mlp_post_norm=model.weights.final_norm)
    quiet = dataclasses.replace(block.attention, W_O=torch.zeros_like(block.attention.W_O), b_O=None)
    for through_mlp0 in (False, True):  # a run of nothing but what is counted in
        blocks = (dataclasses.replace(block, attention=quiet, **({} if through_mlp0 else {"mlp": None, "mlp_norm": None})),)
        alone = dataclasses.replace(model, weights=dataclasses.replace(model.weights, blocks=blocks))
        logits = alone.run(torch.tensor([[5]])).logits[0].log_softmax(dim=-1)
        whole = dataclasses.replace(alone, weights=dataclasses.replace(alone.weights, blocks=(block,)))
        assert float((bigram_table(whole, through_mlp0=through_mlp0).row(5) - logits).abs().max()) <= 1e-11


def test_each_layer_is_turned_by_its_own_rotary_positions() -> None:
    model = random_model(**OPTIONS[3])
    one = model.weights.rotary_at(0)
    mixed = dataclasses.replace(model, weights=dataclasses.replace(model.weights, rotary=(one, None, one)))
    still = dataclasses.replace(model, weights=dataclasses.replace(model.weights, rotary=None))
    for layer, same in enumerate((model, still, model)):
        rows = [qk_table(each, f"a{layer}.h3", offset=2).row(list(range(V))) for each in (mixed, same, model, still)]
        assert torch.equal(rows[0], rows[1]) and not torch.allclose(rows[2], rows[3])


def reading_of(block, slot: str, head: int, model: Model) -> torch.Tensor:
    index = head if slot == "Q" else head // (model.n_heads // model.n_key_value_heads)
    return getattr(block.attention, f"W_{slot}")[:, index * model.d_head : (index + 1) * model.d_head]


def bias_of(block, slot: str, head: int, model: Model):
    index = head if slot == "Q" else head // (model.n_heads // model.n_key_value_heads)
    bias = getattr(block.attention, f"b_{slot}")
    return 0 if bias is None else bias[index * model.d_head : (index + 1) * model.d_head]


@pytest.mark.parametrize("options", OPTIONS)
def test_ov_entries_are_dense_products(options: dict) -> None:
    model = random_model(**options)
    weights = model.weights
    layer = model.n_layers - 1
    scale = typical_scale(weights)
    x = normalise(weights.W_E, weights.blocks[layer].attention_norm)
    for head in (0, 3):
        values = x @ reading_of(weights.blocks[layer], "V", head, model)
        dense = values @ output(model, layer, head) @ folded(model, weights.final_norm) @ weights.W_U / scale
        dense = dense - dense.mean(dim=1, keepdim=True)
        assert float((ov_table(model, f"a{layer}.h{head}").row(list(range(V))) - dense).abs().max()) <= 1e-11


def test_a_one_layer_model_is_its_tables() -> None:
    """Direct path plus attention times OV is the logits, up to constants of the row, where there are no norms."""
    model = random_model(**OPTIONS[2])
    model = dataclasses.replace(model, weights=dataclasses.replace(model.weights, W_pos=None))
    ids = torch.tensor([[3, 8, 1, 12, 5]])
    run = model.run(ids)
    logits = bigram_table(model).row(ids[0])
    for head in range(4):
        logits = logits + run.pattern(0)[0, head] @ ov_table(model, f"a0.h{head}").row(ids[0])
    attention = model.weights.blocks[0].attention
    constant = torch.zeros(model.d_model, dtype=torch.float64) if attention.b_O is None else attention.b_O
    constant = constant if attention.b_V is None else constant + attention.b_V @ attention.W_O
    logits = logits + constant @ model.weights.W_U
    assert float((logits.log_softmax(-1) - run.logits[0].log_softmax(-1)).abs().max()) <= 1e-10


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("k", "per_source"), [(1, 2), (7, None), (60, 2), (60, None)])
def test_skip_trigrams_equal_brute_force(options: dict, k: int, per_source: int | None) -> None:
    model = random_model(**options)
    qk, ov = qk_table(model, "a0.h1").row(list(range(V))), ov_table(model, "a0.h1").row(list(range(V)))
    share = torch.sigmoid(qk - math.log(9))
    dense = torch.einsum("ds,so->sdo", share, ov)
    places = sorted(itertools.product(*map(range, dense.shape)), key=lambda place: -float(dense[place]))
    expected, taken = [], dict.fromkeys(range(V), 0)
    for place in places:
        if dense[place] > 0 and taken[place[0]] < (per_source or k) and len(expected) < k:
            expected.append(place)
            taken[place[0]] += 1
    found = skip_trigrams(model, "a0.h1", k, per_source=per_source, context=10)
    assert [(one.source, one.destination, one.output) for one in found] == expected
    for one in found:
        assert one.score == pytest.approx(float(dense[one.source, one.destination, one.output]), abs=1e-12)
        assert one.score == pytest.approx(one.attention * one.logits) and one.head == "a0.h1"


@pytest.mark.parametrize("seed", range(3))
def test_the_worst_bug_equals_brute_force(seed: int) -> None:
    model = random_model(seed, **OPTIONS[0])
    qk, ov = qk_table(model, "a0.h2").row(list(range(V))), ov_table(model, "a0.h2").row(list(range(V)))
    share, likely = torch.sigmoid(qk - math.log(63)), bigram_table(model).row(list(range(V)))
    best = 0.0
    for s, d, e in itertools.product(range(V), repeat=3):
        told = likely[d][:, None] + likely[e][None] - likely[d][None] - likely[e][:, None]
        forced = torch.minimum((share[d, s] * ov[s])[None], (share[e, s] * ov[s])[:, None])
        best = max(best, float(torch.minimum(told, forced).max()))
    bugs = skip_trigram_bugs(model, "a0.h2", 1, sources=V, width=V)
    assert bugs[0].severity == pytest.approx(best, abs=1e-12)
    bug = bugs[0]
    scores = [one.score for one in (*bug.wanted, *bug.forced)]
    assert scores[0] * scores[1] == pytest.approx(scores[2] * scores[3])
    assert bug.severity == pytest.approx(min(bug.distinction, *scores[2:]))
    assert {(one.destination, one.output) for one in bug.forced} == {
        (bug.wanted[0].destination, bug.wanted[1].output),
        (bug.wanted[1].destination, bug.wanted[0].output),
    }


def test_crossings_need_one_head() -> None:
    model = random_model(attn_only=True)
    one, other = skip_trigrams(model, "a0.h0", 1)[0], skip_trigrams(model, "a0.h1", 1)[0]
    with pytest.raises(GraphError, match=r"a0\.h0 and a0\.h1"):
        crossed_trigrams(model, one, other)


@pytest.mark.parametrize("options", OPTIONS[:2] + OPTIONS[3:4])
def test_virtual_heads_equal_dense_products(options: dict) -> None:
    model = random_model(**options)
    weights, norm = model.weights, torch.linalg.matrix_norm
    found = virtual_heads(model, 1000)
    assert len(found) == 3 * 16 and sum(one.share for one in found) == pytest.approx(1)
    assert virtual_heads(model, 5) == found[:5]
    assert [one.norm for one in found] == sorted((one.norm for one in found), reverse=True)
    ov = {f"a{i}.h{h}": reading(model, i, h, "V") @ output(model, i, h) for i in range(3) for h in range(4)}
    for one in found[::5]:
        product = ov[one.first] @ ov[one.second]
        assert one.norm == pytest.approx(float(norm(product)), abs=1e-9)
        assert one.composition == pytest.approx(float(norm(product) / (norm(ov[one.first]) * norm(ov[one.second]))), abs=1e-9)
        dense = weights.W_E @ product @ folded(model, weights.final_norm) @ weights.W_U
        assert one.copying == pytest.approx(positive_share(dense), abs=1e-6)
    first, second = found[0].first, found[0].second
    x = normalise(weights.W_E, weights.blocks[int(first[1])].attention_norm)
    head = int(first.split("h")[1])
    written = x @ reading_of(weights.blocks[int(first[1])], "V", head, model) @ output(model, int(first[1]), head)
    dense = written @ ov[second] @ folded(model, weights.final_norm) @ weights.W_U / 4.0  # both norms divide by 2
    got = virtual_table(model, first, second, scale=2.0).row(list(range(V)))
    assert float((got - (dense - dense.mean(dim=1, keepdim=True))).abs().max()) <= 1e-9
    with pytest.raises(GraphError, match="later layer"):
        virtual_table(model, second, first)


def test_through_the_first_mlp() -> None:
    model = random_model(normalization_type="LN")
    weights = model.weights
    block = weights.blocks[0]
    assert block.mlp is not None and block.mlp.b_out is not None and block.mlp.b_in is not None
    inner = normalise(weights.W_E, block.mlp_norm) @ block.mlp.W_in + block.mlp.b_in
    x = weights.W_E + torch.nn.functional.gelu(inner) @ block.mlp.W_out + block.mlp.b_out
    dense = (normalise(x, weights.final_norm) @ weights.W_U + (0 if weights.b_U is None else weights.b_U)).log_softmax(dim=-1)
    got = bigram_table(model, through_mlp0=True).row(list(range(V)))
    assert block.mlp.activation != "gelu" or float((got - dense).abs().max()) <= 1e-12
    assert float((got - bigram_table(model).row(list(range(V)))).abs().max()) > 1e-3


@pytest.mark.parametrize("seed", range(20))
def test_blocks_and_ties_change_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randint(0, 4, (13, 9), generator=torch.Generator().manual_seed(seed)).double()
    order = sorted(itertools.product(range(13), range(9)), key=lambda place: (-float(values[place]), place))
    for block, k in itertools.product((1, 20, 1000), (1, 5, 50, 200)):
        monkeypatch.setattr(ranking, "BLOCK", block)
        found, rows, columns = ranking.best_of_all(13, 9, lambda ids: values[ids], k)
        assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == order[:k]
        assert found.tolist() == [float(values[place]) for place in order[:k]]


def test_all_tables_are_saved_and_read_back(tmp_path: Path) -> None:
    model = random_model(**OPTIONS[0])
    found = circuits.tables(model, top=5, heads=["a0.h1", "a2.h0"])
    assert found.partial and {one.head for one in found.skip_trigrams} == {"a0.h1", "a2.h0"}
    assert len(found.bigrams) == 5 and len(found.heads) == 12 and found.virtual[0].source is not None
    found.save(tmp_path / "tables.json")
    again = Tables.load(tmp_path / "tables.json")
    for part in ("bigrams", "heads", "skip_trigrams", "bugs", "virtual"):
        assert again.to_dataframe(part).equals(found.to_dataframe(part))
    assert (again.skip_trigrams, again.bugs, again.words) == (found.skip_trigrams, found.bugs, found.words)
    data = json.loads((tmp_path / "tables.json").read_text())
    for key, value in (("bigrams", [{"token": 1}]), ("virtual", 3), ("words", []), ("scale", "x"), ("format", "other")):
        (tmp_path / "bad.json").write_text(json.dumps({**data, key: value}))
        with pytest.raises(FileFormatError, match=r"bad\.json"):
            Tables.load(tmp_path / "bad.json")


def test_what_cannot_be_read_is_refused_by_name() -> None:
    model = random_model(attn_only=True)
    for name in ("m0", "a9.h0", "a0.h7", "input"):
        with pytest.raises(GraphError):
            ov_table(model, name)
    with pytest.raises(PromptError, match="outside the vocabulary of 17"):
        bigram_table(model).row(17)
    with pytest.raises(PromptError, match="context of 1"):
        skip_trigrams(model, "a0.h0", 3, context=1)
    with pytest.raises(PromptError, match="at least one"):
        skip_trigrams(model, "a0.h0", 0)
    model.weights.W_E[4, 2] = float("nan")
    with pytest.raises(NonFiniteError, match="row of token 4"):
        bigram_table(model).largest(3)


def test_the_best_of_long_rows_are_those_of_a_sort_also_where_values_are_equal() -> None:
    generator = torch.Generator().manual_seed(3)
    for columns, k in ((2000, 3), (2017, 1), (130, 5), (40, 40), (1500, 9)):
        values = torch.randint(0, 60 if columns < 2000 else 5000, (7, columns), generator=generator).float()
        values[0] = 1.0
        values[1, -3:] = values[1].max() + 1
        order = values.argsort(dim=1, descending=True, stable=True)[:, :k]
        found, places = ranking.best_of_rows(values, k)
        assert torch.equal(places, order) and torch.equal(found, values.gather(1, order))


def test_peaks_of_rows_are_the_largest_entries_of_whole_products() -> None:
    generator = torch.Generator().manual_seed(4)
    left, right = torch.randn(700, 5, generator=generator), torch.randn(5, 1500, generator=generator)
    offset = torch.randn(1500, generator=generator)
    assert torch.allclose(ranking.peaks(left, right), (left @ right).amax(dim=1))
    assert torch.allclose(ranking.peaks(left, right, offset), (left @ right + offset).amax(dim=1))
    left[600, 2] = torch.nan
    assert ranking.peaks(left, right).isfinite().logical_not().nonzero().flatten().tolist() == [600]
