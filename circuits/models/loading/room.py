"""Whether there is room for a model's weights: asked of the headers of its files, before a weight is read."""

import contextlib
import json
import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from circuits.errors import MemoryBudgetError

_MOST = 100_000_000
"""Bytes of the largest header that safetensors files may have."""
_MEMORY, _GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def numbers_in(files: Iterable[Path]) -> int:
    """How many numbers safetensors files hold, by their headers; damaged ones count for nothing (they are refused later)."""
    total = 0
    for file in files:
        with contextlib.suppress(OSError, ValueError, struct.error, AttributeError, TypeError, RecursionError):
            with file.open("rb") as opened:
                size = struct.unpack("<Q", opened.read(8))[0]
                header = json.loads(opened.read(size)) if size <= _MOST else {}
            total += sum(math.prod(one["shape"]) for name, one in header.items() if name != "__metadata__")
    return total


def numbers_of_configuration(config: Any) -> int:
    """How many numbers the model of a Hugging Face configuration has (nothing is allocated), for one whose files are not here
    yet; 0 where it cannot be made."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    try:
        model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in model_class(config).parameters())
    except Exception:  # whatever the library raises for sizes that do not fit each other: they are refused by name later
        return 0


def free_on(device: torch.device) -> int | None:
    """Bytes that are free on a device, as far as can be known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    known = [int(kib) * 1024 for kib in re.findall(r"^MemAvailable:\s+(\d+) kB", _text(_MEMORY), re.MULTILINE)]
    limit, taken = _text(_GROUP / "memory.max").strip(), _text(_GROUP / "memory.current").strip()
    if limit.isdigit() and taken.isdigit():
        known.append(max(0, int(limit) - int(taken)))
    return min(known, default=None)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""


def room_needed(numbers: int, dtype: torch.dtype, homes: Sequence[torch.device]) -> Mapping[torch.device, int]:
    """Bytes of weights by device: equal shares where there are several. What goes to several devices passes through the
    machine's own memory."""
    size, needed = numbers * dtype.itemsize, dict[torch.device, int]()
    for home in homes:
        needed[home] = needed.get(home, 0) + -(-size // len(homes))
    if len(homes) > 1:
        needed[torch.device("cpu")] = size
    return needed


def check_room(name: str, numbers: int, dtype: torch.dtype, homes: Sequence[torch.device], memory: int | None) -> None:
    """Raise MemoryBudgetError where the weights do not fit into `memory` bytes a device (default: what is free there)."""
    for home, needed in room_needed(numbers, dtype, homes).items():
        there = free_on(home) if memory is None else memory
        if there is None or needed <= there:
            continue
        smaller = [
            f"--dtype bfloat16 takes {_mib(needed * 2 // dtype.itemsize)}" if dtype.itemsize > 2 else "",
            "--devices with more of them spreads it" if home.type != "cpu" else "",
            "or take a smaller model",
        ]
        free = "are free" if memory is None else "are allowed"
        raise MemoryBudgetError(
            f"{name}: its weights take {_mib(needed)} on {home} as {str(dtype).removeprefix('torch.')}, "
            f"{_mib(there, down=True)} {free} there: {', '.join(filter(None, smaller))}"
        )


def _mib(size: int, *, down: bool = False) -> str:
    """Bytes in words; rounded up, or down."""
    return f"{size // 2**20 if down else -(-size // 2**20):,} MiB"
