"""Hugging Face models that a caller holds, and weights of few bits that no configuration speaks of."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from circuits.errors import ModelError
from circuits.models import load_model
from tests.models import checkpoints
from tests.models.native import native_bridge

IDS = torch.randint(0, 257, (2, 9), generator=torch.Generator().manual_seed(3))
SOME = ["gpt2", "gpt-neox", "opt", "bloom", "llama", "gemma2", "phi3", "cohere", "granite tied"]


def built(name: str) -> Any:
    """A random model of a recipe."""
    return checkpoints.build(*checkpoints.RECIPES[name])


def answer(model: Any) -> torch.Tensor:
    """A model's own logits."""
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("name", SOME)
def test_a_model_that_is_held_is_the_one_in_its_directory(name: str, tmp_path: Path) -> None:
    held = built(name)
    checkpoints.save(held, tmp_path)
    model, read = load_model(held, tokenizer=checkpoints.byte_tokenizer()), load_model(tmp_path)
    assert torch.equal(model.run(IDS).logits, read.run(IDS).logits) and model.fingerprint == read.fingerprint
    assert model.architecture == read.architecture == model.name
    assert model.tokenizer("ab").input_ids == checkpoints.byte_tokenizer()("ab").input_ids
    assert torch.equal(model.bridge(IDS, prepend_bos=False), read.bridge(IDS, prepend_bos=False))


def test_the_callers_model_stays_as_it_was() -> None:
    held, fired = built("llama"), []
    held.train()
    held.model.layers[0].register_forward_hook(lambda *given: fired.append(1))
    before, config = answer(held), held.config.to_dict()
    modules = {name: type(module) for name, module in held.named_modules()}
    parameters = {name: (p, p.dtype, p.data_ptr()) for name, p in held.named_parameters()}
    attention = held.config._attn_implementation
    fired.clear()
    for dtype in (torch.float32, torch.float64):
        load_model(held, dtype=dtype)
    assert not fired, "the caller's hooks are not run"
    assert {name: type(module) for name, module in held.named_modules()} == modules and held.training
    assert {name: (p, p.dtype, p.data_ptr()) for name, p in held.named_parameters()} == parameters
    assert held.config.to_dict() == config and held.config._attn_implementation == attention
    assert torch.equal(answer(held), before) and fired


def test_weights_are_shared_where_type_and_device_are_the_same() -> None:
    held = built("llama")
    assert load_model(held).weights.W_E.data_ptr() == held.get_input_embeddings().weight.data_ptr()
    assert load_model(held, dtype=torch.float64).weights.W_E.dtype == torch.float64
    assert load_model(held).tokenizer is None


def test_a_tokenizer_is_found_by_the_models_own_path(tmp_path: Path) -> None:
    checkpoints.save(built("llama"), tmp_path)
    held = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    model = load_model(held)
    assert model.name == tmp_path.name and model.tokenizer("ab").input_ids == checkpoints.byte_tokenizer()("ab").input_ids


def test_other_objects_are_named() -> None:
    class PeftModel:
        """Stands for a wrapper of another library."""

    with torch.device("meta"):
        empty = transformers.LlamaForCausalLM(transformers.LlamaConfig(**checkpoints.RECIPES["llama"][1]))
    for given, words in [
        (native_bridge(), "Model.from_bridge"),
        (PeftModel(), "merge_and_unload"),
        (3, "got a int"),
        (checkpoints.build(*checkpoints.REFUSED["bert"][:2]), "BertForMaskedLM"),
        (empty, "device_map"),
    ]:
        with pytest.raises(ModelError, match=words) as caught:
            load_model(given)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="tokenizer: expected"):
        load_model(built("llama"), tokenizer=3)
    with pytest.raises(ModelError, match="no tokenizer at"):
        load_model(built("llama"), tokenizer=Path(__file__).parent)


KINDS = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I8": torch.int8, "U8": torch.uint8, "I32": torch.int32}


@pytest.mark.parametrize("kind", KINDS)
def test_bare_weights_of_few_bits_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    checkpoints.save(built("llama"), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(KINDS[kind])
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"{name} is stored as {kind}: quantised weights are not represented"):
        load_model(tmp_path)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_plain_numbers_of_other_widths_load(kind: torch.dtype, tmp_path: Path) -> None:
    checkpoints.save(built("llama").to(kind), tmp_path)
    assert load_model(tmp_path).dtype == torch.float32
