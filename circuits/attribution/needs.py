"""What scoring edges between neurons takes in memory, and how it is parted to fit a budget."""

import dataclasses
import itertools

import torch
from jaxtyping import Bool
from torch import Tensor

from circuits.errors import MemoryBudgetError
from circuits.models import Model
from circuits.models.forward import SLOTS
from circuits.models.memory import beside_budget
from circuits.models.weights import Block
from circuits.patching.engine.sites import differing
from circuits.tasks import PromptPairs


@dataclasses.dataclass(frozen=True)
class Needs:
    """Bytes that scoring takes: `always`, for the edges that are kept and the changes of all writers; for the readers of a
    `layer`; and for the clean, the corrupt and a gradient `run` of one prompt."""

    said: str
    prompts: int
    n_layers: int
    always: int
    layer: int
    run: int

    @classmethod
    def of(cls, model: Model, pairs: PromptPairs, steps: int, keep: int, dtype: torch.dtype) -> "Needs":
        """Those of a call."""
        size, d_model = torch.finfo(dtype).bits // 8, model.d_model
        rows = int(counting_rows(model, pairs).sum())
        one = rows * steps * max((_read_numbers(block) for block in model.weights.blocks), default=0) * size
        changes = rows * (model.n_layers * (model.n_heads * model.d_head + model.d_mlp) + (1 + steps) * d_model) * size
        said = f"{keep:,} edges and the factors of {rows:,} tokens at {steps} steps"
        numbers = model.n_layers * (24 * d_model + 8 * model.d_mlp + 2 * model.n_heads * pairs.clean.ids.shape[1])
        run = pairs.clean.ids.shape[1] * numbers * torch.finfo(model.dtype).bits // 8
        return cls(said, len(pairs), model.n_layers, changes + 64 * keep, max(one, 1), run)

    def of_layers(self, count: int) -> int:
        """Bytes where the readers of so many layers are held at once."""
        return self.always + count * self.layer

    def sizes(self, budget: int, layers: int) -> list[int]:
        """How many prompts run at a time: what is gathered of them grows batch by batch, so the first batches are the largest.
        At least one; the rest within the budget."""
        each, sizes = self.of_layers(layers) // self.prompts, list[int]()
        while (left := self.prompts - sum(sizes)) > 0:
            room = budget - each * sum(sizes)
            sizes.append(min(left, max(1, room // (each + self.run))))
        return sizes

    def bands(self, budget: int) -> list[range]:
        """Groups of layers, as few as fit the budget. Raises MemoryBudgetError where not even one layer does."""
        fitting = (budget - self.always) // self.layer
        if fitting < 1:
            raise MemoryBudgetError(
                f"{self.said} need {beside_budget(self.of_layers(1), budget)}: give a larger budget, fewer prompts or steps, "
                "or a smaller keep"
            )
        count = max(1, -(-self.n_layers // fitting))
        edges = [round(index * self.n_layers / count) for index in range(count + 1)]
        return [range(first, last) for first, last in itertools.pairwise(edges)]


def _read_numbers(block: Block) -> int:
    """Slopes and normed residuals of one layer's readers at one token."""
    attention, mlp = block.attention, block.mlp
    slots = sum(getattr(attention, f"W_{slot.upper()}").shape[1] for slot in SLOTS)
    neurons = 0 if mlp is None else mlp.W_in.shape[1] * (1 if mlp.W_gate is None else 2)
    return slots * (attention.n_heads if attention.norm_over_heads else 1) + neurons + 2 * attention.W_Q.shape[0]


def counting_rows(model: Model, pairs: PromptPairs) -> Bool[Tensor, "prompt position"]:
    """Tokens that can differ between clean and corrupt and can move the metric."""
    mask = differing(pairs, causal=model.weights.causal)
    if not model.weights.causal:
        return mask
    return mask & (torch.arange(mask.shape[1], device=mask.device) <= pairs.answer_columns[:, None])
