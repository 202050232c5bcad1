"""What the commands answer, for people and for programs."""

import csv
import importlib.metadata
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from circuits.cli.commands.induction import FILES as INDUCTION_FILES
from circuits.cli.output import staged
from circuits.cli.progress import ProgressBars
from circuits.cli.settings import Setting
from circuits.errors import FileFormatError
from circuits.graph import Circuit
from tests import HANGS
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line
from tests.models.bundled import mini

PNG = b"\x89PNG\r\n\x1a\n"


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_help_teaches_by_example(command: Command) -> None:
    whole = command("--help")
    assert whole.status == 0
    for name in ("induction", "heads", "models", "export", "info"):
        answer = command(name, "--help")
        assert answer.status == 0
        assert "Examples:" in answer.out and f"circuits {name}" in answer.out
        assert f"\n  {name} " in whole.out
    assert "a0.h1->a2.h0<k>" in whole.out


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(option: str) -> None:
    """That is what makes them quick; the seconds themselves are the machine's, and those of what else it does."""
    line = [sys.executable, "-X", "importtime", "-m", "circuits", option]
    done = subprocess.run(line, capture_output=True, text=True, timeout=HANGS, check=True)
    imported = {told.rpartition("|")[2].strip().partition(".")[0] for told in done.stderr.splitlines()}
    assert {"circuits", "typer"} <= imported
    heavy = {"torch", "transformers", "transformer_lens", "matplotlib", "pandas", "networkx", "numpy", "safetensors"}
    assert not imported & heavy, "something heavy is imported at the top"


def test_the_help_of_no_command_imports_what_is_heavy() -> None:
    heavy = "{'torch', 'transformers', 'matplotlib', 'pandas', 'networkx', 'numpy'}"
    code = (
        "import sys; from typer.testing import CliRunner; from circuits.cli import app\n"
        "for one in app.registered_commands:\n"
        "    words = (one.name or one.callback.__name__).split()\n"
        "    assert CliRunner().invoke(app, [*words, '--help']).exit_code == 0, words\n"
        f"    assert not {heavy} & set(sys.modules), words"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=HANGS)


def test_help_and_version_say_nothing_else(process: Command) -> None:
    answer = process("--help")
    assert answer.status == 0 and answer.out.startswith("Usage:") and answer.err == ""
    answer = process("--version")
    assert answer.out == f"circuits {importlib.metadata.version('transformer-circuits')}\n" and answer.err == ""


def test_models_are_listed(command: Command) -> None:
    answer = command("models", "--json")
    listed = json.loads(answer.out)
    mini = next(model for model in listed["bundled"] if model["name"] == "mini")
    assert mini["n_layers"] >= 4 and mini["parameters"] > 1e6 and mini["bytes"] < 12e6
    assert Path(mini["directory"], "config.json").is_file()
    assert "GPT2LMHeadModel" in listed["families"]
    words = command("models").out
    assert "mini" in words and "GPT2" in words and "Llama" in words


def test_head_scores_as_a_table_and_as_json(command: Command, tiny: Path) -> None:
    listed = json.loads(command("heads", "--model", tiny, "--sort", "copying", "--top", 3, "--json").out)
    values = [head["copying"] for head in listed["heads"]]
    assert len(values) == 3 and values == sorted(values, reverse=True)
    lines = command("heads", "--model", tiny, "--sort", "copying", "--top", 3).out.splitlines()
    assert len(lines) == 8 and lines[-1].startswith("Prompts begin without BOS, as the tokenizer's do; --bos puts")
    assert [line.split()[0] for line in lines[3:6]] == [head["name"] for head in listed["heads"]]


def test_head_scores_as_files(command: Command, tiny: Path, tmp_path: Path) -> None:
    assert command("heads", "--model", tiny, "--out", tmp_path / "new" / "scores.csv").status == 0
    rows = table_of(tmp_path / "new" / "scores.csv")
    assert [row["name"] for row in rows] == [f"a{layer}.h{head}" for layer in range(2) for head in range(4)]
    assert command("heads", "--model", tiny, "--out", tmp_path / "scores.png").status == 0
    assert (tmp_path / "scores.png").read_bytes().startswith(PNG)


