"""A GGUF file as a Hugging Face model, through transformers' own reader (`gguf_file=`).

That reader drops without a word the values and tensors that it has no place for: each is accounted for here, so that a model is
the file's or is refused by name.
"""

import contextlib
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from circuits.errors import CircuitsError, ModelError, shown
from circuits.models.loading.families import find_family
from circuits.models.loading.gguf_header import GGUFHeader, StoredTensor, read_header
from circuits.models.loading.gguf_rotary import FREQUENCIES, head_width, set_rotary

_EPSILONS = ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps")
_CONFIGURED: dict[str, tuple[str, ...]] = {
    "context_length": ("max_position_embeddings", "n_positions"),
    "embedding_length": ("hidden_size",),
    "block_count": ("num_hidden_layers",),
    "feed_forward_length": ("intermediate_size", "n_inner"),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_key_value_heads", "num_attention_heads"),
    "attention.key_length": ("head_dim",),
    "attention.value_length": ("head_dim",),
    "attention.layer_norm_rms_epsilon": _EPSILONS,
    "attention.layer_norm_epsilon": _EPSILONS,
    "attention.sliding_window": ("sliding_window",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "vocab_size": ("vocab_size",),
}
"""Key of a GGUF file behind its architecture's name → the attributes of a configuration that say the same; the first one that
it has counts."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (8.0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "pooling_type": (0,),
    "tensor_data_layout": ("Meta AI original pth", "reference"),
    "use_parallel_residual": (True, False),
}
"""Key → the values with which nothing has to be represented."""

_LEFT_AT_DEFAULTS = (
    *("context_length", "attention.sliding_window", "attention.key_length", "attention.value_length"),
    *("attn_logit_softcapping", "final_logit_softcapping"),
)
"""Keys that transformers leaves out for some architectures."""

_WITHOUT_SCALE = {"gemma2": 46, "gemma3": 62}
"""Layers of the models (of 27 B) whose scores are scaled by d_model / n_heads, not by d_head: llama.cpp knows them by that, the
file does not say so."""

_NO_NUMBERS = {"Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64"}
"""Formats of whole numbers, of intermediate results, and one that is not read from GGUF files."""


def gguf_file(path: Path) -> Path | None:
    """The GGUF file that a path names: itself, or the only one of a folder without other weights. Raises ModelError where a
    folder holds several."""
    if path.is_file():
        return path if path.suffix.lower() == ".gguf" else None
    if not path.is_dir() or any(path.glob("*.safetensors")):
        return None
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".gguf" and file.is_file())
    if len(files) > 1:
        raise ModelError(f"{path} holds {len(files)} GGUF files: name one of {', '.join(file.name for file in files)}")
    return files[0] if files else None


def checked_header(path: Path) -> GGUFHeader:
    """The header of a file that holds one whole language model. Raises ModelError for anything else."""
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise ModelError(f"{path}: reading GGUF files needs the package gguf: pip install gguf") from None
    header = read_header(path)
    kind, parts = header.values.get("general.type", "model"), header.values.get("split.count", 1)
    if kind != "model":
        raise ModelError(f"{path} holds no model: its general.type is {shown(kind)}, expected 'model'")
    if isinstance(parts, int) and parts > 1:
        raise ModelError(f"{path} is one of {parts} parts: join them first (llama-gguf-split --merge)")
    blocks, layers = header.values.get(f"{header.architecture}.block_count"), _layers(header)
    if blocks != layers:
        raise ModelError(f"{path}: block_count is {shown(blocks)}, its tensors are of {layers} blocks")
    for tensor in header.tensors.values():
        if tensor.kind in _NO_NUMBERS:
            raise ModelError(f"{path}: the tensor {shown(tensor.name)} is stored as {tensor.kind}, which is not represented")
    return header


def _layers(header: GGUFHeader) -> int:
    """How many blocks the tensors' names count, without a gap (0 where one is missing)."""
    numbers = {name.split(".")[1] for name in header.tensors if name.startswith("blk.")}
    return len(numbers) if numbers == {str(layer) for layer in range(len(numbers))} else 0


def gguf_config(header: GGUFHeader) -> Any:
    """The Hugging Face configuration of a GGUF file, every value of which is in it. Raises ModelError naming the architecture,
    value or tensor that is not represented."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    config = _tried(
        header, AutoConfig.from_pretrained, str(header.path.parent), gguf_file=header.path.name, local_files_only=True
    )
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(f"{header.path}: {header.architecture} is no causal language model")
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    config.architectures = [model_class.__name__]
    vars(config).pop("_model_name_or_path", None)
    try:
        find_family(model_class.__name__, config)
    except ModelError as error:
        raise ModelError(f"{header.path}: {error}") from None
    prefix = f"{header.architecture}."
    for key in header.values:
        if key.startswith(prefix) and not key.startswith(f"{prefix}rope."):
            _account(header, config, key.removeprefix(prefix), header.values[key])
    set_rotary(header, config)
    if hasattr(config, "query_pre_attn_scalar"):
        largest = _WITHOUT_SCALE.get(header.architecture) == config.num_hidden_layers
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads if largest else head_width(config)
    _check_tensors(header, config, model_class)
    return config


def _account(header: GGUFHeader, config: Any, key: str, value: Any) -> None:
    """Raise ModelError unless a configuration says what a file's value says; what transformers leaves at a default is set."""
    where = f"{header.path}: {header.architecture}.{key}={shown(value)}"
    name = next((name for name in _CONFIGURED.get(key, ()) if hasattr(config, name)), None)
    if name is None:
        if value not in _neutral(config, key):
            raise ModelError(f"{where} is not represented")
    elif key in _LEFT_AT_DEFAULTS or getattr(config, name) is None:
        setattr(config, name, value)
    elif getattr(config, name) != value:
        raise ModelError(f"{where} was read as {name}={shown(getattr(config, name))}")


def _neutral(config: Any, key: str) -> tuple[Any, ...]:
    """The values of a key with which nothing has to be represented."""
    if key in ("attention.key_length", "attention.value_length"):
        return (head_width(config),)
    if key == "feed_forward_length":  # a family that has no other
        return (4 * config.hidden_size,)
    return _NEUTRAL.get(key, ())


def _check_tensors(header: GGUFHeader, config: Any, model_class: Any) -> None:
    """Raise ModelError unless the file holds the model's tensors, of their sizes, and no other (nothing is allocated)."""

    def shapes() -> dict[str, tuple[int, ...]]:
        """Names and shapes of the tensors that the model is made of; those that repeat others left out."""
        with torch.device("meta"):
            model = model_class(config)
        tied = set(model.all_tied_weights_keys) if config.tie_word_embeddings else set()
        return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}

    stored_name = _stored_names(header, config)
    expected = {stored_name(name): shape for name, shape in _tried(header, shapes).items()}
    for name, shape in expected.items():
        stored = header.tensors.get(name)
        if stored is None:
            raise ModelError(f"{header.path}: the tensor {name} is missing")
        if not _fits(stored, shape):
            raise ModelError(f"{header.path}: the tensor {name} has shape {stored.shape}, expected {shape}")
    if left := sorted(header.tensors.keys() - expected - {FREQUENCIES}):
        raise ModelError(f"{header.path}: the tensor {left[0]} is not represented ({len(left)} such tensors)")


