"""A weight that is no number stops everything that runs a model, with the weight's name: fused attention can lose a NaN. A sum
that overflows on the way is seen behind every activation."""

import math
import random
import re
from collections.abc import Callable
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

import circuits
from circuits.errors import NonFiniteError
from circuits.heads import composition_scores
from circuits.heads.dynamics import token_losses
from circuits.models import Model
from circuits.models.layers import activate
from circuits.models.weights import Activation, all_finite
from circuits.tasks import PromptPairs, metrics
from circuits.tasks.behavioural.likelihood import read_next_tokens, token_log_probabilities
from tests.models.native import native_bridge
from tests.models.overflow import with_overflow

EDGE, PATH = "a0.h0->a1.h0<k>", ["a0.h0", "a1.h0<k>", "logits"]
metric = metrics.logit_difference


def model_and_pairs(seed: int) -> tuple[Model, PromptPairs]:
    """Two layers of heads and MLPs, and pairs of prompts for them."""
    rng, size = random.Random(seed), 40
    clean, corrupt = ([[rng.randrange(1, size) for _ in range(5)] for _ in range(3)] for _ in range(2))
    answers, distractors = [1, 2, 3], [4, 5, 6]
    pairs = PromptPairs.from_tokens(size, clean=clean, corrupt=corrupt, answers=answers, distractors=distractors)
    return Model.from_bridge(native_bridge(seed, d_vocab=size, n_ctx=32, n_heads=2)), pairs


ENTRIES: dict[str, Callable[[Model, PromptPairs], object]] = {
    "run": lambda model, pairs: model.run(pairs.clean),
    "patch_nodes": lambda model, pairs: circuits.patch_nodes(model, pairs, metric),
    "patch_edges": lambda model, pairs: circuits.patch_edges(model, pairs, metric, [EDGE]),
    "patch_path": lambda model, pairs: circuits.patch_path(model, pairs, metric, PATH),
    "ablate": lambda model, pairs: circuits.ablate(model, pairs, metric, ["a1.h0"]),
    "attribute_edges": lambda model, pairs: circuits.attribute_edges(model, pairs, metric),
    "attribute_neurons": lambda model, pairs: circuits.attribute_edges(model, pairs, metric, neurons=True),
    "acdc": lambda model, pairs: circuits.acdc(model, pairs, metric),
    "score_heads": lambda model, pairs: circuits.score_heads(model, sequences=2, length=6, copies=2),
    "composition": lambda model, pairs: composition_scores(model),
    "logit_lens": lambda model, pairs: circuits.logit_lens(model, pairs.clean),
    "logits": lambda model, pairs: circuits.logits(model, pairs),
    "find_triggers": lambda model, pairs: circuits.find_triggers(model, pairs.clean),
    "sub_updates": lambda model, pairs: circuits.sub_updates(model, pairs.clean.ids[0]),
    "clamp": lambda model, pairs: circuits.clamp(model, pairs.clean.ids[0], {"m0.n0": 1.0}),
    "train_tuned_lens": lambda model, pairs: circuits.train_tuned_lens(model, pairs.clean, steps=1),
    "tables": lambda model, pairs: circuits.tables(model),
    "attention": lambda model, pairs: circuits.attention(model, pairs.clean),
    "order_of_terms": lambda model, pairs: circuits.order_of_terms(model, pairs.clean),
    "remove_layers": lambda model, pairs: circuits.remove_layers(model, pairs.clean),
    "compress_heads": lambda model, pairs: circuits.compress_heads(model, pairs.clean),
    "token_losses": lambda model, pairs: token_losses(model, pairs.clean),
    "log_probabilities": lambda model, pairs: token_log_probabilities(model, pairs.clean.ids.tolist()),
    "next_logits": lambda model, pairs: list(read_next_tokens(model, pairs.clean.ids.tolist(), lambda batch, logits: None)),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_broken_weight_is_named_by_everything_that_runs_a_model(name: str) -> None:
    model, pairs = model_and_pairs(0)
    ENTRIES[name](model, pairs)
    labels = [label for label, _ in model.weights.tensors()]
    for place, label in enumerate(random.Random(name).sample(labels, 6)):
        model, pairs = model_and_pairs(0)
        weight = dict(model.weights.tensors())[label]
        weight[(-1,) * weight.ndim] = math.inf if place % 2 else math.nan
        with pytest.raises(NonFiniteError, match=f"the weight {re.escape(label)} of native holds NaN or infinity"):
            ENTRIES[name](model, pairs)


@pytest.mark.parametrize("kind", get_args(Activation))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [1, 33])  # kernels take whole vectors and what is left over in different ways
def test_no_activation_makes_a_number_of_an_overflow(kind: Activation, dtype: torch.dtype, width: int) -> None:
    for value in (math.inf, -math.inf, math.nan):
        x = torch.full((2, width), value, dtype=dtype)
        if kind == "relu" and dtype == torch.float16 and value == -math.inf:
            assert (activate(x, kind) == 0).all(), "a true number, lower than float16 holds"
        else:
            assert not activate(x, kind).isfinite().any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_relu_is_relu_for_every_number_and_so_is_its_gradient(dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    edges = torch.tensor([0.0, -0.0, limits.max, limits.min, limits.tiny, -limits.tiny], dtype=dtype)
    x = torch.cat([edges, torch.randn(500, generator=torch.Generator().manual_seed(0)).to(dtype)]).requires_grad_()
    ours, plain = activate(x, "relu"), F.relu(x)
    assert torch.equal(ours, plain) and not ours[x < 0].signbit().any()
    assert torch.equal(torch.autograd.grad(ours.sum(), x)[0], torch.autograd.grad(plain.sum(), x)[0])


READERS = ("patch_nodes", "patch_edges", "attribute_edges", "acdc", "clamp", "find_triggers")


@pytest.mark.parametrize("name", READERS)
def test_an_overflow_that_relu_would_swallow_is_named(name: str) -> None:
    model, pairs = model_and_pairs(0)
    broken = with_overflow(model, 0, 2, part="W_in", activation="relu", sign=-1)
    with pytest.raises(NonFiniteError):
        ENTRIES[name](broken, pairs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_entry_that_is_no_number_is_seen_wherever_it_stands(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    whole = torch.full((3, 70), largest, dtype=dtype)
    assert all_finite(whole) and all_finite(-whole.T) and all_finite(whole[:0]), "sums of these overflow, entries do not"
    for wrong in (math.nan, math.inf, -math.inf):
        for place in (0, 1, 41, 209):
            broken = whole.flatten().clone()
            broken[place] = wrong
            assert not all_finite(broken.reshape(3, 70)) and not all_finite(broken.reshape(70, 3).T)
