"""`circuits attention`: one prompt, heads drawn, labels from a file, and what a user can get wrong."""

import csv
import json
from pathlib import Path

import pytest

from circuits.heads import AttentionProbe, HeadLabels
from circuits.patching import AttentionTrace
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line

PNG = b"\x89PNG\r\n\x1a\n"
FILES = {"attention.json", "attention.csv", "attention.png"}
LABELS = {"labels.json", "labels.csv", "labels.png", "probe.json", "probe.csv"}
_TEXTS = ("The old king lost a small ring", "A young girl found the red box", "My tall friend saw his new house")


@pytest.fixture
def treebank(tmp_path: Path) -> Path:
    """Sentences of seven words, all built alike."""
    heads = ((3, "det"), (3, "amod"), (4, "nsubj"), (0, "root"), (7, "det"), (7, "amod"), (4, "obj"))
    lines = []
    for number in range(12):
        words = _TEXTS[number % 3].split()
        lines += [f"# text = {' '.join(words)}"]
        for at, (word, (head, relation)) in enumerate(zip(words, heads, strict=True), 1):
            lines.append(f"{at}\t{word}\t_\tX\t_\t_\t{head}\t{relation}\t_\t_")
        lines.append("")
    path = tmp_path / "some.conllu"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_help_teaches_by_example(command: Command) -> None:
    answer = command("attention", "--help")
    assert answer.status == 0 and "Examples:" in answer.out and "circuits attention labels en_ewt-ud-dev.conllu" in answer.out


def test_it_runs_at_once_and_shows_both_sides(command: Command, tmp_path: Path) -> None:
    answer = command("attention", "--out", tmp_path / "out")
    assert answer.status == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    trace = AttentionTrace.load(tmp_path / "out" / "attention.json")
    assert answer.out.startswith("Attention of mini: The capital of France is") and "·Paris, probability" in answer.out
    header = next(line for line in answer.out.splitlines() if "rollout" in line)
    assert header.split() == ["token", "LAT", "rollout", "flow", "norm", "replaced", "hidden"]
    row = next(line for line in answer.out.splitlines() if "5 ·France" in line).split()
    assert float(row[-1]) == pytest.approx(float(trace.effects["knockout"][0, 5]), abs=0.006)
    assert float(row[3]) == pytest.approx(float(trace.tracings["rollout"][0, 5]), abs=0.0006)
    for words in ("Rank correlation with replaced: LAT", "Attention is a hint, not a cause", "Files in", "Try next"):
        assert words in answer.out
    assert max(len(" ".join(line.replace(str(tmp_path), "").split())) for line in answer.out.splitlines()) <= 125


