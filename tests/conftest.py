"""The package runs under shape and type checks in the tests."""

import collections
from pathlib import Path

import jaxtyping
import pytest

PACKAGE = Path(__file__).parent.parent / "circuits"
NAMES = ("graph/nodes.py", "graph/graph.py")
"""Names of nodes and edges are made by the million, hold no tensors, and check themselves: they are left out."""
MODULES = [
    ".".join(("circuits", *file.relative_to(PACKAGE).with_suffix("").parts))
    for file in sorted(PACKAGE.rglob("*.py"))
    if file.relative_to(PACKAGE).as_posix() not in NAMES
]
jaxtyping.install_import_hook(MODULES, "beartype.beartype")
jaxtyping.config.update("jaxtyping_disable", True)  # while tests are collected

CHECKED, CHECKED_SLOW = 8, 2
"""Cases of a test that run under the checks, which take most of the time. Only numbered ones (seeds) are counted: what has a
name of its own is always checked."""
_UNCHECKED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests come first, so that no core waits for one at the end."""
    seen: collections.Counter[str] = collections.Counter()
    for item in items:
        test, case = item.nodeid.partition("[")[0], getattr(item, "callspec", None)
        numbered = case is not None and all(isinstance(value, int) for value in case.params.values())
        item.stash[_UNCHECKED] = numbered and seen[test] >= (CHECKED_SLOW if item.get_closest_marker("slow") else CHECKED)
        seen[test] += numbered
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Switch the checks for this test."""
    jaxtyping.config.update("jaxtyping_disable", item.stash[_UNCHECKED])
