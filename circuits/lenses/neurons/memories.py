"""What neurons write, read as tokens: the values of key-value memories, and how they agree with the keys (Geva et al. 2021)."""

import dataclasses
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import CircuitsError, GraphError, PromptError
from circuits.files.results import Result
from circuits.graph.named import NodeName
from circuits.heads.composition import output_matrices, reading_matrices
from circuits.lenses.neurons.activations import mlp_of
from circuits.lenses.neurons.places import Triggers
from circuits.lenses.readout import ends_of_tokens, top_tokens
from circuits.models import Model, TokenBatch
from circuits.models.choosing import Neurons, chosen_neurons, head_of
from circuits.models.folding import through_norm
from circuits.progress import Progress, silent
from circuits.statistics import percentile_interval

_COLUMNS = ("neurons", "share", "chance", "low", "high", "share_within", "chance_within", "low_within", "high_within")


@dataclasses.dataclass(frozen=True, eq=False)
class Values(Result, format="circuits-values"):
    """Neurons in the order of computation, and the tokens that each raises and lowers most.

    Numbers are logits a unit of activation, before the final norm divides by its scale (where the block has a norm after
    its MLP, before that one divides too).
    """

    model: str
    layers: Int[Tensor, " neuron"]
    indices: Int[Tensor, " neuron"]
    raised: Int[Tensor, "neuron token"]
    """Token ids, the most raised first."""
    raised_by: Float[Tensor, "neuron token"]
    lowered: Int[Tensor, "neuron token"]
    """Token ids, the most lowered first."""
    lowered_by: Float[Tensor, "neuron token"]
    norms: Float[Tensor, " neuron"]
    """Length of what each neuron writes to the residual stream, a unit of activation."""
    tokens: dict[int, str] = dataclasses.field(repr=False)
    """The text of every token that occurs."""
    through: str | None = None
    """The head through which the values were read; None: straight from the residual stream."""

    @property
    def summary(self) -> str:
        """How many neurons were read, and what the first of them raises most."""
        first = f"m{int(self.layers[0])}.n{int(self.indices[0])}"
        token, by = self.tokens[int(self.raised[0, 0])], float(self.raised_by[0, 0])
        through = f" through {self.through}" if self.through else ""
        return f"{self.model}, {len(self.layers):,} neurons{through}: {first} raises {token!r} most, by {by:.3g} logits."

    def to_dataframe(self) -> pd.DataFrame:
        """One row a neuron and rank: name, layer, rank from 1, the token raised and by how much, the one lowered likewise."""
        top = self.raised.shape[1]
        names = [f"m{layer}.n{index}" for layer, index in zip(self.layers.tolist(), self.indices.tolist(), strict=True)]
        columns = {
            "neuron": [name for name in names for _ in range(top)],
            "layer": self.layers.repeat_interleave(top).tolist(),
            "rank": list(range(1, top + 1)) * len(names),
            "raised": [self.tokens[token] for token in self.raised.flatten().tolist()],
            "raised_by": self.raised_by.flatten().tolist(),
            "lowered": [self.tokens[token] for token in self.lowered.flatten().tolist()],
            "lowered_by": self.lowered_by.flatten().tolist(),
        }
        return pd.DataFrame(columns)


def value_rows(model: Model, layer: int, columns: list[int] | None = None) -> Float[Tensor, "neuron d_model"]:
    """What neurons of a layer write to the residual stream, a unit of activation (without a post-norm's scale)."""
    rows = mlp_of(model, layer).W_out
    return through_norm(rows if columns is None else rows[columns], model.weights.blocks[layer].mlp_post_norm)


def through_head(
    model: Model, rows: Float[Tensor, "neuron d_model"], head: NodeName, *, after: int
) -> Float[Tensor, "neuron d_model"]:
    """What a head writes where it attends to these vectors of the residual stream alone: `v W_V W_O`, the gains and
    centrings of its norms folded in, their scales and all biases left out. Raises GraphError for a head that the model
    lacks, or one that does not stand behind layer `after`, where the vectors are written."""
    layer, index = head_of(model, head)
    if layer <= after:
        raise GraphError(f"a{layer}.h{index} cannot read what layer {after} writes: name a head of a later layer")
    block = model.weights.blocks[layer]
    return rows @ reading_matrices(block, "W_V")[index] @ output_matrices(block)[index]


