"""Model families as data: one record says how a family differs, in the switches of `weights.py`.

To add a family, add a record to the table, or register one from outside (`register_family`). Everything that a record
does not say (shapes, biases, which norms exist) is read from the checkpoint itself; a tensor that no part of the record
claims stops loading by name.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

from circuits.errors import ModelError
from circuits.models.weights import Activation

NormKind = Literal["layer", "rms"]
Positions = Literal["learned", "rotary", "alibi"]

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "solu": "solu",
}
"""Names of activation functions in configurations; gelu, relu and silu as in the papers of that name."""


@dataclasses.dataclass(frozen=True)
class Family:
    """How one architecture computes. Functions take the Hugging Face configuration."""

    norm: NormKind
    positions: Positions
    norm_gain_offset: float = 0.0
    """Added to every stored norm gain (Gemma stores gain - 1)."""
    position_offset: int = 0
    """First row of the position table that is used (OPT: 2)."""
    adjacent_pairs: bool = False
    rotary_table: Callable[[Any, int], str | None] = lambda config, layer: ""
    """Which table of frequencies turns a layer: "" where the model has one, its name (Gemma 3: by the layer's type), None for
    a layer without rotary positions. From configuration and layer."""
    parallel: Callable[[Any], bool] = lambda config: False
    activation: Callable[[Any], str] = lambda config: config.hidden_act
    embedding_scale: Callable[[Any], float] = lambda config: 1.0
    residual_scale: Callable[[Any], float] = lambda config: 1.0
    """What every sublayer writes is multiplied by it (folded into output weights and biases at load)."""
    logit_scale: Callable[[Any], float] = lambda config: 1.0
    """Logits are multiplied by it before any soft cap (folded into the unembedding at load)."""
    score_scale: Callable[[Any, int, int], float] = lambda config, d_head, layer: d_head**-0.5
    """From configuration, d_head and layer."""
    window: Callable[[Any, int], int | None] = lambda config, layer: None
    score_soft_cap: Callable[[Any], float | None] = lambda config: None
    logit_soft_cap: Callable[[Any], float | None] = lambda config: None
    norm_over_heads: bool = False
    only: tuple[tuple[str, tuple[Any, ...], str], ...] = ()
    """(configuration attribute, values that are represented, name of the part otherwise)."""


def _typed_window(config: Any, layer: int) -> int | None:
    """Sliding windows named layer by layer (Gemma 2, Qwen), or for all layers (Mistral)."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return config.sliding_window if kinds[layer] == "sliding_attention" else None
    return getattr(config, "sliding_window", None)


def _typed_table(config: Any, layer: int) -> str:
    """Tables of rotary frequencies by the layer's type (Gemma 3, OLMo 3)."""
    return config.layer_types[layer]


def _gpt2_scale(config: Any, d_head: int, layer: int) -> float:
    return d_head**-0.5 / (layer + 1 if config.scale_attn_by_inverse_layer_idx else 1)


_LLAMA = Family(norm="rms", positions="rotary")
_GEMMA = Family(
    norm="rms",
    positions="rotary",
    norm_gain_offset=1.0,
    embedding_scale=lambda config: config.hidden_size**0.5,
    only=(("use_bidirectional_attention", (None, False), "bidirectional attention in Gemma"),),
)
_GEMMA2 = dataclasses.replace(
    _GEMMA,
    activation=lambda config: config.hidden_activation,
    score_scale=lambda config, d_head, layer: config.query_pre_attn_scalar**-0.5,
    window=_typed_window,
    score_soft_cap=lambda config: config.attn_logit_softcapping,
    logit_soft_cap=lambda config: config.final_logit_softcapping,
)
_COHERE = Family(
    norm="layer",
    positions="rotary",
    adjacent_pairs=True,
    parallel=lambda config: True,
    logit_scale=lambda config: config.logit_scale,
    only=(("use_qk_norm", (False,), "a norm of queries and keys with gains of its own for each head (use_qk_norm)"),),
)
_OLMO_CLIP = (("clip_qkv", (None,), "clipped queries, keys and values (clip_qkv)"),)

FAMILIES: dict[str, Family] = {
    "GPT2LMHeadModel": Family(
        norm="layer",
        positions="learned",
        activation=lambda config: config.activation_function,
        score_scale=_gpt2_scale,
        only=(
            ("add_cross_attention", (False,), "cross-attention"),
            ("scale_attn_weights", (True,), "attention without scale (TransformerLens scales it all the same)"),
        ),
    ),
    "GPTNeoForCausalLM": Family(
        norm="layer",
        positions="learned",
        activation=lambda config: config.activation_function,
        score_scale=lambda config, d_head, layer: 1.0,
        window=lambda config, layer: config.window_size if config.attention_layers[layer] == "local" else None,
    ),
    "GPTJForCausalLM": Family(
        norm="layer",
        positions="rotary",
        adjacent_pairs=True,
        parallel=lambda config: True,
        activation=lambda config: config.activation_function,
    ),
    "GPTNeoXForCausalLM": Family(
        norm="layer",
        positions="rotary",
        parallel=lambda config: bool(config.use_parallel_residual),
        only=(("attention_bias", (True,), "attention without biases"),),
    ),
    "OPTForCausalLM": Family(
        norm="layer",
        positions="learned",
        position_offset=2,
        activation=lambda config: config.activation_function,
        only=(
            ("do_layer_norm_before", (True,), "norms after each sublayer (do_layer_norm_before=False)"),
            ("_remove_final_layer_norm", (False,), "the missing final norm"),
        ),
    ),
    "BloomForCausalLM": Family(
        norm="layer",
        positions="alibi",
        activation=lambda config: "gelu_new",
        only=(("apply_residual_connection_post_layernorm", (False,), "residuals taken after the norm"),),
    ),
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": dataclasses.replace(_LLAMA, window=_typed_window),
    "Qwen2ForCausalLM": dataclasses.replace(_LLAMA, window=_typed_window),
    "Qwen3ForCausalLM": dataclasses.replace(_LLAMA, window=_typed_window),
    "GemmaForCausalLM": _GEMMA,
    "Gemma2ForCausalLM": _GEMMA2,
    "Gemma3ForCausalLM": dataclasses.replace(
        _GEMMA2,
        rotary_table=_typed_table,
        score_soft_cap=lambda config: None,
        only=(
            *_GEMMA.only,
            ("attn_logit_softcapping", (None,), "a cap of attention scores in Gemma 3 (Hugging Face passes over it)"),
        ),
    ),
    "PhiForCausalLM": Family(norm="layer", positions="rotary", parallel=lambda config: True),
    "Phi3ForCausalLM": dataclasses.replace(_LLAMA, window=_typed_window),
    "CohereForCausalLM": _COHERE,
    "Cohere2ForCausalLM": dataclasses.replace(
        _COHERE,
        window=_typed_window,
        rotary_table=lambda config, layer: None if _typed_window(config, layer) is None else "",
    ),
    "GraniteForCausalLM": dataclasses.replace(
        _LLAMA,
        embedding_scale=lambda config: config.embedding_multiplier,
        residual_scale=lambda config: config.residual_multiplier,
        score_scale=lambda config, d_head, layer: config.attention_multiplier,
        logit_scale=lambda config: 1.0 / config.logits_scaling,
    ),
    "Starcoder2ForCausalLM": Family(norm="layer", positions="rotary", window=_typed_window),
    "OlmoForCausalLM": Family(norm="layer", positions="rotary", only=_OLMO_CLIP),
    "Olmo2ForCausalLM": dataclasses.replace(_LLAMA, norm_over_heads=True),
    "Olmo3ForCausalLM": dataclasses.replace(_LLAMA, norm_over_heads=True, window=_typed_window, rotary_table=_typed_table),
    "SmolLM3ForCausalLM": dataclasses.replace(
        _LLAMA, window=_typed_window, rotary_table=lambda config, layer: "" if config.no_rope_layers[layer] else None
    ),
}
"""By the class name that a Hugging Face configuration gives under `architectures`."""

REGISTERED: dict[str, Family] = {}
"""What `register_family` has added in this process."""

NATIVE = "TransformerLensNative"

_MISSING_PARTS = (
    (("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"), "a mixture of experts"),
    (("state_size", "ssm_state_size", "mamba_d_state", "time_step_rank"), "a state-space mixer"),
    (("attention_hidden_size", "rwkv_version"), "a recurrent mixer"),
    (("vision_config",), "a vision encoder"),
)


def register_family(architecture: str, family: Family) -> None:
    """Make an architecture loadable by a record of one's own, for this process.

    `architecture` is the class name that a configuration gives under `architectures` (`SeedOssForCausalLM`); TransformerLens
    must know it too. Loading checks the record against the original as it does the families of the table. A record
    registered before is replaced. Raises ModelError for what is no record, a switch that does not fit, or a family of the
    table.
    """
    if not isinstance(family, Family):
        raise ModelError(f"register_family: expected a Family for {architecture!r}, got {type(family).__name__}")
    if not (isinstance(architecture, str) and architecture.isidentifier()):
        raise ModelError(f"register_family: {architecture!r} is no class name; expected one such as 'LlamaForCausalLM'")
    if architecture in FAMILIES:
        raise ModelError(f"register_family: {architecture} is a family of the package, which cannot be replaced")
    for field in dataclasses.fields(Family):
        value = getattr(family, field.name)
        if (wanted := _misfit(field.name, value)) is not None:
            raise ModelError(f"register_family: {architecture}: {field.name}={value!r}, expected {wanted}")
    REGISTERED[architecture] = family


def _misfit(name: str, value: Any) -> str | None:
    """What was expected of a switch that does not fit, or None. The types are those of the table's own defaults."""
    literals = {"norm": get_args(NormKind), "positions": get_args(Positions)}
    if name in literals:
        return None if value in literals[name] else f"one of {', '.join(literals[name])}"
    if name == "only":
        entries = isinstance(value, tuple) and all(isinstance(entry, tuple) and len(entry) == 3 for entry in value)
        fits = entries and all(isinstance(a, str) and isinstance(b, tuple) and b and isinstance(c, str) for a, b, c in value)
        return None if fits else "a tuple of (configuration attribute, values that are represented, name of the part)"
    default = getattr(_LLAMA, name)
    if callable(default):
        return None if callable(value) else "a function of the configuration"
    fits = isinstance(value, bool) if isinstance(default, bool) else isinstance(value, int | type(default))
    return None if fits else f"a {type(default).__name__}"


def find_family(architecture: str, config: Any) -> Family:
    """The record of an architecture, with the configuration checked. Raises ModelError that names the part which this
    toolkit does not represent."""
    family = FAMILIES.get(architecture) or REGISTERED.get(architecture)
    if family is None:
        raise ModelError(
            f"{architecture} cannot be run as a graph: {_missing_part(architecture, config)} is not represented. "
            f"Represented: {', '.join(FAMILIES | REGISTERED)} and models native to TransformerLens; "
            "circuits.models.register_family adds a record of your own."
        )
    for attribute, allowed, part in family.only:
        value = getattr(config, attribute, allowed[0])
        if value not in allowed:
            raise ModelError(f"{architecture}: {part} is not represented ({attribute}={value!r})")
    if getattr(config, "quantization_config", None):
        raise ModelError(f"{architecture}: quantised weights are not represented; load the full-precision checkpoint")
    return family


def _missing_part(architecture: str, config: Any) -> str:
    if getattr(config, "is_encoder_decoder", False):
        return "an encoder with cross-attention"
    for attributes, part in _MISSING_PARTS:
        if any(getattr(config, attribute, None) for attribute in attributes):
            return part
    if architecture.endswith("ForConditionalGeneration"):
        return "an encoder with cross-attention"
    if "CausalLM" not in architecture and "LMHead" not in architecture:
        return f"the head and encoder of {architecture} (it is no causal language model)"
    return f"its layer layout ({getattr(config, 'model_type', 'unknown type')})"


def activation_of(name: Any, where: str) -> Activation:
    """The activation function of that name. Raises ModelError if it is not represented."""
    if name not in ACTIVATIONS:
        raise ModelError(f"{where}: the activation {name!r} is not represented; represented: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
