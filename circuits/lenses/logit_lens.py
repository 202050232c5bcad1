"""The logit lens (nostalgebraist 2020): what the model would say if a residual stream on the way were its last one, and, for
single nodes, what they add to its logits."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.errors import MemoryBudgetError, NonFiniteError, PromptError
from circuits.lenses.direct.targets import Target, prompts_of, token_ids
from circuits.lenses.lens import Lens, RowKind
from circuits.lenses.rows import LensRow, group_vectors, parse_rows, residual_at
from circuits.lenses.streaming import Source, SourceStatistics, read_sources
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.layers import normalise
from circuits.models.memory import BUDGET
from circuits.models.model import Prompts
from circuits.progress import Progress, silent

if TYPE_CHECKING:
    from circuits.lenses.tuned_lens import TunedLens

_TOKENS = 2**13
"""Tokens of a forward pass, at most, where there are several prompts."""


@torch.no_grad()
def logit_lens(
    model: Model,
    prompts: Prompts,
    *,
    sites: str | Sequence[str] | None = None,
    nodes: Sequence[str | Sequence[str]] | None = None,
    answers: Target | None = None,
    top: int = 5,
    tuned: "TunedLens | None" = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Lens:
    """Read residual streams, and nodes where asked for, as distributions over tokens, at every position of prompts.

    Streams are read by the model's final norm (at their own scale), unembedding, biases and soft cap; with `tuned` through
    the translators first. Nodes are read with the final norm's scale frozen to the run's, without biases and cap (see
    `Lens`). Raises GraphError for names that the model lacks, PromptError for prompts and answers that do not fit,
    MemoryBudgetError where one block does not fit, ModelError for a tuned lens of another model, NonFiniteError where a
    stream holds NaN or infinity.

    Args:
        model: the model whose streams are read.
        prompts: a text, texts, token ids or a batch.
        sites: `resid0` … `resid{n_layers}` (before layer 0, 1, …; after the last one), `mid0` … (between attention and MLP),
            or the groups "residual" and "middle"; default: both in the order of computation, with `tuned` residual alone.
        nodes: `input`, heads, MLPs, neurons; a list or "a0.h1+m3" is a set whose outputs are summed.
        answers: a token a prompt, or one for all (a text as it follows the prompt, an id, `pairs.answers`), which is then the
            target at every position.
        top: top tokens to keep.
        tuned: a trained lens.
        budget: bytes of logits (also of node outputs) that are held at once.
        progress: hears what is being done, how much of it is done, and how much there is.

    >>> import circuits
    >>> model = circuits.load_model("mini")
    >>> lens = circuits.logit_lens(model, "The cat sat on the", sites="residual")
    >>> lens.rows
    ('resid0', 'resid1', 'resid2', 'resid3', 'resid4')
    >>> [lens.words[int(row[0, -1, 0])] for row in lens.top_ids[[0, -1]]]
    ['ince', ' floor']
    """
    if top < 1:
        raise PromptError(f"top is {top}; expected a whole number from 1 on")
    rows = parse_rows(model, sites, nodes, tuned=tuned is not None)
    if tuned is not None:
        tuned.require_model(model)
    batch = model.prepare(prompts)
    wanted = token_ids(model, answers, prompts_of(prompts, batch), "answers")
    arrays = _read_all(model, batch, rows, wanted, tuned, top, budget, progress)
    return _lens(model, batch, rows, arrays, tuned=tuned is not None, answered=wanted is not None)


_BY_ROW = ("entropy", "cross_entropy", "divergence", "rank", "probability", "logit", "top_ids", "top_probabilities")


def _groups(model: Model, batch: TokenBatch, rows: Sequence[LensRow], budget: int) -> list[tuple[int, int]]:
    """Prompts that go through the model together: so many that the vectors of nodes fit the budget."""
    width, count = batch.ids.shape[1], sum(row.kind == "nodes" for row in rows)
    each = (1 + count) * width * model.d_model * model.weights.W_E.element_size()
    if each > budget:
        what = f"what {count:,} rows of nodes wrote in a prompt" if count else "the final stream of a prompt"
        smaller = "read fewer nodes at a time" if count else "a shorter prompt"
        raise MemoryBudgetError(
            f"{what} of {width:,} tokens takes {each:,} bytes, budget is {budget:,}: give budget={each}, or {smaller}"
        )
    size = max(1, min(budget // each, _TOKENS // width))
    return [(start, min(start + size, len(batch))) for start in range(0, len(batch), size)]


def _read_all(
    model: Model,
    batch: TokenBatch,
    rows: Sequence[LensRow],
    answers: Tensor | None,
    tuned: "TunedLens | None",
    top: int,
    budget: int,
    progress: Progress | None,
) -> dict[str, Tensor]:
    """Every group's arrays, joined over prompts."""
    found: list[dict[str, Tensor]] = []
    total, done = int(batch.mask.sum()), 0
    report = progress or silent

    def advance(positions: int) -> None:
        """Report further positions as read."""
        nonlocal done
        done += positions
        report("reading layers", done, total)

    advance(0)
    for start, stop in _groups(model, batch, rows, budget):
        chosen = None if answers is None else answers[start:stop]
        found.append(_read_group(model, batch[start:stop], rows, chosen, tuned, top, budget, advance))
    return {name: torch.cat([part[name] for part in found], dim=int(name in _BY_ROW)) for name in found[0]}


