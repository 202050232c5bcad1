"""Roles of tokens in pairs of prompts: named spans, and a name for whatever lies between them, so that roles part every
prompt's tokens and prompts of different lengths align by role."""

import dataclasses
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuits.errors import PromptError
from circuits.graph import Roles
from circuits.models import Model
from circuits.tasks.prompts import PromptPairs
from circuits.tasks.role_columns import RoleColumns

END, START = "end", "start"
"""The token at which the answer is read; what comes before the first named span."""
_FIRST, _LAST = "_first", "_last"
Mask = Bool[Tensor, "prompt position"]


def with_roles(pairs: PromptPairs, spans: Mapping[str, Mask] | None = None, *, causal: bool = True) -> PromptPairs:
    """The same pairs with a role for every token.

    Every named span is a role, the token at which the answer is read is `end`, tokens before the first span are `start`, and
    those between are `before_` the span that follows. Where no spans are given they are those of the pairs' named
    positions, a token each (`subject_first` and `subject_last`: the last token of the subject, and `subject`, those before it);
    where there are none, they are found: each run of tokens in which clean and corrupt prompts differ (`changed_1`, …), and the
    earlier tokens that are the same as the last one (`same_as_end`). Raises PromptError, with the prompt, where one lacks a
    role that others have.

    Args:
        pairs: clean and corrupt prompts.
        spans: name → which tokens `[prompt position]`. Where spans meet, the token belongs to the one named later.
        causal: whether tokens look at earlier ones alone, as they do in most models.

    >>> import circuits
    >>> pairs = circuits.PromptPairs.from_tokens(9, clean=[[1, 2, 3], [1, 4, 5]], corrupt=[[1, 6, 3], [1, 7, 5]],
    ...                                          answers=[2, 4], distractors=[6, 7])
    >>> circuits.tasks.roles.with_roles(pairs).roles.names
    ('start', 'changed_1', 'end')
    """
    required = spans is not None or not pairs.positions
    spans = dict(spans if spans is not None else _of_positions(pairs) if pairs.positions else _found(pairs))
    end = spans.pop(END, None)
    if end is not None:
        _require_end(pairs, end & pairs.clean.mask)
    columns = torch.full_like(pairs.clean.ids, -1)
    for place, mask in enumerate(spans.values()):
        columns[mask & pairs.clean.mask] = place
    columns.scatter_(1, pairs.answer_columns[:, None].long(), len(spans))
    for place, name in enumerate(spans if required else ()):
        _require(pairs, columns == place, spans[name] & pairs.clean.mask, name)
    names = _between(pairs, columns, [*spans, END])
    taken = next((name for name in names[len(spans) + 1 :] if name in spans), None)
    if taken is not None:
        raise PromptError(f"the role {taken} is what lies between others here: give the span of that name another one")
    there = [place for place in range(len(names)) if bool((columns == place).any())]
    return dataclasses.replace(pairs, roles=_ordered([names[place] for place in there], columns, there, causal))


def required_roles(pairs: PromptPairs, *, causal: bool = True) -> PromptPairs:
    """The pairs with the roles that they have, or else with those of their positions, or such as are found (`with_roles`)."""
    return pairs if pairs.roles is not None else with_roles(pairs, causal=causal)


def role_tokens(model: Model, pairs: PromptPairs) -> dict[str, str]:
    """The tokens of each role in the first clean prompt, as text; of a role that it lacks, in the first that has it."""
    assert pairs.roles is not None
    found = {}
    for name, mask in zip(pairs.roles.names, pairs.roles.masks(), strict=True):
        rows = mask.any(dim=1).nonzero()[:, 0].tolist()
        if rows:
            ids = pairs.clean.ids[rows[0]][mask[rows[0]]].tolist()
            words = ids if model.tokenizer is None else model.to_token_strings(ids)
            found[name] = "".join(map(str, words)) if model.tokenizer is not None else " ".join(map(str, words))
    return found


def _require(pairs: PromptPairs, mask: Mask, named: Mask, name: str) -> None:
    lacking = ~mask.any(dim=1)
    if not bool(lacking.any()):
        return
    row = int(lacking.long().argmax())
    if bool(named[row].any()):
        why = f"all tokens of the role {name} have another one: that named later, or end, where the answer is read"
    else:
        why = f"no token of it has the role {name}, which {int((~lacking).sum())} of the others have"
    raise PromptError(f"{pairs.name(row)}: {why}")