def test_text_changes_what_is_measured_on_text_alone(command: Command, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("It was the best of times, it was the worst of times. " * 20)
    ask = ("heads", "--model", tiny, "--top", 8, "--json", "--sort", "copying")
    random, text = (json.loads(command(*ask, *more).out)["heads"] for more in ([], ["--text", tmp_path / "text.txt"]))
    for a, b in zip(random, text, strict=True):
        assert a["name"] == b["name"] and a["prefix_matching"] == b["prefix_matching"]
        assert a["previous_token"] != b["previous_token"]


def test_a_model_without_induction_heads_is_told_so(command: Command, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "circuit.json").write_text("old")
    answer = command("induction", "--model", tiny, "--out", out, "--sequences", 2)
    assert answer.status == 0
    assert f"\n\nInduction circuit of {tiny.name}: none\n\nNo induction circuit" in answer.out
    assert {path.name for path in out.iterdir()} == {*INDUCTION_FILES, "notes.txt"}
    assert (out / "notes.txt").read_text() == "mine"
    circuit = Circuit.load(out / "circuit.json")
    assert not circuit and circuit.metadata["verdict"] == "none"


def test_json_is_all_that_stands_on_stdout(command: Command, tiny: Path, tmp_path: Path) -> None:
    answer = command("induction", "--model", tiny, "--out", tmp_path, "--sequences", 2, "--json")
    found = json.loads(answer.out)
    assert found["verdict"] == "none" and found["nodes"] == [] and found["sequences"] == 2
    assert {name: Path(path).is_file() for name, path in found["files"].items()} == dict.fromkeys(INDUCTION_FILES, True)


def test_a_slow_step_is_shown_and_an_error_leaves_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBars() as progress:
        progress("slow", 0, 2)
        time.sleep(1.05)
        progress("slow", 1, 2)
        progress("slow", 2, 2)
    assert "slow" in capsys.readouterr().err
    with pytest.raises(ValueError), ProgressBars() as progress:
        progress("quick", 0, 2)
        raise ValueError
    assert "quick" not in capsys.readouterr().err


def test_the_same_seed_gives_the_same_files(command: Command, tiny: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        command("induction", "--model", tiny, "--out", tmp_path / name, "--sequences", 2, "--seed", 3)
    for name in INDUCTION_FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_info_says_what_is_in_a_file(command: Command, saved: Path) -> None:
    words = command("info", saved).out
    assert "4 of 8 nodes, 3 of" in words and "summary: two lines" in words and "previous token: a0.h1" in words
    assert "[bold]induction[/bold] �[31m: a1.h0" in words, "markup is text, and no terminal is told what to do"
    assert words.index("a1.h0->logits") < words.index("a0.h1->a1.h0<k>"), "the strongest edge comes first"
    listed = json.loads(command("info", saved, "--json").out)
    assert listed["counts"] == {"nodes": 4, "edges": 3, "graph_nodes": 8, "graph_edges": 46}
    assert {edge["name"]: edge.get("score") for edge in listed["edges"]} == {
        "input->a0.h1<v>": None,
        "a0.h1->a1.h0<k>": 0.5,
        "a1.h0->logits": -1.5,
    }
    assert listed["metadata"]["model"] == "m"


@pytest.mark.parametrize("to", ["json", "mib", "graphml", "dot"])
def test_export_writes_what_save_writes(command: Command, saved: Path, tmp_path: Path, to: str) -> None:
    circuit = Circuit.load(saved)
    suffix = {"mib": ".mib.json"}.get(to, f".{to}")
    circuit.save(tmp_path / f"expected{suffix}")
    expected = (tmp_path / f"expected{suffix}").read_text()
    assert command("export", saved, "--to", to).out == expected
    answer = command("export", saved, "--to", to, "--out", tmp_path / "any name")
    assert answer.out == "" and (tmp_path / "any name").read_text() == expected


def test_export_draws_a_circuit_over_a_prompt_for_neuronpedia(command: Command, saved: Path, tmp_path: Path) -> None:
    circuit = Circuit(mini().graph(), {"a0.h1->a1.h0<k>": 0.5, "a1.h0->logits": 1.0}, positions={"a0.h1": ["subject"]})
    circuit.save(tmp_path / "my circuit.json")
    asked = ["export", tmp_path / "my circuit.json", "--to", "neuronpedia", "--prompt", "The capital of France is"]
    answer = command(*asked, "--at", "subject=-2", "--out", tmp_path / "graph.json")
    assert answer.status == 0 and "stand at the last token" in answer.err and "wrote" in answer.err
    assert Circuit.load(tmp_path / "graph.json") == circuit
    document = json.loads((tmp_path / "graph.json").read_text())
    about, nodes = document["metadata"], {node["circuit"]["id"]: node for node in document["nodes"]}
    assert (about["slug"], about["scan"], len(about["prompt_tokens"])) == ("my-circuit", "mini", 7)
    assert nodes["logits"]["clerp"].startswith('Output " Paris" (p=0.') and nodes["a0.h1"]["ctx_idx"] == 5
    assert "a0.h1->a1.h0<k>" in command("info", tmp_path / "graph.json").out
    check_one_line(command(*asked, "--answer", "two words"), "expected exactly one")
    check_one_line(command(*asked, "--at", "subject"), "--at", "subject_last=3")
    check_one_line(command(*asked[:4]), "--prompt")
    check_one_line(command("export", saved, "--to", "dot", "--slug", "a"), "--slug", "neuronpedia")
    nowhere = command(*asked, "--model", tmp_path / "no model", "--out", tmp_path)
    check_one_line(nowhere, "it is a folder")
    assert "no model" not in nowhere.err, "refused before a model is asked for"
    check_one_line(command(*asked, "--slug", "a b"), "slug")
    check_one_line(command("export", saved, *asked[2:], "--model", "mini"), "another graph")
    check_one_line(command("export", saved, *asked[2:]), "--model")


def test_a_circuit_of_another_program_can_be_exported(command: Command, saved: Path, tmp_path: Path) -> None:
    command("export", saved, "--to", "mib", "--out", tmp_path / "circuit.mib.json")
    back = json.loads(command("export", tmp_path / "circuit.mib.json", "--to", "json").out)
    assert back["graph"]["counts"]["edges"] == 3


@pytest.mark.parametrize(
    ("model", "last"),
    [("mini", "mini"), ("EleutherAI/pythia-70m", "pythia-70m"), ("a/b c/", "b-c"), ("..", "model")],
)
def test_the_default_folder_is_named_after_the_model(model: str, last: str) -> None:
    assert Setting(job="induction", model=model).folder == Path("out") / f"induction-{last}"


def test_staged_files_appear_together_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), staged(tmp_path / "a" / "b") as folder:
        (folder / "half").write_text("x")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with staged(tmp_path / "a" / "b") as folder:
        (folder / "whole").write_text("x")
        assert not (tmp_path / "a" / "b" / "whole").exists()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["whole"]
    with pytest.raises(FileFormatError, match="--out"), staged(tmp_path / "a" / "b" / "whole"):
        pass


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The main job on the bundled model, done once: its folder, and what was printed."""
    from typer.testing import CliRunner

    from circuits.cli import app

    out = tmp_path_factory.mktemp("mini")
    result = CliRunner().invoke(app, ["induction", "--out", str(out), "--sequences", "4"])
    assert result.exit_code == 0, result.output
    return out, result.stdout


@pytest.mark.slow
def test_the_bundled_model_has_an_induction_circuit(found: tuple[Path, str]) -> None:
    out, words = found
    assert {path.name for path in out.iterdir()} == set(INDUCTION_FILES)
    circuit = Circuit.load(out / "circuit.json")
    assert circuit.metadata["verdict"] == "found"
    assert set(circuit.roles.values()) == {"induction", "previous token"}
    for node in circuit.roles:
        assert str(node) in words
    for heading in ("Induction circuit of mini: found", "How sure:", "random sets", "Files in", "Try next"):
        assert heading in words
    for name in INDUCTION_FILES:
        assert name in words
    lines = [re.sub(" {4,}", "   ", line.replace(str(out), "out/mini")) for line in words.splitlines()]
    assert max(map(len, lines)) <= 110, "it fits a terminal"


@pytest.mark.slow
def test_every_file_of_the_main_job_says_the_same(found: tuple[Path, str]) -> None:
    out, _ = found
    circuit = Circuit.load(out / "circuit.json")
    assert dict(Circuit.load(out / "circuit.mib.json").edges) == dict(circuit.edges)
    for name in ("circuit.graphml", "circuit.dot"):
        text = (out / name).read_text()
        assert all(str(node) in text for node in circuit.nodes)
    assert len(table_of(out / "head_scores.csv")) == circuit.graph.n_layers * circuit.graph.n_heads
    for name in ("heads.png", "patterns.png", "circuit.png"):
        assert (out / name).read_bytes().startswith(PNG)
