"""One small model for the pictures."""

from pathlib import Path

import pytest

from circuits.models import Model, load_model
from tests.models import checkpoints


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Two layers of four heads with random weights."""
    directory: Path = tmp_path_factory.mktemp("tiny")
    return load_model(checkpoints.save(checkpoints.build(*checkpoints.RECIPES["gpt2"]), directory))
