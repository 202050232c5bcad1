"""The jobs that `patching.py` times: ours, the same work one forward a patch, and the operations that nobody can avoid."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from circuits.models import Edit, Model, Run, TokenBatch
from circuits.models.layers import embed
from circuits.patching.engine.base import Base
from circuits.patching.engine.reading import Reading
from circuits.patching.engine.sweep import Sweep
from circuits.patching.tracing.causal import Cells, TraceKind
from circuits.tasks import PromptPairs

DRAWS, TOKENS, SUBJECT, WINDOW = 10, 20, (4, 8), 10
"""Causal tracing as in the issue: 20 tokens, the subject at tokens 4 to 7, ten draws, windows of ten layers."""


@dataclasses.dataclass(frozen=True, eq=False)
class Tracing:
    """One prompt of random tokens, its clean and its corrupted runs."""

    model: Model
    ids: Tensor
    corrupted_input: Tensor
    clean: Run
    corrupted: Run

    @classmethod
    def of(cls, model: Model, *, tokens: int = TOKENS, draws: int = DRAWS) -> "Tracing":
        """Random tokens, and noise on the subject's embeddings."""
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, model.d_vocab, (1, tokens), generator=generator).to(model.device)
        noise = torch.zeros(draws, tokens, model.d_model, dtype=model.dtype)
        drawn = torch.randn(draws, SUBJECT[1] - SUBJECT[0], model.d_model, generator=generator)
        noise[:, SUBJECT[0] : SUBJECT[1]] = drawn.to(model.dtype) * 3 * float(model.weights.W_E.std())
        rows = TokenBatch.unpadded(ids.expand(draws, -1))
        value = embed(model.weights, rows, noise.to(model.device))
        return cls(model, ids, value, model.run(ids), model.run(rows, edits=[Edit("input", value)]))

    @property
    def answer(self) -> int:
        """The clean run's top token."""
        return int(self.clean.logits[0, -1].argmax())

    def sweep(self) -> Sweep:
        """The corrupted runs, read at the last token."""
        columns = torch.full((len(self.corrupted.tokens), 1), self.ids.shape[1] - 1, device=self.model.device)
        return Sweep(self.model, self.corrupted, Reading(columns, self.probability))

    def probability(self, logits: Tensor) -> Tensor:
        """The answer's probability at the read position."""
        return logits[:, 0].float().softmax(dim=-1)[:, self.answer]

    def ours(self, kind: TraceKind) -> Tensor:
        """Probability of every cell and draw, `[token·layer draw]`."""
        sweep = self.sweep()
        made = Cells(Base(self.model, self.clean), sweep.base, SUBJECT[0], WINDOW)
        every = [(token, layer) for token in range(self.ids.shape[1]) for layer in range(self.model.n_layers)]
        return sweep.evaluate([made.variant(kind, token, layer) for token, layer in every])

    def floor(self, kind: TraceKind) -> float:
        """Operations of the matrix products that every exact method has to do, given both runs: positions from the patched
        one on, layers after the patch, windows that begin alike computed once, one position in the last layer."""
        n, width, draws = self.model.n_layers, self.ids.shape[1], len(self.corrupted.tokens)
        whole, keys, rest = layer_operations(self.model)
        total = 0.0
        for token in range(SUBJECT[0], width):
            after = width - token
            for layer in _layers_run(kind, n):
                total += draws * (after * whole if layer < n - 1 else after * keys + rest)
        reads = len(range(SUBJECT[0], width)) * n * draws
        return total + 2 * self.model.weights.W_U.numel() * reads


