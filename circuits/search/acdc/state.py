"""What an ACDC descent stands on: two runs, and the circuit as it now is with all that it computes."""

import dataclasses
import functools
import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.errors import NonFiniteError
from circuits.graph import Graph
from circuits.graph.places import reads_from
from circuits.models import Model, Run
from circuits.models.folding import through_norm
from circuits.models.geometry import Geometry
from circuits.models.layers import mlp_output, unembed
from circuits.patching.engine.base import plain_run
from circuits.patching.engine.reading import Reading
from circuits.patching.subgraphs.members import is_edge
from circuits.patching.subgraphs.outside import Outside, OutsideKind, outside_of, scaled_heads
from circuits.patching.subgraphs.subgraph import first_column
from circuits.search.acdc.slots import Slots
from circuits.tasks import PromptPairs
from circuits.tasks.metric import Metric

Loss = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class Ground:
    """What does not change in a descent."""

    model: Model
    graph: Graph
    own: Run
    slots: Slots
    changes: Float[Tensor, "writer prompt position d_model"]
    """What an edge outside carries minus what its writer says on the clean prompts, from the first column that counts."""
    loss: Loss
    """From final residual streams `[variant prompt 1 d_model]` one number each, higher = worse."""
    metric: str

    @classmethod
    def of(cls, model: Model, pairs: PromptPairs, metric: Metric | None, outside: OutsideKind) -> "Ground":
        """Both runs. Raises NonFiniteError, with the first site, where one of them is not finite."""
        own, other = plain_run(model, pairs.clean), plain_run(model, pairs.corrupt)
        start = first_column(model, pairs, outside)
        geometry = Geometry(model.weights, own.tokens, model.dtype)
        slots = Slots(model.weights, geometry, pairs.answer_columns[:, None].to(model.device), start)
        # Readers are visited from the logits backwards, so what writes into the one at hand is still as on the clean prompts:
        # to cut an edge is to add its writer's row of this, whatever was cut before.
        changes = _changes(own, outside_of(outside, other), start)
        loss, name = loss_of(model, pairs, metric, own)
        return cls(model, model.graph(), own, slots, changes, loss, name)

    @functools.cached_property
    def picked(self) -> Float[Tensor, "writer prompt 1 d_model"]:
        """`changes` at the answer columns."""
        return self.slots.pick(self.changes)

    @functools.cached_property
    def before(self) -> list[int]:
        """For every reader how many writers it reads."""
        return list(reads_from(self.graph))

    def layer_of(self, place: int) -> tuple[int, int]:
        """A reader's layer and its index there; the layer after the last for the logits."""
        return divmod(place, self.graph.head_readers + self.graph.mlp_writers)

    def thin(self, place: int) -> bool:
        """Whether a reader is needed at the answer columns alone: the logits, and queries and MLP of the last layer."""
        layer, index = self.layer_of(place)
        inputs = self.graph.head_readers
        return layer == self.graph.n_layers or (
            layer == self.graph.n_layers - 1 and (index < self.graph.n_heads or index == inputs)
        )

    def clean_read(self, place: int) -> Float[Tensor, "prompt position d_model"]:
        """What a reader reads on the clean prompts."""
        layer, index = self.layer_of(place)
        mlp = layer < self.graph.n_layers and index == self.graph.head_readers and not self.model.weights.parallel
        read = (self.own.middles if mlp else self.own.residuals)[layer][:, self.slots.start :]
        return self.slots.pick(read) if self.thin(place) else read


