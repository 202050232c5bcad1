"""`circuits heads specialise` and `circuits symmetry`: what they write and say, what they show again, and what they refuse."""

import json
from pathlib import Path

from circuits.concepts import Equivariance, Specialisation
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line


def test_heads_are_compared_and_shown_again(command: Command, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    few = ("--limit", 30, "--least", 5, "--permutations", 19, "--model", tiny, "--out", out)
    answer = command("heads", "specialise", *few)
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == {f"specialisation.{end}" for end in ("json", "csv", "png")}
    found = Specialisation.load(out / "specialisation.json")
    assert "layer, heads shuffled" in answer.out and found.column == "upos" and found.sentences == 30
    again = json.loads(command("heads", "specialise", "--open", out / "specialisation.json", "--json").out)
    assert len(again["heads"]) == found.divergence.numel() and set(again["branches"]) == {"head", "layer"}


def test_a_symmetry_is_asked_about_and_shown_again(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    few = ("--count", 6, "--matchings", 19, "--relabellings", 1, "--out", out)
    answer = command("symmetry", *few)
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == {f"symmetry.{end}" for end in ("json", "csv", "png")}
    found = Equivariance.load(out / "symmetry.json")
    assert found.symmetry == "ioi with its two answers exchanged" and found.units == "heads" and found.prompts == 6
    again = json.loads(command("symmetry", "--open", out / "symmetry.json", "--json").out)
    assert len(again["layers"]) == len(found.layers) and len(again["table"]) == found.matching.numel()


def test_tokens_of_a_text_are_exchanged(command: Command, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"The man said that {word} saw a dog." for word in ("he", "she", "he", "they", "she")))
    few = ("--matchings", 19, "--relabellings", 0, "--of", "neurons", "--layers", 1, "--json", "--out", tmp_path / "out")
    answer = json.loads(command("symmetry", "--swap", " he, she", "--text", text, *few).out)
    assert answer["prompts"] == 4 and answer["units"] == "neurons" and [row["layer"] for row in answer["layers"]] == [1]


def test_what_is_wrong_is_one_line(command: Command, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Nothing of that.\n")
    for options, words in (
        (("symmetry", "--of", "layers"), "--of layers: expected heads or neurons"),
        (("symmetry", "--swap", "he"), "expected two tokens with a comma"),
        (("symmetry", "--text", text), "name two tokens with --swap"),
        (("symmetry", "--swap", " he, she", "--text", text), "no line has"),
        (("symmetry", "--prompts", "gendered-pronoun", "--count", 4), "hold one of the tokens that are exchanged"),
        (("symmetry", "--prompts", "none"), "unknown task 'none'"),
        (("symmetry", "--layers", 9, "--count", 4), "no heads of layer 9"),
        (("heads", "specialise", "--property", "Nothing"), "has 'Nothing'"),
        (("heads", "specialise", "--data", tmp_path / "none.conllu"), "none.conllu"),
    ):
        check_one_line(command(*options, "--out", tmp_path / "out"), words)
    assert not (tmp_path / "out").exists()
