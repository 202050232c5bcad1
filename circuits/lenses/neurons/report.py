"""One neuron, read from all sides: what triggers it, what it writes, and where it stands in the network."""

import dataclasses
import random
from typing import Any

import pandas as pd
from torch import Tensor

from circuits.errors import CircuitsError, PromptError
from circuits.files.results import Result
from circuits.graph import Node
from circuits.lenses.neurons.alignment import key_tokens, strongest_readers, strongest_writers
from circuits.lenses.neurons.contexts import Context, contexts
from circuits.lenses.neurons.memories import read_values
from circuits.lenses.neurons.triggers import find_triggers
from circuits.models import Model, TokenBatch
from circuits.models.choosing import parse_neuron
from circuits.progress import Progress
from circuits.runs.runner import shards
from circuits.tasks import mini_facts
from circuits.tasks.sources.corpus import text_rows, written_text

FACTS = 240
"""Facts of the bundled model that stand in its default corpus."""
Named = tuple[tuple[str, float], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class NeuronReport(Result, format="circuits-neuron"):
    """What is known of one neuron.

    `raises`, `lowers`: tokens with the logits that a unit of activation adds, before the final norm's scale. `keys`: for
    `input` (and `gate`) tokens with the largest and the smallest pre-activation on their embedding alone. `writers`,
    `readers`: heads and neurons that lie along its key and its value, by weight.
    """

    model: str
    weights_sha256: str
    neuron: str
    triggers: tuple[Context, ...]
    """Where its activation is largest, the largest first."""
    lowest: tuple[Context, ...]
    """Where it is smallest, the smallest first."""
    places: int
    """Places of the text that were looked at."""
    mean: float
    """Mean activation over these."""
    active: float
    """Share of them with an activation above 0."""
    norm: float
    """Length of what it writes, a unit of activation."""
    raises: Named
    lowers: Named
    through: str | None
    """The head through which its value was read; None: straight from the residual stream."""
    keys: dict[str, tuple[Named, ...]]
    writers: Named
    readers: Named

    def __post_init__(self) -> None:
        Node.parse(self.neuron)
        if not self.triggers:
            raise CircuitsError(f"a report of {self.neuron} without a trigger")

    @property
    def summary(self) -> str:
        """What triggers it, how often, and what it raises."""
        first = self.triggers[0]
        raised = ", ".join(repr(token) for token, _ in self.raises[:3])
        answers = f"most at {first.tokens[first.at]!r} ({first.activation:.3g})"
        often = f"active at {self.active:.1%} of {self.places:,} tokens"
        return f"{self.neuron} of {self.model}: {answers}, {often}, raises {raised}."

    @property
    def largest(self) -> float:
        """Its largest activation."""
        return self.triggers[0].activation

    def to_dataframe(self) -> pd.DataFrame:
        """One row a trigger, the largest first, then the smallest activations (rank from -1 downwards): rank, activation,
        prompt, position, token, the token that follows, and the text around with the token between marks."""
        ranked = [*enumerate(self.triggers, start=1), *((-rank, one) for rank, one in enumerate(self.lowest, start=1))]
        rows = [
            {
                "neuron": self.neuron,
                "rank": rank,
                "activation": one.activation,
                "prompt": one.prompt,
                "position": one.position,
                "token": one.tokens[one.at],
                "following": one.following,
                "context": one.marked(),
            }
            for rank, one in ranked
        ]
        return pd.DataFrame(rows)


def neuron(
    model: Model,
    name: str | Node,
    tokens: TokenBatch | str | None = None,
    *,
    top: int = 10,
    k: int = 10,
    through: str | Node | None = None,
    before: int = 10,
    after: int = 4,
    seed: int = 0,
    progress: Progress | None = None,
) -> NeuronReport:
    """Report on one neuron (`m3.n7`): what triggers it in a text, what it writes, its statistics, its place by weight.

    Raises GraphError for a name that is no neuron of the model, PromptError for attention-only models and texts that are too
    short.

    Args:
        model: the model that the neuron is of.
        name: the neuron, such as `m3.n7`.
        tokens: prompts or a text (default: `default_corpus`).
        top: triggers.
        k: tokens each way.
        through: read its value through a head of a later layer (`read_values`).
        before: tokens shown before a trigger.
        after: tokens shown after it.
        seed: that of the text where none is given.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if min(before, after) < 0:
        raise PromptError(f"before={before}, after={after}: expected numbers of at least 0")
    node = parse_neuron(model, name)
    values = read_values(model, [node], k=k, through=through)
    if isinstance(tokens, TokenBatch):
        corpus = tokens
    else:
        corpus = default_corpus(model, seed=seed, progress=progress) if tokens is None else text_rows(model, tokens)
    found = find_triggers(model, corpus, neurons=[node], top=top, lowest=True, progress=progress)
    assert found.lowest is not None
    around = {"before": before, "after": after}
    words = values.tokens
    up, down = (
        tuple((words[token], amount) for token, amount in zip(ids[0].tolist(), amounts[0].tolist(), strict=True))
        for ids, amounts in ((values.raised, values.raised_by), (values.lowered, values.lowered_by))
    )
    return NeuronReport(
        model=model.name,
        weights_sha256=model.fingerprint,
        neuron=str(node),
        triggers=contexts(model, node, found.highest, 0, corpus, **around),
        lowest=contexts(model, node, found.lowest, 0, corpus, **around),
        places=found.count,
        mean=float(found.mean[0]),
        active=float(found.active[0]),
        norm=float(values.norms[0]),
        raises=up,
        lowers=down,
        through=values.through,
        keys=key_tokens(model, node, k=k),
        writers=strongest_writers(model, node),
        readers=strongest_readers(model, node),
    )


def default_corpus(model: Model, *, count: int = 64, seed: int = 0, progress: Progress | None = None) -> TokenBatch:
    """A text for where none is at hand: what the model writes by itself, `count` prompts of 64 tokens, and, for the bundled
    model, facts that it knows."""

    def write(_: int) -> Tensor:
        """The prompts, which have no pads."""
        return written_text(model, count=count, length=64, seed=seed, progress=progress).ids

    (ids,) = shards("writing a text", 1, write)
    written = TokenBatch.unpadded(ids.to(model.device))
    bos = model.bos_id
    if model.name != "mini" or bos is None:
        return written
    known = model.to_tokens([f"{fact.prompt} {fact.attribute}." for fact in random.Random(seed).sample(mini_facts(), FACTS)])
    ids = [row[mask].tolist() for batch in (written, known) for row, mask in zip(batch.ids, batch.mask, strict=True)]
    return TokenBatch.from_rows(ids, pad_id=bos)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise CircuitsError(f"a {type(value).__name__} stands where a token is expected")
    return value
