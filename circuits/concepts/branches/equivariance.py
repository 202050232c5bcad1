"""Whether a symmetry of the data exchanges heads or neurons (equivariance, Olah et al. 2020), beside chance."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.concepts.branches.results import TIE, Equivariance
from circuits.errors import MemoryBudgetError, ModelError, PromptError
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.memory import BUDGET, prompts_at_once
from circuits.progress import Progress, silent
from circuits.statistics import p_value, t_interval
from circuits.tasks.repeats import sampling_pool

FEWEST = 4
"""Prompts that it takes: half to find a matching on, half to judge it on."""
_BLOCK = 64
_TINY = 1e-30


@dataclasses.dataclass(frozen=True, eq=False)
class _Gaps:
    """What one layer's units do on prompts and on moved prompts: how far each is from each."""

    one: Float[Tensor, "prompt unit value"]
    other: Float[Tensor, "prompt unit value"]

    def between(self, prompts: Int[Tensor, " chosen"]) -> Float[Tensor, "unit unit"]:
        """The mean over prompts of |a_i(g x) - a_j(x)|^2, row i, column j."""
        one, other = (part[prompts].double().transpose(0, 1).flatten(1) for part in (self.one, self.other))
        sizes = other.square().sum(dim=1)[:, None] + one.square().sum(dim=1)
        return (sizes - 2 * other @ one.T).clamp(min=0) / len(prompts)

    def along(self, prompts: Int[Tensor, " chosen"], matching: Int[Tensor, " unit"]) -> Float[Tensor, "chosen unit"]:
        """|a_i(g x) - a_pi(i)(x)|^2 of each prompt."""
        return (self.other[prompts].double() - self.one[prompts][:, matching].double()).square().sum(dim=-1)

    def size(self, prompts: Int[Tensor, " chosen"]) -> float:
        """The mean over prompts of the summed squares: what gaps are shares of, 1 for units that have nothing in common."""
        return float(sum(part[prompts].double().square().sum() for part in (self.one, self.other))) / len(prompts)


