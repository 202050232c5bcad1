"""Causal tracing (Meng et al. 2022): which hidden states bring back a fact that noise on its subject wiped out.

As in the released code: Gaussian noise on the subject's token embeddings, the same draws for every cell; the answer is
the clean run's top token; windows reach from 5 layers before their centre to 4 after it (the paper's text says 4 and 5).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import PromptError
from circuits.models import Edit, Model, Run, TokenBatch
from circuits.models.layers import embed
from circuits.models.memory import BUDGET
from circuits.patching.engine.base import Base, plain_run
from circuits.patching.engine.change import Change, Variant
from circuits.patching.engine.reading import Reading
from circuits.patching.engine.sweep import Sweep
from circuits.patching.tracing.results import Trace
from circuits.progress import Found, Progress, heard
from circuits.tasks.library.facts import mini_facts
from circuits.tasks.subjects import subject_columns, with_subject

TraceKind = Literal["states", "mlp", "attention", "states_severed_mlp", "states_severed_attention"]
KINDS: tuple[TraceKind, ...] = ("states", "mlp", "attention")
SEVERED: tuple[TraceKind, ...] = ("states_severed_mlp", "states_severed_attention")
WHAT = {
    "states": "restoring states",
    "mlp": "restoring MLP windows",
    "attention": "restoring attention windows",
    "states_severed_mlp": "restoring states, MLPs severed",
    "states_severed_attention": "restoring states, attention severed",
}


def causal_trace(
    model: Model,
    prompt: str,
    *,
    subject: str,
    replacement: str | None = None,
    noise: float | None = None,
    draws: int = 10,
    window: int = 10,
    kinds: Sequence[TraceKind] = KINDS,
    seed: int = 0,
    prepend_bos: bool | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
    found: Found | None = None,
) -> Trace:
    """Trace one prompt: for every token and layer, the probability of the answer when the corrupted run gets the clean
    value there. All effects are in probability; positive: the site brings the answer back. Negative ones are kept.

    Raises PromptError for a subject that is not in the prompt or a replacement of another length.

    Args:
        model: the model that is traced.
        prompt: one prompt, the answer to which is what the model says next.
        subject: words of the prompt (as whole words, the last occurrence), which are corrupted.
        replacement: another subject of as many tokens, in place of noise.
        noise: standard deviation of the Gaussian noise on the subject's embeddings (default: `noise_level(model)`).
        draws: draws of noise, over which probabilities are averaged.
        window: layers around a layer whose "mlp" or "attention" outputs are restored together, clipped to the model.
        kinds: "states" (the residual stream after a layer), "mlp" and "attention" (their outputs in a window),
            "states_severed_mlp" and "states_severed_attention" (states, while at that token every later output of that module
            stays as in the corrupted run).
        seed: that of the noise.
        prepend_bos: put BOS in front (default: as the model's tokenizer does; GPT-2's: no).
        budget: bytes that a pass may take above the model and its base runs; a smaller one takes longer and changes nothing.
        progress: hears what is being done, how much of it is done, and how much there is.
        found: gets the trace without any kind of site, then after each kind with those that are done.
    """
    give, unknown = heard(found), set(kinds) - {*KINDS, *SEVERED}
    if unknown or window < 1 or draws < 1:
        raise PromptError(f"cannot trace with kinds {', '.join(kinds)}, a window of {window} and {draws} draws")
    model.require_open_end(prepend_bos=prepend_bos)
    tokens = model.to_tokens(prompt, prepend_bos=prepend_bos)
    first, last = subject_columns(model, prompt, subject, tokens)
    with torch.no_grad():
        clean = model.run(tokens)
        if replacement is None:
            level = noise_level(model) if noise is None else noise
            corrupted = _noisy(model, tokens, (first, last), level, draws, seed)
        else:
            level, corrupted = 0.0, _replaced(model, prompt, subject, replacement, tokens, prepend_bos)
        return _traced(model, prompt, clean, corrupted, (first, last), level, window, kinds, seed, budget, progress, give)


def subject_effects(
    model: Model,
    prompt: str,
    *,
    subject: str,
    kinds: Sequence[TraceKind] = ("states", "mlp"),
    noise: float | None = None,
    draws: int = 10,
    window: int = 10,
    seed: int = 0,
    budget: int = BUDGET,
) -> dict[str, Float[Tensor, " layer"]]:
    """The indirect effects of `causal_trace` at the subject's last token alone, by kind: the row of its heatmap on which edits
    of facts stand. Raises PromptError for a subject that is not in the prompt.

    Args:
        model: the model that is traced.
        prompt: as in `causal_trace`.
        subject: as in `causal_trace`.
        kinds: as in `causal_trace`.
        noise: as in `causal_trace`.
        draws: as in `causal_trace`.
        window: as in `causal_trace`.
        seed: that of the noise.
        budget: as in `causal_trace`.
    """
    model.require_open_end()
    tokens = model.to_tokens(prompt)
    first, last = subject_columns(model, prompt, subject, tokens)
    with torch.no_grad():
        clean = model.run(tokens)
        level = noise_level(model) if noise is None else noise
        sweep = Sweep(
            model, _noisy(model, tokens, (first, last), level, draws, seed), _reading(model, clean, draws), budget=budget
        )
        cells = Cells(Base(model, clean), sweep.base, first, window)
        corrupted, found = sweep.base_scores().double().cpu().mean(), dict[str, Tensor]()
        for kind in kinds:
            variants = [cells.variant(kind, last, layer) for layer in range(model.n_layers)]
            found[kind] = sweep.evaluate(variants).double().cpu().mean(dim=-1) - corrupted
    return found


def _reading(model: Model, clean: Run, rows: int) -> Reading:
    """The probability of the clean run's top token, one a prompt."""
    columns = torch.full((rows, 1), clean.tokens.ids.shape[1] - 1, device=model.device)
    answer = int(clean.logits[0, -1].argmax())
    return Reading(columns, lambda told: told[:, 0, 0].exp(), torch.full_like(columns, answer), normalised=True)


