"""The logit lens against the Hugging Face models' own hidden states, and against dense arithmetic on random models."""

import dataclasses
import math
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import circuits
from circuits.errors import GraphError, MemoryBudgetError, NonFiniteError, PromptError
from circuits.lenses import Lens, logit_lens
from circuits.lenses.lens import NUMBERS
from circuits.lenses.streaming import HELD, Blocks
from circuits.models import Model, TokenBatch, load_model, node_output
from circuits.models.weights import Norm, Weights
from tests.models import checkpoints
from tests.models.native import native_bridge
from tests.models.random_models import D_VOCAB, random_shape, random_weights, record_of


def random_model(seed: int) -> tuple[Model, TokenBatch]:
    """A model of any kind, and prompts of unequal length."""
    rng = random.Random(seed)
    shape = random_shape(rng)
    model = Model("random", "random", record_of(shape, random_weights(shape, rng)), None)
    rows = [[rng.randrange(D_VOCAB) for _ in range(length)] for length in (5, 3, 6)]
    return model, TokenBatch.from_rows(rows)


def normed(x: Tensor, norm: Norm | None, scaled_by: Tensor | None = None) -> Tensor:
    """A norm, word by word; with the scale of another vector it is linear and has no bias."""
    if norm is None:
        return x
    like = x if scaled_by is None else scaled_by
    if norm.kind == "layer":
        x, like = x - x.mean(), like - like.mean()
    x = x / math.sqrt(float(like.square().mean()) + norm.eps)
    x = x if norm.weight is None else x * norm.weight
    return x if norm.bias is None or scaled_by is not None else x + norm.bias


def dense(weights: Weights, x: Tensor, frozen_by: Tensor | None = None) -> Tensor:
    """The logits of one vector."""
    logits = normed(x, weights.final_norm, frozen_by) @ weights.W_U
    if frozen_by is not None:
        return logits
    logits = logits if weights.b_U is None else logits + weights.b_U
    cap = weights.logit_soft_cap
    return logits if cap is None else cap * (logits / cap).tanh()


def check_cell(lens: Lens, row: int, prompt: int, column: int, logits: Tensor, final: Tensor, following: int | None) -> None:
    """Every number of one cell against its definition."""
    p, log_p = logits.softmax(-1), logits.log_softmax(-1)
    target, at = int(lens.targets[prompt, column]), (row, prompt, column)
    order = sorted(range(len(logits)), key=lambda token: (-round(float(logits[token]), 11), token))
    expected = {
        "entropy": -float((p * log_p).sum()),
        "divergence": float((final.softmax(-1) * (final.log_softmax(-1) - log_p)).sum()),
        "cross_entropy": 0.0 if following is None else -float(log_p[following]),
        "probability": float(p[target]),
        "logit": float(logits[target]),
        "rank": order.index(target),
    }
    for name, value in expected.items():
        assert float(getattr(lens, name)[at]) == pytest.approx(value, abs=1e-9), (name, at)
    assert lens.top_ids[at].tolist() == order[: lens.top_ids.shape[3]]
    assert lens.top_probabilities[at].tolist() == pytest.approx(p[lens.top_ids[at]].tolist(), abs=1e-9)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "gpt-neox", "olmo2"])
