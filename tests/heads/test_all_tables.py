"""All tables in one result are those that their functions give one by one."""

import dataclasses
import importlib
import math

import pytest
import torch

import circuits
from circuits.heads import bigram_table, ov_table, qk_table, skip_trigram_bugs, skip_trigrams, virtual_heads, virtual_table
from circuits.heads.composition import copying_eigenvalue_scores, matching_eigenvalue_scores
from circuits.heads.weight_tables.all_tables import measured_scale
from circuits.heads.weight_tables.embedded import embedded
from circuits.models.forward import forward
from circuits.models.layers import norm_scale
from tests.heads.test_tables import OPTIONS, random_model


@pytest.mark.parametrize(
    "options",
    [
        {"context": 9, "offset": 2, "scale": 2.0, "per_source": None, "through_mlp0": True},
        {"context": 20, "offset": 1, "scale": None, "per_source": 2, "through_mlp0": False},
    ],
)
def test_every_option_reaches_every_part(options: dict) -> None:
    model = random_model(**OPTIONS[3])
    found = circuits.tables(model, top=4, heads=["a1.h2", "a0.h1"], **options)
    scale = measured_scale(model) if options["scale"] is None else options["scale"]
    assert found.partial and (found.context, found.through_mlp0) == (options["context"], options["through_mlp0"])
    assert found.scale == scale
    mlp0, shared = {"through_mlp0": options["through_mlp0"]}, {**options, "scale": scale}
    direct = bigram_table(model, **mlp0)
    assert [(one.token, one.next, one.log_probability) for one in found.bigrams] == direct.largest(4)
    expected = [one for head in ("a0.h1", "a1.h2") for one in skip_trigrams(model, head, 4, **shared)]
    assert list(found.skip_trigrams) == sorted(expected, key=lambda one: -one.score)
    del shared["per_source"]
    bugs = [bug for head in ("a0.h1", "a1.h2") for bug in skip_trigram_bugs(model, head, 4, **shared)]
    assert list(found.bugs) == sorted(bugs, key=lambda bug: -bug.severity)
    for one, plain in zip(found.virtual, virtual_heads(model, 4), strict=True):
        source, output, _ = virtual_table(model, one.first, one.second, scale=scale, **mlp0).largest(1)[0]
        assert one == dataclasses.replace(plain, source=source, output=output)
    copying, matching = copying_eigenvalue_scores(model), matching_eigenvalue_scores(model)
    for row, one in enumerate(found.heads):
        at = divmod(row, model.n_heads)
        assert (one.head, one.copying, one.matching) == (f"a{at[0]}.h{at[1]}", float(copying[at]), float(matching[at]))


def test_tables_through_the_first_mlp_are_those_of_a_model_that_embeds_what_it_makes() -> None:
    model = random_model(**OPTIONS[3])
    changes = {"embedding_scale": 1.5, "embedding_norm": model.weights.final_norm}
    weights = dataclasses.replace(model.weights, **changes)
    made = embedded(weights, torch.arange(model.d_vocab), through_mlp0=True)
    other = dataclasses.replace(model.weights, W_E=made)
    model, other = dataclasses.replace(model, weights=weights), dataclasses.replace(model, weights=other)
    everything = torch.arange(model.d_vocab)
    for table, names in ((bigram_table, []), (qk_table, ["a1.h2"]), (ov_table, ["a1.h2"]), (virtual_table, ["a0.h1", "a2.h3"])):
        through, plain = table(model, *names, through_mlp0=True), table(other, *names)
        assert float((through.row(everything) - plain.row(everything)).abs().max()) <= 1e-10, table.__name__


def test_the_measured_scale_is_a_mean_and_a_layer_with_an_mlp_is_not_all_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(**OPTIONS[4])
    runs = []

    def kept(*args, **options):
        runs.append(forward(*args, **options))
        return runs[-1]

    monkeypatch.setattr("circuits.heads.weight_tables.all_tables.forward", kept)
    scales = [measured_scale(model, seed=seed) for seed in (0, 1)]
    for scale, run in zip(scales, runs, strict=True):
        assert scale == pytest.approx(float(norm_scale(run.residuals[-1], model.weights.final_norm).mean()), abs=1e-12)
    assert scales[0] != scales[1] and not torch.equal(runs[0].tokens.ids, runs[1].tokens.ids)
    assert measured_scale(random_model(**OPTIONS[2])) == 1.0
    assert circuits.tables(model, top=1).partial, "of a model that predicts some of its tokens too"
    assert circuits.tables(random_model(n_layers=1), top=1).partial
    assert not circuits.tables(random_model(**OPTIONS[2]), top=1).partial


@pytest.mark.parametrize("seed", range(4))
def test_sources_are_searched_until_none_can_do_better(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(seed, **OPTIONS[2])
    block = model.weights.blocks[0]
    sharp = dataclasses.replace(block, attention=dataclasses.replace(block.attention, scale=100.0))  # shares near their bound
    model = dataclasses.replace(model, weights=dataclasses.replace(model.weights, blocks=(sharp,)))
    everything = torch.arange(model.d_vocab)
    share = torch.sigmoid(qk_table(model, "a0.h1").row(everything) - math.log(9))
    dense = torch.einsum("ds,so->sdo", share, ov_table(model, "a0.h1").row(everything)).flatten()
    monkeypatch.setattr(importlib.import_module("circuits.heads.weight_tables.skip_trigrams"), "BLOCK", 1)  # a source at a time
    for k in (1, 3, 20, 60):
        best = [one.score for one in skip_trigrams(model, "a0.h1", k, context=10)]
        assert best == pytest.approx(dense.topk(k).values.tolist(), abs=1e-12)
