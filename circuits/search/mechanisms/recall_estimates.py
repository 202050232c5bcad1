"""What the search for a recall circuit expects of nodes and edges to first order, so that only the strongest are run."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attribution.gradients import gradients
from circuits.attribution.points import along_inputs
from circuits.graph import Node, Reader
from circuits.models import Model
from circuits.models.layers import attend, normalise, placed
from circuits.models.memory import prompts_at_once
from circuits.patching.engine.base import Base, some_prompts
from circuits.patching.engine.reading import Reading
from circuits.patching.engine.variant_mlp import single_neuron
from circuits.patching.engine.variant_pass import project_one
from circuits.progress import Progress, silent
from circuits.tasks import PromptPairs
from circuits.tasks.metrics import logit_difference

_FIELDS = ("z", "neurons")


@dataclasses.dataclass(frozen=True, eq=False)
class Slopes:
    """Gradients of the logit difference by heads' mixed values and neurons of each layer, on the clean prompts: those of the
    clean run, or their mean on the way from the corrupt prompts' embeddings."""

    z: tuple[Float[Tensor, "prompt position head d_head"], ...]
    neurons: tuple[Float[Tensor, "prompt position d_mlp"], ...]

    @classmethod
    def of(
        cls,
        model: Model,
        pairs: PromptPairs,
        own: Base,
        other: Base,
        *,
        steps: int,
        budget: int,
        progress: Progress | None = None,
    ) -> "Slopes":
        """Those of the clean run (`steps` 0), or the mean over so many points; `progress` hears how many prompts are done."""
        width = pairs.clean.ids.shape[1]
        at_once = max(1, prompts_at_once(model.weights, width, budget=budget) // 3)  # a run, its gradients, what leads to them
        parts: list[dict[str, list[Tensor]]] = []
        report = progress or silent
        for start in range(0, len(pairs), at_once):
            report("taking gradients", start, len(pairs))
            some = slice(start, min(start + at_once, len(pairs)))
            part, sums = pairs[some], dict[str, list[Tensor]]()
            ends = some_prompts(own.run, some), some_prompts(other.run, some)
            points = [point.edits for point in along_inputs(model, *ends, steps)] if steps else [()]
            for edits in points:
                found = gradients(model, Reading.of(logit_difference, part), model.prepare(part.clean), edits)
                for name in _FIELDS:
                    new = getattr(found, name)
                    sums[name] = [a + b for a, b in zip(sums[name], new, strict=True)] if name in sums else list(new)
            parts.append({name: [total / len(points) for total in sums[name]] for name in _FIELDS})
        report("taking gradients", len(pairs), len(pairs))
        whole = {name: zip(*(part[name] for part in parts), strict=True) for name in _FIELDS}
        return cls(**{name: tuple(torch.cat(layer) for layer in layers) for name, layers in whole.items()})

    def strongest(self, kind: str, own: Base, other: Base, most: int) -> list[Node]:
        """The heads or neurons whose change moves some prompt's metric most, `most` of them, in the order of computation."""
        site, axes = ("z", "pchd,pchd,pc->hp") if kind == "head" else ("neurons", "pcn,pcn,pc->np")
        mask, scores = own.run.tokens.mask, []
        for slope, values, others in zip(getattr(self, site), getattr(own.run, site), getattr(other.run, site), strict=True):
            moved = torch.einsum(axes, others - values, slope, mask.to(slope.dtype))
            scores.append(moved.abs().amax(dim=1))
        if not scores:
            return []
        flat, width = torch.cat(scores), len(scores[0])
        chosen = flat.argsort(descending=True, stable=True)[:most].tolist()
        return sorted(Node(kind, i // width, i % width) for i in chosen if float(flat[i]) > 0)  # type: ignore[arg-type]

    def lost(self, base: Base, reader: Reader, deltas: Sequence[Tensor], rows: Sequence[int]) -> Float[Tensor, "delta prompt"]:
        """What the metric of some prompts, `rows` of all, loses where `reader` alone reads each delta: how that moves what its
        neuron, or the attention of its heads, gives out, exactly (a gradient says nothing of a softmax that is saturated),
        times the gradient by it. `base`: the clean run of these prompts."""
        layer, width = reader.node.layer or 0, base.run.tokens.mask.shape[1]
        whole, own = (self.z, base.run.z) if reader.slot else (self.neurons, base.run.neurons)
        index = reader.node.index or 0
        places = _heads(base, reader) if reader.slot else slice(index, index + 1)
        slope = whole[layer][:, :width, places][list(rows)].flatten(2) * base.run.tokens.mask[..., None]
        before, moved = own[layer][:, :, places], _of_slot if reader.slot else _of_neuron
        return torch.stack([((before - moved(base, reader, delta)).flatten(2) * slope).sum(dim=(1, 2)) for delta in deltas])


def _heads(base: Base, reader: Reader) -> slice:
    """The heads that compute with a query, key or value."""
    attention, index = base.run.weights.blocks[reader.node.layer or 0].attention, reader.node.index or 0
    count = 1 if reader.slot == "q" else attention.n_heads // attention.n_key_value_heads
    return slice(index * count, (index + 1) * count)


def _of_neuron(base: Base, reader: Reader, delta: Tensor) -> Float[Tensor, "prompt position 1"]:
    """A neuron that reads a delta besides, while the others of its layer do not."""
    run, layer = base.run, reader.node.layer or 0
    block = run.weights.blocks[layer]
    assert block.mlp is not None
    reads = run.residuals[layer] if run.weights.parallel else run.middles[layer]
    moved = normalise(reads + delta, block.mlp_norm)
    return single_neuron(moved, normalise(reads, block.mlp_norm), block.mlp, reader.node.index or 0)[..., None]


def _of_slot(base: Base, reader: Reader, delta: Tensor) -> Float[Tensor, "prompt position head d_head"]:
    """The mixed values of the heads that compute with one query, key or value, where this reads a delta besides."""
    run, layer, index, slot = base.run, reader.node.layer or 0, reader.node.index or 0, reader.slot
    assert slot is not None
    block, heads = run.weights.blocks[layer], _heads(base, reader)
    attention = block.attention
    group = heads.start // (attention.n_heads // attention.n_key_value_heads)
    value = project_one(normalise(run.residuals[layer] + delta, block.attention_norm), attention, slot, index)
    own = {"q": run.q[layer][:, :, heads], "k": run.k[layer][:, :, [group]], "v": run.v[layer][:, :, [group]]}
    own[slot] = placed(value, slot, base.geometry.rotation(layer))
    bias = base.geometry.bias(attention.window)
    bias = bias if bias is None or bias.shape[1] == 1 else bias[:, heads]
    alone = dataclasses.replace(attention, n_heads=own["q"].shape[2], n_key_value_heads=1)
    return attend(own["q"], own["k"], own["v"], alone, bias)
