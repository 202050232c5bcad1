"""What found heads are worth: the loss without each and without all of them, beside random sets of as many other heads."""

import functools
import itertools
import math
import random
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from circuits.graph import Node
from circuits.models import Model
from circuits.progress import Progress
from circuits.search.mechanisms.induction_evidence import ABLATIONS, Asked, Heads, RepeatAblations
from circuits.statistics import Effect, bootstrap, p_value, sequential_p_value, t_interval, t_test

_SIGNIFICANT, _FEWEST = 0.05, 19
"""The largest p that proves, and how many random sets it takes to get there."""
_WIDE = 0.02
"""The width of an interval that is narrow whatever it holds, as a share of what all found heads cost."""
_FEW_VALUES = 16
"""Below so many sequences a bootstrap is too narrow: its intervals hold the truth less often than they say."""
_SURE = 0.01
"""The p below which a random set counts as worth less than the found heads, so that it is measured on no more sequences."""
_AT_ONCE = 10
"""Random sets that are measured before it is asked whether anything can still be proven."""


def single_evidence(ablations: RepeatAblations, heads: Heads, whole: float, seed: int, report: Progress) -> dict[Node, dict]:
    """What each head costs by itself, by each kind of ablation; `whole`: what all of them cost together."""
    asked: list[Asked] = [((head,), kind) for head in heads for kind in ABLATIONS]
    enough = functools.partial(_settled, whole=whole, seed=seed)
    rises = ablations.rises(asked, enough=lambda _, rises: enough(rises), report=report, what="ablating single heads")
    evidence: dict[Node, dict] = {head: {} for head in heads}
    for ((head,), kind), found in zip(asked, rises, strict=True):
        evidence[head][kind] = _measured(interval(found, seed), found)
    return evidence


def interval(rises: Tensor, seed: int) -> Effect:
    """The mean with its 95 % interval."""
    return t_interval(rises) if 1 < len(rises) < _FEW_VALUES else bootstrap(rises, seed=seed)


def _settled(rises: Tensor, whole: float, seed: int) -> bool:
    """Whether these sequences are enough: their interval is narrow, or it leaves out zero and is no wider than the effect."""
    found = interval(rises, seed)
    width, sure = found.high - found.low, found.low > 0 or found.high < 0
    return width < _WIDE * abs(whole) or (sure and width <= abs(found.effect))


def _measured(effect: Effect, rises: Tensor) -> dict[str, Any]:
    return {**effect.as_json(), "sequences": len(rises)}


def set_evidence(
    model: Model, ablations: RepeatAblations, heads: Heads, control_sets: int, seed: int, report: Progress
) -> tuple[dict, dict]:
    """Ablation of all the found heads together, and of random sets of as many heads of the rest: of all such sets, where
    there are no more than are asked for."""
    # What the verdict rests on is measured on all sequences.
    what = "ablating all found heads"
    (zero,) = ablations.rises([(heads, "zero")], first=len(ablations.tokens), report=report, what=what)
    effects = {"zero": _measured(interval(zero, seed), zero)}
    enough = functools.partial(_settled, whole=float(zero.mean()), seed=seed)
    others: list[Asked] = [(heads, kind) for kind in ABLATIONS if kind != "zero"]
    rises = ablations.rises(others, enough=lambda _, rises: enough(rises), report=report, what=what)
    effects |= {kind: _measured(interval(found, seed), found) for (_, kind), found in zip(others, rises, strict=True)}
    rest = [node for node in model.graph().nodes() if node.kind == "head" and node not in heads]
    size = min(len(heads), len(rest))
    sets = other_sets(rest, size, control_sets, seed)
    control: dict[str, Any] = {"sets": len(sets), "size": size, "all": len(sets) >= math.comb(len(rest), size) or not size}
    control |= _compared(ablations, zero, rises[0], sets, report) if sets else {}
    return {"heads": [str(head) for head in heads], "ablation": effects}, control


