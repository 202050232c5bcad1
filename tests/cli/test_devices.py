"""`--devices` reaches the model that a command works with, and steps to try next name it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import circuits
from circuits.cli.settings import Setting
from circuits.models import Model
from circuits.models.devices import spread
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line
from tests.models.bundled import mini


def test_devices_reach_the_model(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Sequence[str]] = []

    def load(name: str, *, devices: Sequence[str], dtype: Any) -> Model:
        """The bundled model in parts."""
        asked.append(devices)
        return dataclasses.replace(mini(), weights=spread(mini().weights, devices))

    monkeypatch.setattr(circuits, "load_model", load)
    answer = command("lens", "The cat sat", "--devices", "cpu,cpu", "--json", "--out", str(tmp_path / "out"))
    assert answer.status == 0, answer.err
    assert asked == [["cpu", "cpu"]]
    assert Setting(job="lens", devices="cpu,cpu").command("heads") == "circuits heads --devices cpu,cpu"


def test_one_device_beside_several_is_refused(command: Command) -> None:
    answer = command("lens", "The cat sat", "--device", "mps", "--devices", "cpu,cpu")
    check_one_line(answer)
    assert "--device mps and --devices cpu,cpu: leave one of them out" in answer.err
    assert "'nowhere' cannot be used here" in command("lens", "The cat sat", "--devices", "cpu,nowhere").err
