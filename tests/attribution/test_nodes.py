"""Node attribution: what leaves a node by all its edges, and the rules of relevance propagation."""

import pytest
import torch

import circuits
from circuits import metrics
from circuits.attribution import attribute_edges, attribute_nodes
from circuits.attribution.gradients import gradients
from circuits.attribution.relevance import relevance
from circuits.patching import patch_nodes
from circuits.patching.engine.reading import Reading
from circuits.tasks import fact_pairs, mini_facts
from tests.models import bundled
from tests.patching.test_sweeps import difference_of, random_case


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("method", ["eap", "eap-ig", "relp"])
def test_a_node_is_worth_what_all_its_edges_are(seed: int, method) -> None:
    _, _, _, model, pairs = random_case(seed, plain=True)
    options = {"steps": 2} if method == "eap-ig" else {}
    nodes = attribute_nodes(model, pairs, metrics.log_probability, method=method, **options)
    edges = attribute_edges(model, pairs, metrics.log_probability, method=method, **options)
    sums = torch.zeros(model.graph().writer_count, dtype=torch.float64).index_add_(0, edges.writers, edges.values)
    found = (nodes.scores - nodes.clean).mean(dim=1)
    assert float((found - sums).abs().max()) <= 1e-9 * max(1.0, float(sums.abs().max()))


@pytest.mark.parametrize("seed", range(20))
def test_neurons_add_up_to_their_mlp(seed: int) -> None:
    _, _, _, model, pairs = random_case(seed)
    whole, single = (attribute_nodes(model, pairs, difference_of, method="eap", neurons=one) for one in (False, True))
    for layer in range(model.n_layers if model.d_mlp else 0):
        parts = [row for row, name in enumerate(single.names) if name.startswith(f"m{layer}.n")]
        total = (single.scores[parts] - single.clean).sum(dim=0)
        assert torch.allclose(total, whole.scores[whole.names.index(f"m{layer}")] - whole.clean, atol=1e-9)


@pytest.mark.parametrize("seed", range(30))
def test_relevance_leaves_the_values_alone(seed: int) -> None:
    _, _, _, model, pairs = random_case(seed)
    ruled = relevance(model, Reading.of(difference_of, pairs), pairs.clean)
    plain = gradients(model, Reading.of(difference_of, pairs), pairs.clean)
    assert torch.allclose(ruled.scores, plain.scores, atol=1e-9)
    assert torch.allclose(ruled.run.residuals[-1], plain.run.residuals[-1], atol=1e-9)
    assert all(float(part.abs().max()) == 0.0 for part in (*ruled.q, *ruled.k))


def test_where_nothing_bends_the_rules_change_nothing() -> None:
    """A model without norms whose MLPs are linear where they act: relevance is the gradient with patterns held."""
    for seed in range(300):
        shape, _, model, pairs = random_case(seed, plain=True)[1:]
        if shape.norm is None and not shape.embedding_norm and shape.logit_cap is None and not model.d_mlp:
            break
    ruled = relevance(model, Reading.of(difference_of, pairs), pairs.clean)
    total = (model.run(pairs.corrupt).residuals[0] - model.run(pairs.clean).residuals[0]) * ruled.input
    patterns = [model.run(pairs.clean).pattern(layer) for layer in range(model.n_layers)]
    start = circuits.Edit("input", model.run(pairs.corrupt).residuals[0])
    moved = model.run(pairs.clean, edits=[start], patterns=patterns)
    change = difference_of(metrics.answer_logits(moved, pairs), pairs) - ruled.scores
    real = pairs.clean.mask[..., None]
    assert torch.allclose((total * real).sum(dim=(1, 2)), change, atol=1e-9)


def test_estimates_follow_exact_patches_on_mini() -> None:
    model = bundled.mini()
    pairs = fact_pairs(model, mini_facts(), count=8)
    exact = patch_nodes(model, pairs, difference_of, direction="noising")
    for method, kind in (("eap-ig", "a"), ("eap-ig", "m"), ("relp", "m")):
        found = attribute_nodes(model, pairs, difference_of, method=method)
        names = [name for name in exact.names if name.startswith(kind)]
        both = [effects.effect()[[effects.names.index(name) for name in names]] for effects in (exact, found)]
        assert float(torch.corrcoef(torch.stack(both))[0, 1]) > 0.95, (method, kind)
