"""`circuits ablate`: what it says is what the library measures, and it refuses in one line."""

import csv
import json
from pathlib import Path

import pytest
import torch

import circuits
from circuits.models import Model
from circuits.patching import Ablation, ablate, self_repair
from circuits.tasks import PromptPairs
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def model(tiny: Path) -> Model:
    return circuits.load_model(str(tiny))


@pytest.fixture(scope="module")
def pairs(model: Model) -> PromptPairs:
    return circuits.tasks.induction(model, count=3, seed=2)


@pytest.mark.parametrize("kind", ["zero", "mean", "resample", "noise"])
def test_nodes_are_ablated_as_in_the_library(
    command: Command, tiny: Path, model: Model, pairs: PromptPairs, tmp_path: Path, kind: str
) -> None:
    options = ("--kind", kind, "--freeze-patterns", "--count", 3, "--seed", 2, "--out", tmp_path / "out")
    answer = command("ablate", "a0.h1", "m0,a1.h2", "--model", tiny, *options)
    assert answer.status == 0
    choice = {"kind": kind, "freeze_patterns": True, "seed": 2}
    expected = ablate(model, pairs, circuits.metrics.logit_difference, ["a0.h1", "m0", "a1.h2"], **choice)
    found = Ablation.load(tmp_path / "out" / "ablation.json")
    assert found.names == expected.names == ("a0.h1+m0+a1.h2",)
    assert torch.allclose(found.scores, expected.scores, atol=1e-5) and torch.allclose(found.whole, expected.whole, atol=1e-5)
    assert f"{expected.intervals()[0].effect:+.3f}" in answer.out
    for words in (kind, "patterns frozen", "3 prompts (task induction, seed 2)", "Files in", "Try next", "--each"):
        assert words in answer.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"ablation.json", "ablation.csv", "ablation.png"}


def test_each_node_of_a_group_goes_by_itself(
    command: Command, tiny: Path, model: Model, pairs: PromptPairs, tmp_path: Path
) -> None:
    common = ("--model", tiny, "--count", 3, "--seed", 2, "--out", tmp_path, "--json", "--metric", "probability")
    found = json.loads(command("ablate", "heads", "m1", "--each", *common).out)
    names = [f"a{layer}.h{head}" for layer in range(2) for head in range(4)] + ["m1"]
    expected = ablate(model, pairs, circuits.metrics.probability, [[name] for name in names], seed=2)
    assert [row["nodes"] for row in found["ablations"]] == names
    assert [row["change"] for row in found["ablations"]] == pytest.approx(expected.change().tolist(), abs=1e-6)
    together = json.loads(command("ablate", "heads", "m1", *common).out)["ablations"]
    assert [row["nodes"] for row in together] == ["heads+m1"]


def test_optimal_constants_are_found_for_each(command: Command, tiny: Path, model: Model, tmp_path: Path) -> None:
    options = ("--kind", "optimal", "--each", "--model", tiny, "--count", 2, "--out", tmp_path, "--json")
    found = json.loads(command("ablate", "a0.h1", "m1", *options).out)
    pairs = circuits.tasks.induction(model, count=2)
    expected = ablate(model, pairs, circuits.metrics.logit_difference, [["a0.h1"], ["m1"]], kind="optimal")
    assert [row["change"] for row in found["ablations"]] == pytest.approx(expected.change().tolist(), abs=1e-4)


def test_self_repair_is_reported_by_layer(
    command: Command, tiny: Path, model: Model, pairs: PromptPairs, tmp_path: Path
) -> None:
    options = ("--self-repair", "--kind", "zero", "--model", tiny, "--count", 3, "--seed", 2, "--out", tmp_path)
    answer = command("ablate", *options)
    assert answer.status == 0 and "compensation" in answer.out and "3 prompts" in answer.out
    assert {path.name for path in tmp_path.iterdir()} == {"self_repair.csv", "self_repair.png"}
    assert (tmp_path / "self_repair.png").read_bytes().startswith(PNG)
    with (tmp_path / "self_repair.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["part"], row["layer"]) for row in rows] == [(part, str(i)) for part in ("attention", "mlp") for i in range(2)]
    for part in ("attention", "mlp"):
        expected = self_repair(model, pairs, part=part, kind="zero").total.mean(dim=1).tolist()
        assert [float(row["total"]) for row in rows if row["part"] == part] == pytest.approx(expected, abs=1e-5)
    both = json.loads(command("ablate", "m1", *options, "--json").out)
    assert len(both["self_repair"]) == 4 and len(both["ablations"]) == 1 and len(both["files"]) == 5


def test_a_saved_ablation_can_be_opened_again(command: Command, tiny: Path, tmp_path: Path) -> None:
    options = ("--count", 2, "--model", tiny, "--positions", "last", "--json")
    first = json.loads(command("ablate", "m0", "m1", "--each", *options, "--out", tmp_path / "one").out)
    saved = tmp_path / "one" / "ablation.json"
    again = json.loads(command("ablate", "--open", saved, "--out", tmp_path / "two", "--json").out)
    assert set(first.pop("files")) == {"ablation.json", *again.pop("files")} and first == again
    assert first["ablations"][0]["nodes"] == "m0@last"
    for name in ("ablation.csv", "ablation.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert "2 prompts" in command("ablate", "--open", saved).out


def test_one_pair_has_no_interval(command: Command, tiny: Path, tmp_path: Path) -> None:
    pair = ("--clean", "ab cab", "--corrupt", "ad cab", "--answer", "c", "--distractor", "d")
    answer = command("ablate", "m1", "--model", tiny, *pair, "--out", tmp_path)
    assert answer.status == 0 and "1 prompt (given as text)" in answer.out and "[95 % interval]" not in answer.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["name nodes", "--self-repair"]),
        (["--each"], ["name nodes"]),
        (["--self-repair", "--each"], ["--each", "NODES"]),
        (["foo"], ["'foo' is not a node", "heads"]),
        (["a9.h0"], ["no node a9.h0"]),
        (["m0", "--kind", "burn"], ["burn", "resample"]),
        (["m0", "--kind", "noise", "--self-repair"], ["noise", "--self-repair"]),
        (["--self-repair", "--positions", "last"], ["--self-repair", "--positions"]),
        (["resid1", "--kind", "optimal"], ["resid1", "optimal"]),
        (["m0", "--positions", "each"], ["one choice of positions"]),
        (["m0", "--metric", "loudness"], ["loudness"]),
        (["m0", "--open", "ablation.json"], ["--open", "NODES"]),
        (["--open", "ablation.json"], ["--open", "leave out --model"]),
    ],
)
def test_what_cannot_be_ablated_is_one_line_and_no_file(
    command: Command, tiny: Path, tmp_path: Path, options: list[str], words: list[str]
) -> None:
    check_one_line(command("ablate", "--model", tiny, "--out", tmp_path / "out", *options), *words)
    assert not (tmp_path / "out").exists()


def test_effects_are_no_ablation(command: Command, tiny: Path, tmp_path: Path) -> None:
    command("patch", "--model", tiny, "--count", 2, "--nodes", "m0", "--out", tmp_path)
    check_one_line(command("ablate", "--open", tmp_path / "effects.json"), "effects.json", "circuits-ablation")
    check_one_line(command("ablate", "--open", tmp_path / "nowhere.json"), "nowhere.json", "No such file")
