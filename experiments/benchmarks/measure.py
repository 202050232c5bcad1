"""Shared by the benchmarks: timing side by side in one process, the machine's matrix rate, and the printed table."""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence

import torch


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison. Seconds are medians; the ratio is the median over rounds of reference ÷ ours (above 1: faster)."""

    name: str
    seconds: float
    reference_seconds: float
    ratio: float
    floor_share: float | None = None
    """Share of the time that the unavoidable operations take at the matrix rate measured in the same run."""

    @property
    def at_most(self) -> float | None:
        """The ratio that the unavoidable operations alone would give, at that rate: no exact method could be faster."""
        return None if not self.floor_share else self.ratio / self.floor_share

    def as_json(self) -> dict[str, float]:
        """The row without its name and without what is not known."""
        values = {k: v for k, v in dataclasses.asdict(self).items() if k != "name" and v is not None}
        return {name: float(f"{value:.5g}") for name, value in values.items()}


def seconds_of(function: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of one call, the device's queue included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def compare(
    name: str,
    ours: Callable[[], object],
    reference: Callable[[], object],
    *,
    device: torch.device,
    rounds: int,
    operations: float | None = None,
    rate: float | None = None,
) -> Row:
    """Time two functions in turns (the order swaps every round, so that drift of a shared machine cancels)."""
    for function in (ours, reference):
        function()
    mine, theirs = [], []
    for turn in range(rounds):
        for function, times in ((ours, mine), (reference, theirs)) if turn % 2 else ((reference, theirs), (ours, mine)):
            times.append(seconds_of(function, device))
    ratio = statistics.median(b / a for a, b in zip(mine, theirs, strict=True))
    seconds = statistics.median(mine)
    share = None if operations is None or rate is None else operations / rate / seconds
    return Row(name, seconds, statistics.median(theirs), ratio, share)


def matrix_rate(device: torch.device, dtype: torch.dtype, *, size: int = 1536, rounds: int = 7) -> float:
    """Floating-point operations a second of a square matrix product: the best of some rounds."""
    a, b = torch.randn(size, size, device=device, dtype=dtype), torch.randn(size, size, device=device, dtype=dtype)
    torch.matmul(a, b)
    return 2 * size**3 / min(seconds_of(lambda: torch.matmul(a, b), device) for _ in range(rounds))


def show(rows: Sequence[Row], *, as_json: bool, heading: str) -> None:
    """Print the rows as one JSON object, or as a table under a heading."""
    if as_json:
        print(json.dumps({row.name: row.as_json() for row in rows}))
        return
    print(heading)
    print(f"{'name':<27}{'seconds':>10}{'reference':>12}{'ratio':>9}{'of floor':>10}{'at most':>9}")
    for row in rows:
        share = "" if row.floor_share is None else f"{row.floor_share:.0%}"
        most = "" if row.at_most is None else f"{row.at_most:.1f}×"
        print(f"{row.name:<27}{row.seconds:>10.4f}{row.reference_seconds:>12.4f}{row.ratio:>8.2f}×{share:>10}{most:>9}")
