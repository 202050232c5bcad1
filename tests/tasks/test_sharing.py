"""Pairs that share prompts: which hang together, and that no half knows a prompt of the other."""

import random

import pytest

from circuits.errors import PromptError
from circuits.tasks import PromptPairs
from circuits.tasks.sharing import groups_of, halves


def pairs_from(*prompts: tuple[int, int]) -> PromptPairs:
    """Pairs of one-token prompts, (clean, corrupt)."""
    clean, corrupt = ([[own] for own in side] for side in zip(*prompts, strict=True))
    return PromptPairs.from_tokens(50, clean=clean, corrupt=corrupt, answers=[48] * len(clean), distractors=[49] * len(clean))


@pytest.mark.parametrize(
    ("prompts", "groups"),
    [
        ([(1, 2)], [0]),
        ([(1, 2), (3, 4)], [0, 1]),
        ([(1, 2), (2, 1)], [0, 0]),
        ([(1, 2), (1, 2)], [0, 0]),
        ([(1, 9), (2, 9), (3, 8)], [0, 0, 1]),
        ([(1, 2), (3, 4), (4, 5), (5, 1)], [0, 0, 0, 0]),
        ([(1, 2), (3, 4), (5, 6), (2, 7), (8, 5)], [0, 1, 2, 0, 2]),
    ],
)
def test_groups(prompts: list[tuple[int, int]], groups: list[int]) -> None:
    assert groups_of(pairs_from(*prompts)).tolist() == groups


def test_clean_prompts_alone() -> None:
    assert groups_of(pairs_from((1, 9), (2, 9), (1, 8)), corrupt=False).tolist() == [0, 1, 0]


@pytest.mark.parametrize("seed", range(30))
def test_groups_are_what_can_be_reached_and_halves_share_no_prompt(seed: int) -> None:
    rng = random.Random(seed)
    prompts = [(one, two) for one, two in (rng.sample(range(40), 2) for _ in range(rng.randint(2, 25)))]
    pairs = pairs_from(*prompts)
    groups = groups_of(pairs).tolist()
    reached = [{index} for index in range(len(prompts))]
    for _ in prompts:  # slowly: whoever shares a prompt with somebody reached is reached
        for own in reached:
            seen = {prompt for index in own for prompt in prompts[index]}
            own |= {index for index, both in enumerate(prompts) if seen & set(both)}
    for index, own in enumerate(reached):
        assert own == {other for other in range(len(prompts)) if groups[other] == groups[index]}
    assert list(dict.fromkeys(groups)) == list(range(max(groups) + 1)), "numbered as they come"
    if max(groups) == 0:
        return
    first, rest = halves(pairs, seed)
    assert first and rest and sorted(first + rest) == list(range(len(prompts)))
    assert not {groups[row] for row in first} & {groups[row] for row in rest}
    assert halves(pairs, seed) == (first, rest)


def test_groups_of_all_sizes_make_even_halves_where_they_can() -> None:
    first, rest = halves(pairs_from(*((1 + 2 * i, 2 + 2 * i) for i in range(9))), 4)
    assert (len(first), len(rest)) == (5, 4)
    chain = [(index, index + 1) for index in range(1, 7)]
    first, rest = halves(pairs_from(*chain, (20, 21), (22, 23)), 0)
    assert sorted(map(len, (first, rest))) == [2, 6], "six pairs hang together"


def test_where_all_hang_together_clean_prompts_are_kept_apart() -> None:
    star = pairs_from((1, 9), (2, 9), (3, 9), (1, 9))
    first, rest = halves(star, 0)
    clean = [{int(star.clean.ids[row, 0]) for row in half} for half in (first, rest)]
    assert not clean[0] & clean[1]
    with pytest.raises(PromptError, match="at least two clean prompts"):
        halves(pairs_from((1, 9), (1, 8)), 0)
