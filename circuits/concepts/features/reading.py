"""Dictionaries from files: those saved here, and the folders of sparsify and SAELens (safetensors alone)."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuits.concepts.features.dictionary import FORMAT, Dictionary, load_dictionary
from circuits.errors import CircuitsError, FileFormatError, shown
from circuits.files.limits import check_header
from circuits.files.reading import read_json, unreadable
from circuits.files.tensors import format_of_tensors

CONFIG, SPARSIFY, SAELENS = "cfg.json", "sae.safetensors", "sae_weights.safetensors"
_LARGEST = 2**20
_LAYER = re.compile(r"(?:layers|blocks|h)\.(\d{1,4})\.(?:mlp$|hook_mlp_out$)", re.ASCII)


def read_dictionary(path: str | Path) -> Dictionary:
    """The dictionary of a file, or of a folder that sparsify (`cfg.json`, `sae.safetensors`) or SAELens (`cfg.json`,
    `sae_weights.safetensors`) has saved.

    Which MLP's output it is of is told by SAELens' hook name and by sparsify's folder name (`layers.2.mlp`). Raises
    FileFormatError, with the file's name, for what is missing, damaged, or of a kind that is not represented: transcoders, skip
    connections, gates, groups, normalised activations.
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
        return read(folder, config, tensors)
    except (CircuitsError, KeyError, RuntimeError, TypeError, ValueError) as error:
        words = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise FileFormatError(f"{folder}: not a dictionary that can be read: {' '.join(words.split())[:300]}") from None


def _tensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        check_header(file)
        return load_file(file)
    except OSError as error:
        raise unreadable(file, error, why="no file of tensors") from None
    except SafetensorError as error:
        raise FileFormatError(f"{file}: cannot be read: {' '.join(str(error).split())[:200]}") from None


def _of_sparsify(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Dictionary:
    """z = topk(relu(W_enc (y - b_dec) + b_enc))."""
    for name, wanted in (("activation", ("topk",)), ("transcode", (False,)), ("skip_connection", (False,))):
        _require(config.get(name, wanted[0]) in wanted, name, config.get(name))
    return _folded(
        W_enc=tensors["encoder.weight"],
        b_enc=tensors["encoder.bias"],
        W_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        centred=True,
        name=folder.name,
        site=_site(folder.name),
        kind="topk",
        k=int(config["k"]),
        made_by="sparsify",
    )


def _of_saelens(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Dictionary:
    """z = act((y - b_dec) W_enc + b_enc), the bias taken off or not; all of it times the decoder's length, or not."""
    kind = config.get("architecture", "standard")
    _require(kind in ("standard", "topk", "jumprelu"), "architecture", kind)
    _require(config.get("normalize_activations", "none") in ("none", None), "normalize_activations", config)
    _require(config.get("reshape_activations", "none") in ("none", None), "reshape_activations", config)
    activation = config.get("activation_fn") or config.get("activation_fn_str") or "relu"
    _require(activation in ("relu", "topk"), "activation_fn", activation)
    kind = "topk" if kind == "topk" or activation == "topk" else "relu" if kind == "standard" else kind
    k = config.get("k") or (config.get("activation_fn_kwargs") or {}).get("k")
    W_dec, scale = tensors["W_dec"], torch.ones(())
    if config.get("rescale_acts_by_decoder_norm", False):
        scale = W_dec.float().norm(dim=1).clamp(min=1e-8)
    metadata = config.get("metadata") if isinstance(config.get("metadata"), dict) else config
    return _folded(
        W_enc=tensors["W_enc"].T * scale[..., None],
        b_enc=tensors["b_enc"] * scale,
        W_dec=W_dec / scale[..., None],
        b_dec=tensors["b_dec"],
        centred=bool(config.get("apply_b_dec_to_input", True)),
        name=folder.name,
        site=_site(str((metadata or {}).get("hook_name", ""))),
        kind=kind,
        k=int(k or 0) if kind == "topk" else 0,
        threshold=tensors["threshold"] if kind == "jumprelu" else None,
        made_by="SAELens",
    )


def _folded(
    *, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor, centred: bool, threshold: Tensor | None = None, **about: Any
) -> Dictionary:
    """With the decoder's bias, where it is taken off before encoding, in the encoder's."""
    b = b_enc.double() - (W_enc.double() @ b_dec.double() if centred else 0)
    tensors: dict[str, Any] = {"W_enc": W_enc, "b_enc": b, "W_dec": W_dec, "b_dec": b_dec}
    tensors["threshold"] = torch.zeros_like(b) if threshold is None else threshold
    return Dictionary(**about, **{name: tensor.float() for name, tensor in tensors.items()})


def _site(name: str) -> str:
    """The MLP that a hook's name, or a module's, means; empty for others."""
    found = _LAYER.search(name)
    return f"m{found[1]}" if found else ""


def _require(there: bool, name: str, value: Any) -> None:
    if not there:
        raise FileFormatError(
            f"{name} is {shown(value.get(name) if isinstance(value, dict) else value)}, which is not represented"
        )
