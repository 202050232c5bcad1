"""How a change of one node's output travels along edges of the graph while everything else stays as it was."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import GraphError
from circuits.graph import Graph, Node, Reader
from circuits.models import node_output
from circuits.models.layers import attend, attention_output, mlp_output, neuron_activations, normalise, placed, project
from circuits.patching.engine.base import Base
from circuits.patching.engine.change import Change, Kind
from circuits.patching.engine.variant_mlp import single_neuron

Delta = Float[Tensor, "prompt position d_model"]


def difference(own: Base, other: Base, writer: Node) -> Delta:
    """What a node writes in the other run minus what it writes in this one."""
    return node_output(other.run, writer) - node_output(own.run, writer)


def reading_change(graph: Graph, reader: Reader, delta: Delta, mask: Tensor, label: str = "") -> Change:
    """The change that adds `delta` to what one reader reads of the residual stream."""
    node = reader.node
    if node.kind == "logits":
        return Change("residual", graph.n_layers, None, delta, mask, add=True, label=label)
    kinds: dict[str, Kind] = {"mlp": "mlp_in", "neuron": "neuron_in", "q": "q_in", "k": "k_in", "v": "v_in"}
    return Change(kinds[reader.slot or node.kind], node.layer or 0, node.index, delta, mask, add=True, label=label)


def through(base: Base, graph: Graph, readers: Sequence[Reader], delta: Delta) -> Delta:
    """How the output of a node moves when `delta` is added to what these of its readers read, and to nothing else. Readers
    of a group of keys or values stand for all its heads."""
    node = readers[0].node
    if node.kind == "head":
        return _through_heads(base, graph, readers, delta)
    layer, run = node.layer or 0, base.run
    block = run.weights.blocks[layer]
    assert block.mlp is not None
    reads = run.residuals[layer] if run.weights.parallel else run.middles[layer]
    moved = normalise(reads + delta, block.mlp_norm)
    if node.kind == "mlp":
        return mlp_output(neuron_activations(moved, block.mlp), block.mlp, block.mlp_post_norm) - base.mlp(layer)
    neurons = run.neurons[layer].clone()
    neurons[:, :, node.index] = single_neuron(moved, normalise(reads, block.mlp_norm), block.mlp, node.index or 0)
    return mlp_output(neurons, block.mlp, block.mlp_post_norm) - mlp_output(run.neurons[layer], block.mlp, block.mlp_post_norm)


def role_changes(
    graph: Graph, readers: Sequence[Reader], moved: Float[Tensor, "prompt position head d_head"], mask: Tensor, label: str = ""
) -> tuple[Change, ...]:
    """The changes that give the queries at some columns (`mask`) other keys or values than the rest has: mixed values `moved`
    (`moved_values`) there, of every head that computes with these readers."""
    heads = sorted({target.index or 0 for reader in readers for target in graph.targets(reader)})
    layer = readers[0].node.layer or 0
    return tuple(Change("head", layer, head, moved[:, :, head], mask, label=label) for head in heads)


def _through_heads(base: Base, graph: Graph, readers: Sequence[Reader], delta: Delta) -> Delta:
    layer, run = readers[0].node.layer or 0, base.run
    block, moved = run.weights.blocks[layer], moved_values(base, readers, delta)
    # A group's key or value is one reader, but every head of the group computes with it and moves.
    heads = sorted({target.index or 0 for reader in readers for target in graph.targets(reader)})
    # The difference of whole outputs rather than W_O times the difference of z: exact also behind a norm after attention.
    z = run.z[layer].clone()
    z[:, :, heads] = moved[:, :, heads]
    return attention_output(z, block.attention, block.attention_post_norm) - base.attention(layer)


def moved_values(base: Base, readers: Sequence[Reader], delta: Delta) -> Float[Tensor, "prompt position head d_head"]:
    """The mixed values of a layer where `delta` is added to what these of its readers read."""
    layer, run = readers[0].node.layer or 0, base.run
    block, geometry = run.weights.blocks[layer], base.geometry
    normed = normalise(run.residuals[layer] + delta, block.attention_norm)
    slots = {"q": run.q[layer], "k": run.k[layer], "v": run.v[layer]}
    for reader in readers:
        slot = reader.slot or "q"
        new = placed(project(normed, block.attention, slot), slot, geometry.rotation(layer))
        # The other heads keep the run's own slots: the delta is what this reader reads, not what stands in the stream.
        slots[slot] = slots[slot].clone()
        slots[slot][:, :, reader.node.index] = new[:, :, reader.node.index]
    return attend(slots["q"], slots["k"], slots["v"], block.attention, geometry.bias(block.attention.window))


def past_mlps(base: Base, writer: Node, delta: Delta, reader: Reader) -> Delta:
    """The change of what `reader` reads when a node's output moves by `delta`, every head stays as it was and the MLPs in
    between recompute (Wang et al. 2022)."""
    run, node = base.run, reader.node
    n_layers, parallel = len(run.weights.blocks), run.weights.parallel
    # A head's own layer has an MLP that reads it, unless both read the same stream in parallel; an MLP's does not.
    start = 0 if writer.kind == "input" else (writer.layer or 0) + int(parallel or writer.kind != "head")
    stop = n_layers if node.kind == "logits" else node.layer or 0
    for layer in range(start, stop):
        block = run.weights.blocks[layer]
        if block.mlp is not None:
            # Heads stay as they were, so the MLP's input differs from the run's by the delta that has gathered so far alone.
            reads = run.residuals[layer] if parallel else run.middles[layer]
            neurons = neuron_activations(normalise(reads + delta, block.mlp_norm), block.mlp)
            delta = delta + mlp_output(neurons, block.mlp, block.mlp_post_norm) - base.mlp(layer)
    return delta


@dataclasses.dataclass(frozen=True)
class Path:
    """A writer and the readers that it reaches one after the other; the readers of one step belong to one node."""

    writer: Node
    steps: tuple[tuple[Reader, ...], ...]

    @classmethod
    def parse(cls, graph: Graph, names: Sequence[str]) -> "Path":
        """A path from names such as `["a0.h3", "a1.h2<k>", "logits"]`; a head without a slot stands for all three. Raises
        GraphError for fewer than two names and for steps that are no edges of the graph."""
        if len(names) < 2:
            raise GraphError("a path needs a writer and a reader at least, such as a0.h3, a1.h2<k>, logits")
        writer = graph.node(names[0])
        before, steps = [writer], []
        for name in names[1:]:
            readers = _readers(graph, name)
            for reader in readers:
                missing = next((node for node in before if node not in graph.writers(reader)), None)
                if missing is not None:
                    raise GraphError(f"{missing} does not feed {reader}: it is not computed before it")
            steps.append(readers)
            before = sorted({target for reader in readers for target in graph.targets(reader)})
        return cls(writer, tuple(steps))

    @property
    def name(self) -> str:
        """Its nodes, joined by arrows."""
        return "->".join([str(self.writer), *("+".join(map(str, readers)) for readers in self.steps)])


def _readers(graph: Graph, name: str) -> tuple[Reader, ...]:
    if name.endswith(">") or not name.startswith("a"):
        return (graph.reader(name),)
    head = graph.node(name)
    return tuple(graph.reader_of(head, slot) for slot in ("q", "k", "v"))


def moved_output(base: Base, other: Base, graph: Graph, path: Path, *, freeze_mlps: bool) -> Delta:
    """What the path brings to its last readers: the change of what they read of the residual stream."""
    delta, writer = difference(base, other, path.writer), path.writer
    for readers, following in zip(path.steps, (*path.steps[1:], None), strict=True):
        delta = delta if freeze_mlps else past_mlps(base, writer, delta, readers[0])
        if following is None:
            return delta
        delta, writer = through(base, graph, readers, delta), readers[0].node
    return torch.zeros_like(delta)
