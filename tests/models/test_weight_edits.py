"""Edits of weights: what they add, where they fit, and that taking them off leaves the bytes that were there."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import circuits
from circuits.errors import CircuitsError, FileFormatError, ModelError
from circuits.models import Model, WeightEdit
from circuits.models.devices import spread
from circuits.models.random_weights import with_random_weights
from tests.models.bundled import mini
from tests.models.checkpoints import RECIPES

Loader = Callable[[str], Model]


def an_edit(model: Model, *, layers: tuple[int, ...] = (1,), seed: int = 0, to: str = " Rome", facts: int = 1) -> WeightEdit:
    """Random factors for a model."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(len(layers), facts, model.d_mlp, generator=generator)
    changes = torch.randn(len(layers), facts, model.d_model, generator=generator)
    words = {"prompts": ("The Tower is in",), "subjects": ("The Tower",), "old": (" Paris",), "new": (to,)}
    more = {name: value * facts for name, value in words.items()}
    return WeightEdit(model.name, model.fingerprint, "ROME", layers, **more, keys=keys, changes=changes)


def of(model: Model) -> dict[str, bytes]:
    """Every weight, byte by byte."""
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in model.weights.tensors()}


def test_an_edit_is_its_products_added_and_taking_it_off_leaves_every_byte() -> None:
    model, before = mini(), of(mini())
    edit = an_edit(model, layers=(0, 2), facts=3)
    edited = model.with_edits(edit)
    for layer in range(model.n_layers):
        own, new = (one.weights.blocks[layer].mlp.W_out for one in (model, edited))  # type: ignore[union-attr]
        if layer in edit.layers:
            assert torch.allclose(new, own + edit.delta(layer), atol=1e-4) and not torch.equal(new, own)
        else:
            assert new is own
    assert edited.fingerprint != model.fingerprint and edited.edits == (edit,) and model.edits == ()
    assert edited.name == f"mini + {edit.name}" and edit.name == "The Tower: Rome and 2 more (layers 0, 2)"
    undone = edited.without_edits(edit.name)
    assert of(undone) == before == of(model) and undone.fingerprint == model.fingerprint and undone.name == "mini"
    assert edited.without_edits().weights is model.weights and model.without_edits() is model


def test_several_edits_come_off_in_any_order_and_stand_on_each_other() -> None:
    model = mini()
    first, second = an_edit(model), an_edit(model, seed=1, to=" Oslo")
    both = model.with_edits(first, second)
    assert both.name == "mini + 2 edits"
    assert of(both.without_edits(first.name)) == of(model.with_edits(second))
    assert of(both.without_edits(second.name)) == of(model.with_edits(first))
    above = an_edit(model.with_edits(first), seed=2, to=" Bern")
    stacked = model.with_edits(first, above)
    with pytest.raises(ModelError, match="was made for"):
        model.with_edits(above)
    with pytest.raises(ModelError, match="was made for"):
        stacked.without_edits(first.name)
    assert of(stacked.without_edits()) == of(model)


def test_two_facts_of_one_subject_and_answer_are_told_apart_by_number() -> None:
    model = mini()
    first = an_edit(model)
    second = dataclasses.replace(first, prompts=("The largest city of France is",), keys=first.keys + 1)
    both = model.with_edits(first, second)
    assert of(both.without_edits(first.name)) == of(model.with_edits(second))
    assert of(both.without_edits(f"{first.name} (2)")) == of(model.with_edits(first))


def test_a_file_puts_an_edit_on_as_the_model_loads(tmp_path: Path) -> None:
    model, file = mini(), tmp_path / "edit.safetensors"
    edit = an_edit(model)
    edit.save(file)
    assert file.stat().st_size < 40_000
    loaded = circuits.load_model("mini", edits=[file])
    assert of(loaded) == of(model.with_edits(edit)) == of(model.with_edits(file))
    assert loaded.without_edits(edit.name).fingerprint == model.fingerprint


