"""The model that a command line names: on which device, in which number format, and what is to be said of it."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import circuits
from circuits.errors import MemoryBudgetError, ModelError

DTYPES = ("float32", "float64", "bfloat16")
_DEVICES = ("cpu", "cuda", "mps", "xpu")


def load(
    model: str,
    *,
    device: str = "cpu",
    devices: str | None = None,
    dtype: str = "float32",
    edits: Sequence["Path | circuits.models.WeightEdit"] = (),
) -> "circuits.Model":
    """Load a model, with edits of its weights on; raises ModelError where it, a device or the number format cannot be had, or
    an edit is for another model, MemoryBudgetError where there is no room for it."""
    import torch

    from circuits.models.weight_edits import read_edits
    from circuits.runs import run_on

    read = read_edits(edits)  # before the model, which takes long

    if dtype not in DTYPES:
        raise ModelError(f"unknown number format {dtype!r}: expected {', '.join(DTYPES)}")
    several = None if devices is None else [name.strip() for name in devices.split(",")]
    if several is not None and device != "cpu":
        raise ModelError(f"--device {device} and --devices {devices}: leave one of them out")
    if several is not None and len(several) < 2:
        raise ModelError(f"--devices {devices}: layers are spread over two or more, such as cuda:0,cuda:1; one is --device")
    for name in several or [device]:
        _check_usable(name)
    where: dict[str, Any] = {"device": device} if several is None else {"devices": several}
    loaded = circuits.load_model(model, **where, dtype=getattr(torch, dtype)).with_edits(*read)
    run_on(model, loaded.fingerprint)
    return loaded


def _check_usable(device: str) -> None:
    import torch

    try:
        kind = torch.empty(0, device=device).device.type
    except (RuntimeError, AssertionError):
        kind = "missing"
    if kind not in _DEVICES:
        raise ModelError(f"the device {device!r} cannot be used here: expected cpu, or where there is one cuda, cuda:1 or mps")


def opening_said(model: "circuits.Model") -> str:
    """How prompts open, where that is not how the model's tokenizer opens them; nothing where it is."""
    own, asked = model.with_bos(None).opening(), model.opening()
    if model.tokenizer is None or asked == own:
        return ""
    if asked:
        opened = f"{model.to_string(asked)!r} (token {asked[0]})"
        return f"prompts that do not begin with {opened} get it in front, which the tokenizer does not put there"
    return f"prompts get no {model.to_string(own)!r} in front, which the tokenizer puts there"


def bos_hint(model: "circuits.Model") -> str:
    """That prompts begin without BOS though the tokenizer has one; nothing otherwise."""
    if model.tokenizer is None or model.bos_id is None or model.opening() or model.prepend_bos is False:
        return ""
    return f"Prompts begin without BOS, as the tokenizer's do; --bos puts {model.to_string([model.bos_id])!r} there."


@contextlib.contextmanager
def naming_options(options: str) -> Iterator[None]:
    """Where memory does not suffice, say by which options less is needed or more is given."""
    try:
        yield
    except MemoryBudgetError as error:
        raise MemoryBudgetError(f"{error} ({options})") from None
    except MemoryError:
        raise MemoryBudgetError(f"not enough memory: try other values of {options}") from None
