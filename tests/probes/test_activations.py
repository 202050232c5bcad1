"""Activations of words against plain runs, and what lies on disk."""

import dataclasses
import json
import random
from pathlib import Path

import pytest
import torch

from circuits.errors import CircuitsError, FileFormatError, GraphError, MemoryBudgetError, PromptError
from circuits.heads.attention.words import Aligned
from circuits.models import Model
from circuits.models.random_weights import with_random_weights
from circuits.probes import activations, reading
from circuits.probes.reading import WordText, final_stream, layer_by_layer
from circuits.probes.sites import REACH, sites_of
from circuits.tasks import Sentence
from tests.models.random_models import D_VOCAB, LENGTH, random_shape, random_weights, record_of
from tests.probes.spoken import before, previous_model, sentence_of


def random_model(seed: int) -> Model:
    """A random model of any kind."""
    rng = random.Random(seed)
    shape = random_shape(rng)
    return Model("random", "random", record_of(shape, random_weights(shape, rng), torch.float64), None, bos=0)


def random_text(seed: int) -> WordText:
    """Words of several tokens, some without one of their own."""
    rng, aligned = random.Random(seed), []
    for _ in range(rng.randint(2, 5)):
        words = rng.randint(1, 4)
        owners = sorted(rng.choices(range(words), k=rng.randint(1, LENGTH - 1)))
        sentence = sentence_of(list(range(words)), ["X"] * words)
        aligned.append(Aligned(sentence, tuple(rng.randrange(D_VOCAB) for _ in range(len(owners) + 1)), (-1, *owners)))
    places = [(number, word) for number, one in enumerate(aligned) for word, own in enumerate(one.own) if own]
    return WordText(tuple(aligned), tuple(places), {})


@pytest.mark.parametrize("seed", range(24))
def test_vectors_of_words_are_those_of_plain_runs(seed: int) -> None:
    model, text = random_model(seed), random_text(seed)
    families = ["residual", "middle", "heads", "patterns", *(["neurons"] if model.d_mlp else [])]
    runs = [model.run(torch.tensor([one.ids])) for one in text.aligned]
    how = random.Random(seed).choice(["last", "mean"])
    with activations(model, text, sites=families, pooling=how) as read:
        assert len(read) == len(text.places) and read.nbytes > 0
        for site in sites_of(model, families):
            found = read.of(site.name)
            for row, (number, word) in enumerate(text.places):
                run, layer = runs[number], site.layer
                if site.family == "patterns":
                    value = [looked(run.pattern(at)) for at in range(model.n_layers)]
                else:
                    kinds = {"residual": run.residuals, "middle": run.middles, "heads": run.z, "neurons": run.neurons}
                    value = kinds[site.family]
                own = [column for column, owner in enumerate(text.aligned[number].owners) if owner == word]
                whole = value[layer][0, own].flatten(1)
                assert torch.allclose(found[row], whole[-1] if how == "last" else whole.mean(dim=0), atol=1e-10), site.name
        head = read.of(f"a0.h{model.n_heads - 1}")
        assert torch.equal(head, read.of("a0")[:, -model.d_head :])
        assert torch.equal(read.of("p0.h0"), read.of("p0")[:, : REACH + 1])


def looked(pattern: torch.Tensor) -> torch.Tensor:
    """`[1 query head offset]`: what heads pay to the first token, and to the ones up to each token, one by one."""
    _, heads, size, _ = pattern.shape
    found = torch.zeros(1, size, heads, REACH + 1, dtype=pattern.dtype)
    for token in range(size):
        found[0, token, :, 0] = pattern[0, :, token, 0]
        for back in range(min(REACH, token)):
            found[0, token, :, 1 + back] = pattern[0, :, token, token - back]
    return found


@pytest.mark.parametrize("seed", range(6))
def test_a_run_that_goes_on_from_a_layer_ends_where_the_whole_one_does(seed: int) -> None:
    model, text = random_model(seed), random_text(seed)
    tokens = reading.WordBatch.of(text, range(len(text.aligned)), model.device).tokens
    streams = dict(layer_by_layer(model, tokens, "residual"))
    for layer, x in streams.items():
        assert torch.allclose(
            final_stream(model, tokens, layer, x)[tokens.mask], streams[model.n_layers][tokens.mask], atol=1e-12
        )
    some = dict(layer_by_layer(model, tokens, "residual", only={1}))
    assert set(some) == {1, model.n_layers}


