"""`circuits compare`: what is in both, what in one alone, and whose sign is meant."""

import csv
import json
from pathlib import Path

import pytest

from circuits.graph import Circuit, Graph
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line

GRAPH = Graph(n_layers=2, n_heads=2, n_key_value_heads=2, d_mlp=8)
FIRST = {"input->a0.h0<v>": -4.0, "a0.h0->m1": -2.0, "m1->logits": -1.0, "a0.h1->logits": 0.5, "input->a0.h1<q>": None}
SECOND = {"input->a0.h0<v>": 0.4, "a0.h0->m1": 0.3, "m1->logits": -0.1, "m0->logits": 0.9, "input->m0": 0.2}


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A circuit by attribution and one that was verified, whose scores have the other sign."""
    paths = tmp_path / "a.json", tmp_path / "b.json"
    for path, edges, method in zip(paths, (FIRST, SECOND), ("eap-ig", "screen then verify"), strict=True):
        Circuit(GRAPH, edges, metadata={"method": method}).save(path)
    return paths


def test_what_is_shared(command: Command, two: tuple[Path, Path], tmp_path: Path) -> None:
    said = json.loads(command("compare", *two, "--out", tmp_path / "out", "--json").out)
    assert said["edges"] == {"both": 3, "first": 2, "second": 2} and said["edge_overlap"] == pytest.approx(3 / 7)
    assert said["nodes"] == {"both": 4, "first": 1, "second": 1} and said["rank_correlation"] == pytest.approx(1)
    with (tmp_path / "out" / "compare.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert {name for name, row in rows.items() if row["where"] == "both"} >= {"input", "a0.h0", "m1", "m1->logits"}
    assert rows["m0"]["where"] == "second" and rows["a0.h1->logits"]["where"] == "first"
    assert len(rows) == len(said["rows"]) == 7 + 6


def test_signs_that_mean_opposite_things_are_turned(command: Command, two: tuple[Path, Path]) -> None:
    said = json.loads(command("compare", *two, "--json").out)
    assert said["turned"] and said["opposite"] == ["m1->logits"], "one supports the metric, the other opposes it"
    turned = {row["name"]: row for row in said["rows"]}["input->a0.h0<v>"]
    assert (turned["score_first"], turned["score_second"]) == (-4.0, -0.4)
    assert "B's signs are turned" in " ".join(command("compare", *two).out.split())
    same = json.loads(command("compare", two[0], two[0], "--json").out)
    assert not same["turned"] and same["opposite"] == [] and same["files"] == {}


def test_the_report_lists_strong_edges_first(command: Command, two: tuple[Path, Path]) -> None:
    answer = command("compare", *two)
    listed = [line.split() for line in answer.out.splitlines() if "->" in line]
    assert listed[0][0] in ("input->a0.h0<v>", "m0->logits") and len(listed) == 7
    cells = {row[0]: row[1:] for row in listed}
    assert cells["a0.h1->logits"] == ["A", "only", "+0.5", "-"] and cells["m0->logits"] == ["B", "only", "-", "-0.9"]
    assert "nodes in A only: a0.h1" in answer.out and "nodes in B only: m0" in answer.out
    assert "Files in" not in answer.out


def test_long_lists_are_cut(command: Command, tmp_path: Path) -> None:
    graph = Graph(n_layers=6, n_heads=8, n_key_value_heads=8, d_mlp=8)
    Circuit(graph, [f"a{layer}.h{head}->logits" for layer in range(6) for head in range(8)]).save(tmp_path / "many.json")
    answer = command("compare", tmp_path / "many.json", tmp_path / "many.json")
    assert sum("->logits" in line for line in answer.out.splitlines()) == 20
    assert "28 more (--out writes all)" in answer.out and "and 25 more" in answer.out


def test_what_cannot_be_compared(command: Command, two: tuple[Path, Path], tmp_path: Path) -> None:
    other = Graph(n_layers=3, n_heads=2, n_key_value_heads=2, d_mlp=8)
    Circuit(other, ["a0.h1->logits"]).save(tmp_path / "other.json")
    (tmp_path / "broken.json").write_text("{")
    check_one_line(command("compare", two[0], tmp_path / "other.json"), "different graphs", "3 layers", "other.json")
    check_one_line(command("compare", two[0], tmp_path / "missing.json"), "missing.json", "No such file")
    check_one_line(command("compare", tmp_path / "broken.json", two[0]), "broken.json")
    (tmp_path / "file").write_text("in the way")
    check_one_line(command("compare", *two, "--out", tmp_path / "file"), "cannot be written")
