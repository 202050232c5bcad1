"""What is loaded is checked: a changed weight or switch is caught, a NaN named, and one copy of the weights is held."""

import copy
import dataclasses
import gc
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from circuits.errors import ModelError, NonFiniteError
from circuits.models import Model, load_model
from circuits.models.loading.load import verify
from circuits.models.weights import Weights
from tests.models import checkpoints
from tests.models.native import native_bridge, random_native

PLACES = {
    "tok_embed.weight": "W_E",
    "pos.weight": "W_pos",
    "head.weight": "W_U",
    "ln_out.": "final_norm.",
    "layers.": "blocks.",
    ".attn.": ".attention.",
    ".ln1.": ".attention_norm.",
    ".ln2.": ".mlp_norm.",
    "mlp.fc_in.weight": "mlp.W_in",
    "mlp.fc_in.bias": "mlp.b_in",
    "mlp.fc_out.weight": "mlp.W_out",
    "mlp.fc_out.bias": "mlp.b_out",
    "mlp.in.weight": "mlp.W_in",
    "mlp.out.weight": "mlp.W_out",
    "mlp.gate.weight": "mlp.W_gate",
    **{f"attention.{slot}.weight": f"attention.W_{slot.upper()}" for slot in "qkvo"},
    **{f"attention.{slot}.bias": f"attention.b_{slot.upper()}" for slot in "qkvo"},
}
"""Names in native models → names in the record."""


def place_of(parameter: str) -> str:
    """The record's name of a native model's parameter."""
    name = parameter.replace("_original_component.", "")
    for theirs, ours in PLACES.items():
        name = name.replace(theirs, ours)
    return name


@pytest.mark.parametrize("seed", range(50))
def test_one_flipped_sign_is_caught(seed: int) -> None:
    rng = random.Random(seed)
    _, bridge = random_native(rng)
    weights = copy.deepcopy(Model.from_bridge(bridge).weights)
    verify(weights, bridge)
    name, tensor = rng.choice([pair for pair in weights.tensors() if "inverse_frequencies" not in pair[0]])
    place = tuple(rng.randrange(size) for size in tensor.shape)
    assert float(tensor[place]) != 0
    tensor[place] = -tensor[place]
    with pytest.raises(ModelError, match="differs") as caught:
        verify(weights, bridge)
    assert name in str(caught.value)


def attention_with(weights: Weights, **change: Any) -> Weights:
    """The record with one switch of layer 0's attention changed."""
    first, *rest = weights.blocks
    attention = dataclasses.replace(first.attention, **change)
    return dataclasses.replace(weights, blocks=(dataclasses.replace(first, attention=attention), *rest))


def norm_with_other_eps(weights: Weights) -> Weights:
    """The record with a larger epsilon in the final norm."""
    assert weights.final_norm is not None
    return dataclasses.replace(weights, final_norm=dataclasses.replace(weights.final_norm, eps=1e-2))


def mlp_with_other_activation(weights: Weights) -> Weights:
    """The record with the erf GELU for the tanh one."""
    first, *rest = weights.blocks
    assert first.mlp is not None
    mlp = dataclasses.replace(first.mlp, activation="gelu")
    return dataclasses.replace(weights, blocks=(dataclasses.replace(first, mlp=mlp), *rest))


