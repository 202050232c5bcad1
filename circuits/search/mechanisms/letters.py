"""Heads that answer multiple choice by a letter (Lieberum et al. 2023), by what they write, what patching them brings back, and
where they look."""

import re
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import PromptError
from circuits.heads.compression import Compression, compress_heads
from circuits.lenses.direct.attribution import logits
from circuits.models import Model, TokenBatch
from circuits.models.memory import BUDGET
from circuits.patching.engine.base import plain_run
from circuits.patching.nodes import patch_nodes
from circuits.progress import Progress
from circuits.search.mechanisms.letter_dimensions import kept_dimensions
from circuits.search.mechanisms.letter_results import LetterHead, LetterHeads
from circuits.statistics import bootstrap, share_interval
from circuits.tasks import PromptPairs
from circuits.tasks.metrics import logit_difference
from circuits.tasks.readings import read_answers

_LABEL = re.compile(r"label_([1-9]\d*)", re.ASCII)


def find_letter_heads(
    model: Model,
    pairs: PromptPairs,
    *,
    task: str = "multiple choice",
    tolerance: float = 0.01,
    dimensions: bool = True,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> LetterHeads:
    """Measure every head at the last token of multiple-choice prompts in three ways, and ask of those that all three name (the
    letter heads) how few dimensions of their queries, keys and values, and which ranks of their weights, leave the answers'
    loss as it is.

    Dimensions are the leading principal ones of one half of the prompts, the loss is that of the other half. Raises PromptError
    for pairs that are no multiple choice: these have the positions `label_1`, `label_2` …, `right_label` and `right_choice`.

    Args:
        model: the model whose heads are measured.
        pairs: of `circuits.tasks.multiple_choice`; labels in another order each time tell letter and place apart.
        task: what the prompts are, in a word, for the result.
        tolerance: nats by which the answers' loss may rise.
        dimensions: whether to ask what letter heads keep; it costs some hundred runs of the upper layers a head.
        seed: that of bootstraps, and of the halves.
        budget: bytes that a pass may take above the model and its base runs.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    columns = label_columns(pairs)
    heads, found = measured_heads(model, pairs, columns, seed=seed, budget=budget, progress=progress)
    reading = read_answers(model, pairs.clean, pairs)
    among = (among_labels(model, pairs, columns) == pairs.positions["right_label"].cpu()[:, None]).all(dim=1)
    right, alike = float((reading.rank == 0).double().mean()), float(among.double().mean())
    result = LetterHeads(
        model=model.name,
        weights_sha256=model.fingerprint,
        task=task,
        prompts=len(pairs),
        labels=columns.shape[1],
        right=share_interval(right, len(pairs)),
        among=share_interval(alike, len(pairs)),
        difference=bootstrap(found, seed=seed),
        heads=tuple(heads),
    )
    names = [one.head for one in result.letter_heads]
    if not names or not dimensions:
        return result
    how: dict[str, Any] = {"tolerance": tolerance, "budget": budget, "progress": progress}
    items = item_columns(pairs, columns)
    looked = {one.head: items[:, :, one.at] for one in result.letter_heads}
    kept = kept_dimensions(model, pairs, columns, looked, seed=seed, **how)
    compression = answer_ranks(model, pairs, names, **how)
    details = {name: getattr(result, name) for name in result.__dataclass_fields__}
    return LetterHeads(**{**details, **kept, "tolerance": tolerance, "compression": compression})


def label_columns(pairs: PromptPairs) -> Int[Tensor, "prompt label"]:
    """The columns of all labels of every prompt. Raises PromptError for pairs that are no multiple choice."""
    names = sorted((name for name in pairs.positions if _LABEL.fullmatch(name)), key=lambda name: int(name.partition("_")[2]))
    missing = [name for name in ("right_label", "right_choice") if name not in pairs.positions]
    if len(names) < 2 or missing:
        lacking = missing[0] if missing else "label_1"
        raise PromptError(f"the pairs have no position {lacking}: letter heads are asked about multiple choice")
    return torch.stack([pairs.positions[name] for name in names], dim=1)


def among_labels(model: Model, pairs: PromptPairs, columns: Int[Tensor, "prompt label"]) -> Int[Tensor, "prompt one"]:
    """The column of the label that is likeliest at the last token, on the CPU."""
    ids = pairs.clean.ids.gather(1, columns)
    with torch.no_grad():
        run = model.run(pairs.clean, keep="logits")
    said = run.logits[torch.arange(len(pairs)), pairs.answer_columns].gather(1, _answer_ids(pairs, ids).to(run.logits.device))
    return columns.cpu().gather(1, said.argmax(dim=1).cpu()[:, None])


def _answer_ids(pairs: PromptPairs, ids: Int[Tensor, "prompt label"]) -> Int[Tensor, "prompt label"]:
    """The tokens by which labels are answered: those that stand before the choices, checked on the answer."""
    right = pairs.clean.ids.gather(1, pairs.positions["right_label"][:, None])[:, 0]
    if not torch.equal(right, pairs.answers.to(right)):
        raise PromptError("the answer is another token than the right label in the prompt: letter heads copy the label")
    return ids


def item_columns(pairs: PromptPairs, columns: Int[Tensor, "prompt label"]) -> Int[Tensor, "prompt label token"]:
    """For every label its column and those behind it, as many as there are behind every last label before the answer is read:
    where a head may look for an item. What is behind one label may be another one: what a token says may be known one later."""
    width = int((pairs.answer_columns[:, None] - columns).min())
    return columns[:, :, None] + torch.arange(max(1, width), device=columns.device)


def measured_heads(
    model: Model, pairs: PromptPairs, columns: Int[Tensor, "prompt label"], *, seed: int, budget: int, progress: Progress | None
) -> tuple[list[LetterHead], Float[Tensor, " prompt"]]:
    """Every head by the three measures, and the logit difference of each prompt."""
    names = [f"a{layer}.h{head}" for layer in range(model.n_layers) for head in range(model.n_heads)]
    direct = logits(model, pairs, budget=budget)
    effects = patch_nodes(
        model, pairs, logit_difference, names, positions="end", seed=seed, budget=budget, progress=progress
    ).intervals()
    run = plain_run(model, pairs.clean)
    rows, end = torch.arange(len(pairs), device=columns.device), pairs.answer_columns
    items, own = item_columns(pairs, columns).cpu(), (columns == pairs.positions["right_label"][:, None]).cpu()
    heads = []
    for layer in range(model.n_layers):
        pattern = run.pattern(layer)[rows, :, end].double().cpu()
        for head in range(model.n_heads):
            place = layer * model.n_heads + head
            row = direct.values[direct.rows.index(names[place])]
            looks, at = _looks(pattern[:, head], items, own, pairs)
            attention = [bootstrap(values, seed=seed) for values in looks]
            heads.append(LetterHead(names[place], bootstrap(row, seed=seed), effects[place], *attention, at=at))
    return heads, direct.total


def _looks(
    seen: Float[Tensor, "prompt column"],
    items: Int[Tensor, "prompt label token"],
    own: Bool[Tensor, "prompt label"],
    pairs: PromptPairs,
) -> tuple[tuple[Tensor, ...], int]:
    """Attention to the right item at one place behind its label, to the others at the same, their difference, and to the right
    label and the right choice; and that place: where on the first half of the prompts the difference is largest. Attention to
    items is that on the other half."""
    tokens = seen.gather(1, items.flatten(1)).reshape(items.shape)
    right = tokens[own]
    others = (tokens.sum(dim=1) - right) / (own.shape[1] - 1)
    half = len(seen) // 2
    at = int((right - others)[:half].mean(dim=0).argmax()) if half else 0
    item, apart = right[half:, at], others[half:, at]
    choice = seen.gather(1, pairs.positions["right_choice"].cpu()[:, None])[:, 0]
    return (item, apart, item - apart, right[:, 0], choice), at


def answer_ranks(model: Model, pairs: PromptPairs, heads: list[str], **how: Any) -> Compression:
    """The smallest ranks of heads' W_QK and W_OV at which the answers' loss holds: the prompts with their answers are the text,
    of which these alone count."""
    ids, mask, end = pairs.clean.ids, pairs.clean.mask, pairs.answer_columns[:, None]
    empty = torch.zeros_like(ids[:, :1])
    ids = torch.cat([ids, empty], dim=1).scatter(1, end + 1, pairs.answers[:, None])
    mask = torch.cat([mask, empty.bool()], dim=1).scatter(1, end + 1, True)
    counted = torch.zeros_like(mask[:, 1:]).scatter(1, end, True)
    return compress_heads(model, TokenBatch(ids, mask), heads=heads, counted=counted, **how)
