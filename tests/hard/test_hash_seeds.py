"""Ten hash seeds, the same bytes: every kind of result, circuits in every format, a search and its picture."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from tests import HANGS

SEEDS = ("0", "1", "2", "3", "17", "4242", "65537", "1000003", "123456789", "4294967295")
SAVE = """
import random
from pathlib import Path
import torch
import circuits
from circuits.graph.storage import FORMATS, export
from circuits.tasks.metrics import logit_difference
from tests.files.test_results import EXAMPLES, suffix
from tests.graph.samples import random_circuit
from tests.test_budgets import case
torch.set_num_threads(1)
folder = Path({folder!r})
for name, make in EXAMPLES.items():
    result = make()
    result.save(folder / f"{{name}}{{suffix(result)}}")
    result.to_dataframe().to_csv(folder / f"{{name}}.csv", index=False)
for name in FORMATS:
    export(random_circuit(random.Random(7), bare=name == "mib"), folder / f"circuit.{{name}}", name)
model, pairs = case()
found = circuits.discover(model, pairs, logit_difference, edges=8, random_circuits=2, steps=2, held_out=pairs)
found.circuit.save(folder / "found.json")
found.verdict.save(folder / "verdict.json")
found.scores.save(folder / "scores.json")
circuits.patch_nodes(model, pairs, logit_difference).save(folder / "effects.json")
circuits.plots.save(found.circuit.plot(), folder / "circuit.png", formats=("png", "svg", "pdf"))
"""


def test_ten_hash_seeds_give_the_same_bytes(tmp_path: Path) -> None:
    written: dict[str, dict[str, str]] = {}
    for seed in SEEDS:
        folder = tmp_path / seed
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        line = [sys.executable, "-W", "ignore", "-c", SAVE.format(folder=str(folder))]
        subprocess.run(line, check=True, env=environment, cwd=Path(__file__).parents[2], timeout=HANGS)
        written[seed] = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    first = written[SEEDS[0]]
    print(f"{len(first)} files, {len(SEEDS)} hash seeds")
    assert len(first) > 100
    for seed in SEEDS[1:]:
        assert {name for name in first if written[seed].get(name) != first[name]} == set(), seed
        assert written[seed].keys() == first.keys()
