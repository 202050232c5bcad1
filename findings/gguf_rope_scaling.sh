#!/usr/bin/env bash
# A GGUF file of a Llama with scaled rotary positions: Transformers reads it as a model without scaling.
#
# Seen with transformers 5.23.0, gguf 0.19.0, torch 2.13.0 (CPU), Python 3.11:
# `llama.rope.scaling.type` ("linear") and `llama.rope.scaling.factor` are keys of the GGUF specification; converters write them
# for models whose positions are divided by a factor. `AutoConfig.from_pretrained(..., gguf_file=...)`, by which models and
# tokenizers are read from GGUF files, gives the same `rope_parameters` with and without them, and says nothing. The model that is
# built from it turns queries and keys by other angles than the file's at every position but the first.
#
# Prints the rotary parameters read from a file without scaling and from one with; exits with an error when that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 gguf==0.19.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
import gguf
import numpy
from transformers import AutoConfig


def read(*, scaled):
    """The rotary parameters that are read from the header of a small Llama."""
    file = gguf.GGUFWriter("model.gguf", "llama")
    file.add_context_length(64)
    file.add_embedding_length(32)
    file.add_block_count(1)
    file.add_feed_forward_length(48)
    file.add_head_count(4)
    file.add_head_count_kv(2)
    file.add_layer_norm_rms_eps(1e-5)
    file.add_rope_freq_base(10000.0)
    file.add_rope_dimension_count(8)
    file.add_vocab_size(50)
    if scaled:
        file.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        file.add_rope_scaling_factor(4.0)
        file.add_rope_scaling_orig_ctx_len(16)
    file.add_tensor("token_embd.weight", numpy.zeros((50, 32), dtype=numpy.float32))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return AutoConfig.from_pretrained(".", gguf_file="model.gguf").rope_parameters


plain, scaled = read(scaled=False), read(scaled=True)
print(f"without scaling: {plain}\nwith a linear scaling of 4: {scaled}")
assert plain == scaled and scaled["rope_type"] == "default", "the scaling was dropped, when this was written"
PYTHON
