"""How much is asked of a circuit, and about how long that takes."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from circuits.errors import CircuitsError, shown
from circuits.files.words import duration

LOOK = 8
"""Prompts on which many circuits or sets of nodes are tried."""
NULL = 4
"""Prompts on which random circuits, and the circuit beside them, are run where circuits have MANY nodes. How many there are
does not touch what p means: on any prompts, a circuit that is no better than a random one comes among the first k of n with
chance k / n. More prompts would tell a circuit that keeps little from random ones more surely; for one that keeps half of the
behaviour, as `Verdict.standing` asks, four are enough where random ones keep next to nothing."""
RANDOM = 128
"""Random circuits at most. 19 can give p = .05, 100 less than .01; with 128 one that reaches the circuit still leaves .016."""
SETS, CANDIDATES, GREEDY_STEPS = 8, 10, 5
"""Random sets of nodes that completeness tries; nodes that a step of its greedy search tries, drawn at random; its steps."""
MANY = 96
"""So many nodes are tried by themselves alone and on the first few prompts, those of them that are asked (`ASKED`), and sets of
them on some (`SOME`): all of it on all prompts would take longer than everything else together."""
ASKED = 60
"""Of MANY nodes or more so many are asked, drawn at random, unless told: their share that is not needed is known to +-0.13."""
SOME = 16
"""Prompts on which sets of MANY nodes or more are taken out of circuit and model."""

NODES = "nodes one by one"
"""What it is called, where time is told, to ask of nodes if they are needed."""
Minimality = bool | int | Literal["all"]
"""Of how many nodes it is asked if they are needed: True (of all, or of many nodes of ASKED), False (of none), at most so many,
or "all"."""


def asked(minimality: Minimality, nodes: int) -> int:
    """Of how many of a circuit's nodes it is asked if they are needed. Raises CircuitsError for what is no such number."""
    if isinstance(minimality, bool):
        return 0 if not minimality else nodes if nodes < MANY else min(ASKED, nodes)
    if minimality == "all":
        return nodes
    if not isinstance(minimality, int) or minimality < 0:
        raise CircuitsError(f"minimality={shown(minimality)}: expected True, False, how many nodes, or 'all'")
    return min(minimality, nodes)


def null_prompts(nodes: int) -> int:
    """On how many prompts random circuits are run that stand beside one of so many nodes."""
    return NULL if nodes >= MANY else LOOK


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgingRuns:
    """About how many runs of a circuit on one prompt the parts of judging it take at most."""

    null: float
    completeness: float
    minimality: float
    curve: float

    @classmethod
    def of(
        cls,
        *,
        prompts: int,
        nodes: int,
        random_circuits: int,
        asked: int,
        sets: int = SETS,
        curve: bool = False,
        null: int | None = None,
    ) -> "JudgingRuns":
        """Of a circuit of so many nodes, `asked` of them one by one, judged on so many prompts; random circuits on `null` of
        them, where that is known."""
        few, many = min(LOOK, prompts), nodes >= MANY
        null = min(null_prompts(nodes), prompts) if null is None else null
        measured = min(SOME, prompts) if many else prompts
        grown = min(GREEDY_STEPS, nodes)
        tried = few * grown * min(CANDIDATES, nodes) * _TRIED if sets else 0.0
        return cls(
            null=null * random_circuits * _RANDOM,
            completeness=tried + (measured * (sets + grown) * _SET if sets else 0.0),
            minimality=(few if many else prompts) * asked * _ALONE,
            curve=prompts * _SIZES + null * _RANDOM_SIZES if curve else 0.0,
        )

    @property
    def verdict(self) -> float:
        """All but the curve."""
        return self.null + self.completeness + self.minimality


_RANDOM, _TRIED, _SET, _ALONE, _SIZES, _RANDOM_SIZES = 1.6, 0.78, 0.78, 0.5, 11.5, 83.0
"""Runs of a circuit that these cost, roughly, as `experiments/judging_costs.py` measured on a model of 135M: a random circuit
of its size, which has more nodes and shares none; circuit and model without a set of nodes that hardly differs from others;
both without a random half; the circuit without one node, beside others; all sizes; random circuits of each size."""


@dataclasses.dataclass(frozen=True)
class JudgingTime:
    """About how many seconds the parts of judging take at most, by their names."""

    seconds: Mapping[str, float]

    @classmethod
    def of(cls, runs: JudgingRuns, seconds: float) -> "JudgingTime":
        """Where a run of the circuit on one prompt takes so long."""
        parts = {
            "random circuits": runs.null,
            "sets of nodes": runs.completeness,
            NODES: runs.minimality,
            "all sizes": runs.curve,
        }
        return cls({name: seconds * many for name, many in parts.items() if many})

    @property
    def total(self) -> float:
        """All parts."""
        return sum(self.seconds.values())

    @property
    def summary(self) -> str:
        """In one line."""
        parts = ", ".join(f"{name} {duration(each)}" for name, each in self.seconds.items())
        return f"judging takes roughly {duration(self.total)}: {parts}"
