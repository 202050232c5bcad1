"""Loading: from a bundled name, a directory, a GGUF file, a hub name or a TransformerBridge to a checked `Model`."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.errors import ModelError, NonFiniteError
from circuits.models.devices import named_devices, spread
from circuits.models.forward import forward
from circuits.models.loading.extract import architecture_of, extract_weights
from circuits.models.loading.families import FAMILIES, NATIVE
from circuits.models.loading.origins import opened_tokenizer, origin_of, origin_of_held
from circuits.models.loading.precision import bits_of, whole_precision
from circuits.models.loading.room import check_room
from circuits.models.loading.sources import check_device, quiet
from circuits.models.loading.tokenizers import saved_tokenizer
from circuits.models.loading.unread import suspects
from circuits.models.model import Model
from circuits.models.tokens import TokenBatch
from circuits.models.weight_edits import WeightEdit, read_edits
from circuits.models.weights import Weights

TOLERANCE = {torch.float64: 1e-7, torch.float32: 5e-4, torch.bfloat16: 0.5, torch.float16: 0.1}
"""Largest difference in log-probability from the original on the check prompt, besides the rounding of the logits
themselves. In float64 it is relative to the largest logit where that is above 1: the original computes in float64 there
(`whole_precision`), but for constants of eight digits (BLOOM's GELU) and tables in float32."""


def load_model(
    name: Any,
    *,
    tokenizer: Any = None,
    device: str | torch.device = "cpu",
    devices: Sequence[str | torch.device] | None = None,
    dtype: torch.dtype = torch.float32,
    memory: int | None = None,
    edits: Sequence[WeightEdit | str | Path] = (),
) -> Model:
    """Load a language model as a graph that runs, and check it against the original.

    The weights are read once. Raises ModelError if there is no such model, a part of it is not represented, or its
    log-probabilities differ from the original's; NonFiniteError for damaged weights; MemoryBudgetError, before a weight is
    read, where there is no room for them.

    Args:
        name: a bundled model (`mini`); a local Hugging Face directory, GGUF file, or state dict of TransformerLens with its
            configuration beside it (no network is touched); a hub name; or a Hugging Face model that you hold, which is not
            changed and shares its weights where `device` and `dtype` are its own.
        tokenizer: a tokenizer, or the directory or hub name of one, in place of the model's own.
        device: where weights are put and runs take place.
        devices: several of them, for a model larger than one: layers are spread over them in order, by equal shares, and
            activations are moved at the borders. The weights pass through the machine's own memory, where they are checked.
        dtype: the type that weights are held in.
        memory: bytes that the weights may take on each device (default: what is free there).
        edits: edits of its weights that are put on, or their files (`Model.with_edits`).

    >>> import circuits
    >>> model = circuits.load_model("mini")
    >>> model.n_layers, model.n_heads, model.d_model, model.d_mlp
    (4, 8, 256, 1024)
    """
    read = read_edits(edits)
    homes = [torch.device(device)] if devices is None else named_devices(devices, device)
    for home in homes:
        check_device(home)
    if tokenizer is not None:
        tokenizer = opened_tokenizer(tokenizer)
    if devices is not None:
        device = "cpu"  # where they are read and checked, before they are spread
    where = (tokenizer, device, dtype)
    origin = origin_of(str(name), *where) if isinstance(name, str | Path) else origin_of_held(name, *where)
    check_room(origin.name, origin.numbers(), dtype, homes, memory)
    seen: list[tuple[Tensor, Tensor]] = []
    bits: list[int] = []

    def see(model: Any) -> None:
        """Keep the bits of the weights and some answers, before TransformerLens puts its own parts in."""
        bits.append(bits_of(model.to(device).parameters()))
        seen.append(_answers_of(model))

    bridge = origin.build(see)
    _check_bits(bridge, bits)
    model = _model_from(bridge, name=origin.name, make_bridge=lambda: origin.build(None), seen=seen)
    if origin.tokenizer is not None:
        model = dataclasses.replace(model, tokenizer=origin.tokenizer)
    model = dataclasses.replace(model, stored=origin.stored)
    return (model if devices is None else _spread(model, homes)).with_edits(*read)


def _spread(model: Model, homes: Sequence[torch.device]) -> Model:
    """A checked model with its layers on several devices, checked again against itself on one."""
    ids = _check_prompt(model.d_vocab, model.max_positions)
    with torch.no_grad():
        own = forward(model.weights, TokenBatch.unpadded(ids.to(model.device)), keep="logits").logits
        found = dataclasses.replace(model, weights=spread(model.weights, homes))
        again = forward(found.weights, TokenBatch.unpadded(ids.to(homes[0])), keep="logits").logits.to(own.device)
    difference = float((again.double().log_softmax(-1) - own.double().log_softmax(-1)).abs().max())
    if not difference <= TOLERANCE.get(model.dtype, 5e-4) * max(1.0, float(own.abs().max())):
        where = ", ".join(map(str, homes))
        raise ModelError(f"{model.name}: log-probabilities differ by {difference:.2g} between {where} and cpu")
    return found


def from_bridge(bridge: Any, *, name: str | None = None) -> Model:
    """A model from a TransformerBridge that you already hold (raw or in compatibility mode, Hugging Face or native).

    The weights are shared with the bridge where its layout allows, and the bridge is kept. Raises as `load_model`.
    """
    return _model_from(bridge, name=name or str(bridge.cfg.model_name), make_bridge=lambda: bridge)


def verify(weights: Weights, bridge: Any) -> None:
    """Raise ModelError unless the record computes what the bridge computes: every tensor equal to the bridge's, and
    log-probabilities on a short random prompt within `TOLERANCE`."""
    for (label, ours), (other, theirs) in zip(weights.tensors(), extract_weights(bridge).tensors(), strict=True):
        if label != other or not torch.equal(ours, theirs):
            raise ModelError(f"the weight {label} differs from the original's")
    ids = _check_prompt(weights.W_E.shape[0], weights.max_positions).to(weights.W_E.device)
    with torch.no_grad(), _evaluating(bridge), whole_precision(weights.W_E.dtype):
        theirs = bridge(ids, prepend_bos=False)
    _compare(weights, bridge, ids, theirs)


def _check_bits(bridge: Any, bits: Iterable[int]) -> None:
    """Raise ModelError unless the bridge holds the weights that the original held, every one of them. What it holds of families
    that are not in the table is not known well enough for that."""
    if architecture_of(bridge) in FAMILIES and any(before != bits_of(bridge.state_dict().values()) for before in bits):
        raise ModelError(
            f"{architecture_of(bridge)}: the weights differ from the original's after TransformerLens has read them"
        )


def _check_prompt(d_vocab: int, max_positions: int | None) -> Int[Tensor, "prompt position"]:
    """A short random prompt, the same every time."""
    width = min(16, max_positions or 16)
    return torch.randint(0, d_vocab, (2, width), generator=torch.Generator().manual_seed(0))


def _answers_of(model: Any) -> tuple[Tensor, Tensor]:
    """A short random prompt and the logits of a Hugging Face model as Hugging Face runs it. TransformerLens computes
    attention by itself, so that its bridge alone could not tell where both of us leave a part out."""
    ids = _check_prompt(model.get_input_embeddings().weight.shape[0], getattr(model.config, "max_position_embeddings", None))
    ids = ids.to(model.get_input_embeddings().weight.device)
    with torch.no_grad(), whole_precision(model.dtype):
        return ids, model(ids).logits


def _compare(weights: Weights, bridge: Any, ids: Tensor, theirs: Tensor) -> None:
    """Raise ModelError if the log-probabilities of a prompt are not these, NonFiniteError for NaN or infinity."""
    with torch.no_grad():
        ours = forward(weights, TokenBatch.unpadded(ids), keep="logits").logits
    if not bool(torch.isfinite(ours).all()):
        raise NonFiniteError("the loaded model's logits hold NaN or infinity on a random prompt")
    difference = float((ours.double().log_softmax(-1) - theirs.double().log_softmax(-1)).abs().max())
    largest, dtype = float(theirs.abs().max()), weights.W_E.dtype
    tolerance = TOLERANCE.get(dtype, 5e-4) * (max(1.0, largest) if dtype is torch.float64 else 1.0)
    tolerance += 2 * torch.finfo(theirs.dtype).eps * largest
    if not difference <= tolerance:
        raise ModelError(
            f"{architecture_of(bridge)}: log-probabilities differ from the original's by {difference:.2g} "
            f"(allowed {tolerance:.2g}): some part of this model is not represented{_suspects(bridge)}; "
            "please report its configuration"
        )


def _suspects(bridge: Any) -> str:
    """What to look at in the configuration of a model that computes something else; nothing for native models, whose
    configuration is read whole."""
    if architecture_of(bridge) == NATIVE:
        return ""
    read: set[str] = set()
    extract_weights(bridge, read)
    original = bridge.original_model
    return f" ({suspects(original.config, read, type(original))})"


def _model_from(bridge: Any, *, name: str, make_bridge: Callable[[], Any], seen: Iterable[tuple[Tensor, Tensor]] = ()) -> Model:
    weights = extract_weights(bridge)
    verify(weights, bridge)
    for ids, logits in seen:
        _compare(weights, bridge, ids.to(weights.W_E.device), logits.to(weights.W_E.device))
    with quiet():
        tokenizer = saved_tokenizer(getattr(bridge, "tokenizer", None))
    return Model(name, architecture_of(bridge), weights, tokenizer, None, make_bridge)


@contextlib.contextmanager
def _evaluating(bridge: Any) -> Iterator[None]:
    """Switch dropout off for the check and put every module's mode back."""
    modes = {module: module.training for module in bridge.original_model.modules()}
    bridge.original_model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
