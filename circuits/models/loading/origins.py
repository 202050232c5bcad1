"""What `load_model` is given, as something that a TransformerBridge can be built of."""

import contextlib
import copy
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from circuits.errors import CircuitsError, ModelError, shown
from circuits.models.loading.families import find_family
from circuits.models.loading.gguf_model import checked_header, gguf_config, gguf_file, gguf_model
from circuits.models.loading.gguf_tokenizer import gguf_tokenizer
from circuits.models.loading.native import NativeFile, native_bridge, native_file
from circuits.models.loading.room import numbers_in, numbers_of_configuration
from circuits.models.loading.sources import boot, check_configuration, hub_reachable, quiet, resolve, weight_files

See = Callable[[Any], None]
"""Is given the Hugging Face model before TransformerLens puts its own parts into it."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """A model that can be built, again and again."""

    name: str
    """The last part of a path, or a hub name as it is."""
    build: Callable[[See | None], Any]
    """Gives a TransformerBridge."""
    tokenizer: Any = None
    """Where it is not the one that the bridge finds by itself."""
    stored: str | None = None
    """The number formats of a file whose weights were dequantised."""
    numbers: Callable[[], int] = lambda: 0
    """How many numbers its weights are, as far as that is known before they are read."""


def origin_of(name: str, tokenizer: Any, device: str | torch.device, dtype: torch.dtype) -> Origin:
    """What a bundled name, a path or a hub name stands for; a `tokenizer` that is given takes the place of its own. Raises
    ModelError for what is no model."""
    source = resolve(name)
    called = name_of(name, source)
    if (file := gguf_file(Path(source))) is not None:
        return _of_gguf(file, called, tokenizer, device, dtype)
    if (native := native_file(Path(source))) is not None:
        return _of_native(native, called, tokenizer, device, dtype)
    config = check_configuration(source, name)
    return Origin(
        called,
        lambda see: boot(source, name, device, dtype, see=see),
        tokenizer,
        numbers=lambda: numbers_in(weight_files(source)) or numbers_of_configuration(config),
    )


def name_of(name: str, source: str) -> str:
    """How a model is called in titles: a path by its last part, a bundled or hub name as it is."""
    path = Path(source)
    return path.resolve().name if path.exists() and path.name != name else name


def _of_gguf(file: Path, called: str, given: Any, device: str | torch.device, dtype: torch.dtype) -> Origin:
    header = checked_header(file)
    with quiet():
        config = gguf_config(header)
        tokenizer = gguf_tokenizer(header, config.vocab_size) if given is None else given

    def build(see: See | None) -> Any:
        """A bridge, made anew."""
        with quiet():
            model = gguf_model(header, config, dtype).to(device)
            if see is not None:
                see(model)
            return wrapped(model, tokenizer, called)

    numbers = sum(math.prod(tensor.shape) for tensor in header.tensors.values())
    return Origin(called, build, tokenizer, header.stored, numbers=lambda: numbers)


def _of_native(source: NativeFile, called: str, given: Any, device: str | torch.device, dtype: torch.dtype) -> Origin:
    tokenizer = given
    if given is None and (source.file.parent / "tokenizer.json").is_file():
        tokenizer = opened_tokenizer(source.file.parent, alone=True)

    def build(see: See | None) -> Any:
        """A bridge, made anew."""
        with quiet():
            return native_bridge(source, with_bos_flag(tokenizer), called, device, dtype)

    files = [source.file] if source.file.suffix.lower() == ".safetensors" else []
    return Origin(called, build, tokenizer, numbers=lambda: numbers_in(files))


def origin_of_held(model: Any, tokenizer: Any, device: str | torch.device, dtype: torch.dtype) -> Origin:
    """A Hugging Face model that a caller holds. Its weights are shared where type and device are the ones asked for; the model
    itself is not touched. Raises ModelError for another object, and for a model that is not represented."""
    from transformers import PreTrainedModel

    kind = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        hint = (
            "circuits.Model.from_bridge takes a TransformerBridge"
            if hasattr(model, "original_model")
            else ("a PEFT model becomes one with merge_and_unload()")
        )
        raise ModelError(f"load_model: expected a name, a path or a Hugging Face model, got a {kind}; {hint}")
    if len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1 or any(p.is_meta for p in model.parameters()):
        raise ModelError(f"{kind}: the model is spread over several devices: load it whole, without device_map")
    find_family(kind, model.config)
    source = str(model.name_or_path or "")
    called = name_of(source, source) if source else kind
    if tokenizer is None and source:
        with quiet(), contextlib.suppress(ModelError):  # where none was saved with it
            tokenizer = opened_tokenizer(source, fetch=False)

    def build(see: See | None) -> Any:
        """A bridge, made anew."""
        with quiet():
            copied = _shell(model, device, dtype)
            if see is not None:
                see(copied)
            return wrapped(copied, tokenizer, called)

    return Origin(called, build, tokenizer)


def _shell(model: Any, device: str | torch.device, dtype: torch.dtype) -> Any:
    """A copy of a model's modules, without hooks and with attention written out (eager), around the same weights."""
    same: dict[int, Any] = {}
    for parameter in model.parameters():
        kept = parameter.detach().to(device, dtype if parameter.is_floating_point() else parameter.dtype)
        same[id(parameter)] = nn.Parameter(kept, requires_grad=parameter.requires_grad)
    try:
        copied = copy.deepcopy(model, same).to(device)
        copied.set_attn_implementation("eager")
    except Exception as error:  # a hook or part of the caller's own that cannot be copied
        raise ModelError(f"{type(model).__name__} cannot be copied: {' '.join(str(error).split())[:200]}") from None
    for module in copied.modules():
        if hasattr(module, "scalar_embed_scale"):  # Gemma's, rounded to the type that the model was made in
            module.embed_scale = torch.tensor(module.scalar_embed_scale, dtype=dtype, device=device)
        for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            getattr(module, hooks).clear()
    return copied.eval()