@dataclasses.dataclass(frozen=True, eq=False)
class LayerState:
    """What one layer computes in the circuit as it is: queries and mixed values at the columns that count, keys and values
    everywhere, what its MLP writes."""

    q: Float[Tensor, "head prompt query d_head"]
    k: Float[Tensor, "group prompt position d_head"]
    v: Float[Tensor, "group prompt position d_head"]
    z: Float[Tensor, "head prompt query d_head"]
    mlp: Float[Tensor, "prompt query d_model"] | None


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """The circuit as it is. Nothing is changed in place, so that a descent can split."""

    ground: Ground
    kept: Bool[Tensor, "writer reader"]
    reads: dict[int, Tensor]
    """What readers read, by place, where it is not what they read on the clean prompts."""
    layers: tuple[LayerState, ...]
    loss: float

    @classmethod
    def whole(cls, ground: Ground) -> "State":
        """The full graph."""
        graph, own, slots = ground.graph, ground.own, ground.slots
        layers = []
        for layer, block in enumerate(ground.model.weights.blocks):
            last = layer == graph.n_layers - 1
            q, k, v, z = (getattr(own, name)[layer].movedim(2, 0) for name in ("q", "k", "v", "z"))
            q, z = (slots.pick(part[:, :, slots.start :]) if last else part[:, :, slots.start :] for part in (q, z))
            mlp = None
            if block.mlp is not None:
                mlp = mlp_output(own.neurons[layer], block.mlp, block.mlp_post_norm)[:, slots.start :]
                mlp = slots.pick(mlp) if last else mlp
            layers.append(LayerState(q, k, v, z, mlp))
        final = ground.clean_read(graph.reader_count - 1)
        loss = float(ground.loss(final[None])[0])
        if not math.isfinite(loss):
            raise NonFiniteError(f"the {ground.metric} of the clean prompts is {loss}")
        return cls(ground, is_edge(graph), {}, tuple(layers), loss)

    def read(self, place: int) -> Float[Tensor, "prompt position d_model"]:
        """What a reader reads."""
        found = self.reads.get(place)
        return self.ground.clean_read(place) if found is None else found

    def without(self, writers: list[int], place: int) -> "State":
        """The same numbers with fewer edges into one reader."""
        kept = self.kept.clone()
        kept[writers, place] = False
        return dataclasses.replace(self, kept=kept)


def loss_of(model: Model, pairs: PromptPairs, metric: Metric | None, own: Run) -> tuple[Loss, str]:
    """The mean over prompts of KL to the clean run, or of a metric, as a number that is lower where the circuit does
    better; differentiable where the metric is. And the metric's name."""
    if metric is None:
        reading = Reading(pairs.answer_columns[:, None].to(model.device), lambda logits: logits)
        reference = unembed(model.weights, reading.at_columns(own.residuals[-1]))[:, 0]
        # At least float32: in half precision KL of a nearly whole circuit is rounding, and thresholds lie below it.
        reference = reference if reference.dtype == torch.float64 else reference.float()
        log_p = reference.log_softmax(dim=-1)
        p = log_p.exp()

        def divergence(final: Float[Tensor, "variant prompt 1 d_model"]) -> Float[Tensor, " variant"]:
            """KL to the clean run, mean over prompts."""
            logits = unembed(model.weights, final)[:, :, 0]
            log_q = logits.log_softmax(dim=-1, dtype=log_p.dtype)
            # p times the difference, not a difference of two entropies: near zero these would cancel.
            return torch.einsum("pv,npv->n", p, log_p - log_q).double() / len(pairs)

        return divergence, "kl_divergence"
    reading, sign = Reading.of(metric, pairs), 1.0 if metric.lower_is_better else -1.0
    return lambda final: sign * reading.scores(model.weights, final).double().mean(dim=1), metric.name


def _changes(own: Run, rest: Outside, start: int) -> Float[Tensor, "writer prompt position d_model"]:
    """What is outside minus what every node writes in a run, from a column on."""
    parts = [(rest.input - own.residuals[0])[None, :, start:]]
    for layer, (block, there) in enumerate(zip(own.weights.blocks, rest.layers, strict=True)):
        W = through_norm(block.attention.W_O, block.attention_post_norm).unflatten(0, (block.attention.n_heads, -1))
        change = there.heads - scaled_heads(own.z[layer], block)
        parts.append(torch.einsum("pchd,hdm->hpcm", change[:, start:], W))
        if block.mlp is not None:
            assert there.mlp is not None
            written = mlp_output(own.neurons[layer], block.mlp, block.mlp_post_norm)
            parts.append((there.mlp - written)[None, :, start:])
    return torch.cat(parts)
