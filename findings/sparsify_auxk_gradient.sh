#!/usr/bin/env bash
# AuxK of eai-sparsify, which is to wake features of a sparse autoencoder that have died: its gradient does not reach the encoder.
#
# Seen with eai-sparsify 1.3.3, torch 2.13.0 (CPU), Python 3.11: `SparseCoder.forward` takes the activations of dead features for
# the auxiliary loss from `pre_acts`, the third output of `FusedEncoder`, whose backward ignores the gradient of that output. So
# the auxiliary loss is above 0 and moves the decoder, and the gradient that it gives the encoder's weights and bias is exactly 0:
# a feature that is never among the top k stays so, whatever `auxk_alpha` says. Written out with plain operations, the same
# loss has an encoder gradient. Multi-TopK's loss takes its activations from there, too, and lacks it likewise.
#
# Prints the norms of the gradients; exits with an error when that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 eai-sparsify==1.3.3
cd "$folder"
venv/bin/python - <<'PYTHON'
import sys

import torch
from sparsify import SparseCoder, SparseCoderConfig

torch.manual_seed(0)
x, dead = torch.randn(64, 8), torch.arange(16) < 8


def gradients(loss_of, **options):
    """Norms of the gradients of a loss by the encoder's weights and by the decoder's."""
    torch.manual_seed(1)
    coder = SparseCoder(8, SparseCoderConfig(num_latents=16, k=2, **options))
    loss_of(coder).backward()
    return [0.0 if part is None else float(part.norm()) for part in (coder.encoder.weight.grad, coder.W_dec.grad)]


def plain(coder):
    """The auxiliary loss of these features with plain operations: their share of what the others leave."""
    found = coder(x)
    left = (x - found.sae_out).detach()
    own = torch.relu((x - coder.b_dec) @ coder.encoder.weight.T + coder.encoder.bias).masked_fill(~dead, -torch.inf)
    values, indices = own.topk(4)
    return (torch.einsum("bk,bkd->bd", values, coder.W_dec[indices]) - left).square().sum()


cases = {
    "auxk_loss": gradients(lambda coder: coder(x, dead_mask=dead).auxk_loss),
    "multi_topk_fvu": gradients(lambda coder: coder(x).multi_topk_fvu, multi_topk=True),
    "fvu": gradients(lambda coder: coder(x).fvu),
    "auxk, plain": gradients(plain),
}
for name, (encoder, decoder) in cases.items():
    print(f"{name:>16}: gradient of the encoder {encoder:.3g}, of the decoder {decoder:.3g}")
quiet = [name for name, (encoder, decoder) in cases.items() if encoder == 0 and decoder > 0]
if quiet != ["auxk_loss", "multi_topk_fvu"]:
    sys.exit(f"no longer so: the encoder gets no gradient from {quiet}")
PYTHON