def _compared(ablations: RepeatAblations, zero: Tensor, mean: Tensor, sets: list[Heads], report: Progress) -> dict[str, Any]:
    """What random sets of heads cost, beside what the found heads (`zero`, `mean`) cost on the same sequences; no more of them
    than it takes to see that nothing can be proven."""
    zeros: list[Tensor] = []
    means: list[Tensor] = []

    def enough(_: Asked, rises: Tensor) -> bool:
        """Whether a set surely costs less."""
        return t_test(zero[: len(rises)] - rises) < _SURE

    def margins() -> Iterator[list[float]]:
        """By how much random sets, some at a time, cost more than the found heads."""
        for start in range(0, len(sets), _AT_ONCE):
            report("ablating random heads", start, len(sets))
            some = sets[start : start + _AT_ONCE]
            zeros.extend(ablations.rises([(one, "zero") for one in some], enough=enough))
            # The mean decides nothing: two sequences tell enough of it.
            means.extend(ablations.rises([(one, "mean") for one in some], first=2, enough=lambda *_: True))
            yield [_margin(rises, zero) for rises in zeros[start:]]

    # Of few sets nothing can be proven, and of all that there are each counts: there none is left out.
    whole = len(sets) + 1 if len(sets) < _FEWEST else None
    chance = sequential_p_value(0.0, margins(), most=len(sets), level=_SIGNIFICANT, reach=whole)
    report("ablating random heads", len(sets), len(sets))
    tried = len(chance.null)
    control: dict[str, Any] = {"tried": tried}
    if chance.decided:
        control["stopped"] = f"{chance.reached} of {tried} cost as much, so that nothing can be proven"
    for kind, own, rises in (("zero", zero, zeros[:tried]), ("mean", mean, means[:tried])):
        values = [float(one.mean()) for one in rises]
        p = chance.p_value if kind == "zero" else p_value(0.0, [_margin(one, own) for one in rises])
        used = max(map(len, rises))
        control[kind] = {"mean": sum(values) / len(values), "max": max(values), "p_value": p, "sequences": used}
    return control


def _margin(rises: Tensor, found: Tensor) -> float:
    """How much more a set of heads costs than the found ones on the same sequences."""
    return float(rises.mean()) - float(found[: len(rises)].mean())


def other_sets(rest: list[Node], size: int, count: int, seed: int) -> list[Heads]:
    """Random sets of heads, or all that there are, where these are fewer: a set drawn twice tells nothing new."""
    if not size:
        return []
    if math.comb(len(rest), size) <= count:
        return list(itertools.combinations(rest, size))
    draw = random.Random(seed)
    return [tuple(draw.sample(rest, size)) for _ in range(count)]


def why_unproven(about: dict) -> str | None:
    """Why the set of found heads proves nothing; None where it does."""
    control, zero = about["control"], about["set"]["ablation"]["zero"]
    if zero["low"] <= 0:
        return "the interval holds zero"
    if zero.get("sequences", 2) < 2:
        return "of one sequence there is no interval"
    if control["sets"] < _FEWEST and not control["all"]:
        return f"{control['sets']} random sets of other heads are too few to compare with"
    share = control.get("zero", {}).get("p_value", 0.0)
    if share > max(_SIGNIFICANT, 1 / (1 + control["sets"])):
        return f"random sets of as many heads reach it (p = {share:.2f})"
    if control["sets"] < _FEWEST and about["edges_patched"]["low"] <= 0:
        return f"there are {control['sets']} sets of other heads to compare with, and patching the edges costs nothing for sure"
    return None


def held_against_few(about: dict) -> str:
    """What stands in for random sets where a model has too few other heads."""
    count, cost = about["control"]["sets"], about["edges_patched"]
    if count >= _FEWEST:
        return ""
    others = (
        f"The {count} other sets of heads that there are cost less" if count else "There are no other heads to compare with"
    )
    share = f"{cost['effect']:.0%} of the logit difference ({cost['low']:.0%} to {cost['high']:.0%})"
    return f" {others}; patching the edges into the keys costs {share}."
