"""The best logical form for each of many masks, by beam search (Mu & Andreas 2020)."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.concepts.forms.counting import packed, shared, signatures, unpacked
from circuits.concepts.forms.formulas import JOINS, Codes, Form
from circuits.errors import CircuitsError
from circuits.models.memory import BUDGET
from circuits.progress import Progress, silent
from circuits.runs.runner import shards

LENGTH, BEAM, PENALTY = 5, 10, 0.99
"""Those of the published search for language: concepts of a form at most, forms kept at each length, and what each further
concept multiplies the IoU by."""
_CHUNK = 2**26
"""Bytes of masks that are searched for side by side, where the budget allows more: what is gone through in turns should be near
the processor."""
_FIRST = 4
"""How many candidates are looked at closely for each one that is kept; more where they hold at the same tokens."""


@dataclasses.dataclass(frozen=True, eq=False)
class Best:
    """The best form for each mask, and the tokens at which both, the mask, and the form hold."""

    forms: tuple[Form, ...]
    both: Int[Tensor, " mask"]
    active: Int[Tensor, " mask"]
    holds: Int[Tensor, " mask"]

    @property
    def iou(self) -> Float[Tensor, " mask"]:
        """Intersection over union, without the penalty."""
        return self.both.double() / (self.active + self.holds - self.both).clamp(min=1)


@dataclasses.dataclass(frozen=True, eq=False)
class _Concepts:
    """What is the same for all masks."""

    masks: Int[Tensor, "concept token"]
    bits: Int[Tensor, "concept word"]
    counts: Int[Tensor, " concept"]
    codes: Codes
    factors: Float[Tensor, " length"]
    """What the IoU of a form of each length is multiplied by."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Beam:
    """Forms of each mask, the best first; where there are fewer, the score is -1."""

    bits: Int[Tensor, "mask form word"]
    score: Float[Tensor, "mask form"]
    length: Int[Tensor, "mask form"]
    code: Int[Tensor, "mask form"]
    both: Int[Tensor, "mask form"]
    holds: Int[Tensor, "mask form"]
    signature: Int[Tensor, "mask form"]