def _fits(stored: StoredTensor, shape: tuple[int, ...]) -> bool:
    """Whether a tensor can become one of that shape: some are stored transposed."""
    return sorted(stored.shape) == sorted(shape) and math.prod(shape) > 0


def _stored_names(header: GGUFHeader, config: Any) -> Callable[[str], str]:
    """What llama.cpp calls the tensors of a Hugging Face model. Calling it raises ModelError for one without a name there."""
    import gguf

    arch = next((arch for arch, called in gguf.MODEL_ARCH_NAMES.items() if called == header.architecture), None)
    names = None if arch is None else gguf.get_tensor_name_map(arch, config.num_hidden_layers)

    def stored(name: str) -> str:
        """The name in the file."""
        for candidate in (name, name.split(".", 1)[1]):
            found = None if names is None else names.get_name(candidate, try_suffixes=(".weight", ".bias"))
            if found is not None:
                return found
        raise ModelError(f"{header.path}: {name} of {header.architecture} has no name in GGUF files")

    return stored


def gguf_model(header: GGUFHeader, config: Any, dtype: torch.dtype) -> Any:
    """The Hugging Face model with its weights as plain numbers of that type, attention written out (eager)."""
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    model, report = _tried(
        header,
        loader.from_pretrained,
        str(header.path.parent),
        gguf_file=header.path.name,
        config=config,
        dtype=dtype,
        attn_implementation="eager",
        output_loading_info=True,
        local_files_only=True,
    )
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{header.path}: no tensor was found for {missing[0]} ({len(missing)} such tensors)")
    model.hf_quantizer = None  # all is dequantised: with it transformers refuses to save the model
    vars(model.config).pop("quantization_config", None)
    return model


def _tried(header: GGUFHeader, read: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What a library reads of a file. Raises ModelError in one line for whatever it raises."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a bar that no setting turns off
            return read(*arguments, **options)
    except CircuitsError:
        raise
    except Exception as error:  # the libraries raise whatever their code stumbles over
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{header.path} ({header.architecture}) cannot be loaded: {reason}") from None