def test_it_reads_the_originals_hidden_states(name: str, tmp_path: Path) -> None:
    folder = checkpoints.save(checkpoints.build(*checkpoints.RECIPES[name]), tmp_path / "model")
    model, reference = load_model(folder, dtype=torch.float64), checkpoints.original(folder)
    ids = torch.randint(0, 257, (2, 9), generator=torch.Generator().manual_seed(3))
    with torch.no_grad(), checkpoints.without_downcasts():
        found = reference(ids, output_hidden_states=True)
        inside = reference.transformer if name == "gpt2" else getattr(reference, "gpt_neox", None) or reference.model
        norm = next(getattr(inside, part) for part in ("ln_f", "final_layer_norm", "norm") if hasattr(inside, part))
        streams = [norm(x) for x in found.hidden_states[:-1]] + [found.hidden_states[-1]]
        head = reference.embed_out if hasattr(reference, "embed_out") else reference.lm_head
        layers = [head(x) for x in streams]
        if name == "gemma2":
            cap = reference.config.final_logit_softcapping
            layers = [cap * torch.tanh(logits / cap) for logits in layers]
    assert (layers[-1] - found.logits).abs().max() <= 1e-9, "the reading by hand is the original's own at last"
    lens = logit_lens(model, ids, sites="residual", top=7)
    assert lens.rows == ("resid0", "resid1", "resid2")
    for row, logits in enumerate(layers):
        for prompt in range(2):
            for column in range(9):
                following = int(ids[prompt, column + 1]) if column < 8 else None
                cell = logits[prompt, column], found.logits[prompt, column]
                check_cell(lens, row, prompt, column, *cell, following)


@pytest.mark.parametrize("seed", range(10))
def test_every_number_equals_dense_arithmetic(seed: int) -> None:
    model, batch = random_model(seed)
    weights, run = model.weights, model.run(batch)
    whole = ["input", *(f"a{layer}.h{head}" for layer in range(model.n_layers) for head in range(model.n_heads))]
    neurons = ["m0.n1", "m0.n2+a0.h0"] if model.d_mlp else ["input+a0.h0"]
    answers = torch.tensor([3, 0, 11]) if seed % 2 else None
    lens = logit_lens(model, batch, nodes=[*whole, whole[:2], *neurons], answers=answers, top=4)
    for row, (name, kind) in enumerate(zip(lens.rows, lens.kinds, strict=True)):
        layer = int(name.removeprefix("resid").removeprefix("mid")) if kind != "nodes" else 0
        for prompt in range(3):
            ids = batch.ids[prompt][batch.mask[prompt]].tolist()
            for column, _ in enumerate(ids):
                last = run.residuals[-1][prompt, column]
                if kind == "nodes":
                    x = sum(node_output(run, node)[prompt, column] for node in name.split("+"))
                    assert isinstance(x, Tensor)
                    logits = dense(weights, x, last)
                else:
                    stream = run.residuals[layer] if kind == "residual" else run.middles[layer]
                    logits = dense(weights, stream[prompt, column])
                end = None if answers is None else int(answers[prompt])
                following = ids[column + 1] if column + 1 < len(ids) else end
                check_cell(lens, row, prompt, column, logits, dense(weights, last), following)
                target = following if following is not None else int(dense(weights, last).argmax())
                assert int(lens.targets[prompt, column]) == (target if end is None else end)


@pytest.mark.parametrize("seed", range(8))
def test_what_nodes_write_adds_up_to_the_logits(seed: int) -> None:
    model, batch = random_model(seed)
    model = dataclasses.replace(model, weights=dataclasses.replace(model.weights, logit_soft_cap=None))
    run = model.run(batch)
    names = [str(node) for node in model.graph().nodes() if node.kind != "logits"]
    lens = logit_lens(model, batch, sites="residual", nodes=["+".join(names)], answers=torch.tensor([1, 2, 3]))
    biases = torch.stack([circuits.models.attention_bias(run, layer) for layer in range(model.n_layers)]).sum(dim=0)
    for prompt, answer in enumerate((1, 2, 3)):
        for column in batch.mask[prompt].nonzero()[:, 0].tolist():
            weights, last = model.weights, run.residuals[-1][prompt, column]
            rest = float(dense(weights, biases[prompt, column], last)[answer])
            rest += 0.0 if weights.b_U is None else float(weights.b_U[answer])
            if weights.final_norm is not None and weights.final_norm.bias is not None:
                rest += float(weights.final_norm.bias @ weights.W_U[:, answer])
            assert float(lens.logit[-1, prompt, column]) + rest == pytest.approx(
                float(run.logits[prompt, column, answer]), abs=1e-9
            )


