"""Patched runs under way: rows that left the base run, grouped by the first column that differs from it."""

import dataclasses
import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from circuits.patching.engine.base import Base
from circuits.patching.engine.change import Change, Kind, Variant
from circuits.patching.engine.plan import Planned

ACTIVE = 0
"""The stage at which rows enter that already differ from the base run, or whose residual stream is changed."""

WHOLE: dict[int, Kind] = {0: "residual", 2: "head", 3: "attention", 4: "middle", 7: "mlp"}
"""What is set at a stage as it stands there."""


@dataclasses.dataclass(eq=False)
class Stream:
    """Variants whose changes were the same so far: one row a prompt."""

    variants: list[Planned]
    entry: int = ACTIVE
    """The stage of the present layer at which it leaves the base run."""
    changes: Variant = ()
    """Those of the present layer."""
    fresh: bool = False
    """It leaves the base run in the present layer: where it is not changed, it is still the base run."""

    def of(self, *kinds: Kind) -> list[Change]:
        """The present layer's changes of these kinds."""
        return [change for change in self.changes if change.kind in kinds]


@dataclasses.dataclass(eq=False)
class StreamBlock:
    """Streams that start at the same column. Tensors are `[stream prompt column …]`, columns from `start` on; in the last
    layer queries, and all that follows them, stand at the columns that are read."""

    base: Base
    start: int
    streams: list[Stream]
    x: Tensor
    columns: Tensor
    """`[1 column]`: from `start` to the end."""
    queries: Tensor
    """`[prompt|1 column]`: those of `columns`, or in the last layer those that are read."""

    @classmethod
    def empty(cls, base: Base, start: int) -> "StreamBlock":
        """No streams yet."""
        prompts, width, d_model = base.run.residuals[0].shape
        columns = torch.arange(start, width, device=base.model.device)[None]
        x = base.run.residuals[0].new_empty(0, prompts, width - start, d_model)
        return cls(base, start, [], x, columns, columns)

    def count(self, stage: int) -> int:
        """How many streams have left the base run at a stage or before it; they come first."""
        return sum(stream.entry <= stage for stream in self.streams)

    def moved(self, stream: Stream, kinds: tuple[Kind, ...]) -> tuple[int, int]:
        """From and to which of `columns` what a stream's changes of these kinds act on can differ from the base run."""
        spans = [change.span for change in stream.of(*kinds)]
        if not stream.fresh or not spans or None in spans:
            return 0, self.columns.shape[1]
        starts, stops = zip(*((span.start, span.stop) for span in spans if span), strict=True)
        return max(0, min(starts) - self.start), max(stops) - self.start

    def replaced(self, stream: Stream, kind: Kind) -> int:
        """How many of the first `columns` get another value at a whole site, so that nothing need be computed for them."""
        spans = [change.span for change in stream.of(kind) if not change.add]
        return max((span.stop - self.start for span in spans if span and span.start <= self.start), default=0)

    def parts(self, count: int, needed: Callable[[Stream], tuple[int, int]]) -> list[tuple[slice, slice]]:
        """Which streams, of the first `count`, at which of `columns`: runs of those that need the same, leaving out those
        that need none."""
        found, row = [], 0
        for (start, stop), some in itertools.groupby(self.streams[:count], needed):
            end = row + len(list(some))
            if start < stop:
                found.append((slice(row, end), slice(start, stop)))
            row = end
        return found

    def regroup(self, layer: int, newcomers: list[Stream]) -> None:
        """Split streams whose variants part in this layer, and take in those that leave the base run here."""
        # Rows that were under way stay in front, newcomers follow by the stage at which they enter: at every stage those that
        # take part are a prefix, so a slice finds them and `extended` appends at the end.
        streams, rows = [], []
        for row, stream in enumerate(self.streams):
            parts: dict[Variant, list[Planned]] = {}
            for variant in stream.variants:
                parts.setdefault(variant.layers.get(layer, ()), []).append(variant)
            streams += [Stream(variants, ACTIVE, changes) for changes, variants in parts.items()]
            rows += [row] * len(parts)
        # Nothing was split: the rows stand as they did, without a copy.
        if len(rows) > len(self.streams):
            self.x = self.x[rows]
        self.streams = streams + sorted(newcomers, key=lambda stream: stream.entry)

    def pick(self, value: Tensor, columns: Tensor) -> Tensor:
        """`[prompt|1 position …]` at some columns: `[prompt|1 column …]`."""
        # A slice is a view; gathering the same columns by index would copy the base's value at every stage of every layer.
        if columns is self.columns:
            return value[:, self.start :]
        if columns.shape[0] == 1:
            return value[:, columns[0]]
        rows = torch.arange(columns.shape[0], device=columns.device)[:, None]
        return value.expand(columns.shape[0], *value.shape[1:])[rows, columns]

    def extended(self, tensor: Tensor, base_value: Tensor, stage: int, columns: Tensor) -> Tensor:
        """A tensor of the first streams, followed by the base run's value for those that enter up to a stage."""
        missing = self.count(stage) - tensor.shape[0]
        if not missing:
            return tensor
        picked = self.pick(base_value, columns)
        # `cat` copies, and must: changes are made in place in what comes out, and the base run serves every later pass.
        return torch.cat([tensor, picked.expand(missing, *picked.shape)])

    def read_off(self, tensor: Tensor, base_value: Tensor) -> Tensor:
        """A tensor at `columns` taken at `queries`; the base run's value where these lie before `start`."""
        if self.queries is self.columns:
            return tensor
        # One block has one `start` for all prompts, so what is read in some of them may lie before it: there nothing has
        # changed. Clamping makes the index lawful, the `where` below throws away what it found.
        inner = (self.queries - self.start).clamp(min=0)
        rows = torch.arange(inner.shape[0], device=inner.device)[:, None]
        taken = tensor[:, rows, inner] if inner.shape[0] > 1 else tensor[:, :, inner[0]]
        if bool((self.queries >= self.start).all()):
            return taken
        inside = (self.queries >= self.start)[None, :, :, None]
        return torch.where(inside, taken, self.pick(base_value, self.queries)[None])

    def added(self, changes: list[Change], columns: Tensor) -> dict[int | None, Tensor]:
        """What is added to the input of each reader, `[prompt|1 column d_model]` by index, several changes summed."""
        sums: dict[int | None, Tensor] = {}
        for change in changes:
            # `where`, not a product: outside its mask a value may be anything, and NaN times 0 is NaN
            # (test_what_a_mask_leaves_out_may_hold_anything).
            value = torch.where(self.pick(change.mask, columns)[..., None], self.pick(change.value, columns), 0)
            sums[change.index] = sums[change.index] + value if change.index in sums else value
        return sums

    def put(self, target: Tensor, change: Change, columns: Tensor) -> None:
        """Make a change in place: `target` is `[prompt column …]`, one stream's."""
        if columns is self.columns and change.span is not None:
            span = slice(max(change.span.start, self.start), change.span.stop)
            place, value = target[:, span.start - self.start : span.stop - self.start], change.value[:, span]
            place.copy_(place + value if change.add else value)
            return
        mask, value = self.pick(change.mask, columns), self.pick(change.value, columns)
        mask = mask.reshape(*mask.shape, *[1] * (target.ndim - 2))
        new = target + value if change.add else value
        target.copy_(torch.where(mask, new.to(target.dtype), target))

    def set_whole(self, tensor: Tensor, stage: int, columns: Tensor) -> None:
        """Make the changes of whole sites at a stage in place; those of heads and neurons by themselves only where they are
        there. `tensor` is `[stream prompt column …]`, of the first streams."""
        for row, stream in enumerate(self.streams[: tensor.shape[0]]):
            for change in stream.of(WHOLE[stage]):
                self.put(tensor[row] if change.index is None else tensor[row][:, :, change.index], change, columns)
