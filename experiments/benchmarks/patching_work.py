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
        answers = torch.full_like(columns, self.answer)
        return Sweep(self.model, self.corrupted, Reading(columns, lambda told: told[:, 0, 0].exp(), answers, normalised=True))

    def ours(self, kind: TraceKind) -> Tensor:
        """Probability of every cell and draw, `[token·layer draw]`."""
        sweep = self.sweep()
        made = Cells(Base(self.model, self.clean), sweep.base, SUBJECT[0], WINDOW)
        every = [(token, layer) for token in range(self.ids.shape[1]) for layer in range(self.model.n_layers)]
        return sweep.evaluate([made.variant(kind, token, layer) for token, layer in every])

    def floor(self, kind: TraceKind) -> float:
        """Operations of the matrix products that every exact method has to do, given both runs: from the patched position on
        and after the patched layer; windows that begin alike computed once; in the first layer after a patch no query, key or
        value but the patched token's, and nothing that is replaced afterwards; in the last one what the last token reads."""
        width, n = self.ids.shape[1], self.model.n_layers
        return tracing_operations(self.model, kind, width, SUBJECT[0], len(self.corrupted.tokens), min(WINDOW, n))


@dataclasses.dataclass(frozen=True)
class LayerWork:
    """Operations a token: one projection of queries (or the output's), keys and values together, the MLP."""

    query: float
    keys: float
    mlp: float

    @classmethod
    def of(cls, model: Model) -> "LayerWork":
        """Those of one layer; all layers are alike."""
        attention, mlp = model.weights.blocks[0].attention, model.weights.blocks[0].mlp
        matrices = () if mlp is None else (mlp.W_in, mlp.W_out, mlp.W_gate)
        neurons = 2.0 * sum(matrix.numel() for matrix in matrices if matrix is not None)
        return cls(2.0 * attention.W_Q.numel(), 2.0 * (attention.W_K.numel() + attention.W_V.numel()), neurons)

    @property
    def whole(self) -> float:
        """All of a layer."""
        return 2 * self.query + self.keys + self.mlp


def tracing_operations(model: Model, kind: TraceKind, width: int, first: int, draws: int, window: int) -> float:
    """The operations of one kind's cells, from the subject's first token on, each read at the last token."""
    work, n = LayerWork.of(model), model.n_layers
    total = 0.0
    for token in range(first, width):
        runs: dict[tuple, float] = {}
        for layer in range(n):
            start, stop = (layer, layer + 1) if kind == "states" else (max(0, layer - window // 2), layer + (window + 1) // 2)
            stop = min(n, stop)
            for at in range(start, n):
                # Windows that begin together are one run up to where the shorter one ends.
                runs[token, start, min(at, stop), at] = _layer_operations(work, kind, width - token, start, stop, at, n)
        total += sum(runs.values())
    return draws * (total + 2 * model.weights.W_U.numel() * n * (width - first))


def _layer_operations(work: LayerWork, kind: TraceKind, after: int, start: int, stop: int, at: int, n: int) -> float:
    """One draw's layer `at` of a restoration in the layers from `start` up to `stop`, with so many tokens from it on."""
    last, inside = at == n - 1, at < stop
    if at == start:  # only the restored token differs so far
        return work.mlp if kind == "attention" and (not last or after == 1) else 0.0
    reading = 1 if last else after
    spared = int(inside and (not last or after == 1))
    moved = 1 if at == start + 1 else after
    keys = (0 if kind == "states" and at == start + 1 else moved) * work.keys
    asked = (0 if kind == "states" else 1) if at == start + 1 else reading
    asked, written, mlps = asked if not last or after == 1 or at > start + 1 else 0, reading, reading
    if kind == "attention":
        asked, written = max(0, asked - spared), written - spared
    if kind == "mlp":
        mlps -= spared
    return keys + (asked + written) * work.query + mlps * work.mlp


def layer_operations(model: Model) -> tuple[float, float, float]:
    """Operations a token of one layer; of its keys and values alone; and of all else."""
    work = LayerWork.of(model)
    return work.whole, work.keys, 2 * work.query + work.mlp


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
        return logits[1:, -1].double().softmax(dim=-1)[:, self.tracing.answer]

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
