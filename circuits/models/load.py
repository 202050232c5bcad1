"""Loading: from a bundled name, a local Hugging Face directory, a hub name or a TransformerBridge to a checked `Model`."""

import contextlib
import importlib.resources
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from circuits.errors import CircuitsError, ModelError, NonFiniteError
from circuits.models.extract import architecture_of, extract_weights
from circuits.models.families import find_family
from circuits.models.forward import forward
from circuits.models.model import Model
from circuits.models.tokens import TokenBatch
from circuits.models.weights import Weights

TOLERANCE = {torch.float64: 1e-5, torch.float32: 5e-4, torch.bfloat16: 0.5, torch.float16: 0.1}
"""Largest difference in log-probability from the bridge on the check prompt, besides the rounding of the logits
themselves. In float64 some originals still compute norms and softmax in float32."""

_BUFFER = re.compile(r"\b(attn|attention)\.(masked_)?bias$|\b(inv_freq|position_ids)$|^lm_head\.weight$")
"""Constants that old checkpoints store beside the weights, and the unembedding where it repeats the embedding."""


def bundled_models() -> dict[str, Path]:
    """Models that ship with the package: name → directory."""
    root = Path(str(importlib.resources.files("circuits.models") / "bundled"))
    if not root.is_dir():
        return {}
    return {path.name: path for path in sorted(root.iterdir()) if (path / "model.safetensors").is_file()}


def load_model(name: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Model:
    """Load a language model as a graph that runs, and check it against the original.

    `name` is a bundled model (`mini`), a local Hugging Face directory (no network is touched), or a hub name. The
    weights are read once, in `dtype`, to `device`. Raises ModelError if there is no such model, a part of it is not
    represented, or its log-probabilities differ from the original's; NonFiniteError for damaged weights.
    """
    source = _resolve(str(name))
    _check_configuration(source, str(name))

    def make_bridge() -> Any:
        return _boot(source, str(name), device, dtype)

    return _model_from(make_bridge(), name=str(name), make_bridge=make_bridge)


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
    width = min(16, weights.max_positions or 16)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, weights.W_E.shape[0], (2, width), generator=generator).to(weights.W_E.device)
    with torch.no_grad(), _evaluating(bridge):
        theirs = bridge(ids, prepend_bos=False)
        ours = forward(weights, TokenBatch.unpadded(ids), keep="logits").logits
    if not bool(torch.isfinite(ours).all()):
        raise NonFiniteError("the loaded model's logits hold NaN or infinity on a random prompt")
    difference = float((ours.double().log_softmax(-1) - theirs.double().log_softmax(-1)).abs().max())
    rounding = 2 * torch.finfo(theirs.dtype).eps * float(theirs.abs().max())
    tolerance = TOLERANCE.get(weights.W_E.dtype, 5e-4) + rounding
    if not difference <= tolerance:
        raise ModelError(
            f"{architecture_of(bridge)}: log-probabilities differ from the original's by {difference:.2g} "
            f"(allowed {tolerance:.2g}): some part of this model is not represented; please report its configuration"
        )


def _model_from(bridge: Any, *, name: str, make_bridge: Callable[[], Any]) -> Model:
    weights = extract_weights(bridge)
    verify(weights, bridge)
    tokenizer = getattr(bridge, "tokenizer", None)
    if tokenizer is not None and tokenizer.vocab_size == 0:  # made up by the libraries where its files are missing
        tokenizer = None
    has_bos = tokenizer is not None and tokenizer.bos_token_id is not None
    prepend = has_bos and bool(bridge.cfg.default_prepend_bos)
    return Model(name, architecture_of(bridge), weights, tokenizer, prepend, make_bridge)


def _resolve(name: str) -> str:
    bundled = bundled_models()
    if name in bundled:
        return str(bundled[name])
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{name} is a directory without config.json: expected a Hugging Face model directory")
        if not list(path.glob("*.safetensors")):
            raise ModelError(f"{name} holds no .safetensors file; save the model with save_pretrained first")
        return str(path)
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1 or not name.strip():
        raise ModelError(f"no model directory at {name!r}; bundled models: {', '.join(bundled) or 'none'}")
    return name


def _check_configuration(source: str, name: str) -> None:
    """Refuse what is not represented before any weight is read."""
    from transformers import AutoConfig

    with _quiet():
        try:
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        except Exception as error:  # whatever the libraries raise for a damaged or missing configuration
            raise ModelError(_not_found(name, error)) from None
    architectures = getattr(config, "architectures", None) or []
    if not (isinstance(architectures, list) and architectures and isinstance(architectures[0], str)):
        raise ModelError(f"{name}: its config.json names no architecture")
    find_family(architectures[0], config)


def _boot(source: str, name: str, device: str | torch.device, dtype: torch.dtype) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    with _quiet():
        try:
            return TransformerBridge.boot_transformers(source, device=str(device), dtype=dtype, model_class=_Strict)
        except CircuitsError:
            raise
        except Exception as error:  # whatever the libraries raise for a damaged or missing checkpoint
            raise ModelError(_not_found(name, error)) from None


class _Strict:
    """Stands in for AutoModelForCausalLM, which fills a tensor that the checkpoint lacks with random numbers and drops
    one that the model does not know."""

    @staticmethod
    def from_pretrained(source: str, **options: Any) -> Any:
        """The Hugging Face model; raises ModelError naming a tensor that is missing or left over."""
        from transformers import AutoModelForCausalLM

        loader: Any = AutoModelForCausalLM
        model, report = loader.from_pretrained(source, output_loading_info=True, **options)
        if missing := sorted(report["missing_keys"]):
            raise ModelError(f"{source}: the checkpoint lacks the tensor {missing[0]} ({len(missing)} such tensors)")
        if unknown := sorted(key for key in report["unexpected_keys"] if not _BUFFER.search(key)):
            raise ModelError(f"{source}: the tensor {unknown[0]} is not represented ({len(unknown)} such tensors)")
        return model


def _not_found(name: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    bundled = ", ".join(bundled_models()) or "none"
    return f"cannot load {name!r}: {reason} (bundled models: {bundled}; a local directory or hub name works too)"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars and advice of the libraries while they load, and put their settings back."""
    from transformers.utils import logging as transformers_logging

    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    root_level = logging.getLogger().level
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger().setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        logging.getLogger().setLevel(root_level)
        if bars:
            transformers_logging.enable_progress_bar()


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