def test_an_edit_of_another_model_or_twice_is_refused_in_a_line(tmp_path: Path) -> None:
    model = mini()
    edit = an_edit(model)
    edited = model.with_edits(edit)
    for again in (edit, dataclasses.replace(edit, keys=edit.keys + 1)):
        with pytest.raises(ModelError, match="is on mini already"):
            edited.with_edits(again)
    with pytest.raises(ModelError, match="given twice"):
        model.with_edits(edit, edit)
    with pytest.raises(ModelError, match=r"made for 'mini' with weights .*those of mini are"):
        mini(torch.float64).with_edits(edit)
    with pytest.raises(ModelError, match="no layer 9"):
        model.with_edits(dataclasses.replace(edit, layers=(9,)))
    with pytest.raises(ModelError, match="output weights of shape"):
        model.with_edits(dataclasses.replace(edit, changes=edit.changes[..., :-1]))
    with pytest.raises(ModelError, match="no edit 'other' is on"):
        edited.without_edits("other")
    with pytest.raises(ModelError, match="without the edits"):
        _ = edited.bridge
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"no tensors")
    with pytest.raises(FileFormatError, match=str(other)):
        circuits.load_model("no-such-model", edits=[other])
    assert edited.edits == (edit,)


@pytest.mark.parametrize("wrong", [{"layers": ()}, {"layers": (1, 0)}, {"new": (" a", " b")}, {"layers": (-1,)}])
def test_an_edit_that_does_not_fit_together_is_refused(wrong: dict[str, tuple[object, ...]]) -> None:
    edit = an_edit(mini())
    with pytest.raises(CircuitsError, match="edit"):
        dataclasses.replace(edit, **wrong)
    with pytest.raises(CircuitsError, match="one type"):
        dataclasses.replace(edit, keys=edit.keys.double())


def test_a_model_made_of_an_edited_one_has_no_edits_to_take_off() -> None:
    edited = mini().with_edits(an_edit(mini()))
    assert with_random_weights(edited, seed=0).edits == () and edited.with_bos(True).edits == edited.edits


def test_a_spread_model_is_edited_where_its_layers_are() -> None:
    model = mini()
    apart = dataclasses.replace(model, weights=spread(model.weights, ["cpu", "cpu"]))
    edited = apart.with_edits(an_edit(model))
    assert type(edited.weights.blocks[1].mlp.W_out) is type(apart.weights.blocks[1].mlp.W_out)  # type: ignore[union-attr]
    plain = model.with_edits(an_edit(model)).run("The cat sat").logits
    assert torch.allclose(edited.run("The cat sat").logits, plain, atol=1e-5)


@pytest.mark.parametrize("family", RECIPES)
def test_every_family_s_weights_take_an_edit(loaded: Loader, family: str) -> None:
    """What the edited weights write for a key is what they wrote and the change, whatever is folded into them and whatever norm
    stands behind."""
    model = loaded(family)
    layer = next((place for place, block in enumerate(model.weights.blocks) if block.mlp is not None), None)
    if layer is None:
        pytest.skip("no MLP")
    mlp = model.weights.blocks[layer].mlp
    assert mlp is not None
    key = torch.randn(mlp.W_out.shape[0], generator=torch.Generator().manual_seed(0)).to(model.dtype)
    change = torch.randn(mlp.W_out.shape[1], generator=torch.Generator().manual_seed(1)).to(model.dtype)
    words: dict[str, Any] = {"prompts": ("p",), "subjects": ("s",), "old": ("o",), "new": ("n",)}
    factors: dict[str, Any] = {"keys": (key / key.square().sum())[None, None], "changes": change[None, None]}
    edited = model.with_edits(WeightEdit(model.name, model.fingerprint, "ROME", (layer,), **words, **factors))
    after = edited.weights.blocks[layer].mlp
    assert after is not None
    assert torch.allclose(key @ after.W_out, key @ mlp.W_out + change, atol=1e-5 if model.dtype == torch.float32 else 1e-10)
    ids = torch.tensor([[5, 6, 7]])
    assert not torch.equal(edited.run(ids).logits, model.run(ids).logits)
