"""What hooks of TransformerLens hold is what stands at the places that they are read as, or they are refused."""

import pytest
import torch

from circuits.concepts.features.places import _HOOKS, FeaturePlace, check_hook, place_of_hook
from circuits.concepts.features.standing import standing
from circuits.errors import GraphError
from tests.models.conftest import Loader

REFUSED = {
    "gpt2": {"ln2.hook_normalized"},
    "gpt-neox": {"ln2.hook_normalized", "hook_resid_mid", "hook_mlp_in"},
    "bloom": {"ln2.hook_normalized", "attn.hook_out", "mlp.hook_out"},
    "llama": set(),
    "gemma2": {"attn.hook_out", "mlp.hook_out"},
    "olmo2": {"attn.hook_out", "mlp.hook_out"},
    "granite": {"attn.hook_out", "mlp.hook_out"},
    "phi": {"ln2.hook_normalized", "hook_resid_mid", "hook_mlp_in"},
}


@pytest.mark.parametrize("family", REFUSED)
def test_a_hook_holds_what_its_place_says_or_is_refused(loaded: Loader, family: str) -> None:
    model = loaded(family)
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    with torch.no_grad():
        run = model.run(tokens, keep="factors")
        _, cache = model.bridge.run_with_cache(tokens, prepend_bos=False)
    refused = set()
    for hook in _HOOKS:
        name = f"blocks.1.{hook}"
        try:
            check_hook(name, model)
        except GraphError as error:
            refused.add(hook)
            assert name in str(error) and "another hook" in str(error)
            continue
        if name in cache:
            place = FeaturePlace.parse(place_of_hook(name))
            there, own = standing(run, place), cache[name]
            if place.kind == "unit":  # in front of the gain
                own = own * model.weights.blocks[1].mlp_norm.weight
            torch.testing.assert_close(own.reshape(there.shape), there, atol=1e-4, rtol=0, msg=name)
    assert refused == REFUSED[family]
