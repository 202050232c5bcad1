"""Checkpoints in TransformerLens's own format: a state dict and its configuration, read without unpickling code.

Either the names of a native TransformerBridge (`blocks.0.attn.q.weight`) or those of the HookedTransformer that came before it
(`blocks.0.attn.W_Q`), which TransformerLens converts.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuits.errors import CircuitsError, ModelError, shown
from circuits.files.reading import read_json
from circuits.models.loading.families import NATIVE

STATE_FILES = (".safetensors", ".pt", ".pth")
_CONFIG_FILES = ("config.json", "cfg.json")
_CONFIG_KEYS, _STATE_KEYS = ("config", "cfg"), ("state_dict", "model_state_dict", "model")
"""Names under which a .pt file holds both."""

_SIZES = ("n_layers", "n_heads", "d_model", "d_head", "n_ctx", "d_vocab")
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "parallel_attn_mlp": (False,),
    "post_embedding_ln": (False,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "use_local_attn": (False,),
    "use_normalization_before_and_after": (False,),
    "use_NTK_by_parts_rope": (False,),
    "use_qk_norm": (False,),
    "num_experts": (None, 0),
    "relative_attention_num_buckets": (None,),
    "shortformer_pos": (False,),
    "positional_embedding_type": ("standard", "rotary"),
}
"""Values of a configuration that TransformerLens's native model passes over, and those with which that changes nothing."""


@dataclasses.dataclass(frozen=True)
class NativeFile:
    """A state dict's file and its configuration, None where it is inside the file."""

    file: Path
    config: Mapping[str, Any] | None


def native_file(path: Path) -> NativeFile | None:
    """The checkpoint in TransformerLens's format that a path names, a file or a folder; None for other things. Raises
    ModelError where a folder holds several state dicts, or a file has no configuration."""
    if path.is_file() and path.suffix.lower() in STATE_FILES:
        beside = [path.with_suffix(".json"), *(path.parent / name for name in _CONFIG_FILES)]
        config = next((found for file in beside if (found := _config_of(file)) is not None), None)
        if config is None and path.suffix.lower() == ".safetensors":
            raise ModelError(f"{path}: no configuration beside it: expected {path.stem}.json or config.json of TransformerLens")
        return NativeFile(path, config)
    config = next((found for name in _CONFIG_FILES if (found := _config_of(path / name)) is not None), None)
    if not path.is_dir() or config is None:
        return None
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in STATE_FILES)
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise ModelError(f"{path}: expected one state dict ({', '.join(STATE_FILES)}) beside its configuration, got {names}")
    return NativeFile(files[0], config)


def native_bridge(source: NativeFile, tokenizer: Any, name: str, device: str | torch.device, dtype: torch.dtype) -> Any:
    """A native TransformerBridge with the checkpoint's weights. Raises ModelError for a file that holds more than tensors and
    plain values, a configuration that TransformerLens's native model does not follow, or tensors of other names or shapes."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources import boot_native

    state, config = read_native(source)
    checked = _checked(source.file, config, state)
    try:
        made = TransformerBridgeConfig.from_dict(checked)
        made.rope_scaling = checked.get("rope_scaling")  # which `from_dict` passes over
        bridge = boot_native(made, tokenizer=tokenizer, device=device, dtype=dtype, model_name=name)
        state = _converted(state, bridge)
        _check_tensors(source.file, state, bridge.state_dict())
        bridge.load_state_dict({key: tensor.to(dtype) for key, tensor in state.items()}, strict=True)
    except CircuitsError:
        raise
    except Exception as error:  # whatever the library raises for names and shapes that do not fit
        raise ModelError(f"{source.file} cannot be loaded: {' '.join(str(error).split())[:200]}") from None
    bridge.original_model.eval()
    return bridge


def read_native(source: NativeFile) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The state dict and the configuration. Raises ModelError."""
    held = _read(source.file)
    inside = next((held[key] for key in _CONFIG_KEYS if isinstance(held.get(key), dict)), None)
    config = source.config if source.config is not None else inside
    if config is None:
        where = f"{source.file.stem}.json or config.json beside it, or a dict under 'config' in it"
        raise ModelError(f"{source.file}: no configuration: expected {where}")
    state = next((held[key] for key in _STATE_KEYS if isinstance(held.get(key), dict)), held)
    state = {key: value for key, value in state.items() if key not in _CONFIG_KEYS or isinstance(value, Tensor)}
    odd = next((key for key, value in state.items() if not (isinstance(key, str) and isinstance(value, Tensor))), None)
    if odd is not None or not state:
        raise ModelError(
            f"{source.file}: expected a state dict of tensors, got {shown(odd) if state else 'nothing'} among them"
        )
    return state, config


