"""At which layer a model takes a sentence for unusual."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import ModelError, PromptError
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.models.model import Prompts
from circuits.probes.anomalies.gaussians import fit_layers, text_surprisals
from circuits.probes.anomalies.results import Anomalies
from circuits.progress import Progress, silent
from circuits.tasks import MinimalPair

EVERY = "all"
"""The group of all pairs, where there are several paradigms."""
LEAST = 10
"""Pairs of a group."""
_ROUNDING = 1e-9


def probe_anomaly(
    model: Model,
    pairs: Sequence[MinimalPair],
    text: Prompts,
    *,
    shuffles: int = 1000,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Anomalies:
    """By how much the wrong sentence of minimal pairs surprises each layer more than the right one (Li et al. 2021): a Gaussian
    is fitted to each residual stream's vectors on normal text, and a sentence's surprisal is the sum over its tokens of the
    negative log density. The gap is its mean over pairs; beside it stands the share of pairs whose wrong sentence surprises
    more.

    A sentence's first token does not count: nothing stands before it. Pairs of unequal length differ by their lengths
    alone: a sentence of more tokens surprises more. Against each gap stand shuffled pairs, in which either sentence may be
    called the wrong one; p-values are of the largest layer, times the number of groups, so that looking at all of them
    proves nothing by itself.

    Raises PromptError for fewer than 10 pairs in every paradigm and for less text than the model has directions, ModelError for
    a model without a tokenizer.

    Args:
        model: the model whose layers are asked.
        pairs: of `read_blimp_jsonl`, or made (`circuits.tasks.grammar_pairs`).
        text: normal text of the same kind: texts, or prompts as `text_rows` cuts them.
        shuffles: how often pairs are shuffled.
        seed: that of shuffling.
        budget: bytes that reading may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if model.tokenizer is None:
        raise ModelError(f"{model.name} has no tokenizer: minimal pairs are texts")
    if shuffles < 20:
        raise PromptError(f"shuffles={shuffles}: expected 20 or more")
    report = progress or silent
    batch = model.prepare(text)
    normal = [row[mask].tolist() for row, mask in zip(batch.ids.cpu(), batch.mask.cpu(), strict=True)]
    kept, good, bad = _rows(model, pairs)
    groups = _groups([pair.paradigm for pair in kept])
    size = model.weights.W_E.element_size() * (12 * model.d_model + 4 * model.d_mlp)
    most = max(1, budget // (2 * size))
    report("fitting Gaussians", 0, 1)
    gaussians = fit_layers(model, normal, most=most)
    report("fitting Gaussians", 1, 1)
    report("scoring pairs", 0, 1)
    both = text_surprisals(model, gaussians, [*good, *bad], most=most)
    report("scoring pairs", 1, 1)
    apart = both[len(good) :] - both[: len(good)]
    apart[apart.abs() < _ROUNDING * both.abs().amax(dim=0)] = 0  # sums of the same numbers in another order
    rows = [_judged(apart[torch.tensor(numbers)], shuffles, seed) for numbers in groups.values()]
    tables = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    tables["p_values"] = (tables["p_values"] * len(groups)).clamp(max=1)
    return Anomalies(
        model=model.name,
        weights_sha256=model.fingerprint,
        groups=tuple(groups),
        counts=tuple(map(len, groups.values())),
        sites=tuple(f"resid{layer}" for layer in range(model.n_layers + 1)),
        **tables,
        tokens=sum(len(row) - 1 for row in normal),
        left_out=len(pairs) - len(kept),
        shuffles=shuffles,
        seed=seed,
    )


def _rows(model: Model, pairs: Sequence[MinimalPair]) -> tuple[list[MinimalPair], list[list[int]], list[list[int]]]:
    """The pairs that the model can take, and their sentences as token ids, the right ones and the wrong ones."""
    kept, good, bad = [], [], []
    for pair in pairs:
        own, other = (model.to_tokens(text).ids[0].tolist() for text in (pair.good, pair.bad))
        longest = max(len(own), len(other))
        if min(len(own), len(other)) > 1 and (model.max_positions is None or longest <= model.max_positions):
            kept.append(pair)
            good.append(own)
            bad.append(other)
    return kept, good, bad


def _groups(paradigms: Sequence[str]) -> dict[str, list[int]]:
    """The pairs of each paradigm that has enough of them, and all pairs where there are several."""
    found: dict[str, list[int]] = {}
    for number, name in enumerate(paradigms):
        found.setdefault(name, []).append(number)
    enough = {name: numbers for name, numbers in found.items() if len(numbers) >= LEAST}
    if len(found) > 1 and len(paradigms) >= LEAST:
        enough[EVERY] = list(range(len(paradigms)))
    if not enough:
        raise PromptError(f"{len(paradigms)} minimal pairs in {len(found)} paradigms: expected {LEAST} or more")
    return enough


def _judged(apart: Float[Tensor, "pair layer"], shuffles: int, seed: int) -> dict[str, Float[Tensor, " layer"]]:
    """Gaps of some pairs, and what shuffling them gives. Every layer sees the same shuffles; of each shuffle the largest layer
    counts, in standard errors, so that p-values hold for all layers together."""
    count = len(apart)
    spread = apart.std(dim=0)
    error = spread / count**0.5
    unit = torch.where(error > 0, error, torch.ones_like(error))
    gap = apart.mean(dim=0)
    signs = torch.randint(0, 2, (shuffles, count), generator=torch.Generator().manual_seed(seed)).double() * 2 - 1
    shuffled = signs @ apart / count
    largest = (shuffled / unit).amax(dim=1)
    reached = (largest[:, None] >= gap / unit).sum(dim=0)
    effect = gap / torch.where(spread > 0, spread, torch.ones_like(spread))
    null = shuffled.abs().quantile(0.95, dim=0)
    shares = (0.5 + 0.5 * apart.sign()).mean(dim=0)
    found = {"gaps": gap, "errors": error, "effects": effect, "null": null, "shares": shares}
    return {**found, "p_values": (1 + reached) / (1 + shuffles)}
