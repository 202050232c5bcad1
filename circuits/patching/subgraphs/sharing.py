"""What a set of circuits needs computed: every value of a node once, in however many circuits it stands.

A node's value in a circuit follows from what its readers read there, and that from the values of their writers inside. So two
circuits in which a node reads the same values have its value in common; values are numbered by that, circuit after circuit.

In a graph with roles a node has a value of its own for each, zero at all other tokens: what a reader reads is a sum of values
there, too, and needs no rules of its own.
"""

import dataclasses
from collections.abc import Sequence

from circuits.graph import Graph
from circuits.models.weights import Block
from circuits.patching.subgraphs.members import Members

Reads = tuple[int, ...]
"""Numbers of the values that a reader reads inside its circuit and that have moved, in the order of computation; none: it
computes what it does at rest."""
Slots = tuple[Reads, Reads, Reads]
"""What the queries, the keys and the values of a head read."""


@dataclasses.dataclass(frozen=True)
class HeadWork:
    """One head to compute. `value`: the number of what it writes; None where it is computed only because a norm behind
    attention divides all heads of its layer by one scale."""

    index: int
    slots: Slots
    value: int | None
    role: int = 0


@dataclasses.dataclass(frozen=True)
class NeuronWork:
    """Neurons of one layer to compute together: what those read whose readings moved, and the numbers of the values that are
    wanted, by neuron."""

    reads: tuple[tuple[int, Reads], ...]
    values: dict[int, int]


@dataclasses.dataclass(frozen=True)
class LayerWork:
    """What one layer computes, in the order of the circuits that need it first. Heads that a norm joins stand together."""

    heads: list[HeadWork]
    mlps: list[tuple[Reads, int, int]]
    """What each reads, its role, and its value."""
    neurons: list[NeuronWork]


