"""What the MLPs write in a pass that carries many patched runs: whole, by their neurons, or single neurons alone."""

import torch
from torch import Tensor

from circuits.models.layers import activate, linear, mlp_output, neuron_activations, normalise
from circuits.models.weights import MLP
from circuits.patching.engine.base import Base
from circuits.patching.engine.change import STAGE
from circuits.patching.engine.rows import in_chunks, joined
from circuits.patching.engine.stream import Stream, StreamBlock


class MLPs:
    """Those of a model, over one base run."""

    def __init__(self, base: Base) -> None:
        self.base, self.weights = base, base.run.weights

    def written(self, layer: int, blocks: list[StreamBlock], before: list[Tensor]) -> list[Tensor]:
        """What the MLP wrote, of all streams; `block.x` holds the residual stream in the middle of the layer."""
        mlp = self.weights.blocks[layer].mlp
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
        apart = any(stream.of("neuron", "neuron_in") for block in blocks for stream in block.streams)
        written = (self._by_neurons if apart else self._whole_mlps)(layer, blocks, reads)
        for i, block in enumerate(blocks):
            if block.count(STAGE["mlp"]) > written[i].shape[0]:
                written[i] = block.extended(written[i], self.base.mlp(layer), STAGE["mlp"], block.queries)
            self._neurons_alone(layer, block, written[i], reads[i])
            block.set_whole(written[i], STAGE["mlp"], block.queries)
        return written

    def _whole_mlps(self, layer: int, blocks: list[StreamBlock], reads: list[Tensor]) -> list[Tensor]:
        """What the MLP wrote, of the streams that enter before it, where nobody changes single neurons; what will be replaced
        is left open."""
        weights = self.weights.blocks[layer]
        mlp = weights.mlp
        assert mlp is not None
        written, places, sources = [], [], []
        for i, (block, read) in enumerate(zip(blocks, reads, strict=True)):
            count = block.count(STAGE["mlp_in"])
            written.append(torch.empty_like(read[:count]))
            some = self._parts_of_mlp(block, count)
            if any(stream.fresh and stream.entry > STAGE["q"] for stream in block.streams[:count]):
                written[i].copy_(block.pick(self.base.mlp(layer), block.queries))
            places += [(i, rows, at) for rows, at in some]
            sources += [read[rows, :, at] for rows, at in some]

        def write(x: Tensor) -> tuple[Tensor]:
            """What the MLP makes of some rows: all at one go, so that their neurons are never held at once."""
            return (mlp_output(neuron_activations(normalise(x, weights.mlp_norm), mlp), mlp, weights.mlp_post_norm),)

        for place, some, (value,) in in_chunks(write, sources):
            i, rows, at = places[place]
            written[i][rows, :, at][some] = value
        return written

    def _parts_of_mlp(self, block: StreamBlock, count: int) -> list[tuple[slice, slice]]:
        """The streams and columns that the MLP has to be computed for."""
        if block.queries is not block.columns:
            return [(slice(0, count), slice(0, block.queries.shape[1]))]

        def needed(stream: Stream) -> tuple[int, int]:
            """Where the MLP reads something else than in the base run, and is not replaced."""
            # Up to what attention wrote, a row that enters later is the base run where it is not changed.
            late = stream.entry > STAGE["q"]
            start, stop = (
                block.moved(stream, ("head", "attention", "middle", "mlp_in")) if late else (0, block.columns.shape[1])
            )
            return max(start, block.replaced(stream, "mlp")), stop

        return block.parts(count, needed)

    def _by_neurons(self, layer: int, blocks: list[StreamBlock], reads: list[Tensor]) -> list[Tensor]:
        """What the MLP wrote, of the streams that enter by its neurons, with their changes."""
        weights, run = self.weights.blocks[layer], self.base.run
        mlp = weights.mlp
        assert mlp is not None
        # Rows whose neurons are all recomputed come first; those that only change some neurons take the base's others.
        wide = [source[: block.count(STAGE["mlp_in"])] for source, block in zip(reads, blocks, strict=True)]
        neurons = joined(lambda x: neuron_activations(normalise(x, weights.mlp_norm), mlp), wide)
        for i, block in enumerate(blocks):
            neurons[i] = block.extended(neurons[i], run.neurons[layer], STAGE["neuron"], block.queries)
            for row, stream in enumerate(block.streams[: neurons[i].shape[0]]):
                self._change_neurons(layer, block, stream, neurons[i][row], reads[i][row])
        return joined(lambda x: mlp_output(x, mlp, weights.mlp_post_norm), neurons)

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
