"""Where what writers changed meets how readers pull on the metric: the scores of edges, at the tokens that count."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool
from torch import Tensor

from circuits.attribution.factors.pulls import Pulls
from circuits.attribution.factors.writers import deltas
from circuits.attribution.gathering import Gathered
from circuits.errors import MemoryBudgetError
from circuits.models import Model, Run
from circuits.models.memory import beside_budget
from circuits.patching.engine.sites import differing
from circuits.tasks import PromptPairs


def counting(model: Model, pairs: PromptPairs) -> Bool[Tensor, "prompt position"]:
    """Which tokens can differ between the two runs and be seen by the answer."""
    whole = differing(pairs, causal=model.weights.causal)
    if model.weights.causal:
        whole[:, int(pairs.answer_columns.max()) + 1 :] = False
    return whole


def add_scores(
    scores: Gathered,
    pulls: Pulls,
    ends: tuple[Run, Run],
    writers: tuple[int, int],
    masks: list[Tensor],
    whole: Bool[Tensor, "prompt position"],
    blocks: list[slice],
) -> None:
    """Add to the scores what some gradient runs tell about writers from one place up to another."""
    into, order, (first, last) = scores.columns, pulls.order, writers
    if order is not None:
        masks = [order.sort(mask) & order.there for mask in masks]
    for columns in blocks:

        def pick(x: Tensor, columns: slice = columns) -> Tensor:
            """Those columns."""
            return x[:, columns] if order is None else order.sort(x)[:, columns]

        change, parts = deltas(*ends, pick, first, last), []
        for label, mask in enumerate(masks):
            kept = (mask & whole)[:, columns]
            if bool(kept.any()):
                used = kept.any(dim=0).nonzero()[:, 0]
                some = slice(int(used[0]), int(used[-1]) + 1)
                part = change[:, :, some]
                if not bool(kept[:, some].all()):
                    part = torch.mul(part, kept[:, None, some, None], out=part if len(masks) == 1 else None)
                parts.append((label, some, part.flatten(2)))
        # Queries of roles that look at none of these need not be pulled back.
        most = max((into.attention(label) for label, _, _ in parts), default=0)
        for pulled in pulls.by_layer(columns, most) if parts else ():
            count, mlp = min(pulled.reads, last) - first, pulled.mlp is not None
            for label, some, part in parts:
                size = into.attention(label) if pulled.layer < into.graph.n_layers else 1
                readers = pulled.by_reader[: size + mlp, :, some].flatten(2).transpose(0, 1)
                # Few readers and many writers: with the readers as rows the product takes less time.
                found = torch.bmm(readers, part[:, :count].transpose(1, 2))
                if pulled.mlp is not None:  # it reads less than the attention after it
                    found[:, 0, max(pulled.mlp - first, 0) :] = 0
                scores.add(label, slice(first, first + count), into.start(label, pulled.layer) - mlp, found)


def column_blocks(model: Model, pairs: PromptPairs, whole: Tensor, budget: int) -> Iterator[slice]:
    """The columns that count, in blocks whose differences fit the budget."""
    used = whole.any(dim=0).nonzero()[:, 0]
    if not len(used):
        return
    stop = int(used[-1]) + 1
    one = len(pairs) * (2 * model.graph().writer_count + model.graph().head_readers) * model.d_model
    one *= torch.finfo(model.dtype).bits // 8
    if one > budget:
        raise MemoryBudgetError(
            f"the outputs of all nodes at one position need {beside_budget(one, budget)}: give fewer prompts or a larger budget"
        )
    step = budget // one
    for start in range(int(used[0]), stop, step):
        yield slice(start, min(start + step, stop))
