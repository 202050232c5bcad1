"""Layers on several devices: here the processor and PyTorch's `meta`, which has shapes, no numbers, and refuses to meet others.

That two real devices give the numbers of one is shown by `experiments/two_devices.py`, which compiles a device kind for it.
"""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import circuits
from circuits.attribution import attribute_edges
from circuits.errors import CircuitsError, MemoryBudgetError, ModelError
from circuits.models import TokenBatch, load_model
from circuits.models.devices import Spread, SpreadWeight, placed_layers, spread
from circuits.models.forward import forward
from circuits.models.loading import origins, room
from circuits.models.loading.room import check_room, numbers_in
from circuits.patching import patch_nodes
from circuits.tasks.metrics import logit_difference
from tests.models.bundled import mini
from tests.patching.test_sweeps import random_case

GPU = torch.device("cuda:1")


def test_two_parts_of_one_device_give_the_same_bits(tmp_path: Path) -> None:
    _, _, _, model, pairs = random_case(82, plain=True)
    both = dataclasses.replace(model, weights=spread(model.weights, ["cpu", "cpu"]))
    assert isinstance(both.weights.W_E, SpreadWeight) and both.weights.nbytes == model.weights.nbytes
    assert both.fingerprint == model.fingerprint
    own, other = (attribute_edges(one, pairs, logit_difference, steps=2).values for one in (model, both))
    assert torch.equal(own, other)
    for name, one in (("own", model), ("both", both)):
        patch_nodes(one, pairs, logit_difference).save(tmp_path / f"{name}.json")
    assert (tmp_path / "own.json").read_bytes() == (tmp_path / "both.json").read_bytes(), "files too"


@pytest.mark.parametrize("seed", range(6))
def test_activations_come_to_the_layers(seed: int) -> None:
    """A model half of which has no numbers: were a tensor not moved, PyTorch would refuse to add it."""
    weights, tokens = random_case(seed)[3].weights, random_case(seed)[4].clean
    if len(weights.blocks) < 2:
        weights = dataclasses.replace(weights, blocks=weights.blocks * 2)
    both = spread(weights, ["cpu", "meta"])
    with torch.no_grad():
        run = forward(both, tokens)
    places = placed_layers(weights, 2)
    assert [one.device.type for one in run.z] == [("cpu", "meta")[place] for place in places]
    assert run.logits.device.type == "meta" and run.logits.shape == forward(weights, tokens).logits.shape


def test_where_tensors_meet() -> None:
    here, there = torch.arange(6.0).reshape(2, 3).as_subclass(Spread), torch.ones(2, 3, device="meta").as_subclass(Spread)
    weight, far = torch.eye(3).as_subclass(SpreadWeight), torch.eye(3, device="meta").as_subclass(SpreadWeight)
    assert (here + there).device.type == "meta" and (there + here).device.type == "meta", "activations go on"
    assert (here @ far).device.type == "meta" and (far + weight).device.type == "meta"
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta"):  # the weight stays, and the activation would come
        _ = there @ weight
    assert type(weight.T[:2]) is SpreadWeight and type(here @ weight) is Spread
    assert torch.where(torch.ones(2, 3, dtype=torch.bool), there, 0.0).device.type == "meta", "masks follow numbers"
    assert there[torch.tensor([1])].device.type == "meta" and torch.stack([here, there]).device.type == "meta"
    into = torch.zeros(2, 3, device="meta")
    into += here
    into[0] = here[0]
    assert into.device.type == "meta", "what is written into stays"


def test_layers_are_laid_in_order_by_their_bytes() -> None:
    weights = mini().weights
    assert placed_layers(weights, 2) == [0, 0, 1, 1] and placed_layers(weights, 4) == sorted(placed_layers(weights, 4))
    double = dataclasses.replace(weights, blocks=weights.blocks * 20)
    shares = [placed_layers(double, 4).count(device) for device in range(4)]
    assert sum(shares) == 80 and max(shares) - min(shares) <= 4


def test_a_loaded_model_is_spread_and_checked() -> None:
    both = load_model("mini", devices=["cpu", "cpu"])
    assert torch.equal(both.run("The cat").logits, mini().run("The cat").logits) and isinstance(both.weights.W_U, SpreadWeight)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"devices": "cuda:0,cuda:1"}, "expected a list of two or more"),
        ({"devices": ["cpu"]}, "devices=cpu: expected a list of two or more"),
        ({"devices": []}, "devices=nothing: expected a list of two or more"),
        ({"devices": ["cpu"] * 5}, "devices: 5 of them for 4 layers"),
        ({"devices": ["cpu", "nowhere"]}, "there is no device 'nowhere'"),
        ({"devices": ["cpu", "cuda:7"]}, "no device 'cuda:7' here"),
        ({"devices": ["cpu", "cpu"], "device": "cuda"}, "device='cuda' beside devices"),
    ],
)
def test_devices_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError) as refused:
        load_model("mini", **options)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_model_that_does_not_fit_is_refused_before_a_weight_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*arguments: object, **options: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(origins, "boot", read)
    size = circuits.bundled_models()["mini"] / "model.safetensors"
    needed = -(-4 * numbers_in([size]) // 2**20)
    assert abs(needed - mini().weights.nbytes / 2**20) < 2, "the headers tell how much it will be"
    with pytest.raises(MemoryBudgetError) as refused:
        load_model("mini", memory=3 * 2**20)
    assert f"mini: its weights take {needed} MiB on cpu as float32, 3 MiB are allowed there" in str(refused.value)
    assert f"--dtype bfloat16 takes {-(-needed // 2)} MiB" in str(refused.value)
    monkeypatch.setattr(room, "free_on", lambda device: 2**20)
    with pytest.raises(MemoryBudgetError, match="1 MiB are free there"):
        load_model("mini")


def test_several_devices_need_a_share_each_and_the_machine_the_whole() -> None:
    homes = [torch.device("cuda:0"), GPU]
    check_room("m", 2**20, torch.float32, homes, 4 * 2**20)
    with pytest.raises(MemoryBudgetError, match=r"take 4 MiB on cpu .* 3 MiB are allowed"):
        check_room("m", 2**20, torch.float32, homes, 3 * 2**20)
    with pytest.raises(MemoryBudgetError, match=r"take 2 MiB on cuda:0 .*--devices with more of them"):
        check_room("m", 2**20, torch.float32, homes, 2**20)


def test_headers_that_lie_count_for_nothing(tmp_path: Path) -> None:
    for number, content in enumerate([b"", b"\xff" * 16, b"\x02\0\0\0\0\0\0\0[]", b'\x07\0\0\0\0\0\0\0{"a":1}']):
        (tmp_path / f"{number}").write_bytes(content)
    assert numbers_in(tmp_path.iterdir()) == 0


def test_a_tensor_of_another_device_is_refused_by_one_that_is_not_spread() -> None:
    """What the tests above rely on."""
    with pytest.raises((RuntimeError, CircuitsError)):
        _ = torch.ones(2) + torch.ones(2, device="meta")
    batch = TokenBatch.unpadded(torch.tensor([[1, 2]]))
    weights = dataclasses.replace(mini().weights, blocks=spread(mini().weights, ["cpu", "meta"]).blocks)
    assert forward(weights, batch).residuals[-1].device.type == "meta"