def opened_tokenizer(given: Any, *, fetch: bool = True, alone: bool = False) -> Any:
    """A tokenizer, or the one that a directory or hub name holds; `alone`: the directory's configuration is none of Hugging
    Face's. Raises ModelError for what is none."""
    from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

    if isinstance(given, PreTrainedTokenizerBase):
        return given
    if not isinstance(given, str | Path):
        raise ModelError(f"tokenizer: expected a Hugging Face tokenizer, a directory or a hub name, got {shown(given)}")
    local = not fetch or Path(given).is_dir() or not hub_reachable()
    try:
        opener: Any = PreTrainedTokenizerFast if alone else AutoTokenizer
        tokenizer = opener.from_pretrained(str(given), local_files_only=local, trust_remote_code=False)
    except Exception as error:  # whatever the libraries raise
        raise ModelError(f"no tokenizer at {str(given)!r}: {' '.join(str(error).split())[:150]}") from None
    if tokenizer.vocab_size == 0:
        raise ModelError(f"no tokenizer at {str(given)!r}")
    return tokenizer


def with_bos_flag(tokenizer: Any) -> Any:
    """A tokenizer as TransformerLens holds every one: with its BOS. It would look for such a copy on the hub otherwise."""
    if tokenizer is None or tokenizer.bos_token is None:
        return copy.deepcopy(tokenizer)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_bos_token = True
    tokenizer.init_kwargs.update(add_bos_token=True, name_or_path=tokenizer.name_or_path)
    return tokenizer


def wrapped(model: Any, tokenizer: Any, name: str) -> Any:
    """A TransformerBridge around a Hugging Face model, whose parts it replaces. Raises ModelError."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    config, architecture = copy.deepcopy(model.config), type(model).__name__
    try:
        return build_bridge_from_module(
            model, architecture, hf_config=config, tokenizer=with_bos_flag(tokenizer), model_name=name
        )
    except CircuitsError:
        raise
    except Exception as error:  # whatever the library raises for a model that it does not know
        raise ModelError(f"{name}: TransformerLens cannot wrap it: {' '.join(str(error).split())[:200]}") from None
