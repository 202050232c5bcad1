"""`circuits neurons`: what it writes and says, what it shows again, what other commands make of it, and what it refuses."""

import json
from pathlib import Path

from circuits import Circuit
from circuits.probes import NeuronKnockout, NeuronRankings
from circuits.tasks import grammar_sentences
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line
from tests.cli.test_probe import conllu

FILES = {"rankings.safetensors", "rankings.csv", "rankings.png", "circuit.json"}
OF_KNOCKOUT = {"knockout.json", "knockout.csv", "knockout.png"}


def test_rankings_are_written_said_and_shown_again(command: Command, tiny: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "made.conllu", tmp_path / "out"
    data.write_text(conllu(grammar_sentences(60)))
    options = ("--data", data, "--model", tiny, "--least", 5, "--top", 4, "--by", "lca,raw", "--sentences", 3)
    answer = command("neurons", *options, "--out", out)
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == FILES | OF_KNOCKOUT, "and no mark of an unfinished run"
    found = NeuronRankings.load(out / "rankings.safetensors")
    lost = NeuronKnockout.load(out / "knockout.json")
    assert found.ways == ("lca", "raw") and lost.ways == found.ways
    assert f"--data {data} --by lca,raw --top 4 --least 5 --sentences 3 --model {tiny}" in answer.out
    pointed = found.beyond_word
    assert (f"circuits neuron {found.names(found.best[0], 1)[0]}" in answer.out) == pointed
    assert ("No ranking beats its baseline" in answer.out) != pointed
    for words in ("made.conllu", "how far the first neurons go", "have in common", "what the model loses", "beyond random"):
        assert words in answer.out
    circuit = Circuit.load(out / "circuit.json")
    assert {str(node) for node in circuit.nodes} == {"input", "logits", *found.names(found.best[0], 4)}
    again = command("neurons", "--open", out / "rankings.safetensors", "--out", tmp_path / "again", "--json")
    said = json.loads(again.out)
    assert said["rankings"]["raw"][0] == found.names("raw", 1)[0] and said["lost"] and said["best"] == list(found.best)
    less = command("neurons", *options, "--by", "probeless", "--layers", 1, "--no-knockout", "--out", out, "--json")
    assert json.loads(less.out)["lost"] == []
    assert all(name.startswith("m1.") for name in json.loads(less.out)["rankings"]["probeless"])
    assert {path.name for path in out.iterdir()} == FILES, "nothing of the earlier run"


def test_what_is_wrong_is_one_line(command: Command, tiny: Path, tmp_path: Path) -> None:
    data = tmp_path / "made.conllu"
    data.write_text(conllu(grammar_sentences(60)))
    for options, words in (
        (("--by", "best"), "'best' is no ranking; expected all, or some of lca"),
        (("--by", "agreement"), "name them with --other MODEL"),
        (("--by", "lca", "--other", tiny), "give --by agreement or all"),
        (("--layers", "x"), "'x' is no number of a layer"),
        (("--data", data, "--layers", "7"), "no neurons in layer 7"),
        (("--pooling", "first"), "expected last or mean"),
        (("--data", data, "--property", "xpos"), "none of"),
        (("--data", tmp_path / "none.conllu"), "none.conllu: No such file"),
    ):
        answer = command("neurons", "--model", tiny, "--out", tmp_path / "out", *options)
        check_one_line(answer, words)
        assert not (tmp_path / "out").exists()
