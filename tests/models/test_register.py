"""A family can be added from outside the package, by a record alone; a record that does not fit is refused by name."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from circuits.errors import ModelError
from circuits.models import Family, load_model, register_family
from circuits.models.loading import families
from tests.models import checkpoints

NAME = "SeedOssForCausalLM"
SEED = Family(norm="rms", positions="rotary")
"""Llama's record; its own biases are read from the checkpoint."""

_GROUPED = checkpoints.RECIPES["llama"][1]


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins and ends with nothing registered."""
    monkeypatch.setattr(families, "REGISTERED", {})


@pytest.fixture(scope="module")
def seed_oss(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint of a family that the table lacks."""
    built = checkpoints.build("SeedOss", {**_GROUPED, "head_dim": 8, "mlp_bias": True})
    return checkpoints.save(built, tmp_path_factory.mktemp("seed-oss"))


def test_a_registered_family_loads_and_equals_the_original(seed_oss: Path) -> None:
    with pytest.raises(ModelError, match="register_family adds"):
        load_model(seed_oss)
    register_family(NAME, SEED)
    ids = torch.randint(1, 257, (2, 14), generator=torch.Generator().manual_seed(0))
    ours = load_model(seed_oss, dtype=torch.float64).run(ids, keep="logits").logits.log_softmax(-1)
    with torch.no_grad(), checkpoints.without_downcasts():
        theirs = checkpoints.original(seed_oss)(ids).logits.log_softmax(-1)
    assert float((ours - theirs).abs().max()) <= 1e-9


def test_a_registered_record_that_computes_something_else_is_caught_at_load(seed_oss: Path) -> None:
    register_family(NAME, SEED)
    load_model(seed_oss)
    register_family(NAME, dataclasses.replace(SEED, adjacent_pairs=True))
    with pytest.raises(ModelError, match=f"{NAME}: log-probabilities differ"):
        load_model(seed_oss)


def test_a_part_that_a_registered_record_leaves_out_is_refused_by_name(seed_oss: Path) -> None:
    register_family(NAME, dataclasses.replace(SEED, only=(("mlp_bias", (False,), "a bias in the MLP"),)))
    with pytest.raises(ModelError, match="a bias in the MLP is not represented"):
        load_model(seed_oss)


MISFITS: dict[str, tuple[Any, str]] = {
    "norm": ("batch", "one of layer, rms"),
    "positions": ("sinusoidal", "one of learned, rotary, alibi"),
    "norm_gain_offset": ("1", "a float"),
    "position_offset": (None, "a int"),
    "adjacent_pairs": (1, "a bool"),
    "logit_scale": (0.0625, "a function"),
    "parallel": (True, "a function"),
    "only": (("clip_qkv",), "a tuple of"),
}


@pytest.mark.parametrize("switch", MISFITS)
def test_a_switch_that_does_not_fit_is_named(switch: str) -> None:
    value, wanted = MISFITS[switch]
    record = dataclasses.replace(SEED)
    object.__setattr__(record, switch, value)  # the types are checked in these tests, not where users run
    with pytest.raises(ModelError, match=f"{NAME}: {switch}=.*expected {wanted}") as caught:
        register_family(NAME, record)
    assert "\n" not in str(caught.value)


def test_what_is_no_record_no_name_or_already_there_is_refused() -> None:
    unchecked: Callable[..., None] = getattr(register_family, "__wrapped__", register_family)
    with pytest.raises(ModelError, match=f"expected a Family for '{NAME}', got dict"):
        unchecked(NAME, {"norm": "rms"})
    with pytest.raises(ModelError, match="no class name"):
        register_family("seed oss", SEED)
    with pytest.raises(ModelError, match="LlamaForCausalLM is a family of the package"):
        register_family("LlamaForCausalLM", SEED)
    for architecture, family in families.FAMILIES.items():
        register_family(f"{architecture}Copy", family)
