"""`circuits models`: what can be loaded."""

import json
import math
from pathlib import Path
from typing import Any

import typer
from safetensors import safe_open

from circuits.cli.text import print_json
from circuits.models import bundled_models
from circuits.models.loading.families import FAMILIES


def run(*, as_json: bool) -> None:
    """Print the bundled models and the families."""
    bundled = [_describe(name, directory) for name, directory in bundled_models().items()]
    families = [name.removesuffix("ForCausalLM").removesuffix("LMHeadModel") for name in FAMILIES]
    if as_json:
        print_json({"bundled": bundled, "families": list(FAMILIES), "native": True})
        return
    typer.echo("Bundled with the package:")
    for model in bundled:
        typer.echo(
            f"  {model['name']}   {model['architecture']}: {model['n_layers']} layers of {model['n_heads']} heads, "
            f"d_model {model['d_model']}, vocabulary {model['d_vocab']}, "
            f"{model['parameters'] / 1e6:.1f} M parameters, {model['bytes'] / 1e6:.1f} MB"
        )
    typer.echo("\nAny other model of these families, by hub name (gpt2, EleutherAI/pythia-70m) or local directory:")
    typer.echo(f"  {', '.join(families)}")
    typer.echo("  and models native to TransformerLens, with circuits.Model.from_bridge in Python")


def _describe(name: str, directory: Path) -> dict[str, Any]:
    """What a Hugging Face directory holds, from its configuration and the header of its weights."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    weights = sorted(directory.glob("*.safetensors"))
    layers, heads, width = (
        next((config[key] for key in keys if key in config), None)
        for keys in (
            ("num_hidden_layers", "n_layer", "num_layers"),
            ("num_attention_heads", "n_head", "num_heads"),
            ("hidden_size", "n_embd"),
        )
    )
    return {
        "name": name,
        "architecture": (config.get("architectures") or ["unknown"])[0],
        "n_layers": layers,
        "n_heads": heads,
        "d_model": width,
        "d_vocab": config.get("vocab_size"),
        "parameters": sum(_parameters(file) for file in weights),
        "bytes": sum(file.stat().st_size for file in weights),
        "directory": str(directory),
    }


def _parameters(file: Path) -> int:
    with safe_open(file, framework="pt") as tensors:
        return sum(math.prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118
