"""Heads of low rank: how few dimensions of W_QK and W_OV a head needs, by the loss on a text."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.errors import PromptError
from circuits.files.results import Result
from circuits.graph import Node
from circuits.heads.low_rank import HeadPart, PartOf, Ranks, parameters, with_ranks
from circuits.heads.text_loss import check_text, next_token_losses, predicted, run_from, text_batches
from circuits.models import Model, TokenBatch
from circuits.models.choosing import head_of
from circuits.models.layers import embed
from circuits.models.memory import BUDGET
from circuits.models.model import Prompts
from circuits.models.weights import Attention, Weights
from circuits.progress import Progress, silent

if TYPE_CHECKING:
    import pandas

PARTS: tuple[HeadPart, HeadPart] = ("qk", "ov")
_ROUNDS = 6


@dataclasses.dataclass(frozen=True)
class CompressedPart:
    """The smallest rank found for one part of a head ("qk": what it attends to, "ov": what it moves) and by how much the loss
    (nats a token) rises when this part alone has it."""

    head: str
    part: HeadPart
    rank: int
    change: float
    parameters: int

    def __post_init__(self) -> None:
        Node.parse(self.head)


@dataclasses.dataclass(frozen=True, eq=False)
class Compression(Result, format="circuits-compression"):
    """Ranks of heads at (nearly) constant loss: `loss` of the whole model on the text, `joint_loss` with all parts at their
    ranks at once, in nats a token; numbers that the parts need, and that they needed."""

    model: str
    d_head: int
    tolerance: float
    tokens: int
    loss: float
    joint_loss: float
    parts: tuple[CompressedPart, ...]
    whole_parameters: int

    @property
    def parameters(self) -> int:
        """Numbers that all parts need at their ranks."""
        return sum(part.parameters for part in self.parts)

    @property
    def ranks(self) -> Ranks:
        """Ranks as `with_ranks` takes them."""
        nodes = [(Node.parse(part.head), part) for part in self.parts]
        places: list[tuple[PartOf, int]] = [((node.layer or 0, node.index or 0, part.part), part.rank) for node, part in nodes]
        return dict(places)

    def apply(self, model: Model) -> Model:
        """The model with all parts at their ranks."""
        return dataclasses.replace(model, name=f"{model.name}-compressed", weights=with_ranks(model.weights, self.ranks))

    @property
    def summary(self) -> str:
        """What the ranks save, and what they cost."""
        return (
            f"{self.model}: {len(self.parts)} parts of heads need {self.parameters:,} of {self.whole_parameters:,} numbers; "
            f"loss {self.joint_loss:.4g} instead of {self.loss:.4g} nats a token, over {self.tokens:,} tokens."
        )

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a part: head, part, rank, change (nats a token), parameters."""
        import pandas

        columns = ["head", "part", "rank", "change", "parameters"]
        return pandas.DataFrame([dataclasses.asdict(part) for part in self.parts], columns=columns)


