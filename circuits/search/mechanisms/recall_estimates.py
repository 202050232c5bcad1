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
from circuits.patching.engine.variant_pass import project_one, single_neuron
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
    def of(cls, model: Model, pairs: PromptPairs, own: Base, other: Base, *, steps: int, budget: int) -> "Slopes":
        """Those of the clean run (`steps` 0), or the mean over so many points."""
        width = pairs.clean.ids.shape[1]
        at_once = max(1, prompts_at_once(model.weights, width, budget=budget) // 3)  # a run, its gradients, what leads to them
        parts: list[dict[str, list[Tensor]]] = []
        for start in range(0, len(pairs), at_once):
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
        neuron, or its head's attention, gives out, exactly (a gradient says nothing of a softmax that is saturated), times the
        gradient by it. `base`: the clean run of these prompts."""
        layer, name = reader.node.layer or 0, "z" if reader.slot else "neurons"
        mask = base.run.tokens.mask
        slope = getattr(self, name)[layer][list(rows), : mask.shape[1]]
        own = getattr(base.run, name)[layer]
        moved = _of_slot if reader.slot else _of_neuron
        weights = slope.flatten(2) * mask[..., None]
        return torch.stack([((own - moved(base, reader, delta)).flatten(2) * weights).sum(dim=(1, 2)) for delta in deltas])


def _of_neuron(base: Base, reader: Reader, delta: Tensor) -> Float[Tensor, "prompt position d_mlp"]:
    """A layer's neurons where one of them reads a delta besides."""
    run, layer, index = base.run, reader.node.layer or 0, reader.node.index or 0
    block = run.weights.blocks[layer]
    assert block.mlp is not None
    reads = run.residuals[layer] if run.weights.parallel else run.middles[layer]
    moved, neurons = normalise(reads + delta, block.mlp_norm), run.neurons[layer].clone()
    neurons[:, :, index] = single_neuron(moved, normalise(reads, block.mlp_norm), block.mlp, index)
    return neurons


def _of_slot(base: Base, reader: Reader, delta: Tensor) -> Float[Tensor, "prompt position head d_head"]:
    """A layer's mixed values where one query, key or value reads a delta besides."""
    run, layer, index, slot = base.run, reader.node.layer or 0, reader.node.index or 0, reader.slot
    assert slot is not None
    block = run.weights.blocks[layer]
    value = project_one(normalise(run.residuals[layer] + delta, block.attention_norm), block.attention, slot, index)
    slots = {"q": run.q[layer], "k": run.k[layer], "v": run.v[layer]}
    slots[slot] = slots[slot].clone()
    slots[slot][:, :, index] = placed(value, slot, base.geometry.rotation(layer))[:, :, 0]
    return attend(slots["q"], slots["k"], slots["v"], block.attention, base.geometry.bias(block.attention.window))
