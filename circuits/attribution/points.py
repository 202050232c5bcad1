"""Where gradients are taken: on the clean run, or at points between the corrupt and the clean one."""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from circuits.attribution.factors.writers import written_by_mlp
from circuits.models import Edit, Model, Run


@dataclasses.dataclass(frozen=True)
class Point:
    """One gradient run: the edits that lead to it, its weight in the mean, and the writers whose edges it tells about."""

    edits: tuple[Edit, ...] = ()
    weight: float = 1.0
    first: int = 0
    count: int | None = None

    def writers(self, total: int) -> tuple[int, int]:
        """The places of the writers, from and up to."""
        return self.first, total if self.count is None else self.first + self.count


def along_inputs(model: Model, own: Run, other: Run, steps: int) -> Iterator[Point]:
    """Gradient runs between the corrupt run's embeddings and those of `own`, the clean run, in the middles of `steps` equal
    parts."""
    for share, weight in shares(steps):
        yield Point((_input(own, other, share),), weight)


def along_activations(model: Model, own: Run, other: Run, steps: int) -> Iterator[Point]:
    """The same for the outputs of the embedding and of each layer's attention and MLP, one of them at a time: a point tells
    about the edges of the writers that it moves."""
    between = shares(steps)
    yield from (Point((_input(own, other, share),), weight, 0, 1) for share, weight in between)
    graph, place = model.graph(), 1
    for layer, block in enumerate(model.weights.blocks):
        for share, weight in between:
            z = torch.lerp(other.z[layer], own.z[layer], share)
            edits = tuple(Edit(f"a{layer}.h{head}", _held(z[:, :, head])) for head in range(model.n_heads))
            yield Point(edits, weight, place, graph.n_heads)
        place += graph.n_heads
        if block.mlp is not None:
            ends = [written_by_mlp(run, layer) for run in (other, own)]
            for share, weight in between:
                yield Point((Edit(f"m{layer}", _held(torch.lerp(ends[0], ends[1], share))),), weight, place, 1)
            place += 1


def shares(steps: int) -> list[tuple[float, float]]:
    """How far each point is on the way from corrupt to clean, and its weight in the mean: middles of `steps` equal parts."""
    return [((step + 0.5) / steps, 1 / steps) for step in range(steps)]


def _input(own: Run, other: Run, share: float) -> Edit:
    return Edit("input", _held(torch.lerp(other.residuals[0], own.residuals[0], share)))


def _held(value: Tensor) -> Tensor:
    return value.detach().requires_grad_(True)
