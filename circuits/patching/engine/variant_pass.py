"""One pass through the layers that carries many patched runs at once."""

import functools
from collections.abc import Sequence

from torch import Tensor

from circuits.errors import NonFiniteError
from circuits.models.geometry import Rotation
from circuits.models.layers import (
    SLOTS,
    Slot,
    attention_output,
    linear,
    normalise,
    placed,
    project,
)
from circuits.models.weights import Attention
from circuits.patching.engine.base import Base
from circuits.patching.engine.change import STAGE, Kind, Variant
from circuits.patching.engine.mixing import mixed
from circuits.patching.engine.plan import Planned
from circuits.patching.engine.rows import in_chunks, joined
from circuits.patching.engine.stream import ACTIVE, Stream, StreamBlock
from circuits.patching.engine.variant_mlp import MLPs

SLOT_KINDS: tuple[tuple[Slot, Kind, Kind], ...] = (("q", "q", "q_in"), ("k", "k", "k_in"), ("v", "v", "v_in"))


class Pass:
    """Runs variants from where they leave the base run to the residual stream at the columns that are read."""

    def __init__(self, base: Base, read: Tensor, *, freeze_patterns: bool = False, watch: bool = False) -> None:
        self.base, self.read, self.freeze_patterns, self.watch = base, read, freeze_patterns, watch
        self.weights = base.run.weights
        self.n_layers = len(self.weights.blocks)
        self.mlps = MLPs(base)

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
                block.set_whole(block.x, ACTIVE, place)
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
                streams[changes] = Stream([], self._entry(layer, changes), changes, fresh=True)
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
            middle = attention[i].add_(before[i][: attention[i].shape[0]])
            middle = block.extended(middle, middles, STAGE["mlp"], block.queries)
            block.set_whole(middle, STAGE["middle"], block.queries)
            block.x = middle
        mlp = self.weights.blocks[layer].mlp
        if mlp is None:
            return
        for block, written in zip(blocks, self.mlps.written(layer, blocks, before), strict=True):
            block.x = written.add_(block.x)

    def _attention(self, layer: int, blocks: list[StreamBlock], before: list[Tensor]) -> list[Tensor]:
        """What attention wrote, of the streams that enter by then."""
        weights, run = self.weights.blocks[layer], self.base.run
        z = []
        for block, q, k, v in zip(blocks, *self._slots(layer, blocks, before), strict=True):
            # Block by block: blocks differ in their columns, and what a query may look at goes by columns. All else treats a
            # token by itself, so that there all rows of all blocks are one matrix product.
            z.append(mixed(self.base, block, layer, q, k, v, freeze_patterns=self.freeze_patterns))
        for i, block in enumerate(blocks):
            z[i] = block.extended(z[i], run.z[layer], STAGE["head"], block.queries)
            block.set_whole(z[i], STAGE["head"], block.queries)
        outputs = joined(lambda x: attention_output(x, weights.attention, weights.attention_post_norm), z, 2)
        for i, block in enumerate(blocks):
            if block.count(STAGE["attention"]) > outputs[i].shape[0]:
                outputs[i] = block.extended(outputs[i], self.base.attention(layer), STAGE["attention"], block.queries)
            self._heads_alone(layer, block, outputs[i])
            block.set_whole(outputs[i], STAGE["attention"], block.queries)
        return outputs

    def _slots(self, layer: int, blocks: list[StreamBlock], before: list[Tensor]) -> list[list[Tensor]]:
        """Queries, keys and values, with their changes, of the streams that enter by then."""
        run = self.base.run
        # `block.x` and `before` hold only rows that were under way before this layer; those that enter at a query, key or value
        # are appended from the base run below, after the product.
        every = self._projected(layer, blocks, [block.x for block in blocks], SLOTS if layer < self.n_layers - 1 else SLOTS[1:])
        if layer == self.n_layers - 1:
            every = [*self._projected(layer, blocks, before, SLOTS[:1]), *every]
        for (slot, own_kind, read_kind), out, kept in zip(SLOT_KINDS, every, (run.q, run.k, run.v), strict=True):
            for i, block in enumerate(blocks):
                columns = block.queries if slot == "q" else block.columns
                out[i] = block.extended(out[i], kept[layer], STAGE["q"], columns)
                for row, stream in enumerate(block.streams[: out[i].shape[0]]):
                    reads = before[i] if slot == "q" else block.x
                    # What is added before what is set: where both fall on one query (masks may differ), the value that was set
                    # is what the run shows.
                    for index, value in block.added(stream.of(read_kind), columns).items():
                        read = reads[row] if stream.entry == ACTIVE else block.pick(run.residuals[layer], columns)
                        out[i][row][:, :, index] = self._slot(layer, block, slot, read + value, columns, index or 0)
                    for change in stream.of(own_kind):
                        block.put(out[i][row][:, :, change.index], change, columns)
        return every

    def _projected(
        self, layer: int, blocks: list[StreamBlock], sources: list[Tensor], slots: Sequence[Slot]
    ) -> list[list[Tensor]]:
        """Some of queries, keys and values of rows that were under way before this layer, rotary positions applied: a Run keeps
        q and k with them, and a value patched in there is one read off a Run."""
        weights, run = self.weights.blocks[layer], self.base.run
        places, reads = [], []
        found: list[list[Tensor]] = [[] for _ in slots]
        for i, (block, source) in enumerate(zip(blocks, sources, strict=True)):
            columns = block.columns if source is block.x else block.queries
            whole = [(slice(0, len(source)), slice(0, columns.shape[1]))]
            # A row whose residual stream was changed just now is the base run at all other columns, and there its queries, keys
            # and values are at hand.
            changed = functools.partial(block.moved, kinds=("residual",))
            some = block.parts(len(source), changed) if source is block.x else whole
            for slot, outs in zip(slots, found, strict=True):
                kept = block.pick(getattr(run, slot)[layer], columns)
                outs.append(kept.new_empty(len(source), source.shape[1], *kept.shape[1:]))
                if some != whole:
                    outs[-1].copy_(kept)
            for rows, at in some:
                places.append((i, rows, at, self._rotation(layer, block, columns, at)))
                reads.append(source[rows, :, at])

        def read(x: Tensor) -> tuple[Tensor, ...]:
            """What some rows ask, offer and pass on."""
            normed = normalise(x, weights.attention_norm)
            return tuple(project(normed, weights.attention, slot) for slot in slots)

        for place, some, values in in_chunks(read, reads):
            i, rows, at, rotation = places[place]
            for slot, outs, value in zip(slots, found, values, strict=True):
                outs[i][rows, :, at][some] = placed(value, slot, rotation)
        return found

    def _slot(self, layer: int, block: StreamBlock, slot: Slot, reads: Tensor, columns: Tensor, index: int) -> Tensor:
        """One head's query, or a group's key or value, of one stream from what it reads, `[prompt column d_head]`."""
        weights = self.weights.blocks[layer]
        normed = normalise(reads, weights.attention_norm)
        return placed(project_one(normed, weights.attention, slot, index), slot, self._rotation(layer, block, columns))[:, :, 0]

    def _rotation(self, layer: int, block: StreamBlock, columns: Tensor, at: slice = slice(None)) -> Rotation | None:
        rotation = self.base.geometry.rotation(layer)
        return None if rotation is None else rotation.picked(lambda table: block.pick(table, columns)[:, at])

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


def project_one(x: Tensor, attention: Attention, slot: Slot, index: int) -> Tensor:
    """`project` of one head of queries, or one group of keys or values, `[... 1 d_head]`."""
    norm = {"q": attention.q_norm, "k": attention.k_norm, "v": None}[slot]
    if attention.norm_over_heads and norm is not None:
        # A norm over heads (OLMo 2) mixes them, so all are projected to take one.
        return project(x, attention, slot)[..., index : index + 1, :]
    own = slice(index * attention.d_head, (index + 1) * attention.d_head)
    bias = getattr(attention, f"b_{slot.upper()}")
    W = getattr(attention, f"W_{slot.upper()}")[:, own]
    return normalise(linear(x, W, None if bias is None else bias[own]).unsqueeze(-2), norm)
