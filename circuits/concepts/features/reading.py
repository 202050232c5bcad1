"""Dictionaries from files: those saved here, and the folders of sparsify and SAELens (safetensors alone).

Nothing of these libraries is imported, and nothing is unpickled: a folder holds `cfg.json` and one file of tensors.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuits.concepts.features.dictionary import FORMAT, MODULES, Dictionary, load_dictionary
from circuits.concepts.features.places import place_of_hook, places_of_module
from circuits.errors import CircuitsError, FileFormatError, shown
from circuits.files.limits import check_header
from circuits.files.reading import read_json, unreadable
from circuits.files.tensors import format_of_tensors
from circuits.models.weights import all_finite

CONFIG, SPARSIFY, SAELENS = "cfg.json", "sae.safetensors", "sae_weights.safetensors"
_LARGEST = 2**20
_READ = ("W_enc", "W_dec", "encoder.weight", "encoder.bias", "b_enc", "b_dec")
"""Tensors that are weights and biases."""
_KINDS = {
    "standard": "relu",
    "topk": "topk",
    "jumprelu": "jumprelu",
    "gated": "jumprelu",
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
"""Architectures of SAELens, and what their features are here."""
_FOLDS = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
"""What TransformerLens may do to weights: streams and norms are others then than the model's own."""


def read_dictionary(path: str | Path) -> Dictionary:
    """The dictionary of a file, or of a folder that sparsify (`cfg.json`, `sae.safetensors`) or SAELens (`cfg.json`,
    `sae_weights.safetensors`) has saved: sparse autoencoders (ReLU, top-k, JumpReLU, gated) and transcoders, with a skip
    connection or without.

    Where it reads and writes is told by SAELens' hook names and by sparsify's folder name (`layers.2.mlp`). Raises
    FileFormatError, with the file's name, for what is missing, damaged, or of a kind that is not represented: groups,
    normalised activations, dictionaries of a model whose norms were folded.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    file = path if path.is_file() else next((folder / name for name in (SPARSIFY, SAELENS) if (folder / name).is_file()), path)
    if not file.is_file():
        raise FileFormatError(
            f"{path}: {f'holds no {SPARSIFY} or {SAELENS}' if path.is_dir() else 'No such file or directory'}"
        )
    if format_of_tensors(file) == FORMAT:
        return load_dictionary(file)
    if not (folder / CONFIG).is_file():
        raise FileFormatError(f"{file}: no dictionary that was saved here, and no {CONFIG} beside it that says what it is")
    config, tensors = read_json(folder / CONFIG, max_bytes=_LARGEST), _tensors(file)
    if not isinstance(config, dict):
        raise FileFormatError(f"{folder / CONFIG}: expected an object")
    try:
        read = _of_sparsify if "encoder.weight" in tensors else _of_saelens
        return read(folder.resolve(), config, tensors)
    except (CircuitsError, KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        words = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise FileFormatError(f"{folder}: not a dictionary that can be read: {' '.join(words.split())[:300]}") from None


def _tensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        check_header(file)
        tensors = load_file(file)
    except OSError as error:
        raise unreadable(file, error, why="no file of tensors") from None
    except SafetensorError as error:
        raise FileFormatError(f"{file}: cannot be read: {' '.join(str(error).split())[:200]}") from None
    whole = [name for name in _READ if name in tensors and not tensors[name].is_floating_point()]
    if whole:
        stored = str(tensors[whole[0]].dtype).removeprefix("torch.")
        raise FileFormatError(f"{file}: {whole[0]} is stored as {stored}: quantised weights are not represented")
    return tensors


def _of_sparsify(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Dictionary:
    """z = topk(relu(W_enc (r - b_dec) + b_enc)); a transcoder takes no bias off."""
    _require(config.get("activation", "topk") == "topk", "activation", config.get("activation"))
    transcoder, skips = bool(config.get("transcode", False)), bool(config.get("skip_connection", False))
    _width(config, tensors["encoder.weight"].shape[1])
    # Several seeds of one module are folders inside its own.
    name = folder.parent.name if folder.name.startswith("seed") else folder.name
    reads, site = places_of_module(name)
    if transcoder and site and not reads:
        raise FileFormatError(f"a transcoder of {name}, whose input is no place of a dictionary")
    return _folded(
        W_enc=tensors["encoder.weight"],
        b_enc=tensors["encoder.bias"],
        W_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        W_skip=tensors["W_skip"].T if skips else None,
        centred=not transcoder,
        name=name,
        site=site,
        reads=reads if transcoder else "",
        kind="topk",
        k=int(config["k"]),
        made_by=MODULES,
    )


def _of_saelens(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Dictionary:
    """z = act((r - b_dec) W_enc + b_enc), the bias taken off or not; all of it times the decoder's length, or not."""
    architecture = config.get("architecture", "standard")
    _require(architecture in _KINDS, "architecture", architecture)
    _plain(config)
    kind, transcoder = _KINDS[architecture], "transcoder" in architecture
    kind = "topk" if _activation(config) == "topk" and architecture == "standard" else kind
    k = config.get("k") or (config.get("activation_fn_kwargs") or {}).get("k")
    W_enc, W_dec = tensors["W_enc"], tensors["W_dec"]
    _width(config, W_enc.shape[0])
    b_enc, threshold = _encoder(architecture, tensors)
    scale = torch.ones(W_dec.shape[0])
    if architecture == "topk" and config.get("rescale_acts_by_decoder_norm", False):
        scale = W_dec.float().norm(dim=1).clamp(min=1e-8)
    growth = tensors["r_mag"].exp() if architecture == "gated" else torch.ones(())
    reads, site = _saelens_places(config)
    return _folded(
        W_enc=W_enc.T * (growth * scale)[..., None],
        b_enc=b_enc * scale,
        W_dec=W_dec / scale[..., None],
        b_dec=tensors["b_dec"],
        W_skip=tensors["W_skip"].T if "skip" in architecture else None,
        centred=not transcoder and bool(config.get("apply_b_dec_to_input", True)),
        name=folder.name,
        site=site,
        reads=reads if transcoder else "",
        kind=kind,
        k=int(k or 0) if kind == "topk" else 0,
        threshold=threshold,
        made_by="SAELens",
        hooks=" ".join(str(_about(config).get(name) or "") for name in ("hook_name", "hook_name_out")).strip(),
    )


