"""Attributions of tokens: exact where the model is linear, and a penalty of them reaches every weight."""

import dataclasses

import pytest
import torch

import circuits
from circuits.models import TokenBatch
from circuits.models.forward import forward
from circuits.models.weights import Weights
from circuits.uses import Classifier
from circuits.uses.attributing.gradients import baseline_stream, input_gradients


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Of a classifier on mini's first two layers, in float64, with a drawn head."""
    mini = circuits.load_model("mini", dtype=torch.float64)
    base = dataclasses.replace(mini, weights=mini.weights.of_layers(0, 2), make_bridge=None)
    generator = torch.Generator().manual_seed(0)
    head = {"W_U": torch.randn(256, 3, generator=generator).double(), "b_U": torch.randn(3, generator=generator).double()}
    return Classifier.on(base, ["a", "b", "c"]).with_tensors(head, tuned=False, training={}).model.weights


TOKENS = TokenBatch.from_rows([[0, 5, 9, 33], [0, 70, 8], [0, 900, 31, 12]])
LABELS = torch.tensor([0, 2, 1])


def margin(weights: Weights, tokens: TokenBatch) -> torch.Tensor:
    logits = forward(weights, tokens).logits[torch.arange(len(tokens)), tokens.last]
    others = torch.stack([logits[row, [place for place in range(3) if place != label]] for row, label in enumerate(LABELS)])
    return logits[torch.arange(len(tokens)), LABELS] - others.mean(dim=1)


@pytest.mark.parametrize("baseline", ["zero", "mean"])
def test_input_gradients_sum_to_the_derivative_towards_the_baseline(weights: Weights, baseline: str) -> None:
    found = input_gradients(weights, TOKENS, LABELS, baseline=baseline)
    step, mean = 1e-5, weights.W_E.mean(dim=0) if baseline == "mean" else torch.zeros(256, dtype=torch.float64)
    changes = []
    for way in (step, -step):
        moved = weights.with_tensors({"W_E": weights.W_E + way * (weights.W_E - mean)})
        changes.append(margin(moved, TOKENS))
    torch.testing.assert_close(found.sum(dim=1), (changes[0] - changes[1]) / (2 * step), rtol=1e-6, atol=1e-8)
    assert float(found[1, 3]) == 0, "a pad"
    alone = input_gradients(weights, TOKENS[[1]], LABELS[1:2], baseline=baseline)
    torch.testing.assert_close(found[1, :3], alone[0, :3])


def test_the_baseline_keeps_positions(weights: Weights) -> None:
    wide = dataclasses.replace(weights, W_pos=torch.randn(8, 256, dtype=torch.float64))
    stream = baseline_stream(wide, TOKENS, "zero")
    assert wide.W_pos is not None
    torch.testing.assert_close(stream[0], wide.W_pos[:4])


def test_the_gradient_of_a_penalty_reaches_every_weight(weights: Weights) -> None:
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in weights.tensors() if not name.endswith("frequencies")}

    def penalty(tensors: dict[str, torch.Tensor], graph: bool) -> torch.Tensor:
        found = input_gradients(weights.with_tensors(tensors), TOKENS, LABELS, graph=graph)
        return (found - 0.1 * TOKENS.ids).square().mean()

    several = torch.autograd.grad(penalty(leaves, True), list(leaves.values()), allow_unused=True, materialize_grads=True)
    gradients = dict(zip(leaves, several, strict=True))
    generator = torch.Generator().manual_seed(1)
    for name, leaf in leaves.items():
        way = torch.randn(leaf.shape, generator=generator, dtype=torch.float64) * leaf.detach().std()
        if name == "W_E":  # the tokens that are there
            way = way * torch.zeros(len(way), 1, dtype=torch.float64).index_fill_(0, TOKENS.ids.flatten(), 1)
        step = 1e-4
        values = [penalty({**leaves, name: (leaf + sign * step * way).detach()}, False) for sign in (2, 1, -1, -2)]
        slow = (-values[0] + 8 * values[1] - 8 * values[2] + values[3]) / (12 * step)
        fast = (gradients[name] * way).sum()
        if name in ("b_U", "final_norm.bias"):  # what is added to a margin changes no slope of it: rounding is left
            assert float(fast) == 0 and abs(float(slow)) < 1e-8, name
        else:
            largest = 1e-3 * float(gradients[name].norm() * way.norm())
            assert largest > 0 and abs(float(fast - slow)) <= 1e-6 * max(abs(float(slow)), largest), name
