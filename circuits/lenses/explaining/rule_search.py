"""The explainer that needs no model: the few clauses that tell best where a neuron is active."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.lenses.explaining.excerpts import LEVELS, Excerpt
from circuits.lenses.explaining.rules import CLASSES, Clause, TokenRule, words_of

CLAUSES = 4
"""Clauses of a rule at most."""
LEAST_GAIN = 0.02
"""By how much a further clause must raise the correlation on the excerpts that are shown."""
_ACTIVE = 0.5
"""What share of an excerpt's largest level a token must have to give clauses."""
AFFIXES = (2, 3, 4)


def rule_explainer(shown: Sequence[Excerpt], scale: float) -> str:
    """The rule that fits the excerpts best, as text that `TokenRule.parse` reads.

    Clauses are the words, beginnings, endings and kinds of the tokens where the neuron is active, and of the tokens before and
    after them, as long as they hold in two excerpts at least. The one that raises the correlation with the activations most is
    taken, then the next one for the tokens where it does not hold, up to four; each says the mean level of its tokens.
    """
    words = [words_of(one.tokens) for one in shown]
    levels = [[LEVELS * min(max(value, 0.0) / scale, 1.0) if scale > 0 else 0.0 for value in one.activations] for one in shown]
    found: dict[Clause, list[tuple[int, int]]] = {clause: [] for clause in _candidates(words, levels)}
    start = 0
    for row, spoken in enumerate(words):
        for at in range(len(spoken)):
            for clause in holding_at(spoken, at):
                if clause in found:
                    found[clause].append((row, start + at))
        start += len(spoken)
    wide = {clause: places for clause, places in found.items() if len({row for row, _ in places}) >= 2}
    holds = torch.zeros(len(wide), start, dtype=torch.bool)
    for line, places in zip(holds, wide.values(), strict=True):
        line[[place for _, place in places]] = True
    target = torch.tensor([value for one in levels for value in one], dtype=torch.float64)
    return str(_fitted([*wide], holds, target))


def _candidates(words: Sequence[Sequence[str]], levels: Sequence[Sequence[float]]) -> list[Clause]:
    """Clauses that hold where the neuron is active, each once, simple ones first; beginnings and endings of words only."""
    found: dict[Clause, None] = {}
    order = ("word", "class", "start", "end", "after", "before", "after class")
    for spoken, active in zip(words, levels, strict=True):
        most = max(active)
        for at, level in enumerate(active):
            if level > 0 and level >= _ACTIVE * most:
                word = spoken[at]
                whole = [clause for clause in holding_at(spoken, at) if clause.kind not in ("start", "end")]
                parts = [clause for clause in holding_at(spoken, at) if clause.kind in ("start", "end") and word.isalpha()]
                found |= dict.fromkeys([*whole, *(clause for clause in parts if len(clause.text) < len(word))])
    return sorted(found, key=lambda clause: order.index(clause.kind))


def holding_at(words: Sequence[str], at: int) -> Iterator[Clause]:
    """Every clause that holds at a word of an excerpt, of beginnings and endings those of two to four letters."""
    word = words[at].lower()
    if word:
        yield Clause("word", word)
    for length in AFFIXES:
        if len(word) >= length:
            yield Clause("start", word[:length])
            yield Clause("end", word[-length:])
    yield from (Clause("class", name) for name, holds in CLASSES.items() if holds(words[at]))
    if at:
        yield from (Clause("after class", name) for name, holds in CLASSES.items() if holds(words[at - 1]))
    if at and words[at - 1]:
        yield Clause("after", words[at - 1].lower())
    if at + 1 < len(words) and words[at + 1]:
        yield Clause("before", words[at + 1].lower())


def _fitted(clauses: Sequence[Clause], holds: Bool[Tensor, "clause token"], target: Float[Tensor, " token"]) -> TokenRule:
    """Clauses one after the other, each for the tokens where none before it holds."""
    whole = float(((target - target.mean()) ** 2).sum())
    free, chosen, explained = torch.ones_like(target, dtype=torch.bool), list[Clause](), 0.0
    while whole > 0 and len(chosen) < CLAUSES and len(clauses):
        here = (holds & free).double()
        counts, rest = here.sum(dim=1), float(free.sum())
        sums, total = here @ target, float(target[free].sum())
        others = (rest - counts).clamp(min=1)
        apart = sums / counts.clamp(min=1) - (total - sums) / others
        # The sum of squares between two groups: what a clause explains of the tokens that no clause before it holds for.
        gains = torch.where((apart > 0) & (counts > 0) & (counts < rest), counts * others / rest * apart**2, 0.0)
        best = int(gains.argmax())
        after = explained + float(gains[best]) / whole
        if after**0.5 - explained**0.5 < LEAST_GAIN:
            break
        explained = after
        chosen.append(Clause(clauses[best].kind, clauses[best].text, round(float(sums[best] / counts[best]), 1)))
        free = free & ~holds[best]
    elsewhere = round(float(target[free].mean()), 1) if chosen and bool(free.any()) else 0.0
    return TokenRule(tuple(chosen), elsewhere)
