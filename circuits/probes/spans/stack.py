"""Many places side by side, a row a word: in memory where they fit, else in a file that the system maps."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.probes.regression import Scale
from circuits.progress import Progress


def stacked(
    read: Callable[[str], Tensor],
    names: Sequence[str],
    train: Int[Tensor, " train"],
    folder: Path,
    *,
    budget: int,
    progress: Progress,
) -> Float[Tensor, "word source width"]:
    """The vectors of all words at some places of one width, each direction with mean 0 and deviation 1 over the words that are
    trained on: of streams that grow from layer to layer none is heard for its size alone. More than half of `budget` bytes
    are kept in a file of `folder`, of which the system holds in memory what there is room for."""
    x: Tensor | None = None
    for place, name in enumerate(names):
        progress("placing layers side by side", place, len(names))
        values = read(name)
        values = Scale.of(values[train]).apply(values)
        if x is None:
            shape = (len(values), len(names), values.shape[1])
            x = _empty(shape, values.dtype, folder / "stack.bin", budget // 2)
        x[:, place] = values
    progress("placing layers side by side", len(names), len(names))
    assert x is not None, "names are never empty"
    return x


def _empty(shape: tuple[int, int, int], dtype: torch.dtype, file: Path, most: int) -> Tensor:
    count = shape[0] * shape[1] * shape[2]
    if count * dtype.itemsize <= most:
        return torch.empty(shape, dtype=dtype)
    return torch.from_file(str(file), shared=True, size=count, dtype=dtype).reshape(shape)
