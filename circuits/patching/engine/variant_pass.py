"""One pass through the layers that carries many patched runs at once."""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from circuits.errors import NonFiniteError
from circuits.models.layers import (
    Rotation,
    Slot,
    activate,
    attend,
    attention_output,
    linear,
    mlp_output,
    neuron_activations,
    normalise,
    placed,
    project,
)
from circuits.models.weights import MLP
from circuits.patching.engine.base import Base
from circuits.patching.engine.change import STAGE, Kind, Variant
from circuits.patching.engine.plan import Planned
from circuits.patching.engine.stream import ACTIVE, Stream, StreamBlock

SLOTS: tuple[tuple[Slot, Kind, Kind], ...] = (("q", "q", "q_in"), ("k", "k", "k_in"), ("v", "v", "v_in"))
WHOLE: dict[int, Kind] = {0: "residual", 2: "head", 3: "attention", 4: "middle", 7: "mlp"}
"""What is set at a stage as it stands there."""


class Pass:
    """Runs variants from where they leave the base run to the residual stream at the columns that are read."""

    def __init__(self, base: Base, read: Tensor, *, freeze_patterns: bool = False, watch: bool = False) -> None:
        self.base, self.read, self.freeze_patterns, self.watch = base, read, freeze_patterns, watch
        self.weights = base.run.weights
        self.n_layers = len(self.weights.blocks)

    def run(self, planned: Sequence[Planned]) -> list[StreamBlock]:
        """Blocks whose `x` is `[stream prompt read d_model]`, the final residual stream at the columns that are read."""
        self.blocks: dict[int, StreamBlock] = {}
        # One turn more than there are layers: the logits read the residual stream after the last one, and a change of that (an
        # edge into the logits) has no layer to be made in.
        for layer in range(min(variant.first_layer for variant in planned), self.n_layers + 1):
            self._regroup(layer, [variant for variant in planned if variant.first_layer == layer])
            blocks = list(self.blocks.values())
            for block in blocks:
                last = layer >= self.n_layers - 1
                block.queries = self.read if last else block.columns
                place = self.read if layer == self.n_layers else block.columns
                # Up to its first change a variant is the base run bit by bit, so its row begins as the base's residual here and
                # no earlier layer is run for it.
                block.x = block.extended(block.x, self.base.run.residuals[layer], ACTIVE, place)
                self._apply(block, block.x, ACTIVE, place)
            self._check([block.x for block in blocks], f"the residual stream before layer {layer}")
            if layer < self.n_layers and blocks:
                self._layer(layer, blocks)
        return list(self.blocks.values())

    def _check(self, tensors: list[Tensor], what: str) -> None:
        """Where it was asked to watch, raise NonFiniteError at the first NaN or infinity."""
        if self.watch and not all(bool(tensor.isfinite().all()) for tensor in tensors):
            raise NonFiniteError(f"{what} holds NaN or infinity in a patched run")

    def _regroup(self, layer: int, entering: list[Planned]) -> None:
        newcomers: dict[int, dict[Variant, Stream]] = {}
        for variant in entering:
            changes = variant.layers[layer]
            # One block a first column: left of that column a causal run is the base run, so a block is a rectangle of what can
            # differ and nothing else. Changes are compared by identity, hence variants that begin with the same ones are one
            # row until they part.
            streams = newcomers.setdefault(variant.start, {})
            if changes not in streams:
                streams[changes] = Stream([], self._entry(layer, changes), changes)
            streams[changes].variants.append(variant)
        for start in newcomers.keys() - self.blocks.keys():
            block = StreamBlock.empty(self.base, start)
            if layer == self.n_layers:
                # After the last layer every block holds the columns that are read alone, those that begin only now too.
                block.x = block.x.new_empty(0, len(self.base.run.tokens), self.read.shape[1], block.x.shape[-1])
            self.blocks[start] = block
        for start, block in self.blocks.items():
            block.regroup(layer, list(newcomers.get(start, {}).values()))

    def _entry(self, layer: int, changes: Variant) -> int:
        """Where a stream leaves the base run. A head or neuron that changes first, and no norm in its way, enters as a
        change of what its sublayer wrote."""
        # The plan has put them in the order in which they act: the first says how much of the layer is as in the base run.
        first = changes[0]
        if layer == self.n_layers:
            return ACTIVE
        block = self.weights.blocks[layer]
        # Without a norm behind it, what attention writes is a sum over heads: one head's change is added by its own d_head rows
        # of W_O, and the row skips queries, keys, values and mixing. A norm would divide every head by a scale that this one
        # moves.
        if first.kind == "head" and block.attention_post_norm is None:
            return STAGE["attention"]
        if first.kind in ("neuron", "neuron_in") and block.mlp_post_norm is None:
            return STAGE["mlp"]
        return first.stage

    def _layer(self, layer: int, blocks: list[StreamBlock]) -> None:
        # In the last layer nobody reads what stands elsewhere, so from the queries on only the columns that are read go on;
        # keys and values still need them all. In other layers this is `block.x` itself, not a copy.
        before = [block.read_off(block.x, self.base.run.residuals[layer]) for block in blocks]
        attention = self._attention(layer, blocks, before)
        self._check(attention, f"the attention output of layer {layer}")
        residuals, middles = self.base.run.residuals[layer], self.base.run.middles[layer]
        for i, block in enumerate(blocks):
            # Rows that enter within the MLP need both: a parallel block's MLP reads the stream before attention, a sequential
            # one's the base's middle, which saves running attention for them.
            before[i] = block.extended(before[i], residuals, STAGE["mlp"], block.queries)
            middle = before[i][: attention[i].shape[0]] + attention[i]
            middle = block.extended(middle, middles, STAGE["mlp"], block.queries)
            self._apply(block, middle, STAGE["middle"], block.queries)
            block.x = middle
        mlp = self.weights.blocks[layer].mlp
        if mlp is None:
            return
        for block, written in zip(blocks, self._mlp(layer, blocks, before), strict=True):
            block.x = block.x + written

    def _attention(self, layer: int, blocks: list[StreamBlock], before: list[Tensor]) -> list[Tensor]:
        """What attention wrote, of the streams that enter by then."""
        weights, run = self.weights.blocks[layer], self.base.run
        z = []
        for block, q, k, v in zip(blocks, *self._slots(layer, blocks, before), strict=True):
            # Block by block: blocks differ in their columns, and what a query may look at goes by columns. All else treats a
            # token by itself, so that there all rows of all blocks are one matrix product.
            z.append(self._mixed(layer, block, q, k, v))
        for i, block in enumerate(blocks):
            z[i] = block.extended(z[i], run.z[layer], STAGE["head"], block.queries)
            self._apply(block, z[i], STAGE["head"], block.queries)
        outputs = joined(lambda x: attention_output(x, weights.attention, weights.attention_post_norm), z, 2)
        for i, block in enumerate(blocks):
            if block.count(STAGE["attention"]) > outputs[i].shape[0]:
                outputs[i] = block.extended(outputs[i], self.base.attention(layer), STAGE["attention"], block.queries)
            self._heads_alone(layer, block, outputs[i])
            self._apply(block, outputs[i], STAGE["attention"], block.queries)
        return outputs

    def _slots(self, layer: int, blocks: list[StreamBlock], before: list[Tensor]) -> tuple[list[Tensor], ...]:
        """Queries, keys and values, with their changes, of the streams that enter by then."""
        weights, run = self.weights.blocks[layer], self.base.run
        attention, norm = weights.attention, weights.attention_norm
        # `block.x` and `before` hold only rows that were under way before this layer; those that enter at a query, key or value
        # are appended from the base run below, after the product.
        normed = joined(lambda x: normalise(x, norm), [block.x for block in blocks])
        asking = normed if layer < self.n_layers - 1 else joined(lambda x: normalise(x, norm), before)
        parts = []
        for (slot, own_kind, read_kind), source, kept in zip(
            SLOTS, (asking, normed, normed), (run.q, run.k, run.v), strict=True
        ):
            out = joined(functools.partial(project, attention=attention, slot=slot), source)
            for i, block in enumerate(blocks):
                columns = block.queries if slot == "q" else block.columns
                # Rotary positions before the base's rows come in and before changes: a Run keeps q and k with positions
                # applied, and a value patched in at q, k is one read off a Run.
                out[i] = placed(out[i], slot, self._rotation(layer, block, columns))
                out[i] = block.extended(out[i], kept[layer], STAGE["q"], columns)
                for row, stream in enumerate(block.streams[: out[i].shape[0]]):
                    reads = before[i] if slot == "q" else block.x
                    reads = reads[row] if stream.entry == ACTIVE else block.pick(run.residuals[layer], columns)
                    # What is added before what is set: where both fall on one query (masks may differ), the value that was set
                    # is what the run shows.
                    for index, value in block.added(stream.of(read_kind), columns).items():
                        # All heads are projected to take one: a norm over heads (OLMo 2) mixes them, and the other heads must
                        # not move.
                        out[i][row][:, :, index] = self._slot(layer, block, slot, reads + value, columns)[:, :, index]
                    for change in stream.of(own_kind):
                        block.put(out[i][row][:, :, change.index], change, columns)
            parts.append(out)
        return tuple(parts)

    def _slot(self, layer: int, block: StreamBlock, slot: Slot, reads: Tensor, columns: Tensor) -> Tensor:
        """Queries, keys or values of one stream from what they read, `[prompt column head d_head]`."""
        weights = self.weights.blocks[layer]
        projected = project(normalise(reads, weights.attention_norm), weights.attention, slot)
        return placed(projected, slot, self._rotation(layer, block, columns))

    def _rotation(self, layer: int, block: StreamBlock, columns: Tensor) -> Rotation | None:
        rotation = self.base.geometry.rotation(layer)
        return None if rotation is None else rotation.picked(lambda table: block.pick(table, columns))

    def _mixed(self, layer: int, block: StreamBlock, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """z of the streams that enter at attention or before it."""
        count, attention = q.shape[0], self.weights.blocks[layer].attention
        if not count:
            return q
        # Queries stand from `start` on, but look at every column before it.
        k, v = (self._with_prefix(block, kept[layer], new) for kept, new in ((self.base.run.k, k), (self.base.run.v, v)))
        groups = attention.n_heads // attention.n_key_value_heads
        if self.freeze_patterns:
            # Queries first, as in every tensor that `pick` takes columns of.
            pattern = self.base.run.pattern(layer).transpose(1, 2)
            rows = block.pick(pattern, block.queries)
            z = torch.einsum("pchk,spkhd->spchd", rows, v.repeat_interleave(groups, dim=3))
        else:
            bias = self._bias(block, layer, count)
            z = attend(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), attention, bias).unflatten(0, q.shape[:2])
        for row, stream in enumerate(block.streams[:count]):
            for change in stream.of("pattern"):
                # A pattern from elsewhere may have weight on pads, whose values belong to no token: unmasked, a padded prompt
                # would give another number than alone.
                rows = block.pick(change.value, block.queries)
                new = (rows * self.base.run.tokens.mask[:, None]) @ v[row, :, :, (change.index or 0) // groups]
                mask = block.pick(change.mask, block.queries)[..., None]
                z[row, :, :, change.index] = torch.where(mask, new, z[row, :, :, change.index])
        return z

    def _with_prefix(self, block: StreamBlock, kept: Tensor, new: Tensor) -> Tensor:
        """Keys or values of all columns: the base run's before `start`."""
        if not block.start:
            return new
        prefix = kept[:, : block.start]
        return torch.cat([prefix.expand(new.shape[0], *prefix.shape), new], dim=2)

    def _bias(self, block: StreamBlock, layer: int, count: int) -> Tensor:
        """What is added to scores, `[stream·prompt|1 head|1 column key]`."""
        attention, prompts = self.weights.blocks[layer].attention, len(self.base.run.tokens)
        # Written out always: masking by `is_causal` would line up the first query with the first key, and here the first query
        # stands at `start`.
        bias = self.base.geometry.bias_at(attention.window, block.queries)
        out = {row: stream.of("knockout") for row, stream in enumerate(block.streams[:count])}
        if not any(out.values()):
            return bias if bias.shape[0] == 1 else bias.expand(count, *bias.shape).flatten(0, 1)
        # With a head axis only where somebody knocks out edges: it multiplies the bias by heads and rows, which a pass without
        # knockouts would pay in memory.
        bias = bias.expand(prompts, attention.n_heads, *bias.shape[2:])
        whole = bias.expand(count, *bias.shape).clone()
        for row, changes in out.items():
            for change in changes:
                blocked = block.pick(change.value & change.mask[..., None], block.queries)[:, None]
                heads = slice(None) if change.index is None else slice(change.index, change.index + 1)
                whole[row, :, heads].masked_fill_(blocked, -torch.inf)
        return whole.flatten(0, 1)

    def _heads_alone(self, layer: int, block: StreamBlock, outputs: Tensor) -> None:
        """Heads of streams that enter as a change of what attention wrote."""
        W_O = self.weights.blocks[layer].attention.per_head("W_O")
        for row, stream in enumerate(block.streams[: outputs.shape[0]]):
            changes = stream.of("head") if stream.entry == STAGE["attention"] else []
            # Once a head, not once a change: two changes of one head at different positions are one difference of its z.
            for head in {change.index or 0 for change in changes}:
                own = block.pick(self.base.run.z[layer][:, :, head], block.queries)
                new = own.clone()
                for change in changes:
                    if change.index == head:
                        block.put(new, change, block.queries)
                outputs[row] += (new - own) @ W_O[head]

    def _mlp(self, layer: int, blocks: list[StreamBlock], before: list[Tensor]) -> list[Tensor]:
        """What the MLP wrote, of all streams; `block.x` holds the residual stream in the middle of the layer."""
        weights, run = self.weights.blocks[layer], self.base.run
        mlp = weights.mlp
        assert mlp is not None
        reads = [before[i] if self.weights.parallel else block.x for i, block in enumerate(blocks)]
        for i, block in enumerate(blocks):
            for row, stream in enumerate(block.streams):
                for value in block.added(stream.of("mlp_in"), block.queries).values():
                    # What is added is read by the MLP alone: in place, it would stay in the residual stream for all that
                    # follows.
                    if reads[i] is before[i] or reads[i] is block.x:
                        reads[i] = reads[i].clone()
                    reads[i][row] += value
        # Rows whose neurons are all recomputed come first; those that only change some neurons take the base's others.
        wide = [source[: block.count(STAGE["mlp_in"])] for source, block in zip(reads, blocks, strict=True)]
        neurons = joined(lambda x: neuron_activations(normalise(x, weights.mlp_norm), mlp), wide)
        for i, block in enumerate(blocks):
            neurons[i] = block.extended(neurons[i], run.neurons[layer], STAGE["neuron"], block.queries)
            for row, stream in enumerate(block.streams[: neurons[i].shape[0]]):
                self._change_neurons(layer, block, stream, neurons[i][row], reads[i][row])
        written = joined(lambda x: mlp_output(x, mlp, weights.mlp_post_norm), neurons)
        for i, block in enumerate(blocks):
            if block.count(STAGE["mlp"]) > written[i].shape[0]:
                written[i] = block.extended(written[i], self.base.mlp(layer), STAGE["mlp"], block.queries)
            self._neurons_alone(layer, block, written[i], reads[i])
            self._apply(block, written[i], STAGE["mlp"], block.queries)
        return written

    def _change_neurons(self, layer: int, block: StreamBlock, stream: Stream, target: Tensor, reads: Tensor) -> set[int]:
        """Neurons of one stream, `[prompt column d_mlp]`, in place; returns which."""
        weights, touched = self.weights.blocks[layer], set()
        assert weights.mlp is not None
        for index, value in block.added(stream.of("neuron_in"), block.queries).items():
            moved, rest = (normalise(x, weights.mlp_norm) for x in (reads + value, reads))
            target[:, :, index] = single_neuron(moved, rest, weights.mlp, index or 0)
            touched.add(index or 0)
        for change in stream.of("neuron"):
            block.put(target[:, :, change.index], change, block.queries)
            touched.add(change.index or 0)
        return touched

    def _neurons_alone(self, layer: int, block: StreamBlock, written: Tensor, reads: Tensor) -> None:
        """Neurons of streams that enter as a change of what the MLP wrote."""
        mlp = self.weights.blocks[layer].mlp
        assert mlp is not None
        for row, stream in enumerate(block.streams[: written.shape[0]]):
            if stream.entry == STAGE["mlp"] and stream.of("neuron", "neuron_in"):
                # The difference of the touched neurons times their rows of W_out: the rows of all others would be multiplied by
                # zeros.
                own = block.pick(self.base.run.neurons[layer], block.queries)
                new = own.expand(len(self.base.run.tokens), *own.shape[1:]).clone()
                touched = sorted(self._change_neurons(layer, block, stream, new, reads[row]))
                written[row] += (new - own)[:, :, touched] @ mlp.W_out[touched]

    def _apply(self, block: StreamBlock, tensor: Tensor, stage: int, columns: Tensor) -> None:
        """The changes of whole sites at a stage, in place; heads and neurons by themselves only where they are there."""
        for row, stream in enumerate(block.streams[: tensor.shape[0]]):
            for change in stream.of(WHOLE[stage]):
                block.put(tensor[row] if change.index is None else tensor[row][:, :, change.index], change, columns)


def single_neuron(moved: Tensor, reads: Tensor, mlp: MLP, index: int) -> Tensor:
    """The activation of one neuron that reads `moved` (normed) while the others read `reads`."""
    one = MLP(
        W_in=mlp.W_in[:, index, None],
        W_out=mlp.W_out[index, None],
        b_in=None if mlp.b_in is None else mlp.b_in[index, None],
        b_out=None,
        activation=mlp.activation,
        W_gate=None if mlp.W_gate is None else mlp.W_gate[:, index, None],
        b_gate=None if mlp.b_gate is None else mlp.b_gate[index, None],
    )
    # A SoLU neuron's activation holds a softmax over the whole layer, so the others' pre-activations are needed though only
    # this one is wanted.
    if mlp.activation != "solu":
        return neuron_activations(moved, one)[..., 0]
    W, b, alone, bias = mlp.W_in, mlp.b_in, one.W_in, one.b_in
    if mlp.W_gate is not None:
        W, b, alone, bias = mlp.W_gate, mlp.b_gate, one.W_gate, one.b_gate
    assert alone is not None
    before = linear(reads, W, b)
    before[..., index] = linear(moved, alone, bias)[..., 0]
    activated = activate(before, mlp.activation)[..., index]
    return activated if mlp.W_gate is None else activated * linear(moved, one.W_in, one.b_in)[..., 0]


def joined(function: Callable[[Tensor], Tensor], parts: list[Tensor], axes: int = 1) -> list[Tensor]:
    """A function of rows, on the rows of all parts at once; the last `axes` axes of each part are one row."""
    # One part needs no copy.
    if len(parts) == 1:
        return [function(parts[0])]
    out = function(torch.cat([part.flatten(0, -axes - 1) for part in parts]))
    counts = [part.shape[: part.ndim - axes].numel() for part in parts]
    return [rows.unflatten(0, part.shape[: part.ndim - axes]) for rows, part in zip(out.split(counts), parts, strict=True)]