def best_forms(
    active: Bool[Tensor, "mask token"],
    concepts: Bool[Tensor, "concept token"],
    *,
    length: int = LENGTH,
    beam: int = BEAM,
    penalty: float = PENALTY,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Best:
    """For each mask the logical form that fits it best: a concept, then further ones joined by AND, OR and AND NOT.

    A form's score is its intersection over union with the mask, times `penalty` for each concept after the first. The search
    begins with the `beam` best concepts; time and again each form that is new is joined in every way with every concept, and
    the best of all are kept. All candidates of a step are counted in one product of masks. Forms that hold at the same tokens
    are one; of these, and of equal scores, the shorter comes first, then the one whose concepts come first, AND before OR
    before AND NOT. Raises CircuitsError for numbers out of range and masks that do not fit each other.
    """
    if not 0 < penalty <= 1 or beam < 1 or active.shape[1] != concepts.shape[1]:
        raise CircuitsError(
            f"penalty={penalty}, beam={beam}, masks of {active.shape[1]} and {concepts.shape[1]} tokens: expected a penalty "
            "from 0 to 1, a beam of 1 or more, and as many tokens"
        )
    tokens, report = active.shape[1], progress or silent
    found, bits = list[tuple[Tensor, Tensor, Tensor]](), packed(concepts)
    factors = torch.tensor([penalty**place for place in range(length)], dtype=torch.float64)
    given = _Concepts(
        unpacked(bits, tokens), bits, concepts.sum(dim=1, dtype=torch.int32), Codes(len(concepts), length), factors
    )
    # What one mask takes in a step: forms as bytes, candidates as bits, and counts and scores of all joins.
    one = beam * (4 * tokens + _FIRST * tokens + len(concepts) * (12 + 40 * len(JOINS)))
    parts = active.split(max(1, min(budget, _CHUNK) // one))

    def searched(part: int) -> tuple[Tensor, Tensor, Tensor]:
        """The best forms of some masks: codes, and at how many tokens both and they themselves hold."""
        best = _searched(unpacked(packed(parts[part]), tokens), given, length, beam)
        return best.code[:, 0], best.both[:, 0], best.holds[:, 0]

    for part in shards("searching forms", len(parts), searched):
        found.append(part)
        report("searching forms", sum(len(codes) for codes, _, _ in found), len(active))
    codes = [code for each in found for code in each[0].tolist()]
    both, holds = (torch.cat([each[place] for each in found]) for place in (1, 2))
    return Best(tuple(map(given.codes.form, codes)), both.long(), active.sum(dim=1), holds.long())


def _searched(active: Int[Tensor, "mask token"], given: _Concepts, length: int, beam: int) -> _Beam:
    """The search for some masks side by side."""
    overlap, sizes = shared(active, given.masks), active.sum(dim=1, dtype=torch.int32)
    kept = _leaves(overlap, sizes, given, beam)
    for step in range(1, length):
        # A form that was kept before has been joined with everything, and nothing new comes of it.
        new = (kept.length == step) & (kept.score >= 0)
        if not bool(new.any()):
            break
        kept = _step(kept, new, active, overlap, sizes, given, step)
    return kept


def _leaves(overlap: Int[Tensor, "mask concept"], sizes: Int[Tensor, " mask"], given: _Concepts, beam: int) -> _Beam:
    """The best concepts by themselves, of several that hold at the same tokens the first."""
    score = overlap.double() / (sizes[:, None] + given.counts - overlap).clamp(min=1)
    every = signatures(given.bits)
    first = torch.tensor(_firsts(every.tolist()))
    order = first[score[:, first].argsort(dim=1, descending=True, stable=True)[:, :beam]]
    there = order.shape[1]
    order = torch.nn.functional.pad(order, (0, beam - there))
    score = score.gather(1, order)
    score[:, there:] = -1.0
    found = (score, torch.ones_like(order), given.codes.leaf(order), overlap.gather(1, order), given.counts[order])
    return _Beam(given.bits[order], *found, every[order])


def _firsts(values: Sequence[int]) -> list[int]:
    """Where each value stands for the first time."""
    seen: dict[int, int] = {}
    for place, value in enumerate(values):
        seen.setdefault(value, place)
    return list(seen.values())


def _step(
    kept: _Beam,
    new: Bool[Tensor, "mask form"],
    active: Int[Tensor, "mask token"],
    overlap: Int[Tensor, "mask concept"],
    sizes: Int[Tensor, " mask"],
    given: _Concepts,
    length: int,
) -> _Beam:
    """The new forms joined with every concept, the best of them and of those before kept."""
    mask, member = new.nonzero(as_tuple=True)
    forms = unpacked(kept.bits[mask, member], active.shape[1])
    counts = shared(torch.cat([forms, forms & active[mask]]), given.masks)
    joint, triple = counts.split(len(forms))
    within, holds = kept.both[mask, member][:, None], kept.holds[mask, member][:, None]
    # Intersection with the mask, and tokens at which the form holds, for AND, OR and AND NOT.
    both = torch.stack([triple, within + overlap[mask] - triple, within - triple], dim=1)
    size = torch.stack([joint, holds + given.counts - joint, holds - joint], dim=1)
    union = (sizes[mask][:, None, None] + size - both).clamp(min=1)
    rows, width = new.shape
    rough = torch.full((rows, width, both[0].numel()), -1.0)
    rough[mask, member] = (both.float() / union.float() * given.factors[length].float()).flatten(1)
    slots = torch.full((rows, width), -1, dtype=torch.long)
    slots[mask, member] = torch.arange(len(mask))
    candidates = _Candidates(rough.flatten(1), slots, both.flatten(1), size.flatten(1), sizes)
    wanted, look = torch.arange(rows), min(_FIRST * width, rough[0].numel())
    found: list[tuple[Tensor, _Beam]] = []
    while len(wanted):
        better, sure = _merged(kept, candidates, wanted, given, look, length)
        found.append((wanted[sure], _rows(better, sure)))
        wanted, look = wanted[~sure], min(4 * look, rough[0].numel())
    order = torch.cat([places for places, _ in found]).argsort()
    names = [field.name for field in dataclasses.fields(_Beam)]
    return _Beam(*(torch.cat([getattr(part, name) for _, part in found])[order] for name in names))


@dataclasses.dataclass(frozen=True, eq=False)
class _Candidates:
    """Every join of a step: its score to seven digits (-1 for none), and where its exact numbers stand."""

    rough: Float[Tensor, "mask candidate"]
    slots: Int[Tensor, "mask form"]
    both: Int[Tensor, "new joined"]
    holds: Int[Tensor, "new joined"]
    sizes: Int[Tensor, " mask"]


def _merged(
    kept: _Beam, candidates: _Candidates, wanted: Int[Tensor, " mask"], given: _Concepts, look: int, length: int
) -> tuple[_Beam, Bool[Tensor, " mask"]]:
    """Of some masks the best forms among those kept and the `look` best candidates; and whether no other one can be better."""
    width, joined = kept.score.shape[1], candidates.both.shape[1]
    rough, place = candidates.rough[wanted].topk(look, dim=1)
    member, pair = place // joined, place % joined
    slot = candidates.slots[wanted].gather(1, member).clamp(min=0)
    both, holds = candidates.both[slot, pair], candidates.holds[slot, pair]
    union = (candidates.sizes[wanted, None] + holds - both).clamp(min=1)
    score = torch.where(rough < 0, -1.0, both.double() / union * given.factors[length])
    code = given.codes.joined(kept.code[wanted].gather(1, member), torch.full_like(member, length), pair)
    bits = _joined(kept.bits[wanted[:, None], member], given.bits[pair % len(given.counts)], pair // len(given.counts))
    before = _rows(kept, wanted)
    new = _Beam(bits, score, torch.full_like(place, length + 1), code, both, holds, signatures(bits))
    names = [field.name for field in dataclasses.fields(_Beam)]
    every = _Beam(*(torch.cat([getattr(before, name), getattr(new, name)], dim=1) for name in names))
    better = _in_order(every, width)
    last = better.score[:, -1]
    # Rough scores are off by some 1e-7 of themselves: all that could still reach the last form kept must have been looked at.
    sure = (rough[:, -1].double() * (1 + 1e-6) < last) | (rough[:, -1] < 0) | (look == candidates.rough.shape[1])
    return better, sure


def _joined(
    forms: Int[Tensor, "mask form word"], concepts: Int[Tensor, "mask form word"], join: Int[Tensor, "mask form"]
) -> Int[Tensor, "mask form word"]:
    """Where forms joined with concepts hold."""
    flipped = concepts ^ -(join == 2).long()[..., None]  # AND NOT is AND with what the concept is not
    return torch.where((join == 1)[..., None], forms | concepts, forms & flipped)


def _in_order(every: _Beam, width: int) -> _Beam:
    """The best forms that hold at different tokens, the best first; as many as there are places."""
    order = every.code.argsort(dim=1, stable=True)
    order = order.gather(1, every.length.gather(1, order).argsort(dim=1, stable=True))
    order = order.gather(1, every.score.gather(1, order).argsort(dim=1, descending=True, stable=True))
    marks = every.signature.gather(1, order)
    again = (marks[:, :, None] == marks[:, None, :]).tril(diagonal=-1).any(dim=2)
    again |= every.score.gather(1, order) < 0
    order = order.gather(1, again.to(torch.int8).argsort(dim=1, stable=True))[:, :width]
    spare = (~again).sum(dim=1)[:, None] <= torch.arange(order.shape[1])
    rows = torch.arange(len(order))[:, None]
    names = [field.name for field in dataclasses.fields(_Beam)]
    found = _Beam(*(getattr(every, name)[rows, order] for name in names))
    return dataclasses.replace(found, score=found.score.masked_fill(spare, -1.0))


def _rows(beam: _Beam, rows: Tensor) -> _Beam:
    """The forms of some masks."""
    return _Beam(*(getattr(beam, field.name)[rows] for field in dataclasses.fields(_Beam)))