SWITCHES: dict[str, Callable[[Weights], Weights]] = {
    "scale": lambda w: attention_with(w, scale=w.blocks[0].attention.scale * 1.01),
    "soft cap": lambda w: attention_with(w, soft_cap=1.0),
    "window": lambda w: attention_with(w, window=3),
    "no query bias": lambda w: attention_with(w, b_Q=None),
    "parallel": lambda w: dataclasses.replace(w, parallel=True),
    "bidirectional": lambda w: dataclasses.replace(w, causal=False),
    "embedding scale": lambda w: dataclasses.replace(w, embedding_scale=1.01),
    "logit cap": lambda w: dataclasses.replace(w, logit_soft_cap=3.0),
    "no final norm": lambda w: dataclasses.replace(w, final_norm=None),
    "epsilon": norm_with_other_eps,
    "activation": mlp_with_other_activation,
    "no last layer": lambda w: dataclasses.replace(w, blocks=w.blocks[:-1]),
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_changed_switch_is_caught(switch: str) -> None:
    bridge = native_bridge(act_fn="gelu_new", seed=4)
    with pytest.raises(ModelError):
        verify(SWITCHES[switch](Model.from_bridge(bridge).weights), bridge)


def test_a_tensor_that_no_part_claims_stops_loading_by_name() -> None:
    bridge = native_bridge()
    bridge.original_model.register_parameter("adapter", torch.nn.Parameter(torch.ones(3)))
    with pytest.raises(ModelError, match="adapter is not represented"):
        Model.from_bridge(bridge)


@pytest.mark.parametrize("seed", range(30))
def test_a_number_that_is_not_finite_is_named(seed: int) -> None:
    rng = random.Random(5000 + seed)
    _, bridge = random_native(rng)
    name, parameter = rng.choice(list(bridge.original_model.named_parameters()))
    with torch.no_grad():
        parameter[tuple(rng.randrange(size) for size in parameter.shape)] = rng.choice([float("nan"), float("inf")])
    with pytest.raises(NonFiniteError) as caught:
        Model.from_bridge(bridge)
    assert f"the weight {place_of(name)} " in str(caught.value), name


def test_a_wrong_gelu_is_caught_in_float32_too() -> None:
    bridge = native_bridge(act_fn="gelu_new", seed=4, dtype=torch.float32, d_mlp=64)
    with pytest.raises(ModelError, match="not represented"):
        verify(mlp_with_other_activation(Model.from_bridge(bridge).weights), bridge)


def test_logits_far_from_zero_do_not_stop_bfloat16(tmp_path: Path) -> None:
    """GPT-2's logits stand near -100, where bfloat16 rounds to halves."""
    built = checkpoints.build("GPT2", {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 32, "vocab_size": 300})
    direction = torch.nn.functional.normalize(torch.randn(64, generator=torch.Generator().manual_seed(0)), dim=0)
    with torch.no_grad():
        built.transformer.wte.weight.mul_(0.3).add_(direction)
        built.transformer.ln_f.bias.add_(-100 * direction)
    model = load_model(checkpoints.save(built, tmp_path), dtype=torch.bfloat16)
    assert float(model.run(torch.tensor([[1, 2, 3]])).logits.float().mean()) < -80


def test_checking_leaves_the_bridge_as_it_was() -> None:
    bridge = native_bridge()
    bridge.original_model.train()
    parameters = {name: p.detach().clone() for name, p in bridge.original_model.named_parameters()}
    state, fired = torch.random.get_rng_state(), []
    bridge.add_hook("blocks.0.attn.hook_z", lambda value, hook: fired.append(hook.name))
    model = Model.from_bridge(bridge)
    assert model.bridge is bridge and all(module.training for module in bridge.original_model.modules())
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, parameter in bridge.original_model.named_parameters():
        assert torch.equal(parameter, parameters[name]) and parameter.requires_grad and parameter.grad is None
    fired.clear()
    bridge(torch.tensor([[1, 2]]), prepend_bos=False)
    assert fired, "the user's own hook is gone"


def held_bytes() -> int:
    """Bytes of all tensors that Python can reach, shared storage counted once."""
    gc.collect()
    tensors = [item for item in gc.get_objects() if issubclass(type(item), Tensor)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.device.type == "cpu"}
    return sum(storages.values())


BIG = {
    "GPT2": {"n_embd": 512, "n_layer": 4, "n_head": 8, "n_positions": 128, "vocab_size": 300},
    "GPTNeoX": {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "vocab_size": 300,
    },
    "Llama": {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "vocab_size": 300,
    },
}
"""About 50 MB each: Conv1D with queries, keys and values in one matrix, the same per head, and separate ones."""


@pytest.mark.parametrize("prefix", BIG)
def test_one_copy_of_the_weights_is_held(prefix: str, tmp_path: Path) -> None:
    built = checkpoints.build(prefix, BIG[prefix])
    size = sum(parameter.nbytes for parameter in {p.data_ptr(): p for p in built.parameters()}.values())
    checkpoints.save(built, tmp_path)
    del built
    before = held_bytes()
    model = load_model(tmp_path)
    held = held_bytes() - before
    assert size > 35e6 and held >= 0.9 * size, "the measure misses the weights"
    assert held <= 1.2 * size, f"{held / size:.2f} times the weights"
    assert model.weights.nbytes <= 1.2 * size
    bridge = model.bridge
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        assert float((bridge(ids, prepend_bos=False) - model.run(ids).logits).abs().max()) <= 1e-3
