#!/usr/bin/env bash
# A cap on attention scores in a Gemma 3 configuration: Transformers and TransformerLens compute different models.
#
# Seen with transformers 5.23.0, transformer-lens 4.3.0, torch 2.13.0 (CPU), Python 3.11:
# `attn_logit_softcapping` is a field of Gemma 3's configuration. Transformers' Gemma3Attention stores it and its forward never
# uses it, with eager attention too. TransformerBridge computes attention by itself and applies it. So for a configuration that
# sets the field the two give other log-probabilities, while with the field at its default (None) they agree.
# A load check of one's own forward against the bridge alone cannot see this: both apply the cap.
#
# Prints the largest difference of log-probabilities for both configurations; exits with an error when that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 transformer-lens==4.3.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
import logging
import warnings

import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig
from transformer_lens.model_bridge import TransformerBridge

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)


def difference(cap):
    """The largest difference of log-probabilities between the two on one random prompt."""
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=64, sliding_window=32, query_pre_attn_scalar=1,
        attn_logit_softcapping=cap, initializer_range=0.5, attn_implementation="eager",
    )
    model = Gemma3ForCausalLM(config).eval()
    tokens = torch.randint(1, 97, (1, 12))
    with torch.no_grad():
        theirs = model(tokens).logits.log_softmax(-1)
        model.save_pretrained("checkpoint")
        bridge = TransformerBridge.boot_transformers("checkpoint", hf_model=model, dtype=torch.float32)
        ours = bridge(tokens, prepend_bos=False).log_softmax(-1)
    return float((ours - theirs).abs().max())


without, with_cap = difference(None), difference(0.5)
print(f"largest difference of log-probabilities: {without:.2g} without a cap, {with_cap:.2g} with a cap of 0.5")
assert without < 1e-3, "with the default the two agree"
assert with_cap > 0.05, "with a cap they did not agree, when this was written"
PYTHON
