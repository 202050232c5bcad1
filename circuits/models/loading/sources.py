"""Where models come from: bundled names, local Hugging Face directories and hub names, read whole or not at all."""

import contextlib
import dataclasses
import importlib.resources
import logging
import re
import socket
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch

from circuits.errors import CircuitsError, ModelError
from circuits.files.reading import read_json
from circuits.models.loading.families import find_family
from circuits.models.loading.gguf_model import gguf_file
from circuits.models.loading.native import native_file

_BUFFER = re.compile(r"\b(attn|attention)\.(masked_)?bias$|\b(inv_freq|position_ids)$|^lm_head\.weight$")
"""Constants that old checkpoints store beside the weights, and the unembedding where it repeats the embedding."""


_NUMBERS = {"F64", "F32", "F16", "BF16"}
"""Formats of safetensors files that are plain numbers."""


def bundled_models() -> dict[str, Path]:
    """Models that ship with the package: name → directory."""
    root = Path(str(importlib.resources.files("circuits.models") / "bundled"))
    if not root.is_dir():
        return {}
    return {path.name: path for path in sorted(root.iterdir()) if (path / "model.safetensors").is_file()}


def resolve(name: str) -> str:
    """The directory of a bundled model, a directory or GGUF file, or a hub name as it is. Raises ModelError for what is none of
    these."""
    bundled = bundled_models()
    if name in bundled:
        return str(bundled[name])
    path = Path(name).expanduser()
    if name.strip() and (gguf_file(path) is not None or native_file(path) is not None):
        return str(path)
    if name.strip() and path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"{name} is a directory without config.json: expected a Hugging Face model directory or a GGUF file"
            )
        if not list(path.glob("*.safetensors")):
            raise ModelError(f"{name} holds no .safetensors file; save the model with save_pretrained first")
        return str(path)
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1 or not name.strip():
        raise ModelError(f"no model directory at {name!r}; bundled models: {', '.join(bundled) or 'none'}")
    return name


def check_configuration(source: str, name: str) -> Any:
    """The configuration; what is not represented is refused before any weight is read. Raises ModelError."""
    from transformers import AutoConfig

    reachable = Path(source).is_dir() or hub_reachable()
    with quiet():
        try:
            config = AutoConfig.from_pretrained(source, trust_remote_code=False, local_files_only=not reachable)
        except Exception as error:  # whatever the libraries raise for a damaged or missing configuration
            raise ModelError(_not_found(name, error, reachable=reachable)) from None
    architectures = getattr(config, "architectures", None) or []
    if not (isinstance(architectures, list) and architectures and isinstance(architectures[0], str)):
        raise ModelError(f"{name}: its config.json names no architecture")
    find_family(architectures[0], config)
    return config


def boot(
    source: str, name: str, device: str | torch.device, dtype: torch.dtype, *, see: Callable[[Any], None] | None = None
) -> Any:
    """A TransformerBridge of a checkpoint, every tensor of which was read; `see` is given the Hugging Face model before
    TransformerLens puts its own parts into it. Raises ModelError."""
    from transformer_lens.model_bridge import TransformerBridge

    with quiet():
        try:
            return TransformerBridge.boot_transformers(source, device=str(device), dtype=dtype, model_class=_Strict(see))
        except CircuitsError:
            raise
        except Exception as error:  # whatever the libraries raise for a damaged or missing checkpoint
            raise ModelError(_not_found(name, error, reachable=True)) from None


@dataclasses.dataclass(frozen=True)
class _Strict:
    """Stands in for AutoModelForCausalLM, which fills a tensor that the checkpoint lacks with random numbers and drops
    one that the model does not know."""

    see: Callable[[Any], None] | None

    def from_pretrained(self, source: str, **options: Any) -> Any:
        """The Hugging Face model; raises ModelError naming a tensor that is missing or left over."""
        from transformers import AutoModelForCausalLM

        loader: Any = AutoModelForCausalLM
        _check_formats(source)
        model, report = loader.from_pretrained(source, output_loading_info=True, use_safetensors=True, **options)
        _check_formats(source)  # of a hub name whose files have only now been fetched
        if missing := sorted(report["missing_keys"]):
            raise ModelError(f"{source}: the checkpoint lacks the tensor {missing[0]} ({len(missing)} such tensors)")
        if unknown := sorted(key for key in report["unexpected_keys"] if not _BUFFER.search(key)):
            raise ModelError(f"{source}: the tensor {unknown[0]} is not represented ({len(unknown)} such tensors)")
        if self.see is not None:
            self.see(model)
        return model


def _check_formats(source: str) -> None:
    """Raise ModelError for weights in a format of few bits. Where the configuration does not say how they were quantised, the
    libraries cast them to other numbers without a word. Files that are not there yet are passed over."""
    from safetensors import SafetensorError, safe_open

    for file in weight_files(source):
        with contextlib.suppress(OSError, SafetensorError), safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                kind = tensors.get_slice(name).get_dtype()
                if kind not in _NUMBERS and not _BUFFER.search(name):
                    raise ModelError(
                        f"{source}: the tensor {name} is stored as {kind}: quantised weights are not represented; "
                        "load the full-precision checkpoint"
                    )


def weight_files(source: str) -> list[Path]:
    """The files of a directory or hub name that the libraries read, as far as they are there."""
    from huggingface_hub import try_to_load_from_cache

    def there(name: str) -> Path | None:
        """A file of that name, where it is there."""
        if Path(source).is_dir():
            return path if (path := Path(source) / name).is_file() else None
        try:
            found = try_to_load_from_cache(source, name)
        except ValueError:  # not a name that the hub could have
            return None
        return Path(found) if isinstance(found, str) else None

    if (single := there("model.safetensors")) is not None:
        return [single]
    if (index := there("model.safetensors.index.json")) is None:
        return []
    try:
        named = set(cast(Any, read_json(index))["weight_map"].values())
    except (CircuitsError, KeyError, AttributeError, TypeError):
        return []
    return [file for name in sorted(named) if isinstance(name, str) and (file := there(name)) is not None]


def _not_found(name: str, error: Exception, *, reachable: bool) -> str:
    bundled = ", ".join(bundled_models()) or "none"
    if not reachable:
        kinds = f"neither bundled ({bundled}) nor a directory or GGUF file"
        return f"no model {name!r}: it is {kinds}, and the model hub cannot be reached"
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"cannot load {name!r}: {reason} (bundled models: {bundled}; a local directory or hub name works too)"


def hub_reachable(*, seconds: float = 3.0) -> bool:
    """Whether the model hub's host answers at all, asked once: its client would retry for half a minute."""
    from huggingface_hub import constants

    address = urllib.parse.urlsplit(constants.ENDPOINT)
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=seconds).close()
    except OSError:
        return bool(urllib.request.getproxies())
    return True


def check_device(device: str | torch.device) -> None:
    """Raise ModelError for a device that does not exist here."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:150]
        raise ModelError(f"no device {str(device)!r} here: {reason}") from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars and advice of the libraries while they load, and put their settings back."""
    from transformers.utils import logging as transformers_logging

    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    levels = {name: logging.getLogger(name).level for name in ("", "huggingface_hub")}
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)
        if bars:
            transformers_logging.enable_progress_bar()
