"""State dicts of TransformerLens with their configuration: its bridge's names and HookedTransformer's, read without code."""

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from circuits.errors import ModelError, NonFiniteError
from circuits.models import load_model
from tests.models.checkpoints import byte_tokenizer
from tests.models.native import native_bridge, random_native

IDS = torch.tensor([[1, 2, 3, 0, 2], [3, 3, 1, 2, 0]])
State = dict[str, Tensor]


def state_of(bridge: Any) -> State:
    """A bridge's state dict, each tensor by itself."""
    return {name: tensor.detach().clone() for name, tensor in bridge.state_dict().items()}


def config_of(bridge: Any) -> dict[str, Any]:
    """A bridge's configuration as JSON holds it."""
    return json.loads(json.dumps(vars(bridge.cfg), default=str))


def old_state(bridge: Any) -> State:
    """The same weights by the names and shapes of HookedTransformer, with its buffers."""
    cfg, found = bridge.cfg, {}
    heads, keys = cfg.n_heads, cfg.n_key_value_heads or cfg.n_heads
    ends = {"in.weight": "W_in", "in.bias": "b_in", "out.weight": "W_out", "out.bias": "b_out", "gate.weight": "W_gate"}
    for name, tensor in state_of(bridge).items():
        stem, last = name.rsplit(".", 1)
        if stem in ("embed", "pos_embed"):
            found[f"{stem}.{'W_E' if stem == 'embed' else 'W_pos'}"] = tensor
        elif stem == "unembed":
            found[f"unembed.{'W_U' if last == 'weight' else 'b_U'}"] = tensor.T.contiguous() if last == "weight" else tensor
        elif ".attn." in name:
            layer, slot = stem.rsplit(".", 1)
            count, mark = (heads, "") if slot in "qo" else (keys, "_" if keys != heads else "")
            if slot == "o":
                made = tensor.T.reshape(count, cfg.d_head, cfg.d_model) if last == "weight" else tensor
            elif last == "weight":
                made = tensor.reshape(count, cfg.d_head, cfg.d_model).transpose(1, 2)
            else:
                made = tensor.reshape(count, cfg.d_head)
            found[f"{layer}.{mark}{'W' if last == 'weight' else 'b'}_{slot.upper()}"] = made.contiguous()
        elif ".mlp." in name:
            layer, slot = stem.rsplit(".", 1)
            found[f"{layer}.{ends[f'{slot}.{last}']}"] = tensor.T.contiguous() if last == "weight" else tensor
        else:
            found[f"{stem}.{'w' if last == 'weight' else 'b'}"] = tensor
    for layer in range(cfg.n_layers):
        found[f"blocks.{layer}.attn.mask"] = torch.ones(cfg.n_ctx, cfg.n_ctx, dtype=torch.bool).tril()
        found[f"blocks.{layer}.attn.IGNORE"] = torch.tensor(-torch.inf)
    return found


def as_directory(state: State, config: dict[str, Any], folder: Path) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    save_file(state, folder / "model.safetensors")
    return folder


def as_file_with_both(state: State, config: dict[str, Any], folder: Path) -> Path:
    torch.save({"model": state, "config": config, "epoch": 3}, folder / "run.pt")
    return folder / "run.pt"


def as_file_beside(state: State, config: dict[str, Any], folder: Path) -> Path:
    (folder / "final.json").write_text(json.dumps(config))
    torch.save(state, folder / "final.pth")
    return folder / "final.pth"


def as_old_repository(state: State, config: dict[str, Any], folder: Path) -> Path:
    (folder / "cfg.json").write_text(json.dumps({**config, "learning_rate": 1e-3}))
    torch.save(state, folder / "model_final.pth")
    return folder


LAYOUTS = [as_directory, as_file_with_both, as_file_beside, as_old_repository]
Layout = Callable[[State, dict[str, Any], Path], Path]


def logits(bridge: Any) -> Tensor:
    """What the model itself says."""
    bridge.original_model.eval()
    with torch.no_grad():
        return bridge(IDS, prepend_bos=False)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(6))
def test_a_native_checkpoint_loads_with_its_configuration(seed: int, layout: Layout, tmp_path: Path) -> None:
    _, bridge = random_native(random.Random(seed))
    path = layout(state_of(bridge), config_of(bridge), tmp_path)
    model = load_model(path, dtype=torch.float64)
    assert model.name == path.name and model.tokenizer is None
    assert float((model.run(IDS).logits - logits(bridge)).abs().max()) <= 1e-5
    assert torch.equal(model.bridge(IDS, prepend_bos=False), logits(bridge))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalization_type": "LNPre", "act_fn": "gelu_new"},
        {"n_key_value_heads": 1, "normalization_type": "RMS"},
        {"attn_only": True, "normalization_type": None, "d_vocab_out": 5},
        {"gated_mlp": True, "act_fn": "silu", "normalization_type": "RMSPre"},
    ],
)
def test_a_checkpoint_of_hooked_transformer_loads(options: dict[str, Any], layout: Layout, tmp_path: Path) -> None:
    bridge = native_bridge(3, torch.float32, **options)
    config = {key: value for key, value in config_of(bridge).items() if key != "architecture"}
    model = load_model(layout(old_state(bridge), config, tmp_path))
    assert float((model.run(IDS).logits - logits(bridge)).abs().max()) <= 1e-5


