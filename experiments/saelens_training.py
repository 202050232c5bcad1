"""Dictionaries trained and saved by SAELens itself, in an environment of its own; run by `feature_dictionaries.py`.

    python saelens_training.py ROWS.safetensors FOLDER [--steps 400] [--features 1024]

ROWS holds `rows` `[place d_model]` of what stands at the place that its header names as a hook. For each architecture a folder
is written as the library writes it, and beside it what the library makes of the first rows. Nothing of `circuits` is imported.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

SHOWN = 64
"""Rows whose encoding is kept."""


def trained(name: str, rows: torch.Tensor, features: int, steps: int, hook: str) -> Any:
    """A training coder of the library, trained by its own trainer."""
    from sae_lens import (  # pyright: ignore[reportMissingImports]
        GatedTrainingSAE,
        GatedTrainingSAEConfig,
        JumpReLUTrainingSAE,
        JumpReLUTrainingSAEConfig,
        SAETrainer,
        StandardTrainingSAE,
        StandardTrainingSAEConfig,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )
    from sae_lens.config import SAETrainerConfig  # pyright: ignore[reportMissingImports]

    width = rows.shape[1]
    # Thresholds move by a step's rate in their logarithm: in few steps they stay near where they start.
    jumps = {"l0_coefficient": 20.0, "jumprelu_init_threshold": 0.6, "jumprelu_bandwidth": 0.6}
    kinds: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "standard": (StandardTrainingSAE, StandardTrainingSAEConfig, {"l1_coefficient": 3.0}),
        "topk": (TopKTrainingSAE, TopKTrainingSAEConfig, {"k": 32}),
        "jumprelu": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig, jumps),
        "gated": (GatedTrainingSAE, GatedTrainingSAEConfig, {"l1_coefficient": 3.0}),
    }
    coder_class, config_class, more = kinds[name]
    coder = coder_class(config_class(d_in=width, d_sae=features, **more))
    coder.cfg.metadata.hook_name = hook
    batch = 512

    def batches() -> Any:
        while True:
            yield rows[torch.randint(len(rows), (batch,))]

    settings = SAETrainerConfig(total_training_samples=steps * batch, train_batch_size_samples=batch, lr=1e-3, lr_end=1e-3)
    SAETrainer(cfg=settings, sae=coder, data_provider=batches()).fit()
    return coder


def main() -> None:
    """Train, save, and keep what the library computes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--kinds", default="standard,topk,jumprelu,gated")
    options = parser.parse_args()
    torch.manual_seed(0)
    with safe_open(options.rows, framework="pt") as file:
        rows, hook = file.get_tensor("rows"), (file.metadata() or {})["hook"]
    from sae_lens import SAE, __version__  # pyright: ignore[reportMissingImports]

    for name in options.kinds.split(","):
        coder = trained(name, rows, options.features, options.steps, hook)
        coder.save_inference_model(options.folder / name)
        read = SAE.load_from_disk(options.folder / name)
        with torch.no_grad():
            z = read.encode(rows[:SHOWN])
            save_file(
                {"z": z.contiguous(), "given": read.decode(z).contiguous()}, options.folder / f"{name}.computed.safetensors"
            )
    transcoders(options.folder, rows, options.features)
    print(json.dumps({"sae_lens": __version__, "kinds": options.kinds.split(",")}))


def transcoders(folder: Path, rows: torch.Tensor, features: int) -> None:
    """Transcoders as the library saves them; it trains none, so that their weights are drawn."""
    from sae_lens.saes import transcoder  # pyright: ignore[reportMissingImports]

    width = rows.shape[1]
    for name, made, config in (
        ("transcoder", transcoder.Transcoder, transcoder.TranscoderConfig),
        ("skip_transcoder", transcoder.SkipTranscoder, transcoder.SkipTranscoderConfig),
        ("jumprelu_skip_transcoder", transcoder.JumpReLUSkipTranscoder, transcoder.JumpReLUSkipTranscoderConfig),
    ):
        coder = made(config(d_in=width, d_sae=features, d_out=width, apply_b_dec_to_input=False))
        with torch.no_grad():
            for key, tensor in coder.named_parameters():
                drawn = 0.05 * torch.randn_like(tensor)
                tensor.copy_(drawn.abs() if key == "threshold" else drawn)
        coder.cfg.metadata.hook_name, coder.cfg.metadata.hook_name_out = "blocks.1.hook_mlp_in", "blocks.1.hook_mlp_out"
        coder.save_model(folder / name)
        with torch.no_grad():
            z = coder.encode(rows[:SHOWN])
            given = coder(rows[:SHOWN])
            save_file({"z": z.contiguous(), "given": given.contiguous()}, folder / f"{name}.computed.safetensors")


if __name__ == "__main__":
    main()
