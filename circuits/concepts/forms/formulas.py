"""Logical forms over concepts: a concept, then further ones joined by AND, OR and AND NOT, from left to right."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuits.errors import CircuitsError

Join = Literal["AND", "OR", "AND NOT"]
JOINS: tuple[Join, ...] = ("AND", "OR", "AND NOT")


@dataclasses.dataclass(frozen=True)
class Form:
    """A concept by number, then joins with further ones: ((first join concept) join concept) … ."""

    first: int
    rest: tuple[tuple[Join, int], ...] = ()

    def __len__(self) -> int:
        return 1 + len(self.rest)

    def named(self, names: Sequence[str]) -> str:
        """The form in words, with a pair of brackets around what a join of another kind stands behind."""
        said = names[self.first]
        for place, (join, concept) in enumerate(self.rest):
            before = self.rest[place - 1][0] if place else join
            # AND and AND NOT mean the same in any order, and so do several OR: only a change between them needs brackets.
            said = f"({said})" if (before == "OR") != (join == "OR") else said
            said = f"{said} {join} {names[concept]}"
        return said

    def holds(self, concepts: Bool[Tensor, "concept token"]) -> Bool[Tensor, " token"]:
        """At which tokens it holds."""
        found = concepts[self.first].clone()
        for join, concept in self.rest:
            other = concepts[concept]
            found = found & other if join == "AND" else found | other if join == "OR" else found & ~other
        return found


@dataclasses.dataclass(frozen=True)
class Codes:
    """Forms as whole numbers, whose order is that of their concepts and joins from the first on: how ties are decided."""

    concepts: int
    length: int

    def __post_init__(self) -> None:
        if self.length < 1 or self.concepts < 1 or self.base**self.length >= 2**63:
            most = int((2**63) ** (1 / max(self.length, 1)) - 1) // len(JOINS)
            raise CircuitsError(
                f"{self.concepts:,} concepts and forms of up to {self.length}: expected at most {most:,} concepts"
            )

    @property
    def base(self) -> int:
        """Digits: none, and each join with each concept."""
        return len(JOINS) * self.concepts + 1

    def leaf(self, concept: Int[Tensor, "*form"]) -> Int[Tensor, "*form"]:
        """The codes of concepts by themselves."""
        return (1 + concept) * self.base ** (self.length - 1)

    def joined(
        self, code: Int[Tensor, "*form"], length: Int[Tensor, "*form"], place: Int[Tensor, "*form"]
    ) -> Int[Tensor, "*form"]:
        """The codes of forms of a length with one join more, `place` = join × concepts + concept."""
        powers = torch.tensor([self.base ** (self.length - 1 - at) for at in range(self.length)])
        return code + (1 + place) * powers[length]

    def form(self, code: int) -> Form:
        """The form of a code."""
        digits = [code // self.base ** (self.length - 1 - place) % self.base for place in range(self.length)]
        joins = [divmod(digit - 1, self.concepts) for digit in digits[1:] if digit]
        return Form(digits[0] - 1, tuple((JOINS[join], concept) for join, concept in joins))
