"""A weight that is no number ends every reading with a name."""

import dataclasses

import pytest
import torch

from circuits.errors import NonFiniteError
from circuits.heads import tables, virtual_heads
from circuits.lenses import find_triggers, logit_lens, logits, read_values, sub_updates
from tests.models import bundled


def test_a_nan_that_attention_loses_is_named_all_the_same() -> None:
    mini = bundled.mini()
    block = mini.weights.blocks[1]
    W_Q = block.attention.W_Q.clone()
    W_Q[0, 0] = torch.nan
    changed = dataclasses.replace(block, attention=dataclasses.replace(block.attention, W_Q=W_Q))
    blocks = (mini.weights.blocks[0], changed, *mini.weights.blocks[2:])
    broken = dataclasses.replace(mini, weights=dataclasses.replace(mini.weights, blocks=blocks))
    prompt = "The capital of France is"
    for read in (logits, logit_lens, sub_updates, lambda model, text: find_triggers(model, model.to_tokens(text))):
        with pytest.raises(NonFiniteError):
            read(broken, prompt)
    for read in (read_values, virtual_heads, tables):
        with pytest.raises(NonFiniteError, match=r"blocks\.1\.attention\.W_Q"):
            read(broken)
