"""Texts that are others up to some token: what stands before it is read once for all of them."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.models.sampling import Writer
from circuits.progress import Progress, silent
from circuits.uses.classifying.classifier import bytes_of_a_token, read_ends

Changed = tuple[int, Sequence[int]]
"""Which text it was made from, and its token ids."""
_MOST = 512
"""Rows of a pass, at most."""
_WIDE, _PADDED = 384, 1.15
"""A pass of so many tokens has about the rate of a wider one: it ends where filling up would make it so many times as long."""


@torch.no_grad()
def read_changed(
    model: Model,
    rows: Sequence[Sequence[int]],
    changed: Sequence[Changed],
    *,
    what: str,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> tuple[Float[Tensor, "text d_out"], Float[Tensor, "changed d_out"]]:
    """The logits at the last tokens of texts, and of texts made from them: as `read_ends` has them, at less cost. A changed
    text is read from the first token on that is not its text's (from its last one, where all are), and of equal ones only one.
    A model whose attention looks ahead reads all of them whole.

    Args:
        model: what reads them.
        rows: token ids of the texts.
        changed: those that were made from them.
        what: what progress hears.
        budget: bytes that a pass may take, besides the model, with the keys and values of the texts.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    distinct = list(dict.fromkeys((source, tuple(ids)) for source, ids in changed))
    if not model.weights.causal:
        every = [*rows, *(ids for _, ids in distinct)]
        read = read_ends(model, every, what=what, budget=budget, progress=progress)
        found, others = read[: len(rows)], read[len(rows) :]
    else:
        found, others = _read(model, rows, distinct, what, budget, progress or silent)
    places = {one: place for place, one in enumerate(distinct)}
    return found, others[[places[source, tuple(ids)] for source, ids in changed]]


def _read(
    model: Model, rows: Sequence[Sequence[int]], changed: Sequence[Changed], what: str, budget: int, report: Progress
) -> tuple[Tensor, Tensor]:
    """The same for changed texts that are all different, by a model that does not look ahead."""
    from_text: dict[int, list[int]] = {}
    for place, (source, _) in enumerate(changed):
        from_text.setdefault(source, []).append(place)
    starts = [_shared(rows[source], ids) for source, ids in changed]
    total = sum(map(len, rows)) + sum(len(ids) - start for (_, ids), start in zip(changed, starts, strict=True))
    done, width = 0, model.weights.W_U.shape[1]
    found, others = (model.weights.W_U.new_zeros(count, width) for count in (len(rows), len(changed)))
    for texts in _groups(model, rows, budget):
        ids, ends = _padded(model, [rows[text] for text in texts])
        base = Writer(model.weights, len(texts), ids.shape[1])
        found[texts] = base.read_ends(ids, ends)
        done += sum(len(rows[text]) for text in texts)
        report(what, done, total)
        slots = {text: slot for slot, text in enumerate(texts)}
        own = [place for text in texts for place in from_text.get(text, ())]
        for places in _passes(model, own, starts, [len(ids) for _, ids in changed], budget):
            picked = torch.tensor([slots[changed[place][0]] for place in places], device=model.device)
            begin = torch.tensor([starts[place] for place in places], device=model.device)
            others[places] = base.continued(picked, begin, [changed[place][1][starts[place] :] for place in places])
            done += sum(len(changed[place][1]) - starts[place] for place in places)
            report(what, done, total)
    return found, others


def _shared(row: Sequence[int], ids: Sequence[int]) -> int:
    """Tokens that need not be read again: all in front of the first that differs, but never the last one."""
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(row, ids, strict=False))
    return min(sum(1 for _ in alike), len(ids) - 1)


def _groups(model: Model, rows: Sequence[Sequence[int]], budget: int) -> Iterator[list[int]]:
    """Texts of similar lengths whose keys and values take half of the budget at most."""
    order, size = sorted(range(len(rows)), key=lambda place: len(rows[place])), _kept(model) + bytes_of_a_token(model)
    while order:
        count = 1
        while count < min(len(order), _MOST) and (count + 1) * len(rows[order[count]]) * size <= budget // 2:
            count += 1
        yield order[:count]
        order = order[count:]


def _passes(
    model: Model, places: Sequence[int], starts: Sequence[int], lengths: Sequence[int], budget: int
) -> Iterator[list[int]]:
    """Changed texts with as many tokens to read, about, as many as fit the other half."""
    rest = sorted(places, key=lambda place: (lengths[place] - starts[place], lengths[place]))
    while rest:
        count, longest, read = 1, lengths[rest[0]], lengths[rest[0]] - starts[rest[0]]
        while count < min(len(rest), _MOST):
            new, longest = lengths[rest[count]] - starts[rest[count]], max(longest, lengths[rest[count]])
            padded = read >= _WIDE and (count + 1) * new > _PADDED * (read + new)
            if padded or (count + 1) * _bytes(model, new, longest) > budget // 2:
                break
            count, read = count + 1, read + new
        yield rest[:count]
        rest = rest[count:]


def _bytes(model: Model, new: int, length: int) -> int:
    """What a text takes of which some tokens are read: one layer's keys and values of all of it, once a head, and scores."""
    own = 2 * (length + 1) * model.n_heads * (2 * model.d_head) + 3 * model.n_heads * new * (length + 1)
    return own * model.weights.W_E.element_size() + new * bytes_of_a_token(model)


def _kept(model: Model) -> int:
    """The keys and values of a token, of all layers."""
    attention = model.weights.blocks[0].attention
    return 2 * model.n_layers * attention.n_key_value_heads * attention.d_head * model.weights.W_E.element_size()


def _padded(model: Model, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids side by side, and the column at which each ends."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=model.device)
    return ids, torch.tensor([len(row) - 1 for row in rows], device=model.device)
