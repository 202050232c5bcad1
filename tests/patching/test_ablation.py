"""Ablation against edited runs, and the self-repair report against its own definition."""

import random

import pytest
import torch

from circuits.errors import CircuitsError, FileFormatError, GraphError, PromptError
from circuits.models import Edit, Model
from circuits.patching import Ablation, SelfRepair, ablate, self_repair
from circuits.patching.ablation.self_repair import contributions
from circuits.tasks import metrics
from tests.models.native import native_bridge
from tests.models.random_models import D_VOCAB
from tests.patching.test_sweeps import random_case, random_pairs

difference_of = metrics.logit_difference


def model_of(seed: int = 2, **options) -> Model:
    return Model.from_bridge(native_bridge(seed, d_vocab=D_VOCAB, **options))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("freeze", [False, True])
def test_zero_equals_an_edited_run_with_patterns_frozen_and_not(seed: int, freeze: bool) -> None:
    rng, _, _, model, pairs = random_case(seed)
    nodes = [str(node) for node in model.graph().nodes() if node.kind in ("head", "mlp")]
    chosen = rng.sample(nodes, min(len(nodes), 3))
    found = ablate(model, pairs, difference_of, chosen, kind="zero", freeze_patterns=freeze)
    whole = model.run(pairs.clean, keep="patterns")
    slow = model.run(pairs.clean, edits=[Edit(name, 0.0) for name in chosen], patterns=whole.patterns if freeze else None)
    expected = difference_of(metrics.answer_logits(slow, pairs), pairs)
    assert float((found.scores[0] - expected).abs().max()) <= 1e-10
    assert float((found.whole - difference_of(metrics.answer_logits(whole, pairs), pairs)).abs().max()) <= 1e-12


def test_mean_is_by_position_where_prompts_align_and_over_tokens_elsewhere() -> None:
    model = model_of()
    for padded in (False, True):
        pairs = random_pairs(random.Random(6), padded=padded)
        z = model.run(pairs.corrupt).z[1][:, :, 0]
        aligned = not pairs.corrupt.padded
        value = z.mean(dim=0) if aligned else z[pairs.corrupt.mask].mean(dim=0)
        slow = model.run(pairs.clean, edits=[Edit("a1.h0", value)])
        found = ablate(model, pairs, difference_of, "a1.h0", kind="mean")
        assert float((found.scores[0] - difference_of(metrics.answer_logits(slow, pairs), pairs)).abs().max()) <= 1e-10


def test_resample_noise_and_sets() -> None:
    model, pairs = model_of(), random_pairs(random.Random(6))
    other = model.run(pairs.corrupt)
    slow = model.run(pairs.clean, edits=[Edit("a0.h1", other.z[0][:, :, 1])])
    found = ablate(model, pairs, difference_of, [["a0.h1"], ["a0.h1", "m1"], ["m0.n3"]], kind="resample")
    assert found.names == ("a0.h1", "a0.h1+m1", "m0.n3")
    assert float((found.scores[0] - difference_of(metrics.answer_logits(slow, pairs), pairs)).abs().max()) <= 1e-10
    one, again, more = (ablate(model, pairs, difference_of, "m1", kind="noise", seed=seed).scores for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, more)
    assert ablate(model, pairs, difference_of, "m1", kind="noise", noise=0.0).change().abs().max() <= 1e-12


def test_the_optimal_constant_keeps_the_answer_nearer_than_the_mean() -> None:
    model, pairs = model_of(), random_pairs(random.Random(6))
    kl = metrics.kl_divergence(metrics.answer_logits(model.run(pairs.clean), pairs).detach())
    kinds = {kind: ablate(model, pairs, kl, ["a0.h1", "m1"], kind=kind) for kind in ("optimal", "mean", "zero")}
    assert float(kinds["optimal"].change()) < min(float(kinds[kind].change()) for kind in ("mean", "zero"))
    with pytest.raises(CircuitsError, match="optimal constant"):
        ablate(model, pairs, kl, "resid1", kind="optimal")


def test_refusals_and_files(tmp_path) -> None:
    model, pairs = model_of(), random_pairs(random.Random(6))
    with pytest.raises(CircuitsError, match="nothing to ablate"):
        ablate(model, pairs, difference_of, [])
    with pytest.raises(GraphError, match=r"a7\.h0"):
        ablate(model, pairs, difference_of, ["a7.h0"])
    with pytest.raises(CircuitsError, match="one choice of positions"):
        ablate(model, pairs, difference_of, ["a0.h0"], positions="each")
    found = ablate(model, pairs, difference_of, [["a0.h0"], ["m1"]])
    found.save(tmp_path / "ablation.json")
    again = Ablation.load(tmp_path / "ablation.json")
    assert again.to_dataframe().equals(found.to_dataframe()) and again.metadata == found.metadata


@pytest.mark.parametrize("part", ["attention", "mlp"])
def test_without_norms_total_is_direct_less_what_later_layers_make_up_for(part) -> None:
    model, pairs = model_of(normalization_type=None), random_pairs(random.Random(2))
    for kind in ("zero", "mean", "resample"):
        report = self_repair(model, pairs, part=part, kind=kind)
        assert float((report.total - (report.direct - report.compensation)).abs().max()) <= 1e-10
        assert list(report.to_dataframe().columns) == ["layer", "direct", "total", "compensation"]


def test_a_report_survives_a_file(tmp_path) -> None:
    report = self_repair(model_of(), random_pairs(random.Random(2)), part="mlp")
    report.save(tmp_path / "report.json")
    again = SelfRepair.load(tmp_path / "report.json")
    assert torch.equal(again.total, report.total) and (again.part, again.kind) == ("mlp", "resample")
    for found in report.intervals("total"):
        assert found.low <= found.effect <= found.high
    (tmp_path / "report.json").write_text((tmp_path / "report.json").read_text().replace('"direct"', '"direkt"'))
    with pytest.raises(FileFormatError, match="does not fit together"):
        SelfRepair.load(tmp_path / "report.json")


def test_contributions_sum_to_the_logit_difference() -> None:
    model, pairs = model_of(), random_pairs(random.Random(2))
    run = model.run(pairs.clean)
    rows = torch.arange(len(pairs))
    found = difference_of(metrics.answer_logits(run, pairs), pairs)
    weights = model.weights
    direction = weights.W_U.T[pairs.answers] - weights.W_U.T[pairs.distractors]
    constant = 0 if weights.b_U is None else weights.b_U[pairs.answers] - weights.b_U[pairs.distractors]
    shift = (weights.final_norm.bias * direction).sum(dim=-1) + constant
    start = run.residuals[0][rows, pairs.answer_columns]
    gain = direction * weights.final_norm.weight
    gain = (gain - gain.mean(dim=-1, keepdim=True)) / run.final_scale[rows, pairs.answer_columns]
    total = contributions(model, run, pairs, run).sum(dim=0) + (start * gain).sum(dim=-1) + shift
    assert float((total - found).abs().max()) <= 1e-6, "native norms compute in float32"


def test_models_whose_parts_do_not_add_up_are_refused() -> None:
    pairs = random_pairs(random.Random(2))
    with pytest.raises(PromptError, match="has no MLPs"):
        self_repair(model_of(attn_only=True), pairs, part="mlp")
