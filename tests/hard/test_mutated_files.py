"""10,000 damaged files of every saved kind: the one error or a valid object, within a second and 64 MB."""

import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from circuits.errors import FileFormatError
from circuits.files.unfinished import Unfinished, load_mark
from circuits.graph.storage import FORMATS, export, load
from tests import damage
from tests.files.test_results import EXAMPLES, suffix
from tests.graph import test_storage
from tests.graph.samples import random_circuit

COUNT = 10_000
READ_BACK = ("json", "mib")
"""Formats of circuits that are read, too."""


def originals(folder: Path) -> list[tuple[Path, bytes, Callable[[Path], Any]]]:
    """A file of every kind, with what reads it."""
    found: list[tuple[Path, bytes, Callable[[Path], Any]]] = []
    for name, make in EXAMPLES.items():
        result = make()
        path = folder / f"{name}{suffix(result)}"
        result.save(path)
        found.append((path, path.read_bytes(), type(result).load))
    for name in READ_BACK:
        path = folder / f"circuit{FORMATS[name].suffix}"
        export(random_circuit(random.Random(0), bare=name == "mib"), path, name)
        found.append((path, path.read_bytes(), load))
    path = folder / "unfinished-job.json"
    Unfinished(command="circuits job", began="2026-01-01T00:00:00", done={"a": "b"}, missing={"c": ""}).save(path)
    return [*found, (path, path.read_bytes(), load_mark)]


def test_10000_mutated_files_of_every_kind(tmp_path: Path) -> None:
    draw, files = random.Random(0), originals(tmp_path)
    refused = read = 0
    slowest = 0.0
    peak = 0
    for index in range(COUNT):
        path, content, reader = files[index % len(files)]
        as_json = path.suffix == ".json" and draw.random() < 0.5
        path.write_bytes(test_storage.mutate(content, draw) if as_json else damage.mutate(content, draw))
        if index == 2 * len(files):  # all that is imported when first used is
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.process_time()
        try:
            reader(path)
            read += 1
        except FileFormatError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error), error
        slowest = max(slowest, time.process_time() - begun)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1000
    told = f"{refused} refused, {read} read; slowest {slowest:.3f} s, at most {grown:.0f} MB more"
    print(f"{COUNT} files of {len(files)} kinds: {told}")
    assert read > COUNT / 100 and refused > COUNT / 3
    assert slowest < 1 and grown < 64