class Sharing:
    """Circuits of one graph, taken one after the other. `input_moves`: whether the input differs from what edges outside carry,
    for each role (of a graph without: once); `resting`: whether a node that reads only what is outside gives just what edges
    outside carry."""

    def __init__(self, graph: Graph, blocks: Sequence[Block], *, input_moves: Sequence[bool], resting: bool) -> None:
        self.graph, self.resting = graph, resting
        self.finals: list[Reads] = []
        """What the logits of each circuit read."""
        self._roles = graph.role_count
        self._layer = graph.n_heads + graph.mlp_writers
        self._readers = graph.head_readers + graph.mlp_writers
        self._joined_heads = [block.attention_post_norm is not None for block in blocks]
        # SoLU's softmax and a norm behind the MLP join neurons: where one moves, all do.
        self._joined_neurons = [
            block.mlp is not None and (block.mlp.activation == "solu" or block.mlp_post_norm is not None) for block in blocks
        ]
        self._numbers: dict[tuple, int] = {}
        self._inputs: list[frozenset[int]] = []
        self._keys: list[tuple] = []
        self._dense = 0
        self.inputs = [self._number((role,), ()) if moves else None for role, moves in enumerate(input_moves)]
        """The number of the input's value, for each role."""

    def take(self, members: Members, room: int | None = None) -> bool:
        """Add a circuit; with `room`, unless there are others, and more than so many values but those of single neurons with
        it. Whether it was added."""
        circuit = _Circuit(members)
        for writer in circuit.leaving:
            value = self._value(writer, circuit)
            if value is not None:
                circuit.now[writer] = value
        if room is not None and self.finals and self._dense > room:
            return False
        self.finals.append(circuit.read(self.graph.reader_count - 1))
        return True

    def _value(self, writer: int, circuit: "_Circuit") -> int | None:
        """The number of a node's value in a circuit; None where it has not moved."""
        node, role = divmod(writer, self._roles)
        if node == 0:
            return self.inputs[role]
        layer, index = divmod(node - 1, self._layer)
        if index < self.graph.n_heads:
            if self._joined_heads[layer]:
                slots = tuple(self._slots(layer, head, role, circuit) for head in range(self.graph.n_heads))
            else:
                slots = (self._slots(layer, index, role, circuit),)
            reads = [read for head in slots for read in head]
            return self._number((writer, slots), reads) if any(reads) or not self.resting else None
        place = layer * self._readers + self.graph.head_readers
        if not self._joined_neurons[layer] or not self.graph.neurons:
            read = circuit.read((place + index - self.graph.n_heads) * self._roles + role)
            return self._number((writer, read), [read]) if read or not self.resting else None
        found = [(neuron, circuit.read(place + neuron)) for neuron in circuit.neurons(place, self.graph.mlp_writers)]
        moved = tuple((neuron, read) for neuron, read in found if read)
        return self._number((writer, moved), [read for _, read in moved]) if moved or not self.resting else None

    def _slots(self, layer: int, head: int, role: int, circuit: "_Circuit") -> Slots:
        place, heads, groups = layer * self._readers, self.graph.n_heads, self.graph.n_key_value_heads
        group = head // (heads // groups)
        inputs = (place + head, place + heads + group, place + heads + groups + group)
        q, k, v = (circuit.read(one * self._roles + role) for one in inputs)
        return q, k, v

    def _number(self, key: tuple, reads: Sequence[Reads]) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._keys)
            self._keys.append(key)
            self._inputs.append(frozenset().union(*reads))
            self._dense += not self._is_neuron(number)
        return number

    def _is_neuron(self, value: int) -> bool:
        writer = self._keys[value][0]  # of a graph of neurons, which has no roles
        return self.graph.neurons and writer > 0 and (writer - 1) % self._layer >= self.graph.n_heads

    def needed(self) -> tuple[list[int], list[int]]:
        """The values from which logits can be reached, in order, those of single neurons apart: what others write is read by
        nobody who counts."""
        found = {value for final in self.finals for value in final}
        # A value reads only values of lower numbers.
        for value in range(len(self._keys) - 1, -1, -1):
            if value in found:
                found |= self._inputs[value]
        kinds: tuple[list[int], list[int]] = ([], [])
        for value in sorted(found):
            kinds[self._is_neuron(value)].append(value)
        return kinds

    def work(self, values: Sequence[int]) -> list[LayerWork]:
        """What each layer computes so that there are these values."""
        found = [LayerWork([], [], []) for _ in range(self.graph.n_layers)]
        joined: dict[tuple, dict[int, int]] = {}
        for value in values:
            writer, *key = self._keys[value]
            node, role = divmod(writer, self._roles)
            if node == 0:
                continue
            layer, index = divmod(node - 1, self._layer)
            is_head = index < self.graph.n_heads
            # A unit is what is computed together: one node, or all of a layer that a norm or a softmax joins.
            alone = not (self._joined_heads if is_head else self._joined_neurons)[layer]
            unit = (layer, is_head, index if alone else None, role, key[0])
            joined.setdefault(unit, {})[index if is_head else index - self.graph.n_heads] = value
        for (layer, is_head, index, role, key), there in joined.items():
            if is_head:
                heads = enumerate(key) if index is None else [(index, key[0])]
                found[layer].heads.extend(HeadWork(head, slots, there.get(head), role) for head, slots in heads)
            elif not self.graph.neurons:
                found[layer].mlps.append((key, role, *there.values()))
            else:
                neuron = None if index is None else index - self.graph.n_heads
                reads = key if neuron is None else ((neuron, key),) if key else ()
                found[layer].neurons.append(NeuronWork(reads, there))
        return found


class _Circuit:
    """One circuit while it is followed: its writers by reader, and what each writer's value is so far."""

    def __init__(self, members: Members) -> None:
        # By reader and then by writer, so that equal readings are equal tuples and their sums are made in one order.
        order = (members.readers * members.graph.writer_count + members.writers).argsort()
        self._writers: dict[int, list[int]] = {}
        for writer, reader in zip(members.writers[order].tolist(), members.readers[order].tolist(), strict=True):
            self._writers.setdefault(reader, []).append(writer)
        self.leaving: list[int] = members.writers.unique().tolist()
        self.now: dict[int, int] = {}
        self._read: dict[int, Reads] = {}

    def read(self, reader: int) -> Reads:
        """What a reader reads; all its writers have been followed by then."""
        if reader not in self._read:
            writers = self._writers.get(reader, ())
            self._read[reader] = tuple(self.now[writer] for writer in writers if writer in self.now)
        return self._read[reader]

    def neurons(self, place: int, count: int) -> list[int]:
        """The neurons of the layer whose readers begin at a place that have edges inside."""
        return [reader - place for reader in sorted(self._writers) if place <= reader < place + count]
