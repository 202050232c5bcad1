"""Node, edge and path patching against the slow reference, with the laws that they obey."""

import random

import pytest
import torch

from circuits.errors import GraphError, MemoryBudgetError, NonFiniteError, PromptError
from circuits.graph import Circuit, Reader
from circuits.models import Edit, Model
from circuits.patching import Effects, patch_edges, patch_nodes, patch_path
from circuits.patching.engine.base import Base
from circuits.patching.engine.directions import difference, reading_change
from circuits.patching.engine.reading import Reading
from circuits.patching.engine.sites import GROUPS, differing, find_sites, value_at
from circuits.patching.engine.sweep import Sweep
from circuits.patching.subgraphs.subgraph import run_subgraph
from circuits.tasks import PromptPairs, metrics
from tests.models.native import native_bridge
from tests.models.random_models import D_VOCAB, random_shape, random_weights
from tests.models.test_brute_force import planted

difference_of = metrics.logit_difference


def random_pairs(rng: random.Random, *, padded: bool = True) -> PromptPairs:
    """Two to four pairs, most of them of unequal length, that differ in their last token and others."""
    clean, corrupt, lengths = [], [], [rng.randint(2, 7) for _ in range(rng.randint(2, 4))]
    for length in lengths if padded else [lengths[0]] * len(lengths):
        row = [rng.randrange(D_VOCAB) for _ in range(length)]
        places = {length - 1, *rng.sample(range(length), rng.randint(1, length))}
        other = [(token + rng.randint(1, D_VOCAB - 1)) % D_VOCAB for token in row]
        clean.append(row)
        corrupt.append([other[place] if place in places else row[place] for place in range(length)])
    answers = [rng.randrange(D_VOCAB) for _ in clean]
    distractors = [(answer + rng.randint(1, D_VOCAB - 1)) % D_VOCAB for answer in answers]
    return PromptPairs.from_tokens(D_VOCAB, clean=clean, corrupt=corrupt, answers=answers, distractors=distractors)


def random_case(seed: int, **fixed) -> tuple:
    """A shape, its raw weights, its model and pairs."""
    rng = random.Random(seed)
    shape = random_shape(rng)
    if fixed.get("plain"):
        shape = type(shape)(**{**vars(shape), "post_norms": False})
    weights = random_weights(shape, rng)
    return rng, shape, weights, planted(shape, weights), random_pairs(rng)


@pytest.mark.parametrize("seed", range(30))
def test_every_node_equals_its_own_edited_run(seed: int) -> None:
    rng, _, _, model, pairs = random_case(seed)
    direction = rng.choice(["denoising", "noising"])
    effects = patch_nodes(model, pairs, difference_of, direction=direction)
    base, other = (pairs.corrupt, pairs.clean) if direction == "denoising" else (pairs.clean, pairs.corrupt)
    source = model.run(other)
    for name, scores in zip(effects.names, effects.scores, strict=True):
        value = value_at(Base(model, source), find_sites(model, name)[0])
        slow = difference_of(metrics.answer_logits(model.run(base, edits=[Edit(name, value)]), pairs), pairs)
        assert float((scores - slow).abs().max()) <= 1e-10


@pytest.mark.parametrize("seed", range(100))
def test_laws_of_patches_and_subgraphs(seed: int) -> None:
    rng, _, _, model, pairs = random_case(seed, plain=True)
    clean, corrupt = model.run(pairs.clean), model.run(pairs.corrupt)
    sweep = Sweep(model, clean, Reading.of(metrics.log_probability, pairs))
    graph, base, other = model.graph(), Base(model, clean), Base(model, corrupt)
    writers = [node for node in graph.nodes() if node.kind != "logits"]
    logits = Reader(graph.node("logits"))
    deltas = [difference(base, other, writer) for writer in writers]
    into_logits = tuple(reading_change(graph, logits, delta, pairs.clean.mask) for delta in deltas)
    empty, whole = sweep.evaluate([(), into_logits])
    assert torch.equal(empty, sweep.base_scores()), "the empty patch changes no bit"
    expected = metrics.log_probability(metrics.answer_logits(corrupt, pairs), pairs)
    bound = 1e-10 * max(1.0, float(expected.abs().max()))
    assert float((whole - expected).abs().max()) <= bound, "all edges into the logits give the corrupt run"
    edges = list(graph.edges())
    real = pairs.clean.mask
    for kept, run_of in ((edges, clean), ([], corrupt)):
        found = run_subgraph(model, clean, corrupt, Circuit(graph, kept))
        assert float((found - run_of.logits)[real].abs().max()) <= 1e-10 * max(1.0, float(run_of.logits.abs().max()))
    one = rng.choice(edges)
    without = run_subgraph(model, clean, corrupt, Circuit(graph, [edge for edge in edges if edge != one]))
    single = patch_edges(model, pairs, metrics.log_probability, [one], direction="noising").scores[0]
    rows = torch.arange(len(pairs))
    slow = metrics.log_probability(without[rows, pairs.answer_columns], pairs)
    assert float((single - slow).abs().max()) <= 1e-9 * max(1.0, float(slow.abs().max())), "one edge outside = its patch"


