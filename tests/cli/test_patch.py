"""`circuits patch`: what it says is what the library measures, its files can be opened again, and it refuses in one line."""

import csv
import json
from pathlib import Path

import pytest
import torch

import circuits
from circuits.cli.metrics import metric_names
from circuits.cli.prompts import PromptOptions
from circuits.models import Model
from circuits.patching import Effects, patch_edges, patch_nodes, patch_path
from circuits.tasks import PromptReport
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line

PNG = b"\x89PNG\r\n\x1a\n"
PAIR = ("--clean", "ab cab", "--corrupt", "ad cab", "--answer", "c", "--distractor", "d")


@pytest.fixture(scope="module")
def model(tiny: Path) -> Model:
    return circuits.load_model(str(tiny))


@pytest.fixture
def prompt_files(tmp_path: Path) -> tuple[Path, Path]:
    """The same two pairs as EAP-IG CSV and as AutoCircuit JSON, without telling names."""
    rows = [("abcab", "adcab", "c", "d"), ("efgef", "ehgef", "g", "h")]
    table, tree = tmp_path / "one.txt", tmp_path / "two.txt"
    with table.open("w", newline="") as file:
        labels = [(clean, corrupt, json.dumps([answer, other])) for clean, corrupt, answer, other in rows]
        csv.writer(file).writerows([("clean", "corrupted", "label"), *labels])
    prompts = [{"clean": a, "corrupt": b, "answers": [c], "wrong_answers": [d]} for a, b, c, d in rows]
    tree.write_text("\n " + json.dumps({"prompts": prompts, "word_idxs": {"changed": 1}}))
    return table, tree


def effects_in(folder: Path) -> Effects:
    return Effects.load(folder / "effects.json")


