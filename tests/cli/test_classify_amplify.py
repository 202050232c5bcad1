"""`circuits classify amplify`: its table and files, and a server that is not there."""

import json
from pathlib import Path

from circuits.uses import Amplified
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line


def test_a_larger_model_is_asked_with_and_without_rationales(command: Command, tmp_path: Path) -> None:
    out, few = tmp_path / "out", ("--count", 40, "--texts", 4, "--shots", 1)
    answer = command("classify", "amplify", *few, "--out", out, "--json")
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == {"amplified.json", "amplified.csv", "amplified.png", "prompt.txt"}
    said, found = json.loads(answer.out), Amplified.load(out / "amplified.json")
    assert (
        said["texts"] == 4 and said["none"]["unnamed"] == 0 and (out / "prompt.txt").read_text() == found.prompt("rationales")
    )
    again = command("classify", "amplify", "--open", out / "amplified.json", "--out", tmp_path / "again")
    assert "which favours the classes" in again.out and "196 other texts of held out" in " ".join(again.out.split())
    assert "with the words that count" in again.out and (tmp_path / "again" / "amplified.png").is_file()
    nowhere = command("classify", "amplify", *few, "--larger", "endpoint:http://127.0.0.1:9/v1#m", "--out", tmp_path / "none")
    assert nowhere.status != 0 and "To http://127.0.0.1:9/v1 go of reviews" in nowhere.err
    assert "http://127.0.0.1:9/v1 cannot be reached" in nowhere.err.splitlines()[-1]
    for options, words in (
        (("--larger", "nobody"), "--larger nobody: expected model:DIR or endpoint:URL"),
        (("--shots", "500"), "500 texts of each class to show"),
    ):
        check_one_line(command("classify", "amplify", *few, *options, "--out", tmp_path / "none"), words)
    assert not (tmp_path / "none").exists()
