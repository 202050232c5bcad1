"""The whole package runs under shape and type checks in the tests."""

import pytest
from jaxtyping import install_import_hook

install_import_hook("circuits", "beartype.beartype")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests come first, so that no core waits for one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
