"""Positions count from each prompt's own ends, and prompts that lack one do not count there."""

import dataclasses
import json
import random
from pathlib import Path

import pytest
import torch

from circuits.attribution import EdgeScores, attribute_edges
from circuits.errors import CircuitsError, PromptError
from circuits.lenses.neurons.updates import update_vectors
from circuits.models import Edit, Model, TokenBatch
from circuits.patching import Effects, ablate, patch_edges, patch_nodes, patch_path
from circuits.tasks import PromptPairs, metrics
from tests.models.native import native_bridge
from tests.models.random_models import D_VOCAB

difference_of = metrics.logit_difference
LENGTHS = (3, 6, 5, 3, 6)
SEEDS = range(2)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.from_bridge(native_bridge(2, d_vocab=D_VOCAB))


def ragged(seed: int, *, left: bool = False) -> PromptPairs:
    """Pairs of unequal length that differ in every token, with pads on the right or the left."""
    rng = random.Random(seed)
    clean = [[rng.randrange(D_VOCAB) for _ in range(length)] for length in LENGTHS]
    corrupt = [[(token + rng.randint(1, D_VOCAB - 1)) % D_VOCAB for token in row] for row in clean]
    answers = [rng.randrange(D_VOCAB) for _ in clean]
    others = [(answer + rng.randint(1, D_VOCAB - 1)) % D_VOCAB for answer in answers]
    pairs = PromptPairs.from_tokens(D_VOCAB, clean=clean, corrupt=corrupt, answers=answers, distractors=others)
    named = {"third": torch.tensor([2] * 5), "sixth": torch.tensor([-1, 5, -1, -1, 5])}
    pairs = dataclasses.replace(pairs, positions=named)
    if not left:
        return pairs
    turned = [flush(side) for side in (pairs.clean, pairs.corrupt)]
    moved = {name: column + (turned[0].last - pairs.clean.last) for name, column in named.items() if name == "third"}
    return dataclasses.replace(
        pairs, clean=turned[0], corrupt=turned[1], answer_columns=turned[0].last, positions={**moved, "sixth": named["sixth"]}
    )


def flush(batch: TokenBatch) -> TokenBatch:
    """The same prompts with their pads on the left."""
    shift = [int(batch.ids.shape[1] - mask.sum()) for mask in batch.mask]
    return TokenBatch(*(torch.stack([x.roll(s) for x, s in zip(part, shift, strict=True)]) for part in (batch.ids, batch.mask)))


PLACES = [-1, -3, -4, -6, 0, 2, 4, 5, "sixth"]


def rows_with(position: int | str) -> list[int]:
    if position == "sixth":
        return [1, 4]
    need = position + 1 if isinstance(position, int) and position >= 0 else -int(position)
    return [row for row, length in enumerate(LENGTHS) if length >= need]


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_position_counts_the_prompts_that_have_it_as_if_they_were_alone(
    seed: int, place: int | str, left: bool, model: Model
) -> None:
    pairs, rows = ragged(seed, left=left), rows_with(place)
    part = pairs[rows]
    edges, path = ["input->a1.h0<k>", "m0->logits"], ["a0.h1", "a1.h0<k>", "logits"]
    for measure in (
        lambda some: patch_nodes(model, some, difference_of, ["resid1", "m0", "a1.h1"], positions=place),
        lambda some: patch_edges(model, some, difference_of, edges, positions=place),
        lambda some: patch_path(model, some, difference_of, path, positions=place),
    ):
        whole, alone = measure(pairs), measure(part)
        assert whole.counts == [len(rows)] * len(whole) and alone.having is None
        assert (whole.having is None) == (len(rows) == len(pairs))
        assert torch.allclose(whole.effect(), alone.effect(), rtol=0, atol=1e-10)
        assert torch.allclose(whole.per_prompt()[:, rows], alone.per_prompt(), rtol=0, atol=1e-9)
        assert int(whole.per_prompt().isnan().sum()) == (len(pairs) - len(rows)) * len(whole)
        for one, other in zip(whole.intervals(), alone.intervals(), strict=True):
            assert (one.effect, one.low, one.high) == pytest.approx((other.effect, other.low, other.high), abs=1e-9)
        assert whole.of(whole.names[-1]).effect == pytest.approx(float(alone.effect()[-1]), abs=1e-10)
        assert whole.to_dataframe()["prompts"].tolist() == [len(rows)] * len(whole)
        assert whole.to_dataframe()["metric"].tolist() == pytest.approx(alone.to_dataframe()["metric"].tolist(), abs=1e-9)


@pytest.mark.parametrize("method", ["eap", "exact"])
@pytest.mark.parametrize("place", [-1, -4, 4, "sixth"])
def test_scores_of_edges_are_means_over_the_prompts_that_have_the_position(method: str, place: int | str, model: Model) -> None:
    pairs, rows = ragged(0), rows_with(place)
    whole = attribute_edges(model, pairs, difference_of, method=method, positions=place)
    alone = attribute_edges(model, pairs[rows], difference_of, method=method, positions=place)
    assert torch.allclose(whole.by_label, alone.by_label, rtol=0, atol=1e-10)
    assert torch.allclose(whole.errors, alone.errors, rtol=0, atol=1e-10)
    assert torch.allclose(whole.values, alone.values, rtol=0, atol=1e-10)
    assert (whole.shares is None) == (len(rows) == len(pairs))
    if whole.shares is not None:
        assert whole.shares.tolist() == [len(rows) / len(pairs)]


