"""`circuits features`: what it writes and says, what it shows again, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from circuits.cli.corpus import Corpus
from circuits.cli.questions.features import DictionaryFiles
from circuits.concepts import Dictionary, Superposition
from circuits.concepts.features import training
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line

FILES = {"superposition.json", "superposition.csv", "superposition.png"}


def test_superposition_is_shown_and_shown_again(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    few = ("--sparsity", "0,0.9", "--features", 3, "--seeds", 1, "--steps", 20, "--batch", 8, "--out", out)
    answer = command("features", *few)
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == FILES
    found = Superposition.load(out / "superposition.json")
    assert "with relu" in answer.out and "with linear" in answer.out and found.steps == 20
    again = json.loads(command("features", "--open", out / "superposition.json", "--json").out)
    assert len(again["rows"]) == 2 * 2 * 3 and again["features"] == 3 and again["hidden"] == 2


def test_what_is_wrong_with_a_toy_is_one_line(command: Command, tmp_path: Path) -> None:
    for options, words in (
        (("--sparsity", "0,x"), "--sparsity 0,x: expected numbers"),
        (("--sparsity", "1"), "expected chances that a feature is zero"),
        (("--hidden", 9), "no more dimensions than features"),
        (("--decay", 2), "importance falls by 2.0"),
    ):
        check_one_line(command("features", *options, "--out", tmp_path / "out"), words)
    assert not (tmp_path / "out").exists()


def test_a_dictionary_is_read_and_shown_again(command: Command, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    W_enc, W_dec = torch.randn(12, 256, generator=generator), torch.randn(12, 256, generator=generator)
    file, out = tmp_path / "d.safetensors", tmp_path / "out"
    Dictionary("random", "m1", "topk", 2, W_enc, torch.zeros(12), W_dec, torch.zeros(256), torch.zeros(12)).save(file)
    text = tmp_path / "text.txt"
    text.write_text("The king of the city said that the old river was cold, and the children went home.\n" * 4)
    answer = command("features", "dictionary", file, "--text", text, "--out", out)
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == {f"dictionary.{end}" for end in ("json", "csv", "png")}
    assert "features that the loss hangs on most" in answer.out and "of 12 features" in answer.out
    one = command("features", "dictionary", file, "--feature", 3, "--text", text, "--out", out, "--json")
    assert json.loads(one.out)["feature"] == 3 and json.loads(one.out)["site"] == "m1"
    assert {path.stem for path in out.iterdir()} == {"dictionary", "feature"}
    for name, words in (("dictionary", "features that the loss"), ("feature", "feature 3 of random")):
        assert words in command("features", "dictionary", "--open", out / f"{name}.json", "--pictures", "svg").out


def test_what_is_wrong_with_a_dictionary_is_one_line(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "d.safetensors"
    Dictionary("d", "m9", "relu", 0, torch.ones(2, 3), torch.zeros(2), torch.ones(2, 3), torch.zeros(3), torch.zeros(2)).save(
        file
    )
    for options, words in (
        ((), "name a dictionary's file"),
        ((tmp_path / "none",), "No such file"),
        ((file,), "mini has no m9"),
        ((file, "--at", "m1"), "d is of a model 3 wide, mini is 256 wide"),
    ):
        check_one_line(command("features", "dictionary", *options, "--out", tmp_path / "out"), words)
    assert not (tmp_path / "out").exists()


def test_an_mlp_that_there_is_none_of_is_refused_before_a_text_is_written(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "require_library", lambda: None)
    monkeypatch.setattr(Corpus, "tokens", lambda *_: pytest.fail("a text was written"))
    for options, words in ((("m9",), "mini has no m9"), (("--k", 9, "--features", 4), "no more k than features")):
        check_one_line(command("features", "train", *options, "--out", tmp_path / "out"), words)


def test_a_feature_before_all_dictionaries_and_quantised_weights_are_refused_before_anything_is_written(
    command: Command, tmp_path: Path
) -> None:
    file, out, wide = tmp_path / "d.safetensors", tmp_path / "out", torch.ones(2, 256)
    Dictionary("d", "m1", "relu", 0, wide, torch.zeros(2), wide.clone(), torch.zeros(256), torch.zeros(2)).save(file)
    check_one_line(command("features", "attribute", file, "--to", "m1.f1", "--out", out), "m1.f1 is of the first dictionary")
    (tmp_path / "sae").mkdir()
    tensors = {"W_enc": torch.ones(256, 2, dtype=torch.int8), "W_dec": wide, "b_enc": torch.zeros(2), "b_dec": torch.zeros(256)}
    save_file(tensors, tmp_path / "sae" / "sae_weights.safetensors")
    (tmp_path / "sae" / "cfg.json").write_text('{"d_in": 256, "hook_name": "blocks.1.hook_mlp_out"}')
    line = command("features", "attribute", tmp_path / "sae", "--out", out)
    check_one_line(line, "W_enc is stored as int8: quantised weights are not represented")
    assert not out.exists()


def test_where_a_dictionary_is_said_to_be_is_said_again(tmp_path: Path) -> None:
    assert DictionaryFiles(files=[tmp_path], at="m1").again == ["--at", "m1"] and not DictionaryFiles(files=[tmp_path]).again
