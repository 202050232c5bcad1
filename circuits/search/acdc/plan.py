"""What a change of one reader's writers reaches in a circuit: known before anything is computed, and shared by all variants."""

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.models.layers import Slot
from circuits.search.acdc.state import Ground, State


@dataclasses.dataclass(frozen=True, eq=False)
class ReaderSet:
    """Some readers of one layer, all of which read at the same columns."""

    indices: Int[Tensor, " reader"]
    """Within the layer, in order."""
    places: list[int]
    mix: Float[Tensor, "reader moved"] | None
    """Which writers that moved they read; None for the reader whose writers change."""
    thin: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """What is computed anew in one layer."""

    layer: int
    readings: list[ReaderSet]
    """Queries, keys and values."""
    heads: Int[Tensor, " head"]
    """Heads whose mixed values change."""
    sources: dict[Slot, tuple[list[int], list[int]]]
    """For each slot, which of `heads` take a new value, and from which of the slot's new values."""
    written: Int[Tensor, " written"]
    """Those of `heads` whose output is read."""
    mlp: ReaderSet | None


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Steps from a reader's layer on. `moved`: writers that change, in order; without the last reading (`final`) nothing
    that is changed reaches the logits."""

    place: int
    steps: list[Step]
    moved: int
    wide: bool
    """Whether changes are needed at all columns."""
    final: ReaderSet | None
    nbytes: int
    """What one variant takes, roughly."""


def plan(state: State, place: int) -> Plan:
    """Follow the circuit's edges from the writers behind one reader."""
    ground = state.ground
    graph, first = ground.graph, ground.layer_of(place)[0]
    moved: list[int] = []
    steps = []
    for layer in range(first, graph.n_layers):
        step = _step(state, place, layer, moved)
        if step is not None:
            steps.append(step)
            moved += _writers(ground, step)
    end = graph.reader_count - 1
    final = _reading(state, layer=graph.n_layers, indices=torch.tensor([0]), places=[end], moved=moved, thin=True)
    # Where the logits are the reader itself, its writers do not move: the cut is the change.
    final = ReaderSet(final.indices, [end], None, True) if place == end else final
    reached = place == end or bool(final.mix is not None and final.mix.any())
    # From the last layer on only the answer columns are read; before it other tokens carry changes on.
    wide = first < graph.n_layers - 1
    return Plan(place, steps, len(moved), wide, final if reached else None, _bytes(ground, steps, len(moved), wide))


def _step(state: State, place: int, layer: int, moved: list[int]) -> Step | None:
    ground, graph = state.ground, state.ground.graph
    start, inputs = layer * (graph.head_readers + graph.mlp_writers), graph.head_readers
    if start <= place < start + inputs:
        indices = torch.tensor([place - start])
    elif place < start:
        # Known from edges alone, before any number is: so all variants of a reader share one plan and one batch.
        indices = state.kept[moved, start : start + inputs].any(dim=0).nonzero()[:, 0]
    else:
        indices = torch.tensor([], dtype=torch.long)
    readings = _readings(state, place, layer, indices, moved)
    heads, sources = _touched(state, layer, indices)
    written = _written(state, layer, heads)
    mlp, behind = None, start + inputs
    if graph.mlp_writers:
        all_moved = moved + [_head(ground, layer, head) for head in written.tolist()]
        reads = place == behind or (place < behind and bool(state.kept[all_moved, behind].any()))
        # What nothing in the circuit reads is not computed; its own edges go without a run when their turn comes.
        if reads and bool(state.kept[_head(ground, layer, graph.n_heads)].any()):
            mlp = _reading(state, layer, torch.tensor([inputs]), [behind], all_moved, ground.thin(behind))
            mlp = dataclasses.replace(mlp, mix=None) if place == behind else mlp
    if not len(heads) and mlp is None:
        return None
    return Step(layer, readings, heads, sources, written, mlp)