@pytest.mark.parametrize("left", [False, True])
def test_scores_of_all_positions_add_up_to_the_score_of_the_edge(left: bool, model: Model) -> None:
    pairs = ragged(1, left=left)
    each = attribute_edges(model, pairs, difference_of, method="eap", positions="each")
    assert each.labels == tuple("012345") and each.shares is not None
    assert each.shares.tolist() == pytest.approx([1.0, 1.0, 1.0, 0.6, 0.6, 0.4])
    together = attribute_edges(model, pairs, difference_of, method="eap")
    assert torch.allclose(each.values, together.values, rtol=0, atol=1e-10)


def test_every_position_by_itself_is_each_prompts_own(model: Model) -> None:
    left, right = (
        patch_nodes(model, ragged(2, left=one), difference_of, "residual", positions="each") for one in (True, False)
    )
    assert left.names == right.names and len(left) == 3 * max(LENGTHS)
    assert torch.allclose(left.effect(), right.effect(), rtol=0, atol=1e-10)
    assert left.counts == right.counts == [5, 5, 5, 3, 3, 2] * 3


@pytest.mark.parametrize("kind", ["zero", "resample", "mean"])
def test_ablation_leaves_out_prompts_without_the_position(kind: str, model: Model) -> None:
    pairs, rows = ragged(3), rows_with(4)
    reference = pairs.corrupt
    whole = ablate(model, pairs, difference_of, ["m0"], kind=kind, positions=4, reference=reference)
    alone = ablate(model, pairs, difference_of, ["m0"], kind=kind, positions=None, reference=reference)
    assert len(whole.whole) == len(rows) == whole.scores.shape[1] and whole.metadata["without_position"] == 2
    assert whole.prompts == tuple(pairs.labels[row] for row in rows)
    assert torch.equal(whole.whole, alone.whole[rows]) and "without_position" not in alone.metadata


@pytest.mark.parametrize("position", [6, -7])
def test_a_position_that_no_prompt_has_is_refused(position: int, model: Model) -> None:
    pairs = ragged(0)
    with pytest.raises(PromptError, match=f"position {position} is outside the prompts, of which the longest has 6 tokens"):
        patch_nodes(model, pairs, difference_of, positions=position)
    with pytest.raises(PromptError, match=rf"edit of m0: position {position} is outside"):
        model.run(pairs.clean, edits=[Edit("m0", 0.0, [position])])
    nowhere = dataclasses.replace(pairs, positions={"gone": torch.full((5,), -1)})
    with pytest.raises(PromptError, match="no prompt has the position 'gone'"):
        patch_nodes(model, nowhere, difference_of, positions="gone")


@pytest.mark.parametrize("left", [False, True])
def test_edits_and_updates_count_from_each_prompts_own_end(left: bool, model: Model) -> None:
    batch = ragged(0, left=left).clean
    run = model.run(batch, edits=[Edit("m0", 0.0, [-1]), Edit("m1.n2", lambda value: value + 1, [0, 5])])
    plain = model.run(batch)
    for row, mask in enumerate(batch.mask):
        own = mask.nonzero()[:, 0].tolist()
        alone = model.run(batch.ids[row, mask][None])
        vectors, bias = update_vectors(model, alone, 1)
        padded, other = update_vectors(model, plain, 1, prompt=row)
        assert torch.allclose(padded, vectors, rtol=0, atol=1e-10) and torch.allclose(other, bias)
        zeroed = [column for column in own if bool((run.edited_mlps[0][row, column] == 0).all())]
        assert zeroed == own[-1:]
        with pytest.raises(PromptError, match=f"prompt {row}: position {len(own)} is outside"):
            update_vectors(model, plain, 1, prompt=row, position=len(own))


def test_which_prompts_have_a_position_is_kept_in_files_and_old_files_are_read(tmp_path: Path, model: Model) -> None:
    pairs, path = ragged(0), tmp_path / "saved.json"
    effects = patch_nodes(model, pairs, difference_of, ["m0", "m1"], positions=["last", 4])
    effects.save(path)
    read = Effects.load(path)
    assert read.having is not None and effects.having is not None and torch.equal(read.having, effects.having)
    assert read.counts == [5, 3, 5, 3] and torch.equal(read.effect(), effects.effect())
    scores = attribute_edges(model, pairs, difference_of, method="eap", positions=["last", 4])
    scores.save(path)
    found = EdgeScores.load(path)
    assert found.shares is not None and torch.equal(found.values, scores.values)
    for one, key in ((scores, "shares"), (effects, "having")):
        one.save(path)
        document = json.loads(path.read_text())
        del document[key]
        path.write_text(json.dumps(document))
        assert getattr(type(one).load(path), key) is None
    with pytest.raises(CircuitsError, match="a prompt in each"):
        dataclasses.replace(effects, having=torch.zeros_like(effects.having))


@pytest.mark.parametrize("place", [2**70, -(2**70), 99, -99])
def test_a_position_of_any_size_that_no_prompt_has_is_refused_by_name(place: int, model: Model) -> None:
    with pytest.raises(PromptError, match=f"position {place} is outside the prompts, of which the longest has 6 tokens"):
        patch_nodes(model, ragged(0), difference_of, ["m0"], positions=[place])


def test_no_positions_at_all_are_refused(model: Model) -> None:
    for measure in (
        lambda: patch_nodes(model, ragged(0), difference_of, ["m0"], positions=[]),
        lambda: attribute_edges(model, ragged(0), difference_of, method="eap", positions=[]),
    ):
        with pytest.raises(PromptError, match="no positions are given"):
            measure()
