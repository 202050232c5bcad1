"""The package runs under shape and type checks in the tests."""

import collections
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch

from tests.shape_checks import ShapeChecks

PACKAGE = Path(__file__).parent.parent / "circuits"
NAMES = ("graph/nodes.py", "graph/graph.py")
"""Names of nodes and edges are made by the million, hold no tensors, and check themselves: they are left out."""
MODULES = [
    ".".join(("circuits", *file.relative_to(PACKAGE).with_suffix("").parts))
    for file in sorted(PACKAGE.rglob("*.py"))
    if file.relative_to(PACKAGE).as_posix() not in NAMES
]
CHECKS = ShapeChecks(first=2, many=300, every=31)
"""Off while tests are collected."""
jaxtyping.jaxtyped = CHECKS.jaxtyped  # pyright: ignore[reportAttributeAccessIssue] # what the hook puts before every function
jaxtyping.install_import_hook(MODULES, "beartype.beartype")

CHECKED, CHECKED_SLOW = 4, 1
"""Cases of a test that run under the checks. Only numbered ones (seeds) are counted: what has a name of its own is always
checked."""
_UNCHECKED = pytest.StashKey[bool]()
_FILE = pytest.StashKey[Path]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests come first, so that no core waits for one at the end."""
    seen: collections.Counter[str] = collections.Counter()
    for item in items:
        test, case = item.nodeid.partition("[")[0], getattr(item, "callspec", None)
        numbered = case is not None and all(isinstance(value, int) for value in case.params.values())
        item.stash[_UNCHECKED] = numbered and seen[test] >= (CHECKED_SLOW if item.get_closest_marker("slow") else CHECKED)
        seen[test] += numbered
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


FSYNC = os.fsync
"""That of the system."""


def pytest_configure() -> None:
    """Tests write thousands of small files; that they are on the disk is waited for in those that test it (tests/files)."""
    os.fsync = lambda descriptor: None


def pytest_collection_finish() -> None:
    """What libraries and collected tests hold stays to the end: the garbage collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _as_many_threads_as_before() -> Iterator[None]:
    """Scripts say how many threads they compute with; sums of later tests may not depend on it."""
    threads = torch.get_num_threads()
    yield
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Switch the checks for this test; what was checked in a file's earlier tests counts as seen."""
    CHECKS.off = item.stash[_UNCHECKED]
    if item.config.stash.get(_FILE, None) != item.path:
        item.config.stash[_FILE] = item.path
        CHECKS.forget()
