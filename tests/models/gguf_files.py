"""GGUF files of small random models, written as llama.cpp's converter writes them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from tokenizers import pre_tokenizers

_NAMES = {"gemma3_text": "gemma3", "mistral": "llama"}
MERGES = ["t h", "Ġ t", "Ġt h", "th e", "1 2", "Ġ Ġ"]


def write_gguf(
    model: Any,
    path: Path,
    *,
    kind: Kind = Kind.F32,
    values: dict[str, Any] | None = None,
    tokenizer: Callable[[gguf.GGUFWriter, int], None] | None = None,
    leave_out: Sequence[str] = (),
    extra: dict[str, np.ndarray] | None = None,
    architecture: str | None = None,
) -> Path:
    """Write a Hugging Face model with its matrices in that number format; `values` are set beside those that its
    configuration gives, `leave_out` and `extra` are tensors by their names there."""
    config = model.config
    arch = str(_NAMES.get(config.model_type, config.model_type))
    writer = gguf.GGUFWriter(path, architecture or arch)
    writer.add_type("model")
    (tokenizer or byte_level)(writer, config.vocab_size)
    for key, value in {**_values(config, architecture or arch), **(values or {})}.items():
        add: dict[type, Callable[..., None]] = {
            bool: writer.add_bool,
            int: writer.add_uint32,
            float: writer.add_float32,
            str: writer.add_string,
        }
        add[type(value)](key, value)
    for name, data in {**_tensors(model, arch), **(extra or {})}.items():
        if name not in leave_out:
            chosen = kind if data.ndim > 1 and data.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0 else Kind.F32
            writer.add_tensor(name, gguf.quantize(data, chosen), raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def byte_level(writer: gguf.GGUFWriter, size: int, *, rules: str = "gpt-2", bos: bool = False) -> None:
    """A byte-level tokenizer with BOS 0 and a few merges, filled up to that size."""
    merged = ["".join(pair.split(" ")) for pair in MERGES]
    known = ["<|bos|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *merged]
    tokens = known + [f"<unused{i}>" for i in range(size - len(known))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rules)
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(known) - 1) + [5] * (size - len(known)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(bos)


def word_pieces(writer: gguf.GGUFWriter, size: int, *, bos: bool | None = True, space: bool = True) -> None:
    """A SentencePiece tokenizer as Llama 2's: bytes, letters, a word's beginning marked."""
    control = ["<unk>", "<s>", "</s>"]
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz", "▁t", "▁th", "▁the"]
    known = [*control, *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    tokens = known + [f"<unused{i}>" for i in range(size - len(known))]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(place) for place in range(size)])
    kinds = [2, 3, 3] + [6] * 256 + [1] * len(letters)
    writer.add_token_types(kinds + [5] * (size - len(known)))
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if bos is not None:
        writer.add_add_bos_token(bos)
    writer.add_add_space_prefix(space)


def _values(config: Any, arch: str) -> dict[str, Any]:
    rotary = getattr(config, "rope_parameters", None) or {}
    rotary = rotary.get("full_attention", rotary)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    eps = next(getattr(config, n) for n in ("rms_norm_eps", "layer_norm_epsilon", "norm_epsilon") if hasattr(config, n))
    rms = hasattr(config, "rms_norm_eps")
    found = {
        "block_count": config.num_hidden_layers,
        "context_length": getattr(config, "max_position_embeddings", None),
        "embedding_length": config.hidden_size,
        "feed_forward_length": getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": getattr(config, "num_key_value_heads", config.num_attention_heads),
        f"attention.layer_norm_{'rms_' if rms else ''}epsilon": float(eps),
        "rope.freq_base": float(rotary["rope_theta"]) if rotary else None,
        "rope.scaling.type": "linear" if rotary.get("rope_type") == "linear" else None,
        "rope.scaling.factor": float(rotary["factor"]) if rotary.get("rope_type") == "linear" else None,
        "rope.dimension_count": round(width * rotary.get("partial_rotary_factor", 1.0)) if rotary else None,
        "attention.key_length": width if hasattr(config, "head_dim") else None,
        "attention.sliding_window": getattr(config, "sliding_window", None),
        "attn_logit_softcapping": getattr(config, "attn_logit_softcapping", None),
        "final_logit_softcapping": getattr(config, "final_logit_softcapping", None),
    }
    return {f"{arch}.{key}": value for key, value in found.items() if value is not None}


def _tensors(model: Any, arch: str) -> dict[str, np.ndarray]:
    config = model.config
    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    found = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        stored = stored or names.get_name(name.split(".", 1)[1], try_suffixes=(".weight", ".bias"))
        found[str(stored)] = _as_stored(tensor.float().numpy(), str(stored), config, arch)
    rotary = getattr(config, "rope_parameters", None) or {}
    if rotary.get("rope_type") == "llama3":
        found["rope_freqs.weight"] = llama3_divisors(rotary, config.head_dim)
    return found


def llama3_divisors(rotary: dict[str, Any], width: int) -> np.ndarray:
    """What llama.cpp's converter writes for the scaling of Llama 3."""
    found, context = [], rotary["original_max_position_embeddings"]
    for frequency in 1.0 / (rotary["rope_theta"] ** (np.arange(0, width, 2, dtype=np.float32) / width)):
        length = 2 * np.pi / frequency
        smooth = (context / length - rotary["low_freq_factor"]) / (rotary["high_freq_factor"] - rotary["low_freq_factor"])
        if length < context / rotary["high_freq_factor"]:
            found.append(1.0)
        elif length > context / rotary["low_freq_factor"]:
            found.append(rotary["factor"])
        else:
            found.append(1 / ((1 - smooth) / rotary["factor"] + smooth))
    return np.array(found, np.float32)


def _as_stored(data: np.ndarray, name: str, config: Any, arch: str) -> np.ndarray:
    """What llama.cpp's converter does with a tensor."""
    if arch == "llama" and (".attn_q." in name or ".attn_k." in name):
        heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
        halves = data.reshape(heads, 2, data.shape[0] // heads // 2, *data.shape[1:])
        data = halves.swapaxes(1, 2).reshape(data.shape)
    if arch in ("gemma2", "gemma3") and name.endswith("norm.weight"):
        data = data + 1
    if arch == "gpt2" and any(f"{part}.weight" in name for part in ("attn_qkv", "attn_output", "ffn_up", "ffn_down")):
        data = data.T
    if arch == "bloom" and "attn_qkv" in name:
        heads = config.num_attention_heads
        data = data.reshape(heads, 3, -1, *data.shape[1:]).swapaxes(0, 1).reshape(data.shape)
    return np.ascontiguousarray(data)
