"""A symmetry that exchanges heads and neurons exactly, one that does not, and the gap as the definition has it."""

import itertools
from typing import Any

import pytest
import torch

from circuits.concepts import Equivariance, equivariance
from circuits.errors import MemoryBudgetError, ModelError, PromptError
from circuits.models import TokenBatch
from circuits.models.planted import planted_branches

CLASSES, EACH = 3, 4
SWAP = torch.tensor([0, *range(1 + EACH, 1 + 2 * EACH), *range(1, 1 + EACH), *range(1 + 2 * EACH, 1 + 3 * EACH)])
"""Tokens of the first class for those of the second, one by one, and the reverse."""
QUICK: dict[str, Any] = {"matchings": 99, "relabellings": 3}


def prompts(count: int = 12, width: int = 7) -> TokenBatch:
    ids = torch.randint(1, 1 + CLASSES * EACH, (count, width), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, 1], ids[:, 2] = 0, 1, 2 + EACH
    return TokenBatch.unpadded(ids)


def measured(units: Any, **options: Any) -> Equivariance:
    given = prompts()
    moved = TokenBatch.unpadded(SWAP[given.ids])
    return equivariance(planted_branches().model, given, moved, units=units, symmetry="swap", **QUICK, **options)


@pytest.mark.parametrize("units", ["heads", "neurons"])
def test_copies_with_exchanged_tokens_change_places_exactly(units: Any) -> None:
    found = measured(units)
    assert found.matching.tolist() == [[1, 0, 2]] and float(found.gaps[0]) < 1e-6
    assert float(found.stays[0]) > 0.2 and float(found.gains[0, 1]) > 0.1 and float(found.relabelled.min()) > 1e-3
    names = ("a0.h{}", "m0.n{}")[units == "neurons"]
    assert set(found.exchanged) == {(names.format(0), names.format(1)), (names.format(1), names.format(0))}
    assert found.relabelled_p == (0.25,) and float(found.p_values[0]) < 0.3, "one in six matchings is the right one"
    assert found.to_dataframe()["partner"].tolist() == [names.format(one) for one in (1, 0, 2)]


def test_tied_heads_stay_where_they_are() -> None:
    given = prompts()
    found = equivariance(planted_branches(tied=True).model, given, TokenBatch.unpadded(SWAP[given.ids]), **QUICK)
    assert found.matching.tolist() == [[0, 1, 2]] and found.exchanged == ()
    assert float(found.gaps[0]) == pytest.approx(float(found.stays[0])) and float(found.p_values[0]) == 1.0


def test_the_matching_is_the_best_of_all_and_its_gap_that_of_a_loop() -> None:
    model, given = planted_branches(seed=1).model, prompts(8)
    moved = TokenBatch.unpadded(torch.randperm(13, generator=torch.Generator().manual_seed(3))[given.ids])
    found = equivariance(model, given, moved, **QUICK)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    one, other = (model.run(batch).pattern(0).double() for batch in (given, moved))
    gaps = {}
    for matching in itertools.permutations(range(CLASSES)):
        squares = (other - one[:, list(matching)]).square().sum(dim=(1, 2, 3))
        gaps[matching] = (float(squares[order[:4]].sum()), float(squares[order[4:]].sum()))
    assert tuple(found.matching[0].tolist()) == min(gaps, key=lambda matching: gaps[matching][0])
    size = sum(float(part[order[4:]].square().sum()) for part in (one, other))
    assert float(found.gaps[0]) == pytest.approx(gaps[tuple(found.matching[0].tolist())][1] / size, abs=1e-6)
    assert float(found.stays[0]) == pytest.approx(gaps[0, 1, 2][1] / size, abs=1e-6)


def test_what_does_not_fit_is_refused() -> None:
    model, given = planted_branches().model, prompts(6)
    moved = TokenBatch.unpadded(SWAP[given.ids])
    cases: tuple[tuple[Any, str, Any, dict[str, Any]], ...] = (
        (PromptError, "different shapes", (given, moved[:3]), {}),
        (PromptError, "changes nothing", (given, given), {}),
        (PromptError, "3 prompts: expected 4", (given[:3], moved[:3]), {}),
        (PromptError, "units=", (given, moved), {"units": "lines"}),
        (ModelError, "of layer 4: expected 0 to 0", (given, moved), {"layers": [4]}),
        (MemoryBudgetError, "take fewer prompts", (given, moved), {"budget": 10}),
    )
    for error, words, arguments, options in cases:
        with pytest.raises(error, match=words):
            equivariance(model, *arguments, **QUICK, **options)
