"""`circuits evaluate`: the verdict of the library on a circuit from any source, and one line for what is no such circuit."""

import csv
import inspect
import json
from pathlib import Path

import pytest

import circuits
from circuits.cli import app
from circuits.cli.commands.evaluate import FILES
from circuits.cli.options import CircuitFile
from circuits.cli.reports import verdict as verdicts
from circuits.cli.reports.verdict import judged
from circuits.graph import Circuit, Graph, Roles
from circuits.models import Model
from circuits.search.judging.evaluate import evaluate
from circuits.search.judging.verdict import Verdict
from circuits.statistics import Effect
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line

QUICK = ("--count", 3, "--random-circuits", 19)


@pytest.fixture(scope="module")
def model(tiny: Path) -> Model:
    return circuits.load_model(str(tiny))


@pytest.fixture(scope="module")
def files(model: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A part of the tiny model's graph in this package's format, in MIB's, and as EAP-IG itself writes it."""
    folder, names = tmp_path_factory.mktemp("circuits"), {}
    edges = [edge for edge in model.graph().edges() if "a1.h0" not in str(edge)]
    circuit = Circuit(model.graph(), dict.fromkeys(edges, -1.0))
    for name in ("circuit.json", "circuit.mib.json"):
        circuit.save(folder / name)
        names[name] = folder / name
    document = json.loads(names["circuit.mib.json"].read_text())
    document["cfg"] = {key: document["cfg"][key] for key in ("n_layers", "n_heads", "parallel_attn_mlp", "d_model")}
    names["eap-ig"] = folder / "theirs.json"
    names["eap-ig"].write_text(json.dumps(document))
    return names


def test_the_verdict_is_that_of_the_library(
    command: Command, tiny: Path, model: Model, files: dict[str, Path], tmp_path: Path
) -> None:
    answer = command("evaluate", files["circuit.json"], "--model", tiny, *QUICK, "--seed", 2, "--out", tmp_path)
    assert answer.status == 0, answer.err
    circuit, pairs = Circuit.load(files["circuit.json"]), circuits.tasks.induction(model, count=3, seed=2)
    expected = evaluate(model, circuit, pairs, circuits.metrics.logit_difference, random_circuits=19, seed=2)
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    found = Verdict.load(tmp_path / "verdict.json")
    assert found.faithfulness.effect == pytest.approx(expected.faithfulness.effect, abs=1e-5)
    assert len(found.minimality) == len(expected.minimality) > 0 and found.p_value == expected.p_value
    words = " ".join(answer.out.split())
    assert " ".join(found.summary.split()) in words and f"faithfulness {found.faithfulness.effect:.3f} [" in words
    assert (
        "complete?" in words
        and "minimal?" in words
        and "\nasks: which token followed" in answer.out
        and "3 prompts (task induction, seed 2)" in words
    )
    with (tmp_path / "verdict.csv").open(newline="") as file:
        assert next(row["measure"] for row in csv.DictReader(file)) == "faithfulness"


def test_circuits_of_other_tools(command: Command, tiny: Path, files: dict[str, Path], tmp_path: Path) -> None:
    common = ("--model", tiny, *QUICK, "--no-minimality", "--out", tmp_path, "--json")
    said = [json.loads(command("evaluate", path, *common).out) for path in files.values()]
    assert all(one["verdict"]["faithfulness"] == said[0]["verdict"]["faithfulness"] for one in said)
    assert said[0]["verdict"]["minimality"] == [] and said[0]["unneeded"] == []
    assert said[0]["source"] == "task induction, seed 1", "not the prompts that a search begins with"


def test_how_many_nodes_are_asked_for(
    command: Command, tiny: Path, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "_LONG", 0.0)
    common = ("evaluate", files["circuit.json"], "--model", tiny, *QUICK, "--out", tmp_path)
    answer = command(*common, "--minimality", 2)
    nodes = len(Circuit.load(files["circuit.json"]).nodes) - 2
    assert answer.status == 0 and f"2 nodes drawn at random from {nodes}; --minimality all asks for every one" in answer.out
    assert len(Verdict.load(tmp_path / "verdict.json").minimality) == 2
    line = next(line for line in answer.err.splitlines() if line.startswith("judging takes roughly "))
    assert "random circuits " in line and line.endswith("; --no-minimality leaves out nodes one by one")
    for wrong in (("--minimality", "some"), ("--minimality", "3", "--no-minimality")):
        check_one_line(command(*common, *wrong), "--minimality")


def test_what_edges_outside_carry(command: Command, tiny: Path, files: dict[str, Path], tmp_path: Path) -> None:
    common = (files["circuit.json"], "--model", tiny, *QUICK, "--no-minimality", "--out", tmp_path, "--json")
    said = {name: json.loads(command("evaluate", *common, "--outside", name).out) for name in ("corrupt", "mean", "zero")}
    assert len({one["verdict"]["faithfulness"]["effect"] for one in said.values()}) == 3
    assert [one["outside"] for one in said.values()] == list(said)


@pytest.mark.parametrize(
    ("low", "p_value", "word"),
    [
        (0.6, 0.01, "proven"),
        (0.4, 0.01, "partial"),
        (-0.1, 0.01, "unproven"),
        (0.6, 0.2, "unproven"),
        (0.6, None, "unproven"),
    ],
)
def test_what_counts_as_proven(low: float, p_value: float | None, word: str) -> None:
    verdict = Verdict(edges=1, nodes=2, share=0.1, prompts=5, faithfulness=Effect(0.8, low, 0.9), null=(), p_value=p_value)
    chance = "not held against chance" if p_value is None else f"p = {p_value:g}"
    assert verdict.standing == word and repr(verdict).startswith(f"Verdict({word}, {chance}: 1 edges")


@pytest.mark.parametrize(
    ("low", "draws", "p_value", "why"),
    [
        (0.6, 0, None, "random circuits would tell"),
        (0.6, 8, 1 / 9, "p cannot fall below 0.11 with 8 random circuits"),
        (0.6, 128, 0.2, "chance does as well"),
        (-0.1, 128, 1 / 129, "the interval reaches down to nothing"),
    ],
)
def test_an_unproven_verdict_says_the_reason_that_holds(low: float, draws: int, p_value: float | None, why: str) -> None:
    faithfulness = Effect(0.8, low, 0.9)
    verdict = Verdict(edges=1, nodes=2, share=0.1, prompts=5, faithfulness=faithfulness, null=(0.1,) * draws, p_value=p_value)
    assert judged(verdict).startswith("Unproven: ") and why in judged(verdict)


def test_what_is_next_to_nothing_has_no_sign() -> None:
    faithfulness = Effect(-0.0004, -0.001, 0.0)
    verdict = Verdict(edges=1, nodes=2, share=0.1, prompts=5, faithfulness=faithfulness, null=(-0.001,), p_value=0.5)
    assert "keep 0.00 of" in verdict.summary and "at most 0.00" in verdict.summary and "interval 0.00 to" in verdict.summary
    assert "faithfulness 0.000 [-0.001, 0.000]" in judged(verdict)


@pytest.mark.parametrize(
    ("prompts", "independent", "word", "said"),
    [
        (1, 1, "unproven", "only 1 independent prompt: it takes 5 or more"),
        (2, 2, "unproven", "only 2 independent prompts: it takes 5 or more"),
        (3, None, "unproven", "only 3 independent prompts: it takes 5 or more"),
        (4, 4, "unproven", "only 4 independent prompts: it takes 5 or more"),
        (5, 5, "proven", "better than chance"),
        (8, 4, "unproven", "only 4 independent prompts, since pairs that share a prompt count as one: it takes 5 or more"),
        (10, 5, "proven", "better than chance"),
        (20, None, "proven", "better than chance"),
    ],
)
def test_few_prompts_prove_nothing(prompts: int, independent: int | None, word: str, said: str) -> None:
    about = {"null": (0.1,) * 128, "p_value": 1 / 129, "independent": independent}
    verdict = Verdict(edges=1, nodes=2, share=0.1, prompts=prompts, faithfulness=Effect(0.8, 0.7, 0.9), **about)  # type: ignore[arg-type]
    lines = judged(verdict)
    assert verdict.standing == word and said in lines
    assert ("there is no interval" in verdict.summary) == (prompts == 1) == ("[" not in lines)
    assert (f"{prompts} prompts, {independent} independent" in verdict.summary) == (independent not in (None, prompts))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--outside", "sideways"], ["sideways", "corrupt, mean, zero"]),
        (["--task", "chess"], ["chess", "induction"]),
        (["--count", "0"], ["--count is 0"]),
        (["--metric", "loudness"], ["loudness"]),
        (["--model", "./nowhere"], ["nowhere"]),
        (["--task", "greater-than"], ["spans of time"]),
        (["--random-circuits", "-3"], ["--random-circuits"]),
    ],
)
def test_options_that_cannot_be(
    command: Command, tiny: Path, files: dict[str, Path], tmp_path: Path, options: list[str], words: list[str]
) -> None:
    line = ("evaluate", files["circuit.json"], "--model", tiny, "--out", tmp_path / "out", *options)
    check_one_line(command(*line), *words)
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_circuit_of_this_model(command: Command, tiny: Path, tmp_path: Path) -> None:
    other = Graph(n_layers=3, n_heads=2, n_key_value_heads=2, d_mlp=8)
    Circuit(other, ["a0.h1->logits"]).save(tmp_path / "other.json")
    Circuit(circuits.load_model(str(tiny)).graph()).save(tmp_path / "empty.json")
    (tmp_path / "broken.json").write_text('{"format": ')
    cases = {
        "other.json": ["another graph", "3 layers of 2 heads", "2 layers"],
        "empty.json": ["no edges"],
        "broken.json": ["broken.json"],
        "missing.json": ["No such file"],
        "notes.txt": ["notes.txt", ".json"],
    }
    for name, words in cases.items():
        line = ("evaluate", tmp_path / name, "--model", tiny, "--out", tmp_path / "out")
        check_one_line(command(*line), *words)
        assert not (tmp_path / "out").exists()