def equivariance(
    model: Model,
    prompts: TokenBatch,
    moved: TokenBatch,
    *,
    symmetry: str = "",
    units: Literal["heads", "neurons"] = "heads",
    layers: Sequence[int] | None = None,
    matchings: int = 999,
    relabellings: int = 19,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Equivariance:
    """Whether a symmetry g of the data exchanges units of a layer: the matching pi with the smallest mean gap between a_i(g x)
    and a_pi(i)(x), found on half of the prompts and judged on the other half.

    A head's a is its attention pattern, a neuron's its activation at every token. Gaps are squared, summed over a layer's
    units, as a share of both sides' summed squares: 0 where g does nothing but exchange units, 1 where a unit has nothing in
    common with its partner. Beside the matching stand: units that stay where they are (an invariant layer needs no other
    matching), random matchings, and the best matching where the tokens that g changes become random tokens instead (are these
    more alike to the model than any?). Raises PromptError for prompts that do not fit each other, are the same, or are fewer
    than 4, ModelError for layers and neurons that the model lacks, MemoryBudgetError where all activations do not fit.

    Args:
        model: the model whose units are looked at.
        prompts: x.
        moved: g x, token by token beside them.
        symmetry: g in words.
        units: `heads` or `neurons`.
        layers: the layers (default: all).
        matchings: random matchings.
        relabellings: random relabellings, each a run of its own and a matching of its own; 0 = none.
        seed: of all that is drawn.
        budget: bytes of activations that are held at once.
        progress: hears what is being done.
    """
    changed = _check(model, prompts, moved, units)
    chosen = tuple(range(model.n_layers)) if layers is None else tuple(layers)
    check_layers(model, chosen, units)
    report, generator = progress or silent, torch.Generator().manual_seed(seed)
    order = torch.randperm(len(prompts), generator=generator)
    find, judge = order[: len(prompts) // 2], order[len(prompts) // 2 :]
    _check_memory(model, prompts, chosen, units, budget)
    report("running", 0, 2 + relabellings)
    own = _activations(model, prompts, chosen, units)
    other = _activations(model, moved, chosen, units)
    report("running", 2, 2 + relabellings)
    gaps = [_Gaps(one, two) for one, two in zip(own, other, strict=True)]
    found = [_judged(layer, find, judge, matchings, generator) for layer in gaps]
    redrawn = torch.empty(len(chosen), relabellings, dtype=torch.float64)
    for draw in range(relabellings):
        again = _activations(model, _relabelled(model, prompts, changed, generator), chosen, units)
        redrawn[:, draw] = _best_gaps(own, again, find, judge)
        report("running", 3 + draw, 2 + relabellings)
    return Equivariance(
        model=model.name,
        weights_sha256=model.fingerprint,
        symmetry=symmetry,
        units=units,
        layers=chosen,
        matching=torch.stack([one.matching for one in found]),
        unit_gaps=torch.stack([one.along for one in found]),
        unit_stays=torch.stack([one.stays for one in found]),
        gaps=torch.tensor([one.gap for one in found], dtype=torch.float64),
        stays=torch.tensor([one.stay for one in found], dtype=torch.float64),
        gains=torch.stack([one.gain for one in found]),
        random=torch.stack([one.random for one in found]),
        relabelled=redrawn,
        p_values=torch.tensor([p_value(-one.gap - TIE, (-one.random).tolist()) for one in found], dtype=torch.float64),
        prompts=len(prompts),
        seed=seed,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _JudgedLayer:
    """One layer's matching, and how it does on prompts that it was not found on."""

    matching: Int[Tensor, " unit"]
    along: Float[Tensor, " unit"]
    stays: Float[Tensor, " unit"]
    gap: float
    stay: float
    gain: Float[Tensor, " 3"]
    random: Float[Tensor, " draw"]


def _judged(
    layer: _Gaps, find: Int[Tensor, " one"], judge: Int[Tensor, " other"], matchings: int, generator: torch.Generator
) -> _JudgedLayer:
    matching, size = _best(layer.between(find)), layer.size(judge)
    same = torch.arange(len(matching))
    along, stays = layer.along(judge, matching) / size, layer.along(judge, same) / size
    gain = t_interval((stays - along).sum(dim=1))
    every = layer.between(judge) / size
    random = [float(every[same, torch.randperm(len(same), generator=generator)].sum()) for _ in range(matchings)]
    return _JudgedLayer(
        matching=matching,
        along=along.mean(dim=0),
        stays=stays.mean(dim=0),
        gap=float(along.sum(dim=1).mean()),
        stay=float(stays.sum(dim=1).mean()),
        gain=torch.tensor([gain.effect, gain.low, gain.high], dtype=torch.float64),
        random=torch.tensor(random, dtype=torch.float64),
    )


def _best_gaps(
    own: Sequence[Float[Tensor, "prompt unit value"]],
    again: Sequence[Float[Tensor, "prompt unit value"]],
    find: Int[Tensor, " one"],
    judge: Int[Tensor, " other"],
) -> Float[Tensor, " layer"]:
    """The gap of each layer's best matching, found on one half of the prompts, on the other half."""
    layers = [_Gaps(one, two) for one, two in zip(own, again, strict=True)]
    found = [float(one.along(judge, _best(one.between(find))).sum(dim=1).mean()) / one.size(judge) for one in layers]
    return torch.tensor(found, dtype=torch.float64)


def _best(gaps: Float[Tensor, "unit unit"]) -> Int[Tensor, " unit"]:
    """The matching of the smallest summed gap; of equal ones that which moves fewest units."""
    from scipy.optimize import linear_sum_assignment

    # Between copies nothing decides: a trifle in favour of staying does.
    tie = float(gaps.abs().max()) * 1e-9 * (1 - torch.eye(len(gaps), dtype=gaps.dtype))
    return torch.from_numpy(linear_sum_assignment((gaps + tie).numpy())[1]).long()


@torch.no_grad()
def _activations(
    model: Model, prompts: TokenBatch, layers: Sequence[int], units: str
) -> list[Float[Tensor, "prompt unit value"]]:
    """What each layer's units do on each prompt, nothing at pads: patterns row by row, or activations token by token."""
    found: list[list[Tensor]] = [[] for _ in layers]
    step = min(_BLOCK, prompts_at_once(model.weights, prompts.ids.shape[1]))
    for start in range(0, len(prompts), step):
        some = prompts[start : start + step]
        run, there = forward(model.weights, some, logits=False), some.mask.to(model.dtype)
        for row, layer in enumerate(layers):
            if units == "heads":
                values = torch.einsum("phqk,pq->phqk", run.pattern(layer), there).flatten(2)
            else:
                values = torch.einsum("pqn,pq->pnq", run.neurons[layer], there)
            found[row].append(values.float().cpu())
    return [torch.cat(parts) for parts in found]


def _relabelled(model: Model, prompts: TokenBatch, changed: Tensor, generator: torch.Generator) -> TokenBatch:
    """The prompts with each token that g changes, wherever it stands in its prompt, replaced by a random one of its own."""
    pool, rows = sampling_pool(model), []
    for ids, here in zip(prompts.ids.cpu(), changed, strict=True):
        old = ids[here].unique()
        free = pool[~torch.isin(pool, ids)]
        new = free[torch.randperm(len(free), generator=generator)[: len(old)]]
        row = ids.clone()
        for one, other in zip(old.tolist(), new.tolist(), strict=False):
            row[here & (ids == one)] = other
        rows.append(row)
    return TokenBatch(torch.stack(rows).to(prompts.ids.device), prompts.mask)


def _check(model: Model, prompts: TokenBatch, moved: TokenBatch, units: str) -> Tensor:
    """Which tokens g changes."""
    if prompts.ids.shape != moved.ids.shape or not torch.equal(prompts.mask, moved.mask):
        raise PromptError("a symmetry changes tokens one by one: prompts and moved prompts have different shapes or pads")
    changed = ((prompts.ids != moved.ids) & prompts.mask).cpu()
    if not bool(changed.any(dim=1).all()):
        raise PromptError("a symmetry that changes nothing: at least one token of every prompt must differ")
    if len(prompts) < FEWEST:
        raise PromptError(f"{len(prompts)} prompts: expected {FEWEST} or more, half to find a matching on and half to judge it")
    if units not in ("heads", "neurons"):
        raise PromptError(f"units={units!r}: expected heads or neurons")
    if units == "neurons" and not model.d_mlp:
        raise ModelError(f"{model.name} has no neurons")
    return changed


def check_layers(model: Model, layers: Sequence[int], units: str) -> None:
    """Raise ModelError for layers that the model lacks."""
    wrong = next((layer for layer in layers if not 0 <= layer < model.n_layers), None)
    if wrong is not None or not layers:
        raise ModelError(f"{model.name} has no {units} of layer {wrong}: expected 0 to {model.n_layers - 1}")


def _check_memory(model: Model, prompts: TokenBatch, layers: Sequence[int], units: str, budget: int) -> None:
    count, width = prompts.ids.shape
    values = model.n_heads * width * width if units == "heads" else model.d_mlp * width
    needed = 3 * 4 * len(layers) * count * values
    if needed > 4 * budget:
        raise MemoryBudgetError(
            f"activations of {units} of {len(layers)} layers on {count} prompts of {width} tokens take {needed / 2**20:,.0f} "
            f"MiB, {4 * budget / 2**20:,.0f} MiB are allowed: take fewer prompts or layers"
        )


def swapped(prompts: TokenBatch, one: Int[Tensor, " prompt"], other: Int[Tensor, " prompt"]) -> TokenBatch:
    """The prompts with two tokens of each exchanged wherever they stand: a symmetry for `equivariance`."""
    first, second = one.to(prompts.ids)[:, None], other.to(prompts.ids)[:, None]
    ids = torch.where(prompts.ids == first, second, torch.where(prompts.ids == second, first, prompts.ids))
    return TokenBatch(ids, prompts.mask)
