"""A model that computes something else than its record is refused with the configuration values that no switch read."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from circuits.errors import ModelError
from circuits.models import Family, load_model
from circuits.models.loading import families
from circuits.models.loading.extract import extract_weights
from circuits.models.loading.unread import unread_values
from tests.models.checkpoints import RECIPES, build, save
from tests.models.test_families import Directory, Loaded

GROUPED = RECIPES["llama"][1]
NEUTRAL = {"attention_multiplier": 8**-0.5}
"""Granite's configuration with which it computes what Llama's record says: d_head is 8."""
SAID = "no switch read and that differ from their default: "


def refused(prefix: str, config: dict[str, Any], record: Family, directory: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What loading says of a checkpoint whose family's record is another one."""
    monkeypatch.setitem(families.FAMILIES, f"{prefix}ForCausalLM", record)
    with pytest.raises(ModelError, match="log-probabilities differ") as caught:
        load_model(save(build(prefix, {**GROUPED, **config}), directory))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("value", ["embedding_multiplier", "residual_multiplier", "logits_scaling", "attention_multiplier"])
def test_a_value_that_no_switch_read_is_named(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {**NEUTRAL, value: 0.3}
    message = refused("Granite", config, families.FAMILIES["LlamaForCausalLM"], tmp_path, monkeypatch)
    named = dict(part.split("=") for part in message.split(SAID)[1].split(")")[0].split(", "))
    assert named == {name: repr(number) for name, number in config.items()}, "sizes and values that were read are not named"


def test_what_a_switch_read_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = dataclasses.replace(
        families.FAMILIES["LlamaForCausalLM"], score_scale=lambda config, d_head, layer: config.attention_multiplier
    )
    message = refused("Granite", {**NEUTRAL, "residual_multiplier": 0.3}, record, tmp_path, monkeypatch)
    assert f"{SAID}residual_multiplier=0.3)" in message


def test_values_at_their_default_are_named_where_none_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cohere's default multiplies logits by 1/16."""
    record = dataclasses.replace(families.FAMILIES["CohereForCausalLM"], logit_scale=lambda config: 1.0)
    message = refused("Cohere", {}, record, tmp_path, monkeypatch)
    assert "has its default: " in message and "logit_scale=0.0625" in message


def test_what_transformer_lens_computes_and_hugging_face_does_not_is_caught(
    checkpoint: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both the record and the bridge cap Gemma 3's scores, of which Hugging Face's model holds the cap and never uses it."""
    gemma2, gemma3 = families.FAMILIES["Gemma2ForCausalLM"], families.FAMILIES["Gemma3ForCausalLM"]
    capped = dataclasses.replace(gemma3, score_soft_cap=gemma2.score_soft_cap, only=())
    monkeypatch.setitem(families.FAMILIES, "Gemma3ForCausalLM", capped)
    with pytest.raises(ModelError, match="log-probabilities differ from the original's"):
        load_model(checkpoint("gemma3 capped scores"))


ONE_EACH = {prefix: name for name, (prefix, _) in reversed(RECIPES.items())}


@pytest.mark.parametrize("name", ONE_EACH.values())
def test_a_family_that_fits_leaves_no_value_over_that_differs(name: str, loaded: Loaded) -> None:
    bridge, read = loaded(name).bridge, set[str]()
    extract_weights(bridge, read)
    original = bridge.original_model
    differing, rest = unread_values(original.config, read, type(original))
    assert set(differing) <= {"attention_types", "no_rope_layer_interval"}, "from these the layers' own lists are made"
    assert {"hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"}.isdisjoint(rest)
