"""Tiny randomly initialised Hugging Face checkpoints, one for each family and each of its switches."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

VOCABULARY = 300
_IDS = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
_SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
_WIDE = {**_SHAPE, **_IDS, "intermediate_size": 48}
_GROUPED = {**_WIDE, "num_key_value_heads": 2}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, **_IDS}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_CAPS = {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}
_GEMMA2 = {"sliding_window": 4, "query_pre_attn_scalar": 24, **_CAPS}
_MULTIPLIERS = {
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.31,
    "logits_scaling": 3.0,
}
_TYPED = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
_GEMMA3 = {**_TYPED, "query_pre_attn_scalar": 24}
_PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
_LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0] * 4,
    "original_max_position_embeddings": 16,
}
_YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
_NEO = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64}


def _rope(kind: str, **values: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **values}}


RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", _GPT2),
    "gpt2 scaled by layer": ("GPT2", {**_GPT2, "scale_attn_by_inverse_layer_idx": True, "activation_function": "relu"}),
    "gpt-neo": ("GPTNeo", {**_NEO, **_IDS, "attention_types": [[["global", "local"], 1]], "window_size": 4}),
    "gpt-j": ("GPTJ", {**_GPT2, "rotary_dim": 4}),
    "gpt-neox": ("GPTNeoX", _WIDE),
    "gpt-neox sequential": ("GPTNeoX", {**_WIDE, "use_parallel_residual": False}),
    "opt": ("OPT", {**_SHAPE, **_IDS, "ffn_dim": 48, "word_embed_proj_dim": 32, "pad_token_id": 1}),
    "bloom": ("Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4, **_IDS}),
    "opt bare": (
        "OPT",
        {
            **_SHAPE,
            **_IDS,
            "ffn_dim": 48,
            "word_embed_proj_dim": 32,
            "enable_bias": False,
            "layer_norm_elementwise_affine": False,
        },
    ),
    "bloom 6 heads": ("Bloom", {"hidden_size": 48, "n_layer": 2, "n_head": 6, **_IDS}),
    "llama": ("Llama", _GROUPED),
    "llama single key": ("Llama", {**_WIDE, "num_key_value_heads": 1, "head_dim": 12, "rms_norm_eps": 1e-3}),
    "llama biases": ("Llama", {**_GROUPED, "attention_bias": True, "mlp_bias": True}),
    "llama rope llama3": ("Llama", {**_GROUPED, "rope_parameters": _LLAMA3}),
    "llama rope linear": ("Llama", {**_GROUPED, **_rope("linear", factor=4.0)}),
    "llama rope yarn": ("Llama", {**_GROUPED, **_rope("yarn", factor=4.0, original_max_position_embeddings=16)}),
    "mistral sliding": ("Mistral", {**_GROUPED, "sliding_window": 4, "head_dim": 8}),
    "qwen2": ("Qwen2", _GROUPED),
    "qwen2 sliding": (
        "Qwen2",
        {**_GROUPED, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {**_GROUPED, "head_dim": 16}),
    "qwen3 sliding": (
        "Qwen3",
        {**_GROUPED, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0, "attention_bias": True},
    ),
    "gemma": ("Gemma", {**_GROUPED, "head_dim": 16}),
    "gemma silu": ("Gemma", {**_GROUPED, "hidden_act": "silu", "hidden_activation": "relu"}),
    "gemma2": ("Gemma2", {**_GROUPED, **_GEMMA2, "head_dim": 16}),
    "gemma2 silu": ("Gemma2", {**_GROUPED, **_GEMMA2, "hidden_activation": "silu"}),
    "phi": ("Phi", _WIDE),
    "phi grouped": ("Phi", {**_GROUPED, "partial_rotary_factor": 0.25}),
    "phi rope linear": ("Phi", {**_WIDE, **_rope("linear", factor=2.0, partial_rotary_factor=0.5)}),
    "gemma3": ("Gemma3", {**_GROUPED, **_GEMMA3, "head_dim": 16}),
    "gemma3 scaled": (
        "Gemma3",
        {
            **_GROUPED,
            **_GEMMA3,
            "final_logit_softcapping": 3.0,
            "layer_types": ["full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            },
        },
    ),
    "phi3": ("Phi3", _GROUPED),
    "phi3 sliding": ("Phi3", {**_WIDE, **_rope("default", partial_rotary_factor=0.5), "sliding_window": 4}),
    "cohere": ("Cohere", _GROUPED),
    "cohere biases": ("Cohere", {**_GROUPED, "attention_bias": True, "logit_scale": 0.7, "tie_word_embeddings": False}),
    "cohere2": ("Cohere2", {**_GROUPED, **_TYPED}),
    "cohere2 window everywhere": ("Cohere2", {**_GROUPED, **_TYPED, "layer_types": ["sliding_attention"] * 2}),
    "granite": ("Granite", {**_GROUPED, **_MULTIPLIERS}),
    "granite biases": ("Granite", {**_GROUPED, **_MULTIPLIERS, "attention_bias": True, "mlp_bias": True}),
    "granite tied": ("Granite", {**_GROUPED, **_MULTIPLIERS, "tie_word_embeddings": True}),
    "starcoder2": ("Starcoder2", _GROUPED),
    "starcoder2 sliding": ("Starcoder2", {**_GROUPED, "sliding_window": 4, "use_bias": False, "tie_word_embeddings": False}),
    "olmo": ("Olmo", _GROUPED),
    "olmo2": ("Olmo2", _GROUPED),
    "olmo3": ("Olmo3", {**_GROUPED, **_TYPED}),
    "olmo3 yarn": ("Olmo3", {**_GROUPED, **_TYPED, "rope_parameters": {"full_attention": _YARN, "sliding_attention": _PLAIN}}),
    "smollm3": ("SmolLM3", {**_GROUPED, "no_rope_layer_interval": 2}),
    "smollm3 without rope": ("SmolLM3", {**_GROUPED, "no_rope_layers": [0, 0]}),
    "smollm3 sliding": (
        "SmolLM3",
        {**_GROUPED, "no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 4, "attention_bias": True},
    ),
}
"""Name → (prefix of the Hugging Face classes, configuration)."""

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "mixtral": ("Mixtral", {**_GROUPED, "num_local_experts": 2}, "mixture of experts"),
    "mamba": ("Mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, **_IDS}, "state-space"),
    "bert": ("Bert", _WIDE, "encoder"),
    "t5": ("T5", {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4, **_IDS}, "encoder"),
    "opt post-norm": (
        "OPT",
        {**RECIPES["opt"][1], "do_layer_norm_before": False},
        "norms after each sublayer",
    ),
    "gpt2 cross-attention": ("GPT2", {**_GPT2, "add_cross_attention": True}, "cross-attention"),
    "gpt2 without scale": ("GPT2", {**_GPT2, "scale_attn_weights": False}, "attention without scale"),
    "gpt-neox without biases": ("GPTNeoX", {**_WIDE, "attention_bias": False}, "attention without biases"),
    "opt projected": ("OPT", {**RECIPES["opt"][1], "word_embed_proj_dim": 16}, "projection between embedding"),
    "olmo clipped": ("Olmo", {**_GROUPED, "clip_qkv": 1.0}, "clip_qkv"),
    "gemma3 capped scores": ("Gemma3", {**_GROUPED, **_GEMMA3, **_CAPS}, "a cap of attention scores"),
    "olmo3 longrope": (
        "Olmo3",
        {**_GROUPED, **_TYPED, "rope_parameters": {"full_attention": _LONG, "sliding_attention": _PLAIN}},
        "longrope",
    ),
    "cohere qk norm": ("Cohere", {**_GROUPED, "use_qk_norm": True}, "use_qk_norm"),
    "phi3 longrope": (
        "Phi3",
        {**_WIDE, "rope_parameters": {**_LONG, "partial_rotary_factor": 1.0}},
        "longrope",
    ),
    "llama rope dynamic": ("Llama", {**_GROUPED, **_rope("dynamic", factor=4.0)}, "dynamic"),
    "phi qk norm": ("Phi", {**_WIDE, "qk_layernorm": True}, "q_layernorm"),
    "bloom post residual": (
        "Bloom",
        {**RECIPES["bloom"][1], "apply_residual_connection_post_layernorm": True},
        "residual",
    ),
}
"""Name → (class prefix, configuration, what the refusal must name)."""

_CONFIGURATIONS = {"Gemma3": "Gemma3Text"}
_HEADS = {"GPT2": "LMHeadModel", "Bert": "ForMaskedLM", "T5": "ForConditionalGeneration"}


def class_name(prefix: str) -> str:
    """The Hugging Face class of a language model of that prefix, as configurations name it."""
    return f"{prefix}{_HEADS.get(prefix, 'ForCausalLM')}"


def build(prefix: str, config: dict[str, Any], seed: int = 0) -> Any:
    """A model of that class in float32 with every parameter away from zero and one."""
    made = getattr(transformers, f"{_CONFIGURATIONS.get(prefix, prefix)}Config")(**config)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, class_name(prefix))(made)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def save(model: Any, directory: Path) -> Path:
    """Write a model with its tokenizer as a Hugging Face directory."""
    model.save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    return directory


def byte_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """One token a byte, and a beginning-of-sequence token with id 0."""
    alphabet = ["<|bos|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|bos|>", eos_token="<|bos|>")


def original(directory: Path, dtype: torch.dtype = torch.float64) -> Any:
    """The Hugging Face model of a directory, with its attention written out (eager)."""
    auto = transformers.AutoModelForCausalLM
    return auto.from_pretrained(directory, dtype=dtype, attn_implementation="eager", local_files_only=True).eval()


@contextlib.contextmanager
def without_downcasts() -> Iterator[None]:
    """Inside, what is float64 stays so where the originals compute norms, scores and softmax in float32, and BLOOM's
    GELU uses sqrt(2 / pi) in place of its first eight digits."""
    bloom = transformers.models.bloom.modeling_bloom
    gelu = bloom.bloom_gelu_forward
    to, shorten, softmax = torch.Tensor.to, torch.Tensor.float, torch.nn.functional.softmax

    def kept_to(self: Tensor, *args: Any, **options: Any) -> Tensor:
        single = torch.float32 in args or options.get("dtype") is torch.float32
        return self if single and self.dtype is torch.float64 else to(self, *args, **options)

    def kept_float(self: Tensor) -> Tensor:
        return self if self.dtype is torch.float64 else shorten(self)

    def kept_softmax(x: Tensor, dim: int = -1, dtype: torch.dtype | None = None) -> Tensor:
        return softmax(x, dim=dim, dtype=None if x.dtype is torch.float64 else dtype)

    torch.Tensor.to, torch.Tensor.float, torch.nn.functional.softmax = kept_to, kept_float, kept_softmax
    bloom.bloom_gelu_forward = lambda x: torch.nn.functional.gelu(x, approximate="tanh")
    try:
        yield
    finally:
        bloom.bloom_gelu_forward = gelu
        torch.Tensor.to, torch.Tensor.float, torch.nn.functional.softmax = to, shorten, softmax
