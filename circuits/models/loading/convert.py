"""A GGUF file as an ordinary Hugging Face directory."""

import secrets
import shutil
from pathlib import Path

import torch

from circuits.errors import ModelError
from circuits.models.loading.gguf_header import GGUFHeader
from circuits.models.loading.gguf_model import checked_header, gguf_config, gguf_model
from circuits.models.loading.gguf_tokenizer import gguf_tokenizer
from circuits.models.loading.sources import quiet


def convert_gguf(file: Path, directory: Path) -> GGUFHeader:
    """Write configuration, weights (dequantised, float32) and tokenizer of a GGUF file where any program reads them.

    The directory appears whole or not at all. Returns the file's header. Raises ModelError for a file that is no
    language model of a represented family, and for a directory that is not empty or cannot be written.
    """
    if not file.is_file():
        raise ModelError(f"no file {str(file)!r}: expected a GGUF file")
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise ModelError(f"{directory} is there already and is not empty: name another directory")
    header = checked_header(file)
    directory = directory.resolve()  # "." has no name
    staging = directory.parent / f".{directory.name}.{secrets.token_hex(4)}.tmp"
    try:
        with quiet():
            config = gguf_config(header)
            tokenizer = gguf_tokenizer(header, config.vocab_size)
            model = gguf_model(header, config, torch.float32)
            staging.mkdir(parents=True)
            model.save_pretrained(staging)
            if tokenizer is not None:
                tokenizer.save_pretrained(staging)
            for weights in staging.glob("*.safetensors"):  # written for their owner alone
                weights.chmod((staging / "config.json").stat().st_mode)
        if directory.exists():  # it stays, as somebody may be in it; without its configuration it is no model yet
            for part in sorted(staging.iterdir(), key=lambda part: part.name == "config.json"):
                part.rename(directory / part.name)
        else:
            staging.rename(directory)
    except OSError as error:
        raise ModelError(f"{directory} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return header