def _layers_run(kind: TraceKind, n: int) -> list[int]:
    """The layers that the cells of one token have to run, one entry a run."""
    if kind == "states":
        return [later for layer in range(n) for later in range(layer + 1, n)]
    windows = [(max(0, layer - WINDOW // 2), min(n, layer + WINDOW // 2)) for layer in range(n)]
    run: list[int] = []
    for start in sorted({start for start, _ in windows}):
        stops = [stop for first, stop in windows if first == start]
        for layer in range(start + 1, n):
            run += [layer] * (1 + sum(stop < layer for stop in stops) - (max(stops) < layer))
    return run


def layer_operations(model: Model) -> tuple[float, float, float]:
    """Operations a token of one layer; of its keys and values alone; and of all else."""
    block = model.weights.blocks[0]
    attention, mlp = block.attention, block.mlp
    keys = 2.0 * (attention.W_K.numel() + attention.W_V.numel())
    rest = 2.0 * (attention.W_Q.numel() + attention.W_O.numel() + (0 if mlp is None else 2 * mlp.W_in.numel()))
    return keys + rest, keys, rest


class RomeLoop:
    """ROME's loop: a full forward of the Hugging Face model for every cell, with hooks that put clean values in place."""

    def __init__(self, original: Any, tracing: Tracing) -> None:
        self.original, self.tracing = original, tracing
        self.blocks = original.transformer.h
        clean = tracing.clean
        base = Base(tracing.model, clean)
        self.values = {
            "states": [clean.residuals[layer + 1] for layer in range(len(self.blocks))],
            "mlp": [base.mlp(layer) for layer in range(len(self.blocks))],
            "attention": [base.attention(layer) for layer in range(len(self.blocks))],
        }

    def cell(self, kind: Literal["states", "mlp", "attention"], token: int, layer: int) -> Tensor:
        """Probability of the answer in each corrupted row of one cell; row 0 of the batch is clean, as in the original."""
        n = len(self.blocks)
        layers = [layer] if kind == "states" else range(max(0, layer - WINDOW // 2), min(n, layer + WINDOW // 2))
        places = {"states": lambda block: block, "mlp": lambda block: block.mlp, "attention": lambda block: block.attn}
        handles = [self.original.transformer.drop.register_forward_hook(self._corrupt)]
        for inside in layers:
            hook = self._restore(self.values[kind][inside], token)
            handles.append(places[kind](self.blocks[inside]).register_forward_hook(hook))
        try:
            ids = self.tracing.ids.expand(1 + len(self.tracing.corrupted.tokens), -1)
            logits = self.original(ids, use_cache=False).logits
        finally:
            for handle in handles:
                handle.remove()
        return logits[1:, -1].float().softmax(dim=-1)[:, self.tracing.answer]

    def _corrupt(self, module: Any, inputs: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output[1:] = self.tracing.corrupted_input
        return output

    @staticmethod
    def _restore(value: Tensor, token: int) -> Callable[..., Any]:
        def hook(module: Any, inputs: Any, output: Any) -> Any:
            tensor = (output[0] if isinstance(output, tuple) else output).clone()
            tensor[1:, token] = value[0, token]
            return (tensor, *output[1:]) if isinstance(output, tuple) else tensor

        return hook


def random_pairs(model: Model, prompts: int, tokens: int, shared: int) -> PromptPairs:
    """Prompts of random tokens whose corrupt ones differ from position `shared` on."""
    generator = torch.Generator().manual_seed(2)
    clean = torch.randint(0, model.d_vocab, (prompts, tokens), generator=generator)
    corrupt = clean.clone()
    corrupt[:, shared] = (clean[:, shared] + 1) % model.d_vocab
    answers = torch.randint(0, model.d_vocab - 1, (prompts,), generator=generator).tolist()
    distractors = [answer + 1 for answer in answers]
    rows = clean.tolist(), corrupt.tolist()
    return PromptPairs.from_tokens(model, clean=rows[0], corrupt=rows[1], answers=answers, distractors=distractors)


def head_by_head(model: Model, pairs: PromptPairs, other: Run, heads: Sequence[tuple[int, int]]) -> Tensor:
    """The logit difference with each head taken from the other run: one forward of the same model a head."""
    rows = torch.arange(len(pairs), device=model.device)
    scores = []
    for layer, head in heads:
        edits = [Edit(f"a{layer}.h{head}", other.z[layer][:, :, head])]
        logits = model.run(pairs.corrupt, edits=edits, keep="logits").logits[rows, pairs.answer_columns]
        scores.append(logits[rows, pairs.answers] - logits[rows, pairs.distractors])
    return torch.stack(scores)


def heads_floor(model: Model, pairs: PromptPairs) -> float:
    """Operations of a sweep over all heads from the first differing position on: a head's output projection and the MLP of
    its own layer, whole layers after it, one position in the last, and two unembedding columns."""
    whole, keys, rest = layer_operations(model)
    block, n, tokens = model.weights.blocks[0], model.n_layers, pairs.clean.ids.shape[1]
    first = int((pairs.clean.ids != pairs.corrupt.ids).any(dim=0).nonzero()[0])
    after, mlp = tokens - first, 0.0 if block.mlp is None else 4.0 * block.mlp.W_in.numel()
    total = 0.0
    for layer in range(n):
        own = (after if layer < n - 1 else 1) * (mlp + 2.0 * model.d_head * model.d_model)
        later = max(0, n - 2 - layer) * after * whole + (after * keys + rest if layer < n - 1 else 0)
        total += model.n_heads * len(pairs) * (own + later + 4.0 * model.d_model)
    return total
