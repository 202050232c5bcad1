"""`circuits models --convert`, and files as `--model`."""

import json
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType as Kind

from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line
from tests.models import checkpoints
from tests.models.gguf_files import write_gguf
from tests.models.native import native_bridge
from tests.models.test_native_files import as_directory, config_of, state_of


def gguf_file(folder: Path) -> Path:
    """A small random Llama of eight bits."""
    prefix, config = checkpoints.RECIPES["llama"]
    return write_gguf(checkpoints.build(prefix, config), folder / "small.gguf", kind=Kind.Q8_0)


def test_a_gguf_file_becomes_a_directory(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, made = gguf_file(tmp_path), tmp_path / "made"
    answer = command("models", "--convert", file, made)
    assert answer.status == 0 and "stored in the GGUF file as Q8_0, F32" in answer.out
    assert f"circuits heads --model {made}" in answer.out
    check_one_line(command("models", "--convert", file, made), "is there already and is not empty")
    check_one_line(command("models", "--convert", tmp_path / "nowhere.gguf", tmp_path / "more"), "nowhere.gguf")
    assert not (tmp_path / "more").exists()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert command("models", "--convert", file, ".").status == 0, "into the folder where one is"
    assert {part.name for part in (tmp_path / "empty").iterdir()} == {part.name for part in made.iterdir()}
    found = json.loads(command("models", "--json", "--convert", file, tmp_path / "again").out)["converted"]
    assert found["stored"] == "Q8_0, F32" and found["architecture"] == "LlamaForCausalLM" and found["d_vocab"] == 300


def test_what_was_quantised_is_said_once(command: Command, tmp_path: Path) -> None:
    answer = command("heads", "--model", gguf_file(tmp_path), "--json")
    assert answer.status == 0 and json.loads(answer.out)["model"] == "small.gguf"
    assert answer.err.count("small.gguf: weights stored as Q8_0, F32, dequantised to float32") == 1


def test_a_state_dict_of_transformer_lens_is_a_model(command: Command, tmp_path: Path) -> None:
    bridge = native_bridge(3, d_vocab=40, n_ctx=64)
    folder = tmp_path / "two-layers"
    folder.mkdir()
    as_directory(state_of(bridge), config_of(bridge), folder)
    for path in (folder, folder / "model.safetensors"):
        answer = command("heads", "--model", path)
        assert answer.status == 0 and path.name in answer.out