def _read(file: Path) -> dict[str, Any]:
    if file.suffix.lower() == ".safetensors":
        from safetensors.torch import load_file

        try:
            return dict(load_file(file))
        except Exception as error:  # a type of the library's own
            raise ModelError(f"{file} cannot be read: {' '.join(str(error).split())[:150]}") from None
    try:
        held = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling errors, damaged archives, whatever else PyTorch stumbles over
        reason = "it is damaged, or holds objects that only running its code would read (save tensors and plain values alone)"
        raise ModelError(f"{file}: {reason}: {' '.join(str(error).split())[:80]}") from None
    if not isinstance(held, dict):
        raise ModelError(f"{file}: expected a state dict, got a {type(held).__name__}")
    return held


def _config_of(file: Path) -> Mapping[str, Any] | None:
    """A JSON file's object where it is a configuration of TransformerLens."""
    try:
        read: Any = read_json(file)
    except CircuitsError:
        return None
    ours = isinstance(read, dict) and "d_model" in read and "n_layers" in read and "model_type" not in read
    return read if ours else None


def _checked(file: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The configuration as TransformerLens takes it. Raises ModelError for sizes that are not the tensors', and values that its
    native model passes over."""
    made = {key: value for key, value in config.items() if key not in ("dtype", "device", "n_devices", "architecture", "seed")}
    if "normalization" in made:  # in configurations of 2022
        made.setdefault("normalization_type", made.pop("normalization"))
    for key in _SIZES:
        if not isinstance(made.get(key), int) or isinstance(made[key], bool) or not 0 < made[key] < 2**31:
            raise ModelError(f"{file}: its configuration says {key}={shown(made.get(key))}, expected a whole number above 0")
    for key, neutral in _NEUTRAL.items():
        if key in made and made[key] not in neutral:
            raise ModelError(f"{file}: {key}={shown(made[key])} is not represented in TransformerLens's native model")
    old, rotary = is_old(state), made.get("positional_embedding_type") == "rotary"
    if old and made.get("use_attn_scale") is False:
        raise ModelError(f"{file}: use_attn_scale=False is not represented in TransformerLens's native model")
    if old and rotary and not made.get("rotary_adjacent_pairs"):
        raise ModelError(f"{file}: rotary positions of other than adjacent pairs are not represented in its native model")
    embedding = next((state[key] for key in ("embed.W_E", "embed.weight") if key in state), None)
    got = {key.split(".")[1] for key in state if key.startswith("blocks.")}
    if embedding is None or tuple(embedding.shape) != (made["d_vocab"], made["d_model"]) or len(got) != made["n_layers"]:
        raise ModelError(f"{file}: d_vocab, d_model or n_layers of its configuration are not those of its tensors")
    return {**made, "architecture": NATIVE, "init_weights": False}


def is_old(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of HookedTransformer."""
    return any(key.endswith((".W_Q", ".W_E", ".W_U")) for key in state)


def _check_tensors(file: Path, state: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> None:
    for key in sorted(known.keys() ^ state.keys()):
        what = "is missing" if key in known else "is not represented in TransformerLens's native model"
        raise ModelError(f"{file}: the tensor {key} {what}")
    for key, tensor in state.items():
        if tensor.shape != known[key].shape or not tensor.is_floating_point():
            given, expected = f"{tuple(tensor.shape)} of {tensor.dtype}", tuple(known[key].shape)
            raise ModelError(f"{file}: the tensor {key} is {given}, expected {expected} of floating-point numbers")


def _converted(state: dict[str, Tensor], bridge: Any) -> dict[str, Tensor]:
    """A state dict by the bridge's names. What a native model lacks (biases of gated MLPs) goes where it is zero."""
    from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

    if not is_old(state):
        return state
    made = {key: tensor for key, tensor in state.items() if not key.endswith(("rotary_sin", "rotary_cos"))}
    made = convert_tl_checkpoint(made, bridge.cfg)
    known = bridge.state_dict()
    made = {key: tensor for key, tensor in made.items() if key in known or bool(tensor.any())}
    if "unembed.bias" in known:
        made.setdefault("unembed.bias", torch.zeros_like(known["unembed.bias"]))
    return made