def test_files_and_json_say_the_same_and_heads_are_drawn(command: Command, tmp_path: Path) -> None:
    asked = ("The capital of Austria is", "--answer", " Rome", "--position", -2, "--replace", "resample", "--seed", 3)
    answer = command("attention", *asked, "--heads", "a1.h0,a3.h7", "--out", tmp_path, "--json")
    found, trace = json.loads(answer.out), AttentionTrace.load(tmp_path / "attention.json")
    assert set(found["files"]) == {*FILES, "patterns.png"}
    assert all(Path(path).is_file() for path in found["files"].values())
    assert (found["answer"], found["position"], found["replaced_by"], found["seed"]) == (" Rome", 5, "resample", 3)
    assert [row["knockout"] for row in found["tokens"]] == trace.effects["knockout"][0].tolist()
    with (tmp_path / "attention.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["flow"]) for row in rows] == pytest.approx(trace.tracings["flow"][0].tolist())
    assert len(found["disagreement"]) == 8 and "hint" in found["note"]
    assert all((tmp_path / name).read_bytes().startswith(PNG) for name in ("attention.png", "patterns.png"))
    shown = json.loads(command("attention", "--open", tmp_path / "attention.json", "--out", tmp_path / "b", "--json").out)
    written = {path.name for path in (tmp_path / "b").iterdir()}
    assert set(shown.pop("files")) == written == FILES - {"attention.json"}
    assert shown == {name: value for name, value in found.items() if name != "files"}
    report = command("attention", "--open", tmp_path / "attention.json").out
    assert report.startswith("Attention of mini: The capital of Austria is\n\nanswer: ·Rome, ")
    for given in (["--position", 0], ["--no-bos"], ["--prompt", "Hi"], ["--device", "cpu"]):
        said = given[0].replace("--no-", "--")
        check_one_line(command("attention", "--open", tmp_path / "attention.json", *given), "computes nothing", said)


def test_labels_and_the_probe(command: Command, treebank: Path, tmp_path: Path) -> None:
    answer = command("attention", "labels", treebank, "--min-count", 5, "--out", tmp_path / "out")
    assert answer.status == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == LABELS
    labels = HeadLabels.load(tmp_path / "out" / "labels.json")
    assert set(labels.rows) == {("det", "dependent"), ("amod", "dependent"), ("nsubj", "dependent"), ("obj", "head")}
    assert labels.baseline.tolist() == [1.0] * 4, "all sentences are built alike"
    assert "0 pairs of head and relation beat position alone" in answer.out and "nsubj at its dependent" in answer.out
    probe = AttentionProbe.load(tmp_path / "out" / "probe.json")
    assert f"{probe.scores['probe']['all'][0]:.1%}" in answer.out
    again = command("attention", "labels", treebank, "--relations", "det", "--min-count", 5, "--out", tmp_path, "--json")
    found = json.loads(again.out)
    assert [row["relation"] for row in found["best"]] == ["det"] and found["sentences"] == 12
    assert found["probe"]["uas"]["offset"]["all"]["share"] == probe.scores["offset"]["all"][0]
    shown = command("attention", "labels", "--open", tmp_path / "out" / "labels.json", "--out", tmp_path / "again")
    before = answer.out.partition("Files in")[0]
    assert "Files in" in shown.out and shown.out.partition("Files in")[0] == before.replace(f" of {treebank.name}", "")
    assert {path.name for path in (tmp_path / "again").iterdir()} == {"labels.csv", "labels.png", "probe.csv"}
    (tmp_path / "out" / "probe.json").unlink()
    alone = json.loads(command("attention", "labels", "--open", tmp_path / "out" / "labels.json", "--json").out)
    assert alone["probe"] is None and len(alone["best"]) == 4


def test_a_checkpoint_with_random_weights(command: Command, tiny: Path, tmp_path: Path) -> None:
    answer = command("attention", "Hi $x$\n", "--model", tiny, "--out", tmp_path)
    assert answer.status == 0 and "4 $" in answer.out.replace("·", "") + "4 $"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("",), "the prompt is empty: give a text"),
        (("$", "--no-bos"), "attention has nothing to choose from"),
        (("Hi", "--answer", " of two words"), "expected one"),
        (("Hi", "--position", 40), "no position 40"),
        (("Hi", "--heads", "m1"), "m1 has no attention pattern"),
        (("Hi", "--heads", "a9.h0"), "a9.h0"),
        (("Hi", "--replace", "zero"), "--replace is 'zero'"),
        (("Hi", "--limit", 5), "No such option: --limit"),
        (("Hi", "--prompt", "there"), "PROMPT and --prompt"),
        (("labels",), "name a file of sentences"),
        (("labels", "missing.conllu"), "missing.conllu: No such file"),
        (("labels", "missing.conllu", "Hi"), "unexpected extra argument"),
        (("labels", "--open", "missing.json"), "missing.json"),
        (("--model", "no/such"), "no/such"),
        (("--memory", 1, "word " * 120), "MiB"),
    ],
)
def test_mistakes_end_in_one_line_and_no_files(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = command("attention", *arguments)
    check_one_line(answer, words)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_treebank(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "text.conllu"
    path.write_text("Once upon a time\n")
    check_one_line(command("attention", "labels", path, "--out", tmp_path / "out"), "line 1: 1 columns between tabs")
    assert not (tmp_path / "out").exists()