def noise_level(model: Model, subjects: Sequence[str] | None = None) -> float:
    """Three times the standard deviation (one number) of the embeddings of all tokens of the subjects (default: those of
    the fact table that comes with the package)."""
    texts = sorted({fact.subject for fact in mini_facts()}) if subjects is None else list(subjects)
    ids = [token for text in texts for token in model.tokenizer.encode(text, add_special_tokens=False)]
    return 3.0 * float(model.weights.W_E[torch.tensor(ids, device=model.device)].double().std())


def _noisy(model: Model, tokens: TokenBatch, subject: tuple[int, int], level: float, draws: int, seed: int) -> Run:
    first, last = subject
    rows = TokenBatch(tokens.ids.expand(draws, -1), tokens.mask.expand(draws, -1))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(draws, last - first + 1, model.d_model, generator=generator, dtype=torch.float64) * level
    noise = torch.zeros(draws, tokens.ids.shape[1], model.d_model, dtype=model.dtype, device=model.device)
    noise[:, first : last + 1] = drawn.to(noise)
    return plain_run(model, rows, [Edit("input", embed(model.weights, rows, noise))])


def _replaced(model: Model, prompt: str, subject: str, replacement: str, tokens: TokenBatch, bos: bool | None) -> Run:
    other = model.to_tokens(with_subject(prompt, subject, replacement), prepend_bos=bos)
    if other.ids.shape != tokens.ids.shape or torch.equal(other.ids, tokens.ids):
        raise PromptError(
            f"{replacement!r} in place of {subject!r} gives {other.ids.shape[1]} tokens, the prompt has {tokens.ids.shape[1]}: "
            "a replacement must differ and have equally many"
        )
    return model.run(other)


def _traced(
    model: Model,
    prompt: str,
    clean: Run,
    corrupted: Run,
    subject: tuple[int, int],
    level: float,
    window: int,
    kinds: Sequence[TraceKind],
    seed: int,
    budget: int,
    progress: Progress | None,
    give: Found,
) -> Trace:
    width, rows = clean.tokens.ids.shape[1], len(corrupted.tokens)
    answer = int(clean.logits[0, -1].argmax())
    sweep = Sweep(model, corrupted, _reading(model, clean, rows), budget=budget)
    cells = Cells(Base(model, clean), sweep.base, subject[0] if model.weights.causal else 0, window)
    trace = functools.partial(
        Trace,
        model=model.name,
        weights_sha256=model.fingerprint,
        prompt=prompt,
        tokens=tuple(model.to_token_strings(clean.tokens.ids[0])),
        subject=subject,
        answer=model.to_string([answer]),
        clean=float(clean.logits[0, -1].to(torch.promote_types(model.dtype, torch.float32)).softmax(dim=-1)[answer]),
        corrupted=sweep.base_scores().double().cpu(),
        noise=level,
        window=window,
        seed=seed,
    )
    restored: dict[str, Tensor] = {}
    give(trace(restored={}))
    for kind in kinds:
        variants = [cells.variant(kind, token, layer) for token in range(width) for layer in range(model.n_layers)]
        scores = sweep.evaluate(variants, progress=progress, what=WHAT[kind])
        restored[kind] = scores.unflatten(0, (width, model.n_layers)).double().cpu()
        give(trace(restored=dict(restored)))
    return trace(restored=restored)


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
    """The changes of every cell, each made once, so that windows which begin alike are computed together."""

    clean: Base
    corrupted: Base
    first: int
    """Tokens before it are the same in both runs."""
    window: int
    _changes: dict[tuple, Change] = dataclasses.field(default_factory=dict, repr=False)
    _values: dict[tuple, Tensor] = dataclasses.field(default_factory=dict, repr=False)

    def variant(self, kind: TraceKind, token: int, layer: int) -> Variant:
        """The changes of one cell; none where both runs agree."""
        if token < self.first:
            return ()
        n_layers = len(self.clean.run.weights.blocks)
        if kind in ("mlp", "attention"):
            start, stop = max(0, layer - self.window // 2), min(n_layers, layer - (-self.window // 2))
            return tuple(self._change(kind, inside, token, True) for inside in range(start, stop))
        state = self._change("residual", layer + 1, token, True)
        if kind == "states":
            return (state,)
        module: Literal["mlp", "attention"] = "mlp" if kind == "states_severed_mlp" else "attention"
        return (state, *(self._change(module, later, token, False) for later in range(layer + 1, n_layers)))

    def _change(self, kind: Literal["residual", "mlp", "attention"], layer: int, token: int, clean: bool) -> Change:
        key = (kind, layer, token, clean)
        if key not in self._changes:
            mask = torch.zeros_like(self.clean.run.tokens.mask)
            mask[:, token] = True
            self._changes[key] = Change(kind, layer, None, self._value(kind, layer, clean), mask)
        return self._changes[key]

    def _value(self, kind: Literal["residual", "mlp", "attention"], layer: int, clean: bool) -> Float[Tensor, "..."]:
        key = (kind, layer, clean)
        if key not in self._values:
            base = self.clean if clean else self.corrupted
            self._values[key] = base.run.residuals[layer] if kind == "residual" else getattr(base, kind)(layer)
        return self._values[key]