def test_what_lies_in_a_folder_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = random_model(1), random_text(1)
    heard: list[tuple[str, int, int]] = []
    with activations(model, text, folder=tmp_path, progress=lambda *said: heard.append(said)) as read:
        first = read.of("resid1")
    assert heard[-1] == ("reading words", len(text.places), len(text.places))
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("residual-") and json.loads((kept / "activations.json").read_text())["words"] == len(first)

    def never(*given: object, **options: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("circuits.probes.storing.layer_by_layer", never)
    with activations(model, text, folder=tmp_path) as read:
        assert torch.equal(read.of("resid1"), first)
    for other in (
        {"pooling": "mean"},
        {"sites": "heads"},
    ):
        with pytest.raises(AssertionError, match="read again"), activations(model, text, folder=tmp_path, **other):
            pass
    with pytest.raises(AssertionError, match="read again"), activations(with_random_weights(model), text, folder=tmp_path):
        pass
    with pytest.raises(AssertionError, match="read again"), activations(model, random_text(2), folder=tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [kept.name], "what was not finished leaves nothing"


def test_damaged_shards_are_named_or_read_anew(tmp_path: Path) -> None:
    model, text = random_model(1), random_text(1)
    with activations(model, text, folder=tmp_path) as read:
        shard = next(tmp_path.glob("*/shard-*"))
        whole = shard.read_bytes()
        shard.write_bytes(whole[:-9])
        with pytest.raises(FileFormatError, match="shard-00000"):
            read.of("resid0")
        shard.unlink()
        with pytest.raises(FileFormatError, match="holds 0 words"):
            read.of("resid0")
    with activations(model, text, folder=tmp_path) as read:
        assert shard.read_bytes() == whole and len(read.of("resid0")) == len(text.places)


@pytest.mark.parametrize("budget", [2**14, 2**17])
def test_a_budget_changes_no_number(tmp_path: Path, budget: int) -> None:
    model, sentences = previous_model(), before(12)
    with activations(model, sentences) as one, activations(model, sentences, folder=tmp_path, budget=2**20 + budget * 8) as two:
        assert all(torch.allclose(one.of(name), two.of(name), atol=1e-12) for name in one.names)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    model, sentences = previous_model(), before(3)
    refusals: list[tuple[type[CircuitsError], str, dict]] = [
        (GraphError, "has no resid9: it has resid0 to resid3", {"sites": "resid9"}),
        (GraphError, "'nothing' is no place to probe", {"sites": ["nothing"]}),
        (GraphError, "it has 2 heads a layer", {"sites": "a0.h7"}),
        (GraphError, "no place to probe is named", {"sites": []}),
        (MemoryBudgetError, "one sentence of .* tokens need", {"budget": 2**10}),
    ]
    for kind, words, options in refusals:
        with pytest.raises(kind, match=words) as error, activations(model, sentences, **options):
            pass
        assert "\n" not in str(error.value)
    with activations(model, sentences) as read, pytest.raises(CircuitsError, match="m0 was not read"):
        read.of("m0")
    long = sentence_of([1] * 200, ["X"] * 200)
    with pytest.raises(PromptError, match=r"^made:1: none of 1 sentences can be used: 1 are too long"):
        WordText.of(model, [long])
    text = WordText.of(model, [long, *sentences])
    assert text.left_out["too long"] == 1 and len(text.aligned) == 3
    assert len(WordText.of(model, sentences, words=1).aligned) == 1
    with pytest.raises(PromptError, match="no sentence was given"):
        WordText.of(model, list[Sentence]())


def test_random_weights_keep_the_architecture_and_nothing_that_was_learnt() -> None:
    model = previous_model()
    one, two, other = with_random_weights(model), with_random_weights(model), with_random_weights(model, seed=1)
    assert one.fingerprint == two.fingerprint != other.fingerprint != model.fingerprint
    for (name, drawn), (_, own) in zip(one.weights.tensors(), model.weights.tensors(), strict=True):
        assert drawn.shape == own.shape and drawn.dtype == own.dtype
        if own.ndim > 1 and own.numel() > 500:
            assert float(drawn.square().mean()) == pytest.approx(float(own.square().mean()), rel=0.2), name
            assert abs(float(torch.corrcoef(torch.stack([drawn.flatten(), own.flatten()]))[0, 1])) < 0.2
        elif own.ndim == 1:
            size = float(own.square().mean().sqrt()) if name.endswith("weight") else 0.0
            assert bool((drawn - size).abs().max() < 1e-9), name
    tied = dataclasses.replace(model, weights=dataclasses.replace(model.weights, W_U=model.weights.W_E.T))
    drawn = with_random_weights(tied).weights
    assert torch.equal(drawn.W_U, drawn.W_E.T)
