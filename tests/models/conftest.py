"""Checkpoints and loaded models, each made once a session."""

import functools
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from circuits.models import Model, load_model
from tests.models import checkpoints

Loader = Callable[[str], Model]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a test that reaches for the network, also where the library would swallow the error."""
    reached: list[object] = []

    def refuse(*args: Any, **options: Any) -> None:
        reached.append(args[:2])
        raise OSError("the tests reach for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert not reached, f"reached for the network: {reached[0]}"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name of a recipe → directory of its checkpoint."""
    root = tmp_path_factory.mktemp("checkpoints")

    @functools.cache
    def made(name: str) -> Path:
        prefix, config = (checkpoints.RECIPES.get(name) or checkpoints.REFUSED[name])[:2]
        return checkpoints.save(checkpoints.build(prefix, config), root / name.replace(" ", "-"))

    return made


@pytest.fixture(scope="session")
def loaded(checkpoint: Callable[[str], Path]) -> Loader:
    """Name of a recipe → the loaded model in float64."""

    @functools.cache
    def made(name: str) -> Model:
        return load_model(checkpoint(name), dtype=torch.float64)

    return made
