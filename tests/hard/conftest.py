"""Tests at the figures that are promised, too long for every day: `make hard` runs them, and naming this folder does."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark those of this folder, and pass over them where nobody asks for them."""
    asked = "hard" in str(config.option.markexpr) or any("hard" in word for word in config.args)
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.hard)
            item.add_marker(pytest.mark.slow)
            if not asked:
                item.add_marker(pytest.mark.skip(reason="make hard runs it"))