def _require_end(pairs: PromptPairs, mask: Mask) -> None:
    """Raise PromptError where a span that is called `end` is not the token at which the answer is read."""
    answer = torch.zeros_like(mask).scatter_(1, pairs.answer_columns[:, None].long(), True)
    wrong = (mask != answer).any(dim=1)
    if bool(wrong.any()):
        raise PromptError(
            f"{pairs.name(int(wrong.long().argmax()))}: the role {END} is the token at which the answer is read, and it alone: "
            "give the span of that name another one"
        )


def _of_positions(pairs: PromptPairs) -> dict[str, Mask]:
    """A span for each named position; of first and last tokens of something the last one, and what stands before it."""
    places = torch.arange(pairs.clean.ids.shape[1], device=pairs.clean.ids.device)
    found: dict[str, Mask] = {}
    for name, column in pairs.positions.items():
        last = pairs.positions.get(name.removesuffix(_FIRST) + _LAST) if name.endswith(_FIRST) else None
        if last is None:
            found[name] = places == column[:, None]
        else:
            found[name.removesuffix(_FIRST)] = (places >= column[:, None]) & (places < last[:, None])
    return found


def _found(pairs: PromptPairs) -> dict[str, Mask]:
    """Spans by what tokens are: runs in which the two prompts differ, and what is the same as the last token."""
    ids, mask = pairs.clean.ids, pairs.clean.mask
    changed = (ids != pairs.corrupt.ids) & mask
    before = torch.zeros_like(changed)
    before[:, 1:] = changed[:, :-1]
    run = (changed & ~before).long().cumsum(dim=1) * changed
    last = ids.gather(1, pairs.answer_columns[:, None].long())
    found = {"same_as_end": (ids == last) & mask}
    found = {name: some for name, some in found.items() if bool((some.sum(dim=1) > 1).all())}
    return found | {f"changed_{number}": run == number for number in range(1, int(run.max()) + 1)}


def _between(pairs: PromptPairs, columns: Int[Tensor, "prompt position"], names: list[str]) -> list[str]:
    """Give, in place, what has no role yet one by the span that comes next; the names of all."""
    places, names = dict[tuple[bool, int], int](), [*names]
    for row, (own, mask) in enumerate(zip(columns.tolist(), pairs.clean.mask.tolist(), strict=True)):
        first, following = next(column for column, place in enumerate(own) if place >= 0), -1
        for column in reversed(range(len(own))):
            if own[column] >= 0:
                following = own[column]
            elif mask[column]:
                key = (column < first, -1 if column < first else following)
                if key not in places:
                    places[key] = len(names)
                    name = f"after_{END}" if following < 0 else f"before_{names[following]}"
                    names.append(START if column < first else name)
                columns[row, column] = places[key]
    return names


def _ordered(names: list[str], columns: Tensor, there: list[int], causal: bool) -> RoleColumns:
    """Roles in the order in which they mostly stand, the last token's at last, and which of them look at which."""
    width = torch.arange(columns.shape[1], device=columns.device)
    masks = torch.stack([columns == place for place in there])
    first = torch.where(masks, width, columns.shape[1]).amin(dim=2)
    last = torch.where(masks, width, -1).amax(dim=2)
    middle = torch.where(masks, width, 0).sum(dim=(1, 2)) / masks.sum(dim=(1, 2))
    order = sorted(range(len(names)), key=lambda place: (names[place] == END, float(middle[place])))
    looks = []
    for query in order:
        # In any one of the prompts a token of the one at or before a token of the other; a role that a prompt lacks is nowhere.
        seen = (first[order] <= last[query]).any(dim=1) if causal else torch.ones(len(order), dtype=torch.bool)
        looks.append(tuple(seen.nonzero()[:, 0].tolist()))
    found = torch.full_like(columns, -1)
    for place, old in enumerate(order):
        found[masks[old]] = place
    return RoleColumns(Roles(tuple(names[place] for place in order), tuple(looks)), found)