def test_all_edges_of_grouped_heads_are_counted_once() -> None:
    model = Model.from_bridge(native_bridge(1, n_heads=4, n_key_value_heads=2, d_model=8, d_head=2))
    pairs = random_pairs(random.Random(0))
    effects = patch_edges(model, pairs, difference_of)
    assert len(effects) == model.graph().edge_count
    assert len(set(effects.names)) == len(effects)


@pytest.mark.parametrize("seed", range(20))
def test_padded_batches_give_what_each_prompt_gives_alone(seed: int) -> None:
    _, _, _, model, pairs = random_case(seed)
    together = patch_nodes(model, pairs, difference_of, ["heads", "residual", "q"])
    for prompt in range(len(pairs)):
        length = int(pairs.clean.mask[prompt].sum())
        rows = [side.ids[prompt][:length].tolist() for side in (pairs.clean, pairs.corrupt)]
        targets = {"answers": [int(pairs.answers[prompt])], "distractors": [int(pairs.distractors[prompt])]}
        alone = PromptPairs.from_tokens(D_VOCAB, clean=[rows[0]], corrupt=[rows[1]], **targets)
        single = patch_nodes(model, alone, difference_of, ["heads", "residual", "q"])
        assert float((together.scores[:, prompt] - single.scores[:, 0]).abs().max()) <= 1e-10


def test_a_budget_changes_nothing_but_refuses_what_cannot_fit() -> None:
    _, _, _, model, pairs = random_case(4)
    whole = patch_nodes(model, pairs, difference_of)
    small = patch_nodes(model, pairs, difference_of, budget=2**16)
    assert float((whole.scores - small.scores).abs().max()) <= 1e-12
    with pytest.raises(MemoryBudgetError, match="give fewer prompts at once or a larger budget"):
        patch_nodes(model, pairs, difference_of, budget=100)


def test_positions_roles_and_groups() -> None:
    model = Model.from_bridge(native_bridge(2, d_vocab=D_VOCAB))
    pairs = random_pairs(random.Random(1), padded=False)
    width = pairs.clean.ids.shape[1]
    assert len(patch_nodes(model, pairs, difference_of, "residual", positions="each")) == 3 * width
    last = patch_nodes(model, pairs, difference_of, "resid2", positions="last")
    assert last.of("resid2@last").effect == pytest.approx(1.0)
    assert patch_nodes(model, pairs, difference_of, "resid2", positions=-1).effect() == pytest.approx(1.0)
    for group in GROUPS:
        assert len(find_sites(model, group)) == len(set(find_sites(model, group))) > 0
    for name, said in (("a9.h0", "a9.h0"), ("a0.h9<q>", "a0.h9"), ("x", "'x'"), ("resid3", "resid3"), ("logits", "logits")):
        with pytest.raises(GraphError, match=said):
            patch_nodes(model, pairs, difference_of, [name])
    with pytest.raises(PromptError, match="no position 'nowhere'"):
        patch_nodes(model, pairs, difference_of, positions="nowhere")
    with pytest.raises(GraphError, match="is not computed before it"):
        patch_path(model, pairs, difference_of, ["a1.h0", "a0.h1<q>"])


def test_groups_of_keys_are_named_as_on_edges() -> None:
    model = Model.from_bridge(native_bridge(1, n_heads=4, n_key_value_heads=2, d_model=8, d_head=2, d_vocab=D_VOCAB))
    pairs = random_pairs(random.Random(0))
    assert patch_nodes(model, pairs, difference_of, "k").names == ("a0.h0<k>", "a0.h1<k>", "a1.h0<k>", "a1.h1<k>")
    with pytest.raises(GraphError, match="2 groups"):
        patch_nodes(model, pairs, difference_of, ["a0.h2<v>"])
    for wrong in ([], "a0.h0"):
        with pytest.raises(GraphError, match="a path is a list"):
            patch_path(model, pairs, difference_of, wrong)
    with pytest.raises(GraphError, match="empty"):
        patch_edges(model, pairs, difference_of, [])