def compress_heads(
    model: Model,
    tokens: Prompts,
    *,
    heads: Sequence[str | Node] | None = None,
    tolerance: float = 0.01,
    together: bool = False,
    counted: Bool[Tensor, "prompt before"] | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Compression:
    """For every head, the smallest ranks of W_QK and W_OV at which the loss on a text rises by at most `tolerance`, each part
    changed by itself; then the loss with all of them changed at once.

    Ranks are found by bisection, as if the loss never rose with the rank; each rank that is reported was run, with changed
    weights (`with_ranks`). Rank 0 is possible: W_QK of rank 0 leaves what key biases and positions say, W_OV of rank 0 the
    head's constant output. Raises GraphError for what is no head, PromptError for a text without a next token or a negative
    tolerance.

    Args:
        model: the model whose heads are compressed.
        tokens: the text, as text, token ids or a batch.
        heads: names such as `a0.h3` (default: all).
        tolerance: nats a token by which the loss may rise.
        together: tighten the tolerance of single parts (by 4, at most six times) until all changed at once stay within
            `tolerance` too.
        counted: whether the token behind each counts (default: every one that is no pad): the loss is the mean over these.
        budget: bytes of runs and logits that are held at once, beside the run of one prompt.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if not 0 <= tolerance < float("inf"):
        raise PromptError(f"a tolerance of {tolerance} nats: expected 0 or more")
    batch = model.prepare(tokens)
    check_text(batch)
    everyone = (f"a{layer}.h{head}" for layer in range(model.n_layers) for head in range(model.n_heads))
    places = sorted({head_of(model, node) for node in (everyone if heads is None else heads)})
    wanted: list[PartOf] = [(layer, head, part) for layer, head in places for part in PARTS]
    counted = predicted(batch) if counted is None else counted.to(model.device) & predicted(batch)
    if not bool(counted.any()):
        raise PromptError("no token counts in the loss: name one that another one stands before")
    search = _RankSearch(model, batch, counted, {}, budget, progress or silent)
    with torch.no_grad():
        loss = search.loss(model.weights)
        allowed = tolerance
        for _ in range(_ROUNDS if together else 1):
            ranks = search.ranks(wanted, allowed, loss)
            joint = search.loss(with_ranks(model.weights, ranks))
            if joint - loss <= tolerance:
                break
            allowed /= 4
    sizes = {
        key: parameters(_attention(model, key), model.d_model, model.weights.rotary_at(key[0]), key[2], ranks[key])
        for key in wanted
    }
    whole = sum(parameters(_attention(model, key), model.d_model, model.weights.rotary_at(key[0]), key[2]) for key in wanted)
    parts = [
        CompressedPart(f"a{key[0]}.h{key[1]}", key[2], ranks[key], search.known[key, ranks[key]] - loss, sizes[key])
        for key in wanted
    ]
    count = int(counted.sum())
    return Compression(model.name, model.d_head, tolerance, count, loss, joint, tuple(parts), whole)


def _attention(model: Model, key: PartOf) -> Attention:
    return model.weights.blocks[key[0]].attention


@dataclasses.dataclass(frozen=True, eq=False)
class _RankSearch:
    """Losses of a text by what is changed; those of single parts are kept."""

    model: Model
    tokens: TokenBatch
    counted: Bool[Tensor, "prompt before"]
    known: dict[tuple[PartOf, int], float]
    budget: int
    report: Progress

    def loss(self, weights: Weights, layer: int = 0, streams: Sequence[Tensor] | None = None) -> float:
        """Mean loss a token; `streams`: the residual stream before the layer, batch by batch."""
        total, start = 0.0, 0
        for index, part in enumerate(text_batches(weights, self.tokens, budget=self.budget)):
            x = embed(weights, part) if streams is None else streams[index]
            x = run_from(weights, part, layer, x).residuals[-1]
            losses = next_token_losses(weights, x, part, budget=self.budget).double()
            total += float(losses[self.counted[start : start + len(part)]].sum())
            start += len(part)
        return total / int(self.counted.sum())

    def ranks(self, wanted: list[PartOf], allowed: float, loss: float) -> dict[PartOf, int]:
        """The smallest rank of every part at which the loss rises by at most `allowed`."""
        weights = self.model.weights
        found: dict[PartOf, int] = {}
        batches = list(text_batches(weights, self.tokens, budget=self.budget))
        streams: list[Float[Tensor, "prompt position d_model"]] = [embed(weights, part) for part in batches]
        at = 0
        for done, key in enumerate(wanted):
            self.report("lowering ranks of heads", done, len(wanted))
            for layer in range(at, key[0]):
                one = weights.of_layers(layer, layer + 1)
                streams = [run_from(one, part, 0, x).residuals[-1] for part, x in zip(batches, streams, strict=True)]
            at = key[0]
            low, high = 0, self.model.d_head
            self.known[key, high] = loss
            while low < high:
                middle = (low + high) // 2
                if self._changed(key, middle, streams) - loss <= allowed:
                    high = middle
                else:
                    low = middle + 1
            found[key] = high
        self.report("lowering ranks of heads", len(wanted), len(wanted))
        return found

    def _changed(self, key: PartOf, rank: int, streams: Sequence[Tensor]) -> float:
        if (key, rank) not in self.known:
            weights = with_ranks(self.model.weights, {key: rank})
            self.known[key, rank] = self.loss(weights, key[0], streams)
        return self.known[key, rank]
