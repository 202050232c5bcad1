"""Dictionaries at their places in a model, and what stands there taken apart: features, and what they leave."""

import dataclasses
import itertools
import re
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.concepts.features.dictionary import BLOCK, Dictionary
from circuits.concepts.features.places import FeaturePlace
from circuits.concepts.features.standing import standing
from circuits.errors import GraphError, shown
from circuits.models import Model, Run

ERROR, SKIP = "error", "skip"
_NODE = re.compile(r"([a-z]+[0-9]+)\.(?:f(0|[1-9][0-9]{0,8})|(error|skip))", re.ASCII)


@dataclasses.dataclass(frozen=True, eq=False)
class Tap:
    """A dictionary at its places. Its nodes are its features (`m2.f13`), what it leaves of what stands there (`m2.error`), and
    its straight line where it has one (`m2.skip`): y = sum of z_f W_dec[f] + b_dec + skip + error, exactly."""

    dictionary: Dictionary
    reads: FeaturePlace
    writes: FeaturePlace

    @property
    def name(self) -> str:
        """That of the place where it writes."""
        return self.writes.name

    @property
    def rests(self) -> tuple[str, ...]:
        """Its nodes that are no features."""
        return (ERROR,) if self.dictionary.W_skip is None else (ERROR, SKIP)

    def node(self, feature: int | str) -> str:
        """The name of a feature, or of what is none."""
        return f"{self.name}.{feature}" if isinstance(feature, str) else f"{self.name}.f{feature}"

    def block(self, places: int, budget: int, element: int) -> int:
        """How many features' activations fit a budget at so many places, with what is computed from them; at least one."""
        return max(1, min(BLOCK, budget // (6 * element * max(1, places))))

    def apart(self, run: Run, *, size: int = BLOCK) -> "Apart":
        """What stands at its place in a run, taken apart, so many features at a time."""
        return self.taken(standing(run, self.reads), standing(run, self.writes), size=size)

    def taken(self, r: Tensor, y: Tensor, *, size: int = BLOCK) -> "Apart":
        """What stands where it writes, taken apart by what it reads."""
        given, skip = self.dictionary.given(r, size=size), self.dictionary.skipped(r)
        return Apart(r, y, y - given, skip)


@dataclasses.dataclass(frozen=True, eq=False)
class Apart:
    """What stands at a tap in one run; its features' activations follow from what it reads, and are not held."""

    r: Float[Tensor, "prompt position d_in"]
    y: Float[Tensor, "prompt position width"]
    error: Float[Tensor, "prompt position width"]
    skip: Float[Tensor, "prompt position width"]

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Its arrays, in their order."""
        return self.r, self.y, self.error, self.skip

    def rest(self, name: str) -> Float[Tensor, "prompt position width"]:
        """The error, or the skip connection's part."""
        return self.error if name == ERROR else self.skip


def taps_of(model: Model, dictionaries: Dictionary | Sequence[Dictionary]) -> tuple[Tap, ...]:
    """Dictionaries at their places, in the order of computation. Raises GraphError for one that does not fit the model, and for
    two that take the same apart."""
    given = [dictionaries] if isinstance(dictionaries, Dictionary) else list(dictionaries)
    if not given:
        raise GraphError("there is no dictionary: name one at least")
    found = []
    for one in given:
        own, _ = one.fitting(model)
        writes = FeaturePlace.parse(own.site)
        found.append(Tap(own, FeaturePlace.parse(own.reads or own.site), writes))
    found.sort(key=lambda tap: tap.writes.rank)
    for first, second in itertools.pairwise(found):
        if first.name == second.name:
            raise GraphError(f"two dictionaries take {first.name} apart: {first.dictionary.name}, {second.dictionary.name}")
    return tuple(found)


def parsed_node(taps: Sequence[Tap], name: str) -> tuple[int, int | str]:
    """Which tap a node is of (its place among them), and its feature's number, or what it is besides (`error`, `skip`). Raises
    GraphError for a name of none."""
    found, names = _NODE.fullmatch(name), [tap.name for tap in taps]
    if found is None or found[1] not in names:
        raise GraphError(f"{shown(name)} is no feature: expected one of {', '.join(f'{one}.f0' for one in names)}, or … .error")
    place = names.index(found[1])
    if found[2] is None:
        if found[3] not in taps[place].rests:
            raise GraphError(f"{name}: the dictionary {taps[place].dictionary.name} has no skip connection")
        return place, found[3]
    if int(found[2]) >= len(taps[place].dictionary):
        raise GraphError(f"{taps[place].dictionary.name} has no feature {found[2]}: it has {len(taps[place].dictionary)}")
    return place, int(found[2])


def named(tap: Tap, features: Tensor) -> list[str]:
    """The names of some features."""
    return [tap.node(feature) for feature in features.tolist()]


def put_together(tap: Tap, apart: Apart, *, size: int = BLOCK) -> Float[Tensor, "prompt position width"]:
    """The sum of a tap's nodes: features, bias, skip connection, error."""
    made = apart.error + apart.skip + tap.dictionary.b_dec
    for some, z in tap.dictionary.blocks(apart.r, size=size):
        made = made + torch.einsum("pcf,fd->pcd", z, tap.dictionary.W_dec[some])
    return made