def test_gaps_that_cancel_are_refused() -> None:
    model = Model.from_bridge(native_bridge(2, d_vocab=D_VOCAB))
    rows = {"clean": [[1, 2, 3], [1, 2, 4]], "corrupt": [[1, 2, 4], [1, 2, 3]]}
    pairs = PromptPairs.from_tokens(D_VOCAB, **rows, answers=[5, 5], distractors=[6, 6])
    with pytest.raises(PromptError, match="cancel over prompts"):
        patch_nodes(model, pairs, difference_of, "heads")


def test_effects_are_shares_of_the_gap_and_survive_a_file(tmp_path) -> None:
    model = Model.from_bridge(native_bridge(2, d_vocab=D_VOCAB))
    pairs = random_pairs(random.Random(1))
    for direction in ("denoising", "noising"):
        effects = patch_nodes(model, pairs, difference_of, ["input", "heads"], direction=direction)
        assert effects.of("input").effect == pytest.approx(1.0)
        assert effects.per_prompt()[0] == pytest.approx(1.0)
        for found in effects.intervals():
            assert found.low <= found.effect + 1e-12 and found.effect <= found.high + 1e-12
    effects.save(tmp_path / "effects.json")
    again = Effects.load(tmp_path / "effects.json")
    assert torch.equal(again.scores, effects.scores) and again.names == effects.names
    assert again.to_dataframe().equals(effects.to_dataframe())


def test_only_what_can_differ_is_patched() -> None:
    pairs = PromptPairs.from_tokens(D_VOCAB, clean=[[1, 2, 3, 4]], corrupt=[[1, 2, 5, 4]], answers=[1], distractors=[2])
    assert differing(pairs, causal=True).tolist() == [[False, False, True, True]]
    assert differing(pairs, causal=False).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_stops_with_its_site(bad: float) -> None:
    model = Model.from_bridge(native_bridge(2, d_vocab=D_VOCAB))
    pairs = random_pairs(random.Random(1))
    run_of = model.run(pairs.clean)
    sites = {"q": "q of layer 1", "v": "v of layer 1", "z": "z of layer 1", "neurons": "neurons of layer 1"}
    for field, said in {**sites, "residuals": "residual stream before layer 1", "middles": "middle of layer 1"}.items():
        tensors = list(getattr(run_of, field))
        tensors[1] = tensors[1].clone()
        tensors[1][0, 0] = bad
        broken = type(run_of)(**{**vars(run_of), field: tuple(tensors)})
        with pytest.raises(NonFiniteError, match=said):
            Sweep(model, broken, Reading.of(difference_of, pairs))
    site = find_sites(model, "a1.h0")[0]
    sweep = Sweep(model, run_of, Reading.of(difference_of, pairs))
    from circuits.patching.engine.change import Change

    value = torch.full((1, pairs.clean.ids.shape[1], 4), bad, dtype=torch.float64)
    with pytest.raises(NonFiniteError, match=r"a1\.h0"):
        sweep.evaluate([(Change(site.kind, 1, 0, value, pairs.clean.mask, label="a1.h0"),)])
    with pytest.raises(NonFiniteError, match="on prompt 0"):
        Sweep(model, run_of, Reading(pairs.answer_columns[:, None], lambda logits: logits.sum(dim=(1, 2)) * bad)).evaluate([()])


class Broken(KeyboardInterrupt):
    """Raised at a random point of a sweep."""


def test_broken_sweeps_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    from circuits.patching.engine import variant_mlp, variant_pass

    model = Model.from_bridge(native_bridge(2, d_vocab=D_VOCAB))
    pairs, fingerprint = random_pairs(random.Random(1)), model.fingerprint
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    original, countdown = variant_pass.normalise, [0]

    def failing(*args):
        countdown[0] -= 1
        if countdown[0] == 0:
            raise Broken
        return original(*args)

    for part in (variant_pass, variant_mlp):
        monkeypatch.setattr(part, "normalise", failing)
    stopped = 0
    rng = random.Random(0)
    for _ in range(200):
        countdown[0] = rng.randint(1, 8)
        try:
            patch_nodes(model, pairs, difference_of, ["heads", "q"], budget=2**16)
        except Broken:
            stopped += 1
        assert torch.is_grad_enabled()
    assert stopped >= 100
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.weights.fingerprint() == fingerprint
    assert all(tensor.grad is None for _, tensor in model.weights.tensors())
