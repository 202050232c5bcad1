"""`circuits models`: what can be loaded, and GGUF files written as ordinary directories."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.options import AsJson
from circuits.cli.report import Report
from circuits.cli.settings import Setting
from circuits.cli.text import one_line

Convert = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        "--convert",
        metavar="FILE DIR",
        help="Write a GGUF file as an ordinary Hugging Face directory: dequantised, float32, with its tokenizer.",
        show_default=False,
    ),
]


@app.command()
def models(convert: Convert = None, as_json: AsJson = False) -> None:
    """List the models that can be loaded, or convert one.

    \b
    Examples:
      circuits models
      circuits models --json
      circuits models --convert model.Q4_K_M.gguf model
    """
    report = listed() if convert is None else converted(*convert)
    Setting(job="models", as_json=as_json).answer(report)


def converted(file: Path, directory: Path) -> Report:
    """Write a GGUF file as a directory, and say what it is."""
    from circuits.models.loading.convert import convert_gguf

    header = convert_gguf(file, directory)
    one = _describe(directory.name, directory)
    return Report(
        heading=f"{one_line(directory)}: {one['architecture']}, {one['parameters'] / 1e6:.1f} M parameters in float32, "
        f"{one['bytes'] / 1e6:.1f} MB (stored in the GGUF file as {header.stored})",
        data={"converted": {**one, "file": str(file), "stored": header.stored}},
        next=[(Setting(job="models", model=str(directory)).command("heads"), "score its heads")],
    )


def listed() -> Report:
    """What can be loaded."""
    from circuits.models.loading.families import FAMILIES

    bundled = [_describe(name, directory) for name, directory in circuits.bundled_models().items()]
    families = [name.removesuffix("ForCausalLM").removesuffix("LMHeadModel") for name in FAMILIES]
    lines = [
        f"  {one['name']}   {one['architecture']}: {one['n_layers']} layers of {one['n_heads']} heads, "
        f"d_model {one['d_model']}, vocabulary {one['d_vocab']}, {one['parameters'] / 1e6:.1f} M parameters, "
        f"{one['bytes'] / 1e6:.1f} MB"
        for one in bundled
    ]
    return Report(
        heading="\n".join(["Bundled with the package:", *lines]),
        parts=[
            "Any other model of these families, by hub name (gpt2, EleutherAI/pythia-70m), local directory or GGUF file:\n"
            f"  {', '.join(families)}\n  and state dicts of TransformerLens's own models, with their configuration beside them"
        ],
        data={"bundled": bundled, "families": list(FAMILIES), "native": True},
    )


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
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        return sum(math.prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118