def test_the_models_own_output_diverges_by_nothing_and_prediction_depth_is_the_first_settled_layer() -> None:
    for seed in range(6):
        model, batch = random_model(seed)
        lens = logit_lens(model, batch, sites="residual")
        assert float(lens.divergence[-1].abs().max()) == 0.0
        for prompt in range(3):
            for column in lens.columns(prompt):
                tops = lens.top_ids[:, prompt, column, 0].tolist()
                settled = next(layer for layer in range(len(tops)) if set(tops[layer:]) == {tops[-1]})
                assert int(lens.depths[prompt, column]) == settled
    assert logit_lens(model, batch, sites=[], nodes=["input"]).depths.abs().max() == 0


def numbers(lens: Lens) -> list[Tensor]:
    names = (*NUMBERS, "top_ids", "top_probabilities", "depths", "targets")
    return [getattr(lens, name).double() for name in names]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("left", [False, True])
def test_pads_change_nothing_and_hold_nothing(seed: int, left: bool) -> None:
    model, batch = random_model(seed)
    pads = torch.zeros(3, 1 + seed % 3, dtype=torch.long)
    parts = ([pads, batch.ids], [pads.bool(), batch.mask]) if left else ([batch.ids, pads], [batch.mask, pads.bool()])
    padded = TokenBatch(torch.cat(parts[0], dim=1), torch.cat(parts[1], dim=1))
    nodes = ["a0.h0"]
    plain, wider = logit_lens(model, batch, nodes=nodes), logit_lens(model, padded, nodes=nodes)
    for one, other, name in zip(numbers(plain), numbers(wider), (*NUMBERS, "top_ids"), strict=False):
        assert (one[:, batch.mask] - other[:, padded.mask]).abs().max() <= 1e-10, name
        assert float(other[:, ~padded.mask].abs().max()) == 0.0, name
    assert torch.equal(plain.depths[batch.mask], wider.depths[padded.mask])
    assert len(plain.to_dataframe()) == len(wider.to_dataframe()) == 14 * len(plain.rows)
    alone = logit_lens(model, batch.ids[1:2, :3], nodes=nodes)
    assert (alone.divergence[:, 0] - plain.divergence[:, 1, :3]).abs().max() <= 1e-10


def test_the_size_of_blocks_changes_nothing() -> None:
    noise = torch.Generator().manual_seed(0)
    model = wide_model(noise)
    ids = torch.randint(0, 300, (3, 9), generator=noise)
    usual = logit_lens(model, ids, nodes=["a0.h0", "m0"], top=70, answers=torch.tensor([5, 250, 299]))
    for tokens in (70, 71, 128, 300, 1200):
        blocks = Blocks.within(HELD * 8 * tokens, 27, 300, 70, torch.float64)
        assert blocks.tokens <= tokens and blocks.positions * blocks.tokens <= tokens
        many = {"nodes": ["a0.h0", "m0"], "top": 70, "answers": torch.tensor([5, 250, 299])}
        other = logit_lens(model, ids, budget=max(HELD * 8 * tokens, 3 * 9 * 8 * 8), **many)
        for one, two in zip(numbers(usual), numbers(other), strict=True):
            assert (one - two).abs().max() <= 1e-10, tokens


def wide_model(noise: torch.Generator) -> Model:
    """A random model whose vocabulary takes several blocks."""
    model = Model.from_bridge(native_bridge(1, d_vocab=300))
    W_U = torch.randn(8, 300, generator=noise, dtype=torch.float64)
    return dataclasses.replace(model, weights=dataclasses.replace(model.weights, W_U=W_U))