def test_nodes_are_patched_as_in_the_library(command: Command, tiny: Path, model: Model, tmp_path: Path) -> None:
    options = ("--model", tiny, "--count", 5, "--seed", 3, "--direction", "noising", "--out", tmp_path / "out")
    answer = command("patch", *options, "--top", 4)
    assert answer.status == 0
    pairs = circuits.tasks.induction(model, count=5, seed=3)
    expected = patch_nodes(model, pairs, circuits.metrics.logit_difference, direction="noising", seed=3)
    found = effects_in(tmp_path / "out")
    assert found.names == expected.names and torch.allclose(found.scores, expected.scores, atol=1e-5)
    for name, value in expected.top(4):
        assert any(line.startswith(name) and f"{value:+.3f}" in line for line in answer.out.splitlines())
    for words in (
        "5 prompts (task induction, seed 3)",
        "\nasks: which token followed",
        "noising",
        "more in effects.csv",
        "Files in",
        "Try next",
    ):
        assert words in answer.out
    files = {"effects.json", "effects.csv", "effects.png", "prompts.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    look = PromptReport.load(tmp_path / "out" / "prompts.json")
    assert (look.prompts, look.drawn) == (pairs.labels, None) and f"Prompts: {look.summary[:20]}" in answer.out
    assert all(f"! {line[:40]}" in answer.out for line in look.advice())
    assert (tmp_path / "out" / "effects.png").read_bytes().startswith(PNG)


def test_edges_and_paths_are_patched_as_in_the_library(command: Command, tiny: Path, model: Model, tmp_path: Path) -> None:
    pairs, metric = circuits.tasks.induction(model, count=2), circuits.metrics.logit_difference
    common = ("--model", tiny, "--count", 2, "--out", tmp_path)
    command("patch", *common, "--edges", "m0->logits, a0.h1->a1.h2<k>")
    expected = patch_edges(model, pairs, metric, ["m0->logits", "a0.h1->a1.h2<k>"])
    assert effects_in(tmp_path).names == expected.names and effects_in(tmp_path).direction == "denoising"
    assert torch.allclose(effects_in(tmp_path).scores, expected.scores, atol=1e-5)
    assert (tmp_path / "paths.png").read_bytes().startswith(PNG)
    command("patch", *common, "--path", "a0.h1,a1.h2<v>,logits", "--path", "m0,a1.h0,logits", "--freeze-mlps")
    paths = [["a0.h1", "a1.h2<v>", "logits"], ["m0", "a1.h0", "logits"]]
    expected = patch_path(model, pairs, metric, paths, freeze_mlps=True)
    assert effects_in(tmp_path).names == expected.names and effects_in(tmp_path).direction == "noising"
    assert torch.allclose(effects_in(tmp_path).scores, expected.scores, atol=1e-5)
    command("patch", *common, "--nodes", "m0")
    assert not (tmp_path / "paths.png").exists(), "no picture of an earlier run stays beside these effects"


def test_all_edges_are_patched(command: Command, tiny: Path, model: Model, tmp_path: Path) -> None:
    answer = command("patch", "--model", tiny, *PAIR, "--edges", "all", "--out", tmp_path, "--json")
    assert len(json.loads(answer.out)["effects"]) == model.graph().edge_count


def test_one_pair_of_texts_shows_its_tokens(command: Command, tiny: Path, tmp_path: Path) -> None:
    answer = command("patch", "--model", tiny, *PAIR, "--nodes", "residual", "--positions", "each", "--out", tmp_path)
    assert effects_in(tmp_path).metadata["tokens"][-3:] == ["c", "a", "b"]
    assert "asks:" not in answer.out, "nothing is known of what one's own prompts ask"
    assert "1 prompt (given as text)" in answer.out and "[95 % interval]" not in answer.out
    width = len(effects_in(tmp_path).metadata["tokens"])
    assert f"resid0@{width - 1} b" in command("patch", "--open", tmp_path / "effects.json", "--top", 100).out


def test_prompts_come_from_either_kind_of_file(
    command: Command, tiny: Path, prompt_files: tuple[Path, Path], tmp_path: Path
) -> None:
    for place, file in enumerate(prompt_files):
        out = tmp_path / str(place)
        assert command("patch", "--model", tiny, "--prompts", file, "--nodes", "heads", "--out", out).status == 0
    one, two = (effects_in(tmp_path / str(place)) for place in range(2))
    assert one.prompts == ("abcab", "efgef") and torch.equal(one.scores, two.scores)
    options = ("--model", tiny, "--prompts", prompt_files[1], "--count", 1, "--positions", "changed,-1", "--nodes", "m0")
    command("patch", *options, "--out", tmp_path / "3")
    assert effects_in(tmp_path / "3").names == ("m0@changed", "m0@-1") and len(effects_in(tmp_path / "3").clean) == 1


def test_facts_are_prompts_too(command: Command, tmp_path: Path) -> None:
    options = ("--task", "facts", "--count", 2, "--positions", "subject_last", "--nodes", "mlps")
    answer = command("patch", *options, "--out", tmp_path, "--json")
    found = json.loads(answer.out)
    assert found["question"] == circuits.tasks.task("facts").question
    assert found["prompts"] == 2 and found["source"] == "task facts, seed 0" and found["clean"] > 0 > found["corrupt"]
    assert [row["patch"] for row in found["effects"]] == [f"m{layer}@subject_last" for layer in range(4)]


@pytest.mark.parametrize("metric", metric_names())
def test_every_metric_can_be_named(command: Command, tmp_path: Path, metric: str) -> None:
    answer = command("patch", "--count", 2, "--seed", 1, "--nodes", "input,m3", "--metric", metric, "--out", tmp_path, "--json")
    found = json.loads(answer.out)
    whole = found["effects"][0]
    assert found["metric"] == {"kl": "kl_divergence"}.get(metric, metric)
    assert whole["effect"] == pytest.approx(1) and whole["metric"] == pytest.approx(found["clean"], abs=1e-4)
    assert metric != "kl" or found["clean"] == pytest.approx(0, abs=1e-5)


def test_saved_effects_can_be_opened_again(command: Command, tiny: Path, tmp_path: Path) -> None:
    first = command("patch", "--model", tiny, "--count", 2, "--edges", "m0->m1,m1->logits", "--out", tmp_path / "one", "--json")
    again = command("patch", "--open", tmp_path / "one" / "effects.json", "--out", tmp_path / "two", "--json")
    first, again = json.loads(first.out), json.loads(again.out)
    assert set(first.pop("files")) == {"effects.json", "prompts.json", *again.pop("files")} and first == again
    for name in ("effects.csv", "effects.png", "paths.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_suggested_command_names_the_same_prompts() -> None:
    options = PromptOptions(task="facts", count=7, seed=2)
    assert options.arguments() == ["--task", "facts", "--count", "7", "--seed", "2"]
    assert PromptOptions().arguments() == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--nodes", "foo"], ["'foo' is not a node", "residual"]),
        (["--nodes", "a9.h0"], ["no node a9.h0", "2 layers"]),
        (["--edges", "m1->m0"], ["m1->m0", "not computed after"]),
        (["--edges", "a0.h0->a1.h0"], ["a1.h0<k>"]),
        (["--edges", "a0.h0->a7.h0<k>"], ["no edge", "2 layers"]),
        (["--edges", ","], ["no edges to patch"]),
        (["--path", "a0.h0"], ["a writer and a reader"]),
        (["--path", "a1.h0,a0.h0<q>"], ["does not feed"]),
        (["--nodes", "m0", "--edges", "all"], ["--nodes and --edges"]),
        (["--freeze-mlps"], ["--path"]),
        (["--direction", "sideways"], ["sideways", "noising"]),
        (["--metric", "loudness"], ["loudness", "logit_difference"]),
        (["--task", "chess"], ["chess", "induction"]),
        (["--positions", "nowhere"], ["'nowhere'", "last"]),
        (["--positions", "99"], ["99", "longest has"]),
        (["--prompts", "nowhere.csv"], ["nowhere.csv", "No such file"]),
        (["--prompts", "/"], ["not a file"]),
        (["--clean", "ab"], ["--corrupt is missing"]),
        ([*PAIR, "--task", "facts"], ["--task and --clean"]),
        (["--clean", "ab", "--corrupt", "abc", "--answer", "c", "--distractor", "d"], ["2 tokens", "the corrupt one 3"]),
        (["--clean", "ab", "--corrupt", "ad", "--answer", "cat", "--distractor", "d"], ["'cat' is 3 tokens"]),
        (["--memory", "1", "--count", "900", "--nodes", "m0"], ["budget", "--memory"]),
        (["--open", "effects.json"], ["--open", "leave out --model"]),
        (["--open", "effects.json", "--task", "facts"], ["--open", "--task"]),
    ],
)
def test_what_cannot_be_patched_is_one_line_and_no_file(
    command: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    check_one_line(command("patch", "--model", tiny, "--out", tmp_path / "out", *options), *words)
    assert not (tmp_path / "out").exists()


def test_files_that_hold_something_else_are_refused(command: Command, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    check_one_line(command("patch", "--model", tiny, "--prompts", tmp_path / "notes.txt"), "notes.txt", "header")
    check_one_line(command("patch", "--open", tmp_path / "notes.txt"), "notes.txt", "JSON")
    check_one_line(command("patch", "--open", tmp_path / "nowhere.json"), "nowhere.json", "No such file")
    check_one_line(command("patch", "--model", tmp_path), "config.json")
    command("patch", "--model", tiny, *PAIR, "--nodes", "m0,m1", "--out", tmp_path)
    document = json.loads((tmp_path / "effects.json").read_text())
    for broken in ({"names": [], "scores": []}, {"clean": document["corrupt"]}, {"names": ["m0", "m0->"]}, {"direction": "up"}):
        (tmp_path / "broken.json").write_text(json.dumps({**document, **broken}))
        answer = command("patch", "--open", tmp_path / "broken.json", "--out", tmp_path / "new")
        assert answer.status == 2 or "no paths.png" in answer.err


def test_a_place_that_cannot_be_written(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    check_one_line(command("patch", "--out", tmp_path / "file"), "cannot be written", "--out")
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("job", ["patch", "ablate"])
def test_help_teaches(command: Command, job: str) -> None:
    answer = command(job, "--help")
    assert answer.status == 0 and "Examples:" in answer.out and f"circuits {job} " in answer.out
    assert f"\n  {job} " in command("--help").out
