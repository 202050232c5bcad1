"""Loading holds little more than the weights at any time."""

import json
import os
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType as Kind

from circuits.models.loading.convert import convert_gguf
from tests.models import checkpoints
from tests.models.gguf_files import write_gguf
from tests.nursery import run_code

_RESET = Path("/proc/self/clear_refs")
_MEASURE = """
import json
import circuits
def held(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) * 1024
small, big = {small!r}, {big!r}
circuits.load_model(small)  # what is imported on the way is not counted
open("/proc/self/clear_refs", "w").write("5")
before = held("VmRSS")
model = circuits.load_model(big)
print(json.dumps([held("VmHWM") - before, model.weights.nbytes]))
"""


def peak_over_weights(small: Path, big: Path) -> float:
    """The most that loading a model holds besides what was held before, in sizes of its weights; in a process of its own."""
    code = _MEASURE.format(small=str(small), big=str(big))
    peak, weights = json.loads(run_code(code, big.parent))
    assert weights > 150e6
    return peak / weights


@pytest.mark.slow
@pytest.mark.skipif(not os.access(_RESET, os.W_OK), reason="the peak of a process is only told and reset by Linux")
def test_the_peak_is_at_most_2_2_times_the_weights(tmp_path: Path) -> None:
    """Of a file, and of the directory that it is converted to."""
    prefix, config = checkpoints.RECIPES["llama"]
    wide = {
        **config,
        "vocab_size": 12000,
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 2,
        "head_dim": 256,
    }
    small = write_gguf(checkpoints.build(prefix, config), tmp_path / "small.gguf")
    big, made = write_gguf(checkpoints.build(prefix, wide), tmp_path / "big.gguf", kind=Kind.Q8_0), tmp_path / "made"
    convert_gguf(big, made)
    times = {path.name: round(peak_over_weights(small, path), 2) for path in (big, made)}
    assert max(times.values()) <= 2.2, times