def test_of_equal_tokens_the_earlier_comes_first() -> None:
    noise = torch.Generator().manual_seed(1)
    model = wide_model(noise)
    half = torch.zeros(8, 150, dtype=torch.float64)  # one power of two a column: sums that no order of adding changes
    half[torch.arange(150) % 8, torch.arange(150)] = 2.0 ** -(torch.arange(150).double() // 8)
    model = dataclasses.replace(model, weights=dataclasses.replace(model.weights, W_U=torch.cat([half, half], 1), b_U=None))
    ids = torch.randint(0, 300, (1, 6), generator=noise)
    for budget in (2**20, HELD * 8 * 75):
        lens = logit_lens(model, ids, top=10, answers=torch.tensor([200]), budget=budget)
        below = logit_lens(model, ids, top=10, answers=torch.tensor([50]), budget=budget)
        pairs = lens.top_ids.unflatten(-1, (5, 2))
        assert torch.equal(pairs[..., 0] + 150, pairs[..., 1]), "each token and then its copy"
        assert torch.equal(lens.rank, below.rank + 1), "the copy is just behind"


class Largest(TorchDispatchMode):
    """The most bytes of any tensor of so many columns that is made."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.bytes = least, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.ndim == 2 and out.shape[1] >= self.least and out.shape[0] != 8:  # no view of W_U
            self.bytes = max(self.bytes, out.numel() * out.element_size())
        return out


def test_no_more_logits_are_held_than_allowed() -> None:
    noise = torch.Generator().manual_seed(2)
    model = wide_model(noise)
    ids = torch.randint(0, 300, (2, 9), generator=noise)
    with Largest(64) as whole:
        logit_lens(model, ids)
    assert whole.bytes == 18 * 300 * 8
    for budget in (HELD * 8 * 64, HELD * 8 * 100, HELD * 8 * 400):
        with Largest(64) as held:
            logit_lens(model, ids, budget=budget)
        assert 0 < held.bytes <= budget / HELD
    with pytest.raises(MemoryBudgetError, match="give budget=3072"):
        logit_lens(model, ids, budget=1000)
    with pytest.raises(MemoryBudgetError, match="fewer nodes at a time"):
        logit_lens(model, ids, budget=4000, nodes=[f"m0.n{neuron}" for neuron in range(6)])


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"sites": "attention"}, GraphError, "'attention'"),
        ({"sites": ["resid3"]}, GraphError, "no resid3"),
        ({"sites": ["mid2"]}, GraphError, "no mid2"),
        ({"sites": []}, GraphError, "nothing to read"),
        ({"nodes": ["a9.h0"]}, GraphError, r"a9\.h0"),
        ({"nodes": ["m0.n6"]}, GraphError, r"m0\.n6"),
        ({"nodes": ["logits"]}, GraphError, "what feeds them"),
        ({"nodes": ["a0.h0+a0.h0"]}, GraphError, "twice"),
        ({"nodes": [["m0", "m0.n1"]]}, GraphError, "part of m0"),
        ({"nodes": [[]]}, GraphError, "empty"),
        ({"top": 0}, PromptError, "top is 0"),
        ({"answers": torch.tensor([1])}, PromptError, "1 answers for 2 prompts"),
        ({"answers": torch.tensor([1, 300])}, PromptError, "outside the vocabulary"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(options: dict, error: type[Exception], words: str) -> None:
    model = wide_model(torch.Generator().manual_seed(0))
    with pytest.raises(error, match=words):
        logit_lens(model, torch.tensor([[1, 2, 3], [4, 5, 6]]), **options)


def test_a_stream_that_is_not_finite_is_named() -> None:
    model = wide_model(torch.Generator().manual_seed(0))
    embedding = model.weights.W_E.clone()
    embedding[7] = torch.finfo(embedding.dtype).max  # scaled, it is too large a number
    broken = dataclasses.replace(model, weights=dataclasses.replace(model.weights, W_E=embedding, embedding_scale=2.0))
    with pytest.raises(NonFiniteError, match="resid0 holds NaN or infinity at prompt 1, position 2"):
        logit_lens(broken, torch.tensor([[1, 2, 3], [4, 5, 7]]))
    unembedding = model.weights.W_U.clone()
    unembedding[0, 4] = torch.inf
    broken = dataclasses.replace(model, weights=dataclasses.replace(model.weights, W_U=unembedding))
    with pytest.raises(NonFiniteError, match="the weight W_U"):
        logit_lens(broken, torch.tensor([[1, 2, 3]]))