def _encoder(architecture: str, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """The encoder's bias, and up to which a feature is 0, where that is not 0.

    A gated feature is relu(exp(r_mag) W r + b_mag) where W r + b_gate > 0, so where its own pre-activation is above
    b_mag - exp(r_mag) b_gate: a JumpReLU (Rajamanoharan et al. 2024).
    """
    if architecture == "gated":
        return tensors["b_mag"], tensors["b_mag"] - tensors["r_mag"].exp() * tensors["b_gate"]
    return tensors["b_enc"], tensors["threshold"] if "jumprelu" in architecture else None


def _plain(config: dict[str, Any]) -> None:
    """Raise FileFormatError for what is done to activations besides."""
    _require(config.get("normalize_activations", "none") in ("none", None), "normalize_activations", config)
    _require(config.get("reshape_activations", "none") in ("none", "hook_z", None), "reshape_activations", config)
    _require(_activation(config) in ("relu", "topk"), "activation_fn", _activation(config))
    _require(not config.get("finetuning_scaling_factor"), "finetuning_scaling_factor", config)
    about = _about(config)
    _require(about.get("hook_head_index") is None, "hook_head_index", about)
    changed = about.get("model_from_pretrained_kwargs")
    folds = [name for name in _FOLDS if isinstance(changed, dict) and changed.get(name)]
    if folds:
        raise FileFormatError(f"it is of a model changed by {folds[0]}, whose activations are not those of the model as it is")


def _saelens_places(config: dict[str, Any]) -> tuple[str, str]:
    """Where it reads and writes: an autoencoder at its one hook, a transcoder also at that of its output."""
    about = _about(config)
    hook, out = str(about.get("hook_name") or ""), about.get("hook_name_out")
    reads = place_of_hook(hook)
    if hook and not reads:
        raise FileFormatError(f"its hook {shown(hook)} is no place of a dictionary")
    if "transcoder" not in str(config.get("architecture")):
        return "", reads
    site = place_of_hook(str(out or ""))
    if (out and not site) or not reads:
        raise FileFormatError(f"a transcoder from {shown(hook)} to {shown(out)}, which are no places of a dictionary")
    return reads, site


def _about(config: dict[str, Any]) -> dict[str, Any]:
    metadata = config.get("metadata")
    return metadata if isinstance(metadata, dict) else config


def _activation(config: dict[str, Any]) -> str:
    return str(config.get("activation_fn") or config.get("activation_fn_str") or "relu")


def _width(config: dict[str, Any], width: int) -> None:
    if config.get("d_in", width) != width:
        raise FileFormatError(f"d_in is {shown(config['d_in'])}, its weights are {width} wide")


def _folded(
    *,
    W_enc: Tensor,
    b_enc: Tensor,
    W_dec: Tensor,
    b_dec: Tensor,
    centred: bool,
    threshold: Tensor | None = None,
    W_skip: Tensor | None = None,
    **about: Any,
) -> Dictionary:
    """With the decoder's bias, where it is taken off before encoding, in the encoder's."""
    b = b_enc.double() - (W_enc.double() @ b_dec.double() if centred else 0)
    tensors: dict[str, Any] = {"W_enc": W_enc, "b_enc": b, "W_dec": W_dec, "b_dec": b_dec}
    tensors["threshold"] = torch.zeros_like(b) if threshold is None else threshold
    tensors = {name: tensor.float().contiguous() for name, tensor in tensors.items()}
    tensors["W_skip"] = None if W_skip is None else W_skip.float().contiguous()
    broken = [name for name, tensor in tensors.items() if tensor is not None and not all_finite(tensor)]
    if broken:
        raise FileFormatError(f"{broken[0]} holds NaN or infinity")
    return Dictionary(**about, **tensors)


def _require(there: bool, name: str, value: Any) -> None:
    if not there:
        raise FileFormatError(
            f"{name} is {shown(value.get(name) if isinstance(value, dict) else value)}, which is not represented"
        )