def commands_of_circuits_and_prompts() -> list[str]:
    """The commands that take a circuit's file and prompts, by their signatures."""
    taken: dict[str, dict[str, object]] = {}
    for one in app.registered_commands:
        if one.callback is not None:
            known = inspect.signature(one.callback).parameters.items()
            taken[one.name or one.callback.__name__] = {name: parameter.annotation for name, parameter in known}
    found = [name for name, known in taken.items() if CircuitFile in known.values() and {"task", "prompts"} & known.keys()]
    assert "evaluate" in found
    return found


@pytest.mark.parametrize("name", commands_of_circuits_and_prompts())
def test_prompts_that_lack_a_role_of_the_circuit_change_nothing(
    command: Command, tiny: Path, model: Model, tmp_path: Path, name: str
) -> None:
    graph = model.graph(roles=Roles.causal("start", "S2", "end"))
    Circuit(graph, ["input@S2->a1.h0@end<k>", "a1.h0@end->logits@end"]).save(tmp_path / "circuit.json")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "prompts.json").write_text("as it was")
    line = (name, tmp_path / "circuit.json", "--model", tiny, "--count", 3)
    for folder in ("out", "other"):
        check_one_line(command(*line, "--out", tmp_path / folder), "circuit.json", "no prompt has the role S2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circuit.json", "out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["prompts.json"]
    assert (tmp_path / "out" / "prompts.json").read_text() == "as it was"


def test_a_circuit_of_other_weights_is_judged_and_that_is_said(
    command: Command, tiny: Path, model: Model, files: dict[str, Path], tmp_path: Path
) -> None:
    how = ("--model", tiny, *QUICK, "--no-minimality", "--out", tmp_path / "out")
    circuit = Circuit.load(files["circuit.json"])
    for sha, said in ((model.fingerprint, False), ("0f" * 32, True)):
        metadata = {"weights_sha256": sha, "model": "first-run"}
        Circuit(circuit.graph, circuit.edges, metadata=metadata).save(tmp_path / "circuit.json")
        answer = command("evaluate", tmp_path / "circuit.json", *how)
        assert answer.status == 0, answer.err
        assert ("found in first-run, with other weights than tiny has" in answer.err) == said
    assert "other weights" not in command("evaluate", files["eap-ig"], *how).err
