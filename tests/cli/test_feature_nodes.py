"""`circuits features attribute`, `circuit` and `graph`: what they write and say, what they show again, and what they refuse."""

import json
from pathlib import Path

import pytest
import torch

from circuits.concepts import AttributionGraph, Dictionary, FeatureCircuit, FeatureScores, read_graph_file
from circuits.models import load_model
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line
from tests.graph.test_neuronpedia import SCHEMA

PAIR = ("--clean", "ab cab", "--corrupt", "ad cab", "--answer", "c", "--distractor", "d")


@pytest.fixture(scope="module")
def dictionary(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random features of a residual stream of the tiny model."""
    width, draw = load_model(str(tiny)).d_model, torch.Generator().manual_seed(0)
    W_enc, W_dec = torch.randn(12, width, generator=draw), torch.randn(12, width, generator=draw)
    file = tmp_path_factory.mktemp("dictionary") / "d.safetensors"
    zeros = torch.zeros(12)
    Dictionary("random", "resid1", "relu", 0, W_enc, zeros, W_dec, torch.zeros(width), zeros.clone()).save(file)
    return file


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Six pairs of prompts."""
    words = ("ab cab", "ba cab", "cb abc", "bb cab", "ca bab", "cc aba")
    rows = [{"clean": one, "corrupt": f"d{one[1:]}", "answers": ["c"], "wrong_answers": ["d"]} for one in words]
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({"prompts": rows}))
    return file


def test_features_are_attributed_to_and_shown_again(command: Command, tiny: Path, dictionary: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = command("features", "attribute", dictionary, "--model", tiny, *PAIR, "--out", out)
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == {"features.json", "features.csv", "features.png", "prompts.json"}
    found = FeatureScores.load(out / "features.json")
    assert "whole, measured" in answer.out and "resid1.error" in answer.out and found.taps[0].place == "resid1"
    again = json.loads(command("features", "attribute", "--open", out / "features.json", "--json").out)
    assert [row["node"] for row in again["nodes"]] == list(found.names) and again["dictionaries"][0]["features"] == 12


def test_a_circuit_of_features_is_found_judged_and_shown_again(
    command: Command, tiny: Path, dictionary: Path, prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    few = ("--random", 3, "--steps", 2, "--size", 3)
    answer = command("features", "circuit", dictionary, "--model", tiny, "--prompts", prompts, *few, "--out", out)
    assert answer.status == 0, answer.err
    found = FeatureCircuit.load(out / "feature-circuit.json")
    assert len(found) == 3 and found.prompts == 3 and found.metadata["searched_on"] == 3 and "model without" in answer.out
    again = command("features", "circuit", "--open", out / "feature-circuit.json", "--json")
    assert json.loads(again.out)["nodes"] == list(found.nodes)


def test_a_graph_is_written_in_both_layouts_and_read_from_both(
    command: Command, tiny: Path, dictionary: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    answer = command("features", "graph", dictionary, "--model", tiny, "--prompt", "ab cab", "--out", out)
    assert answer.status == 0, answer.err
    file = out / "attribution.neuronpedia.json"
    SCHEMA.validate(json.loads(file.read_text()))
    assert read_graph_file(file).as_json() == AttributionGraph.load(out / "attribution-graph.json").as_json()
    for one in (file, out / "attribution-graph.json"):
        again = command("features", "graph", "--open", one, "--out", tmp_path / "again")
        assert again.status == 0 and "what wrote what in" in again.out, again.err
    check_one_line(command("info", file), "circuits features graph --open reads it")


def test_what_is_wrong_is_one_line_and_nothing_is_written(
    command: Command, tiny: Path, dictionary: Path, tmp_path: Path
) -> None:
    wide = tmp_path / "wide.safetensors"
    ones, zeros = torch.ones(2, 3), torch.zeros(2)
    Dictionary("wide", "m0", "relu", 0, ones, zeros, ones.clone(), torch.zeros(3), zeros.clone()).save(wide)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(dictionary.read_bytes()[:-40])
    for options, words in (
        ((), "name a dictionary's file or folder"),
        ((tmp_path / "none",), "No such file"),
        ((damaged,), "damaged.safetensors"),
        ((wide,), "wide is of a model 3 wide"),
        ((dictionary, "--at", "resid9"), "has no resid9: it has 2 layers"),
        ((dictionary, dictionary), "two dictionaries take resid1 apart"),
        ((dictionary, wide, "--at", "m0"), "name one file with it"),
        ((dictionary, "--to", "resid1.f99"), "has no feature 99: it has 12"),
        ((dictionary, "--method", "exact"), "by eap or eap-ig, not by 'exact'"),
    ):
        check_one_line(command("features", "attribute", *options, *PAIR, "--model", tiny, "--out", tmp_path / "out"), words)
    check_one_line(command("features", "graph", dictionary, "--model", tiny, "--out", tmp_path / "out"), "give --prompt")
    check_one_line(command("features", "circuit", dictionary, "--keep", 0, "--model", tiny), "--keep is 0")
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()] if (tmp_path / "out").exists() else []
    assert not [path for path in written if path.name.startswith("features")]
