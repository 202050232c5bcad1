"""What a long job will take is said before it starts; a short one says nothing."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from circuits.cli import starting
from circuits.models.devices import spread
from tests.cli.conftest import Command
from tests.models.bundled import mini


def test_the_line_of_a_long_job() -> None:
    model, mib = mini(), -(-mini().weights.nbytes // 2**20)
    assert starting.starting(model, "facts", 3, 60, budget=2**28) is None, "short"
    line = starting.starting(model, "facts", 20_000, 400_000, budget=2**28)
    assert line == f"mini: 20,000 facts, 400,000 tokens; weights take {mib} MiB on cpu, up to 256 MiB more in a pass (--memory)"


def test_memory_is_told_by_device() -> None:
    model = dataclasses.replace(mini(), weights=spread(mini().weights, ["cpu", "meta"]))
    held, whole = starting.weights_by_device(model), mini().weights.nbytes
    assert set(held) == {"cpu", "meta"} and 0.3 * whole < held["cpu"] < 0.8 * whole
    half = dataclasses.replace(mini(), weights=mini(torch.bfloat16).weights)
    assert sum(starting.weights_by_device(half).values()) == half.weights.nbytes < 0.6 * whole


def test_tokens_are_counted_or_estimated() -> None:
    model, texts = mini(), ["The cat sat", "A dog"]
    counted = sum(len(model.tokenizer(text)["input_ids"]) for text in texts)
    assert starting.tokens_of(model, texts) == counted and starting.tokens_of(model, texts * 1000) == 1000 * counted
    assert starting.tokens_of(model, []) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["behaviour", "--limit", "4"], "4 facts"),
        (
            ["discover", "--count", "6", "--method", "eap", "--random-circuits", "0", "--minimality", "none"],
            "6 pairs of prompts",
        ),
        (["trace", "--facts", "FACTS", "--limit", "1", "--draws", "2", "--kinds", "states"], "1 facts"),
    ],
)
def test_commands_say_it(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], said: str
) -> None:
    monkeypatch.setattr(starting, "LONG", 1)
    facts = tmp_path / "facts.json"
    fact = {"prompt": "The capital of France is", "subject": "France", "attribute": "Paris", "relation_id": "P36"}
    facts.write_text(json.dumps([fact]))
    where = [] if words[0] == "behaviour" else ["--out", str(tmp_path / "out")]
    answer = command(*[str(facts) if word == "FACTS" else word for word in words], "--json", *where)
    assert f"mini: {said}, " in answer.err and "MiB on cpu" in answer.err, answer.err
