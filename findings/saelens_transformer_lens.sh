#!/usr/bin/env bash
# SAELens with the TransformerLens that its requirements allow: it installs, and cannot be imported.
#
# Seen with sae-lens 6.51.1 and transformer-lens 4.3.0, Python 3.11: the package asks for transformer-lens >= 2.16.1 without an upper
# bound, so that pip takes 4.x; `import sae_lens` then ends in ModuleNotFoundError, for it imports
# `transformer_lens.HookedTransformer`, a module that 4 does not have. With transformer-lens below 4 it imports.
#
# Prints both; exits with an error when that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
pip="$folder/env/bin/pip install -q"
$pip sae-lens==6.51.1 transformer-lens==4.3.0 torch==2.13.0

imported() { "$folder/env/bin/python" -c 'import sae_lens; print("imports")' 2>&1 | tail -1 || true; }

with_four=$(imported)
echo "with transformer-lens 4.3.0: $with_four"
$pip 'transformer-lens<4'
below=$(imported)
echo "with transformer-lens below 4: $below"
[[ $with_four == *"No module named 'transformer_lens.HookedTransformer'"* && $below == imports ]]
