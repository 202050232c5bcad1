"""How few dimensions of heads' queries, keys and values keep the answers' loss, and what these dimensions tell apart."""

import dataclasses
import random
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.graph import Node
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.patching.engine.base import plain_run
from circuits.patching.engine.change import Change, Kind, Variant
from circuits.patching.engine.reading import Reading
from circuits.patching.engine.sweep import Sweep
from circuits.progress import Progress
from circuits.search.mechanisms.letter_results import Kept, KeptDimensions
from circuits.tasks import PromptPairs
from circuits.tasks.metrics import log_probability

PARTS: tuple[tuple[Kept, Kind], ...] = (("queries", "q"), ("keys", "k"), ("values", "v"))


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A head's queries at the last token, or its keys or values where it looks in each item, of some prompts."""

    name: Kept
    kind: Kind
    head: Node
    group: int
    """The index of its site: the head's own, or that of its group of keys and values."""
    values: Float[Tensor, "prompt column d_head"]
    columns: Int[Tensor, "prompt column"]


def kept_dimensions(
    model: Model,
    pairs: PromptPairs,
    columns: Int[Tensor, "prompt label"],
    looked: Mapping[str, Int[Tensor, "prompt label"]],
    *,
    tolerance: float,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """For every head and part the fewest leading principal dimensions of one half of the prompts at which the answers' loss on
    the other half rises by at most `tolerance`, each part by itself; then the loss with all of them at once. `columns`:
    those of the labels; `looked`: by head where it looks for each item. Gives the fields of the result: `kept`, `held_out`,
    `loss`, `joint_loss`."""
    order = list(range(len(pairs)))
    random.Random(seed).shuffle(order)
    halves = [sorted(order[: len(order) // 2]), sorted(order[len(order) // 2 :])]
    first, second = (_parts(model, pairs[rows], {head: at[rows] for head, at in looked.items()}) for rows in halves)
    held = pairs[halves[1]]
    sweep = Sweep(model, plain_run(model, held.clean), Reading.of(log_probability, held), budget=budget)
    loss = -float(sweep.base_scores().double().mean())
    axes = [_axes(part.values) for part in first]
    tries = _tries(model.d_head)
    changes = [
        [_change(held, part, *own, count, model.dtype) for count in tries] for part, own in zip(second, axes, strict=True)
    ]
    variants: list[Variant] = [(one,) for several in changes for one in several]
    scores = sweep.evaluate(variants, progress=progress, what="lowering dimensions")
    rises = (-scores.double().mean(dim=1).cpu() - loss).reshape(len(second), len(tries))
    kept, joint = [], []
    for part, own, several, rise in zip(second, axes, changes, rises, strict=True):
        place = _fewest(rise <= tolerance)
        joint.append(several[place])
        told = _told(part, held, columns[halves[1]], *own, tries[place])
        kept.append(KeptDimensions(str(part.head), part.name, tries[place], model.d_head, float(rise[place]), **told))
    together = -float(sweep.evaluate([tuple(joint)]).double().mean())
    return {"kept": tuple(kept), "held_out": len(held), "loss": loss, "joint_loss": together}


def _fewest(fits: Bool[Tensor, " tried"]) -> int:
    """The first place from which on all fit: fewer that happen to fit below one that does not are luck."""
    bad = (~fits).nonzero()[:, 0]
    return min(int(bad[-1]) + 1, len(fits) - 1) if len(bad) else 0


def _tries(d_head: int) -> list[int]:
    """How many dimensions are tried: all up to 16, then every fourth."""
    return sorted({*range(min(16, d_head) + 1), *range(20, d_head, 4), d_head})


def _parts(model: Model, pairs: PromptPairs, looked: Mapping[str, Int[Tensor, "prompt label"]]) -> "list[Part]":
    run, found = plain_run(model, pairs.clean), list[Part]()
    size = model.n_heads // model.n_key_value_heads
    for name, columns in looked.items():
        node = Node.parse(name)
        layer, index = node.layer or 0, node.index or 0
        for part, kind in PARTS:
            at = pairs.answer_columns[:, None] if kind == "q" else columns
            group = index if kind == "q" else index // size
            value = getattr(run, kind)[layer][:, :, group]
            rows = value.gather(1, at[:, :, None].expand(-1, -1, value.shape[-1]))
            found.append(Part(part, kind, node, group, rows.double(), at))
    return found


def _axes(values: Float[Tensor, "prompt column d_head"]) -> tuple[Float[Tensor, " d_head"], Float[Tensor, "d_head axis"]]:
    """The mean, and the principal axes, that of most variance first."""
    flat = values.flatten(0, 1)
    mean = flat.mean(dim=0)
    centred = flat - mean
    return mean, torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)


def _change(
    pairs: PromptPairs,
    part: Part,
    mean: Float[Tensor, " d_head"],
    axes: Float[Tensor, "d_head axis"],
    count: int,
    dtype: torch.dtype,
) -> Change:
    """The part in its first so many dimensions around the mean, at its columns."""
    leading = axes[:, :count]
    rows = mean + (part.values - mean) @ leading @ leading.T
    wide = torch.zeros(*pairs.clean.ids.shape, len(mean), dtype=dtype, device=rows.device)
    wide = wide.scatter(1, part.columns[:, :, None].expand(-1, -1, len(mean)), rows.to(wide))
    mask = torch.zeros_like(pairs.clean.mask).scatter(1, part.columns, True)
    return Change(part.kind, part.head.layer or 0, part.group, wide, mask, label=f"{part.head}<{part.kind}>")


def _told(
    part: Part,
    pairs: PromptPairs,
    columns: Int[Tensor, "prompt label"],
    mean: Float[Tensor, " d_head"],
    axes: Float[Tensor, "d_head axis"],
    count: int,
) -> dict[str, float]:
    """What the kept dimensions tell apart."""
    inside = ((part.values - mean) @ axes[:, :count]).flatten(0, 1)
    whole = (part.values - mean).flatten(0, 1)
    own = columns == pairs.positions["right_label"][:, None]
    letters, places = pairs.clean.ids.gather(1, columns), torch.arange(columns.shape[1], device=columns.device)
    if part.kind == "q":
        letter, place = letters[own], own.long().argmax(dim=1)
        right = None
    else:
        letter, place = letters.flatten(), places.expand_as(columns).flatten()
        right = own.long().flatten()
    spread = float(whole.square().sum())
    return {
        "variance": float(inside.square().sum()) / spread if spread else 0.0,
        "letter": told_apart(inside, letter),
        "place": told_apart(inside, place),
        "right": float("nan") if right is None else told_apart(inside, right),
    }


def told_apart(values: Float[Tensor, "row axis"], group: Int[Tensor, " row"]) -> float:
    """The share of the variance of some rows that lies between groups of them, less what as many random groups have (epsilon
    squared, Kelley 1935): 1 where a group's rows are all the same, about 0 where groups tell nothing. NaN without variance, or
    for as many groups as rows."""
    rows, (known, index) = len(values), group.unique(return_inverse=True)
    centred = values - values.mean(dim=0)
    total = float(centred.square().sum())
    if not values.shape[1] or total <= 1e-18 * max(1.0, float(values.square().sum())) or len(known) >= rows or len(known) < 2:
        return float("nan")
    counts = torch.zeros(len(known), dtype=values.dtype, device=values.device).index_add_(
        0, index, torch.ones_like(values[:, 0])
    )
    sums = torch.zeros(len(known), values.shape[1], dtype=values.dtype, device=values.device).index_add_(0, index, centred)
    within = total - float((sums.square().sum(dim=1) / counts).sum())
    return 1 - (within / (rows - len(known))) / (total / (rows - 1))