def read_values(
    model: Model,
    neurons: Neurons = None,
    *,
    k: int = 10,
    through: NodeName | None = None,
    progress: Progress | None = None,
) -> Values:
    """Read what neurons write as tokens: each one's row of W_out through the final norm's gain and the unembedding.

    Raises PromptError for attention-only models, GraphError for names that the model lacks.

    Args:
        model: the model whose weights are read.
        neurons: names (`m3.n7`) or layers (`m3`); default all.
        k: tokens each way.
        through: a head of a later layer; then what that head makes of the neuron's output where it attends to it, for values
            that only heads turn into words.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if k < 1:
        raise PromptError(f"k={k}: expected at least 1 token")
    model.require_finite()
    report, parts = progress or silent, list[tuple[Tensor, ...]]()
    chosen = chosen_neurons(model, neurons)
    with torch.no_grad():
        for done, (layer, columns) in enumerate(chosen.items()):
            report("reading values", done, len(chosen))
            rows = value_rows(model, layer, columns)
            read = rows if through is None else through_head(model, rows, through, after=layer)
            (up, raised), (down, lowered) = ends_of_tokens(model, read, k)
            found = (raised, up.double(), lowered, down.double(), rows.double().norm(dim=1))
            parts.append((torch.full((len(columns),), layer), torch.tensor(columns), *(part.cpu() for part in found)))
    report("reading values", len(chosen), len(chosen))
    layers, indices, raised, up, lowered, down, norms = (torch.cat(column) for column in zip(*parts, strict=True))
    ids = torch.cat([raised.flatten(), lowered.flatten()]).unique().tolist()
    words = dict(zip(ids, model.to_token_strings(ids), strict=True))
    name = None if through is None else str(through)
    return Values(model.name, layers, indices, raised, up, lowered, down, norms, words, name)


@dataclasses.dataclass(frozen=True, eq=False)
class KeyValueAgreement(Result, format="circuits-memory-agreement"):
    """How often a neuron's value names the token that follows its top trigger, layer by layer, and by chance.

    `share`: neurons whose value's first token is that token; `share_within`: is among the value's first `k`. `chance`: the
    same with each layer's triggers given to other neurons of the layer at random, mean over `permutations`, from `low` to
    `high` in 95 % of them (`..._within` likewise). `neurons`: how many were counted.
    """

    model: str
    layers: tuple[int, ...]
    neurons: tuple[int, ...]
    share: tuple[float, ...]
    chance: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    share_within: tuple[float, ...]
    chance_within: tuple[float, ...]
    low_within: tuple[float, ...]
    high_within: tuple[float, ...]
    k: int
    permutations: int
    seed: int

    def __post_init__(self) -> None:
        if {len(getattr(self, name)) for name in _COLUMNS} != {len(self.layers)}:
            raise CircuitsError("an agreement needs one number a layer in each of its columns")

    @property
    def summary(self) -> str:
        """Shares by layer beside those by chance."""
        rows = zip(self.layers, self.share_within, self.chance_within, strict=True)
        shares = ", ".join(f"m{layer} {share:.1%} ({chance:.1%})" for layer, share, chance in rows)
        return f"{self.model}: values that name the next token among {self.k}, and by chance: {shares}."

    def to_dataframe(self) -> pd.DataFrame:
        """One row a layer."""
        columns = {name: list(getattr(self, name)) for name in _COLUMNS}
        return pd.DataFrame({"layer": list(self.layers), **columns})


def key_value_agreement(
    model: Model,
    triggers: Triggers,
    tokens: TokenBatch,
    *,
    k: int = 10,
    permutations: int = 200,
    seed: int = 0,
    values: Values | None = None,
) -> KeyValueAgreement:
    """By layer, the share of neurons whose value's top token is the token that follows their top trigger.

    A neuron's top trigger here is the strongest one that a token follows in its prompt; neurons without such a one, and those
    whose largest activation is not above 0, are not counted. Geva et al. (2021), for a 16-layer model of 267,744 words: up to
    3.5 % in the upper layers, 0.0004 % by chance. Raises PromptError where the triggers are another model's or text's.

    Args:
        model: the model whose neurons are read.
        triggers: what `find_triggers` found.
        tokens: the prompts in which it found them.
        k: top tokens of a value among which the next token is looked for too.
        permutations: shufflings of the next tokens, for chance.
        seed: that of the shufflings.
        values: what `read_values` found for the same neurons with this `k` or a larger one, so that it is not read again.
    """
    if k < 1 or permutations < 1:
        raise PromptError(f"k={k}, permutations={permutations}: expected numbers of at least 1")
    if values is not None and not _fit(values, triggers, k):
        raise PromptError(f"these values are not of the triggers' neurons, read straight with {k} tokens each: leave them out")
    nexts, there = following_tokens(model, triggers, tokens)
    following = nexts.gather(1, there.long().argmax(dim=1, keepdim=True))[:, 0]
    counted = there.any(dim=1) & (triggers.largest > 0)
    generator = torch.Generator().manual_seed(seed)
    rows: dict[str, list[Any]] = {name: [] for name in ("layers", *_COLUMNS)}
    for layer in triggers.layers.unique().tolist():
        kept = ((triggers.layers == layer) & counted).nonzero()[:, 0]
        rows["layers"].append(layer)
        rows["neurons"].append(len(kept))
        if values is not None:
            ids = values.raised[kept, :k]
        else:
            with torch.no_grad():
                rows_of = value_rows(model, layer, triggers.indices[kept].tolist())
                ids = top_tokens(model, rows_of, k)[1].cpu() if len(kept) else torch.zeros(0, k).long()
        hits = [_hits(ids, following[kept])]
        orders = (torch.randperm(len(kept), generator=generator) for _ in range(permutations))
        by_chance = [_hits(ids[order], following[kept]) for order in orders]
        for suffix, place in (("", 0), ("_within", 1)):
            drawn = torch.tensor([pair[place] for pair in by_chance], dtype=torch.float64)
            rows[f"share{suffix}"].append(hits[0][place])
            rows[f"chance{suffix}"].append(float(drawn.mean()))
            low, high = percentile_interval(drawn)
            rows[f"low{suffix}"].append(float(low))
            rows[f"high{suffix}"].append(float(high))
    return KeyValueAgreement(model.name, **{n: tuple(v) for n, v in rows.items()}, k=k, permutations=permutations, seed=seed)


def _fit(values: Values, triggers: Triggers, k: int) -> bool:
    """Whether values are of the neurons of the triggers, as they stand there, and `k` tokens of each are known."""
    same = values.through is None and values.model == triggers.model and values.raised.shape[1] >= k
    pairs = ((values.layers, triggers.layers), (values.indices, triggers.indices))
    return same and all(torch.equal(own.long(), other.long()) for own, other in pairs)


def _hits(ids: Int[Tensor, "neuron token"], following: Int[Tensor, " neuron"]) -> tuple[float, float]:
    """Shares of neurons where the first, and where any, of these tokens is the one that follows; 0 without neurons."""
    if not len(ids):
        return 0.0, 0.0
    same = ids == following[:, None]
    return float(same[:, 0].double().mean()), float(same.any(dim=1).double().mean())


def following_tokens(
    model: Model, triggers: Triggers, tokens: TokenBatch
) -> tuple[Int[Tensor, "neuron place"], Bool[Tensor, "neuron place"]]:
    """The token after each trigger, and whether its prompt has one there. Raises PromptError where the triggers are another
    model's or text's."""
    check_text(model, triggers, tokens)
    prompts, positions = triggers.highest.prompts.long(), triggers.highest.positions.long()
    ids, mask = tokens.ids.cpu(), tokens.mask.cpu()
    after = (positions + 1).clamp(max=ids.shape[1] - 1)
    return ids[prompts, after], (positions + 1 < ids.shape[1]) & mask[prompts, after]


def check_text(model: Model, triggers: Triggers, tokens: TokenBatch) -> None:
    """Raise PromptError where triggers were found with another model, or stand outside these prompts."""
    if triggers.weights_sha256 != model.fingerprint:
        raise PromptError(f"these triggers were found in {triggers.model} with other weights than {model.name} has")
    found = [triggers.highest] if triggers.lowest is None else [triggers.highest, triggers.lowest]
    for places in found:
        prompt, position = int(places.prompts.max()), int(places.positions.max())
        if prompt >= len(tokens) or position >= tokens.ids.shape[1]:
            raise PromptError(
                f"a trigger stands at position {position} of prompt {prompt}, the text has {tuple(tokens.ids.shape)} "
                "prompts and positions: give the prompts in which the triggers were found"
            )