def _read_group(
    model: Model,
    batch: TokenBatch,
    rows: Sequence[LensRow],
    answers: Tensor | None,
    tuned: "TunedLens | None",
    top: int,
    budget: int,
    advance: Callable[[int], None],
) -> dict[str, Tensor]:
    """Run prompts and read their rows; arrays `[row prompt position …]` and `[prompt position]`, 0 at pads."""
    weights, mask = model.weights, batch.mask
    run = forward(weights, batch, logits=False)
    for row in rows:
        if row.kind != "nodes":
            _require_finite(residual_at(run, row), mask, row.name)
    last = run.residuals[-1]
    _require_finite(last, mask, f"resid{model.n_layers}")
    final = Source(normalise(last[mask], weights.final_norm))
    sources = []
    for row in rows:
        if row.kind == "nodes":
            sources.append(Source(group_vectors(model, run, row)[mask], whole=False))
        elif row.name == f"resid{model.n_layers}":
            sources.append(final)
        else:
            x = residual_at(run, row)[mask]
            x = x if tuned is None else tuned.translate(x, row.layer)
            sources.append(Source(normalise(x, weights.final_norm)))
    targets, following, followed = _aims(model, batch, final, answers, budget)
    aims = torch.stack([targets[mask], following[mask]], dim=-1)[:, : 1 if answers is None else 2]
    readings = read_sources(weights, final, sources, aims, top=top, budget=budget, advance=advance)
    arrays = _arrays(readings, batch, followed)
    return {**arrays, "targets": targets * mask, "followed": followed}


def _require_finite(x: Tensor, mask: Tensor, name: str) -> None:
    finite = x.isfinite().all(dim=-1) | ~mask
    if not bool(finite.all()):
        prompt, column = (~finite).nonzero()[0].tolist()
        raise NonFiniteError(f"the residual stream {name} holds NaN or infinity at prompt {prompt}, position {column}")


def _aims(model: Model, batch: TokenBatch, final: Source, answers: Tensor | None, budget: int) -> tuple[Tensor, Tensor, Tensor]:
    """The target and the next token of every position, and where there is a next token."""
    ids, mask = batch.ids, batch.mask
    prompts, last = torch.arange(len(batch), device=ids.device), batch.last
    following = ids.roll(-1, dims=1)
    followed = mask & (following < model.weights.W_U.shape[1])
    if answers is not None:
        following[prompts, last], followed[prompts, last] = answers, True
        return answers[:, None].expand_as(ids), following * followed, followed
    followed[prompts, last] = False
    place = torch.zeros_like(ids)
    place[mask] = torch.arange(int(mask.sum()), device=ids.device)
    ends = Source(final.normed[place[mask & ~followed]])
    none = ids.new_zeros(len(ends.normed), 0)
    following[mask & ~followed] = read_sources(model.weights, ends, [ends], none, top=1, budget=budget)[0].top_ids[:, 0]
    return following, following, followed


def _arrays(readings: Sequence[SourceStatistics], batch: TokenBatch, followed: Tensor) -> dict[str, Tensor]:
    """Readings at the tokens as arrays over prompts and positions, with 0 at pads."""
    mask = batch.mask

    def spread(values: Sequence[Tensor]) -> Tensor:
        """Rows of values at tokens, laid out by prompt and position; pads hold 0."""
        stacked = torch.stack(list(values))
        whole = stacked.new_zeros(len(values), *mask.shape, *stacked.shape[2:])
        whole[:, mask] = stacked
        return whole.cpu() if whole.dtype == torch.long else whole.cpu().double()

    losses = spread([-reading.log_probabilities[:, -1] for reading in readings])
    return {
        "entropy": spread([reading.entropy for reading in readings]),
        "cross_entropy": torch.where(followed.cpu(), losses, torch.zeros_like(losses)),
        "divergence": spread([reading.divergence for reading in readings]),
        "rank": spread([reading.ranks[:, 0] for reading in readings]),
        "probability": spread([reading.log_probabilities[:, 0].exp() for reading in readings]),
        "logit": spread([reading.logits[:, 0] for reading in readings]),
        "top_ids": spread([reading.top_ids for reading in readings]),
        "top_probabilities": spread([reading.top_probabilities for reading in readings]),
    }


def _depths(rows: Sequence[LensRow], top_ids: Int[Tensor, "row prompt position top"], mask: Tensor) -> Tensor:
    """The layer of the first residual row from which on all have the last one's top token."""
    chosen = [place for place, row in enumerate(rows) if row.kind == "residual"]
    if not chosen:
        return torch.zeros_like(top_ids[0, :, :, 0])
    layers = torch.tensor([rows[place].layer for place in chosen])
    first = top_ids[chosen, :, :, 0]
    settled = (first == first[-1]).long().flip(0).cumprod(dim=0).sum(dim=0)
    return layers[len(chosen) - settled] * mask


def _lens(
    model: Model, batch: TokenBatch, rows: Sequence[LensRow], arrays: dict[str, Tensor], *, tuned: bool, answered: bool
) -> Lens:
    ids, mask = batch.ids.cpu(), batch.mask.cpu()
    for name in ("entropy", "divergence", "logit"):
        bad = (~arrays[name].isfinite()).nonzero()
        if len(bad):
            row, prompt, column = bad[0].tolist()
            raise NonFiniteError(f"the logits of {rows[row].name} hold NaN or infinity at prompt {prompt}, position {column}")
    named = torch.cat([ids[mask], arrays["targets"].cpu()[mask], arrays["top_ids"].flatten()]).unique().tolist()
    kinds: tuple[RowKind, ...] = tuple(row.kind for row in rows)
    flat = {name: value.cpu() for name, value in arrays.items()}
    return Lens(
        model=model.name,
        weights_sha256=model.fingerprint,
        rows=tuple(row.name for row in rows),
        kinds=kinds,
        tuned=tuned,
        answered=answered,
        ids=ids * mask,
        mask=mask,
        depths=_depths(rows, arrays["top_ids"], mask),
        words=dict(zip(named, model.to_token_strings(named), strict=True)),
        **flat,
    )