def test_the_old_word_for_the_norm_is_known(tmp_path: Path) -> None:
    bridge = native_bridge(3, torch.float32, normalization_type="LNPre")
    config = config_of(bridge)
    config["normalization"] = config.pop("normalization_type")
    model = load_model(as_directory(old_state(bridge), config, tmp_path))
    assert float((model.run(IDS).logits - logits(bridge)).abs().max()) <= 1e-5


def test_a_tokenizer_beside_it_is_taken(tmp_path: Path) -> None:
    bridge = native_bridge(3, torch.float32, d_vocab=300)
    byte_tokenizer().save_pretrained(tmp_path)
    model = load_model(as_directory(state_of(bridge), config_of(bridge), tmp_path))
    assert model.tokenizer("ab").input_ids == byte_tokenizer()("ab").input_ids
    other = load_model(tmp_path, tokenizer=byte_tokenizer())
    assert other.tokenizer("ab").input_ids == byte_tokenizer()("ab").input_ids


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def refusal(path: Path) -> str:
    """The one line with which a checkpoint is refused."""
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    bridge, sprung = native_bridge(3, torch.float32), tmp_path / "sprung"
    torch.save({"state_dict": state_of(bridge), "cfg": config_of(bridge), "more": Trap(sprung)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Trap(sprung)))
    for name in ("a.pt", "b.pt"):
        assert "save tensors and plain values alone" in refusal(tmp_path / name)
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_heads": 4, "d_head": 2}, ""),
        ({"n_layers": 3}, "n_layers"),
        ({"d_model": 4096}, "d_model"),
        ({"n_ctx": 0}, "n_ctx=0"),
        ({"n_ctx": "many"}, "n_ctx='many'"),
        ({"use_attn_scale": False}, "use_attn_scale=False"),
        ({"parallel_attn_mlp": True}, "parallel_attn_mlp=True"),
        ({"positional_embedding_type": "shortformer"}, "positional_embedding_type='shortformer'"),
        ({"positional_embedding_type": "rotary"}, "rotary positions of other than adjacent pairs"),
        ({"normalization_type": "BN"}, ""),
        ({"act_fn": "unheard-of"}, "unheard-of"),
    ],
)
def test_a_configuration_that_does_not_fit_is_one_line(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    bridge = native_bridge(3, torch.float32)
    path = as_directory(old_state(bridge), {**config_of(bridge), **change}, tmp_path)
    assert words in refusal(path)


def test_tensors_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    bridge = native_bridge(3, torch.float32)
    state, config = old_state(bridge), config_of(bridge)
    lacking = {name: tensor for name, tensor in state.items() if name != "blocks.1.attn.W_K"}
    assert "blocks.1.attn.k.weight" in refusal(as_directory(lacking, config, tmp_path))
    assert "blocks.0.attn.probe.weight" in refusal(
        as_directory({**state, "blocks.0.attn.probe.w": torch.ones(2)}, config, tmp_path)
    )
    (tmp_path / "another.pt").write_bytes(b"")
    assert "another.pt, model.safetensors" in refusal(tmp_path)
    assert "config.json beside it" in refusal(as_file_alone(state, tmp_path / "alone"))


def as_file_alone(state: State, folder: Path) -> Path:
    """A state dict without a configuration."""
    folder.mkdir()
    torch.save(state, folder / "model.pt")
    return folder / "model.pt"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damaged_files_end_in_a_model_or_in_one_line(layout: Layout, tmp_path: Path) -> None:
    bridge, rng, loaded = native_bridge(3, torch.float32), random.Random(5), 0
    path = layout(old_state(bridge), config_of(bridge), tmp_path)
    file = path if path.is_file() else next(file for file in path.iterdir() if file.suffix != ".json")
    whole = file.read_bytes()
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 2, 8])):
            place = rng.randrange(min(len(data), 3000)) if rng.random() < 0.7 else rng.randrange(len(data))
            data[place] = rng.randrange(256)
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        file.write_bytes(bytes(data))
        try:
            load_model(path)
            loaded += 1
        except (ModelError, NonFiniteError) as error:
            assert "\n" not in str(error)
    assert loaded < 32
