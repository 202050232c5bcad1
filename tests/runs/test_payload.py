"""What a shard leaves comes back bit for bit."""

import math

import pytest
import torch

from circuits.errors import CircuitsError, FileFormatError
from circuits.runs.payload import decoded, encoded


def test_plain_values_and_tensors_come_back() -> None:
    wide = torch.arange(12.0).reshape(3, 4)
    value = {
        "numbers": [1, 2.5, -0.0, 1e-320, math.inf],
        "row": (None, True, "é\u2028"),
        "views": [wide.T, wide[:, 1], wide],
        "kinds": [torch.tensor(3), torch.zeros(0, dtype=torch.bool), torch.ones(2, dtype=torch.bfloat16)],
    }
    again = decoded(encoded(value))
    assert again["numbers"] == value["numbers"] and math.copysign(1, again["numbers"][2]) == -1
    assert again["row"] == value["row"] and isinstance(again["row"], tuple)
    for before, after in zip([*value["views"], *value["kinds"]], [*again["views"], *again["kinds"]], strict=True):
        assert before.dtype == after.dtype and torch.equal(before, after)
    assert math.isnan(decoded(encoded(math.nan)))


def test_what_is_not_plain_is_refused() -> None:
    for value in ({1: 2}, {3}, object(), b"bytes"):
        with pytest.raises(CircuitsError, match="cannot leave"):
            encoded(value)


def test_other_bytes_are_refused() -> None:
    whole = encoded({"a": torch.ones(3)})
    for end in range(len(whole) - 1):
        with pytest.raises(FileFormatError):
            decoded(whole[:end])