def _readings(state: State, place: int, layer: int, indices: Tensor, moved: list[int]) -> list[ReaderSet]:
    """Attention's readers; queries of the last layer, which are needed at fewer columns, by themselves."""
    graph = state.ground.graph
    start = layer * (graph.head_readers + graph.mlp_writers)
    # Keys and values of the last layer are read at every column, its queries at the answer columns.
    split = graph.n_heads if layer == graph.n_layers - 1 else 0
    found = []
    for part, thin in ((indices[indices < split], True), (indices[indices >= split], False)):
        if len(part):
            places = (part + start).tolist()
            reading = _reading(state, layer, part, places, moved, thin)
            found.append(dataclasses.replace(reading, mix=None) if place in places else reading)
    return found


def _reading(state: State, layer: int, indices: Tensor, places: list[int], moved: list[int], thin: bool) -> ReaderSet:
    model = state.ground.model
    mix = state.kept[moved][:, places].T.to(model.device, model.dtype)
    return ReaderSet(indices, places, mix, thin)


def _touched(state: State, layer: int, indices: Tensor) -> tuple[Tensor, dict[Slot, tuple[list[int], list[int]]]]:
    """Heads that compute with some of a layer's readers and are read, and where each finds its new values."""
    ground, graph = state.ground, state.ground.graph
    size, split = graph.n_heads // graph.n_key_value_heads, list(ground.slots.split(indices))
    touched = torch.zeros(graph.n_heads, dtype=torch.bool)
    for slot, _, inside in split:
        for index in inside.tolist():
            # A group's keys and values serve all its heads.
            touched[slice(index, index + 1) if slot == "q" else slice(index * size, (index + 1) * size)] = True
    # Behind a norm a head that nothing reads still moves the scale of those that are read
    # (test_norms_after_attention_share_their_scale_with_heads_that_nothing_reads).
    if ground.model.weights.blocks[layer].attention_post_norm is None:
        first = _head(ground, layer, 0)
        touched &= state.kept[first : first + graph.n_heads].any(dim=1)
    heads = touched.nonzero()[:, 0]
    sources: dict[Slot, tuple[list[int], list[int]]] = {}
    for slot, _, inside in split:
        at = {index: row for row, index in enumerate(inside.tolist())}
        groups = heads if slot == "q" else heads // size
        pairs = [(row, at[group]) for row, group in enumerate(groups.tolist()) if group in at]
        sources[slot] = [row for row, _ in pairs], [source for _, source in pairs]
    return heads, sources


def _written(state: State, layer: int, heads: Tensor) -> Tensor:
    """Heads whose output changes and is read: with a norm after attention, all that are read."""
    ground, graph = state.ground, state.ground.graph
    if ground.model.weights.blocks[layer].attention_post_norm is None or not len(heads):
        return heads
    first = _head(ground, layer, 0)
    return state.kept[first : first + graph.n_heads].any(dim=1).nonzero()[:, 0]


def _head(ground: Ground, layer: int, head: int) -> int:
    """A head's place among the writers; that after the last head is the MLP's."""
    return 1 + layer * (ground.graph.n_heads + ground.graph.mlp_writers) + head


def _writers(ground: Ground, step: Step) -> list[int]:
    heads = [_head(ground, step.layer, head) for head in step.written.tolist()]
    return heads + ([_head(ground, step.layer, ground.graph.n_heads)] if step.mlp else [])


def _bytes(ground: Ground, steps: list[Step], moved: int, wide: bool) -> int:
    prompts, width, d_model = ground.changes.shape[1:]
    tokens, keys = prompts * width, ground.own.tokens.ids.numel()
    count = 4 * tokens * d_model + 4 * prompts * ground.model.weights.W_U.shape[1]
    count += moved * d_model * (tokens if wide else prompts)
    for step in steps:
        streams = sum(len(reading.indices) * (prompts if reading.thin else tokens) for reading in step.readings)
        count += 3 * streams * d_model + 4 * len(step.heads) * keys * ground.model.d_head
        count += 0 if step.mlp is None else (prompts if step.mlp.thin else tokens) * (3 * d_model + 3 * ground.model.d_mlp)
    return count * torch.finfo(ground.model.dtype).bits // 8
