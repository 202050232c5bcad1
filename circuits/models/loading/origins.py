"""What `load_model` is given, as something that a TransformerBridge can be built of."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from circuits.errors import CircuitsError, ModelError
from circuits.models.loading.gguf_model import checked_header, gguf_config, gguf_file, gguf_model
from circuits.models.loading.gguf_tokenizer import gguf_tokenizer
from circuits.models.loading.sources import boot, check_configuration, quiet, resolve

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


def origin_of(name: str, device: str | torch.device, dtype: torch.dtype) -> Origin:
    """What a bundled name, a path or a hub name stands for. Raises ModelError for what is no model."""
    source = resolve(name)
    called = name_of(name, source)
    if (file := gguf_file(Path(source))) is not None:
        return _of_gguf(file, called, device, dtype)
    check_configuration(source, name)
    return Origin(called, lambda see: boot(source, name, device, dtype, see=see))


def name_of(name: str, source: str) -> str:
    """How a model is called in titles: a path by its last part, a bundled or hub name as it is."""
    path = Path(source)
    return path.resolve().name if path.exists() and path.name != name else name


def _of_gguf(file: Path, called: str, device: str | torch.device, dtype: torch.dtype) -> Origin:
    header = checked_header(file)
    with quiet():
        config = gguf_config(header)
        tokenizer = gguf_tokenizer(header, config.vocab_size)

    def build(see: See | None) -> Any:
        with quiet():
            model = gguf_model(header, config, dtype).to(device)
            if see is not None:
                see(model)
            return wrapped(model, tokenizer, called)

    return Origin(called, build, tokenizer, header.stored)


def wrapped(model: Any, tokenizer: Any, name: str) -> Any:
    """A TransformerBridge around a Hugging Face model, whose parts it replaces. Raises ModelError."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    if tokenizer is not None and tokenizer.bos_token is not None:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.add_bos_token = True  # as TransformerLens has it: it would look for another copy, on the hub
        tokenizer.init_kwargs.update(add_bos_token=True, name_or_path=tokenizer.name_or_path)
    config, architecture = copy.deepcopy(model.config), type(model).__name__
    try:
        return build_bridge_from_module(model, architecture, hf_config=config, tokenizer=tokenizer, model_name=name)
    except CircuitsError:
        raise
    except Exception as error:  # whatever the library raises for a model that it does not know
        raise ModelError(f"{name}: TransformerLens cannot wrap it: {' '.join(str(error).split())[:200]}") from None
