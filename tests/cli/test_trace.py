"""`circuits trace`: one prompt, facts of a file, saved results, and what a user can get wrong."""

import csv
import json
from pathlib import Path

import pytest

from circuits.patching import Trace, Traces
from circuits.tasks import mini_facts
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line

PNG = b"\x89PNG\r\n\x1a\n"
AUSTRIA = ("--prompt", "The capital of Austria is", "--subject", "Austria")
QUICK = ("--draws", 2)
TRACE_FILES = {"trace.json", "trace.csv", "trace.png"}


@pytest.fixture
def rome(tmp_path: Path) -> Path:
    """Three facts in ROME's format, the second of which is wrong."""
    facts = mini_facts(relation="country_capital")[:2] + mini_facts(relation="star_in_constellation")[:1]
    names = [facts[0].attribute, "Atlantis", facts[2].attribute]
    rows = [
        {"known_id": index, "prompt": fact.prompt, "subject": fact.subject, "attribute": name, "relation_id": "P36"}
        for index, (fact, name) in enumerate(zip(facts, names, strict=True))
    ]
    path = tmp_path / "known.json"
    path.write_text(json.dumps(rows))
    return path


def test_help_teaches_by_example(command: Command) -> None:
    answer = command("trace", "--help")
    assert answer.status == 0 and "Examples:" in answer.out and "known_1000.json" in answer.out


def test_it_runs_at_once_on_a_fact_of_the_bundled_model(command: Command, tmp_path: Path) -> None:
    answer = command("trace", *QUICK, "--out", tmp_path / "out")
    assert answer.status == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == TRACE_FILES
    trace = Trace.load(tmp_path / "out" / "trace.json")
    assert trace.prompt == mini_facts(relation="country_capital")[0].prompt and trace.clean > 0.9
    assert answer.out.startswith(f"Causal trace of mini: {trace.prompt}")
    for words in ("clean", "states restored", "MLP outputs restored, 2 layers around", "Files in", "Try next", "--open"):
        assert words in answer.out
    assert max(len(" ".join(line.replace(str(tmp_path), "").split())) for line in answer.out.splitlines()) <= 110


def test_files_and_json_say_the_same(command: Command, tmp_path: Path) -> None:
    answer = command("trace", *AUSTRIA, *QUICK, "--severed", "--window", 1, "--seed", 5, "--out", tmp_path, "--json")
    found, trace = json.loads(answer.out), Trace.load(tmp_path / "trace.json")
    assert set(found["files"]) == TRACE_FILES and all(Path(path).is_file() for path in found["files"].values())
    assert found["answer"] == " Vienna" and (found["window"], found["seed"], found["draws"]) == (1, 5, 2)
    assert len(found["indirect_effects"]) == 5
    for kind, rows in found["indirect_effects"].items():
        assert rows == trace.effects(kind).tolist()
    with (tmp_path / "trace.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * len(trace.tokens) * 4
    row = next(row for row in rows if (row["kind"], row["position"], row["layer"]) == ("mlp", "5", "2"))
    assert float(row["indirect_effect"]) == pytest.approx(found["indirect_effects"]["mlp"][5][2])
    assert (tmp_path / "trace.png").read_bytes().startswith(PNG)


def test_a_replacement_instead_of_noise(command: Command, tmp_path: Path) -> None:
    answer = command("trace", *AUSTRIA, "--replacement", "Japan", "--kinds", "states", "--out", tmp_path)
    assert answer.status == 0 and "the subject replaced" in answer.out and "MLP" not in answer.out.split("Files")[0]


def test_bos_can_be_left_out(command: Command, tmp_path: Path) -> None:
    counts = {}
    for option in ("--bos", "--no-bos"):
        answer = command("trace", *AUSTRIA, *QUICK, "--kinds", "states", option, "--out", tmp_path, "--json")
        counts[option] = len(json.loads(answer.out)["tokens"])
    assert counts["--bos"] == counts["--no-bos"] + 1


def test_the_same_seed_gives_the_same_files(command: Command, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        command("trace", *AUSTRIA, *QUICK, "--seed", seed, "--out", tmp_path / name)
    for name in TRACE_FILES:
        files = [(tmp_path / folder / name).read_bytes() for folder in ("one", "two", "three")]
        assert files[0] == files[1] != files[2], name


def test_facts_of_a_rome_file(command: Command, tmp_path: Path, rome: Path) -> None:
    out = tmp_path / "out"
    answer = command("trace", "--facts", rome, *QUICK, "--out", out)
    assert answer.status == 0
    assert {path.name for path in out.iterdir()} == {"traces.json", "roles.csv", "roles.png", "heatmaps"}
    assert {path.name for path in (out / "heatmaps").iterdir()} == {"fact-01.png", "fact-02.png"}
    traces = Traces.load(out / "traces.json")
    assert len(traces.traces) == 2 and "Atlantis" in traces.skipped[0][1]
    for words in ("2 facts that it knows, 1 skipped", "average total effect", "last subject token", "Atlantis"):
        assert words in answer.out
    effect, half = traces.average_total_effect()
    assert f"{effect:+.3f} [{effect - half:.3f}, {effect + half:.3f}]" in answer.out
    answer = command("trace", "--facts", rome, *QUICK, "--limit", 1, "--out", tmp_path / "less", "--json")
    found = json.loads(answer.out)
    assert found["facts"] == 1 and "heatmaps/fact-01.png" in found["files"] and found["skipped"] == []


def test_facts_of_an_lre_file(command: Command, tmp_path: Path) -> None:
    samples = [{"subject": fact.subject, "object": fact.attribute} for fact in mini_facts(relation="country_capital")[:2]]
    relation = {"name": "capitals", "prompt_templates": ["The capital of {} is"], "samples": samples}
    (tmp_path / "lre.json").write_text(json.dumps(relation))
    answer = command("trace", "--facts", tmp_path / "lre.json", *QUICK, "--kinds", "states", "--out", tmp_path, "--json")
    found = json.loads(answer.out)
    assert found["facts"] + len(found["skipped"]) == 2
    assert {row["kind"] for row in found["average_indirect_effects"]} == {"states"}


@pytest.mark.parametrize("many", [False, True])
def test_a_saved_result_is_shown_again(command: Command, tmp_path: Path, rome: Path, many: bool) -> None:
    asked = ("--facts", rome) if many else AUSTRIA
    first = command("trace", *asked, *QUICK, "--out", tmp_path / "out")
    name = "traces.json" if many else "trace.json"
    table, picture = ("roles.csv", "roles.png") if many else ("trace.csv", "trace.png")
    drawn = {file: (tmp_path / "out" / file).read_bytes() for file in (name, table, picture)}
    (tmp_path / "out" / picture).unlink()
    again = command("trace", "--open", tmp_path / "out" / name)
    assert again.status == 0
    said = first.out.replace(str(rome), "FILE")  # a result does not know its file of facts
    assert again.out.split() == said.split() and (many or again.out == first.out)
    assert {file: (tmp_path / "out" / file).read_bytes() for file in drawn} == drawn
    elsewhere = command("trace", "--open", tmp_path / "out" / name, "--out", tmp_path / "copy", "--json")
    assert json.loads(elsewhere.out)["model"] == "mini" and name not in json.loads(elsewhere.out)["files"]
    assert (tmp_path / "copy" / picture).read_bytes() == drawn[picture]


def test_too_little_memory_is_said_behind_what_is_known_and_leaves_no_file(command: Command, tmp_path: Path) -> None:
    answer = command("trace", *AUSTRIA, "--memory", 1, "--draws", 60, "--out", tmp_path / "out")
    assert answer.status == 2 and answer.out.startswith("Causal trace of mini: ")
    last = answer.err.splitlines()[-1]
    assert last.startswith("Error: ") and "MiB" in last and "budget" in last and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompt", "Rome is in"], ["PROMPT and --subject"]),
        (["--subject", "Rome"], ["PROMPT and --subject"]),
        (["--prompt", "Rome is in", "--subject", "Paris"], ["'Paris'", "not in it"]),
        ([*AUSTRIA, "--facts", "x.json"], ["PROMPT and --facts"]),
        ([*AUSTRIA, "--replacement", "the United Kingdom"], ["replacement", "equally many"]),
        ([*AUSTRIA, "--replacement", "Japan", "--noise", "1"], ["--noise and --replacement"]),
        (["--limit", "2"], ["--limit", "--facts"]),
        (["--noise", "0"], ["--noise"]),
        (["--noise", "nan"], ["--noise"]),
        (["--kinds", "states,wisdom"], ["'wisdom'", "states_severed_mlp"]),
        (["--kinds", ""], ["expected some of states"]),
        (["--facts", "nowhere.json"], ["nowhere.json", "No such file"]),
        (["--open", "nowhere.json"], ["nowhere.json", "No such file"]),
        (["--model", "./nowhere"], ["./nowhere"]),
        (["--device", "abacus"], ["abacus"]),
    ],
)
def test_what_cannot_be_done_is_one_line(command: Command, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    check_one_line(command("trace", "--out", tmp_path / "out", *arguments), *words)
    assert not (tmp_path / "out").exists(), "nothing is left behind"


@pytest.mark.parametrize("option", ["--facts", "--open"])
@pytest.mark.parametrize("content", ["", "{", "[]", "[1]", '{"format": "circuits-trace", "version": 1}', '{"format": 7}'])
def test_a_malformed_file_is_named(command: Command, tmp_path: Path, option: str, content: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    check_one_line(command("trace", option, tmp_path / "bad.json", "--out", tmp_path / "out"), "bad.json")
    assert not (tmp_path / "out").exists()


def test_facts_that_the_model_does_not_know(command: Command, tmp_path: Path) -> None:
    rows = [{"prompt": "The capital of Austria is", "subject": "Austria", "attribute": "Atlantis"}]
    (tmp_path / "facts.json").write_text(json.dumps(rows))
    answer = command("trace", "--facts", tmp_path / "facts.json", "--out", tmp_path / "out")
    check_one_line(answer, "none of 1 facts", "Vienna", "Atlantis")


def test_a_trace_of_unknown_kinds_is_refused(command: Command, tmp_path: Path) -> None:
    command("trace", *AUSTRIA, *QUICK, "--kinds", "states", "--out", tmp_path)
    document = json.loads((tmp_path / "trace.json").read_text())
    document["trace"]["restored"] = {"\x1b[31mwisdom": document["trace"]["restored"]["states"]}
    (tmp_path / "odd.json").write_text(json.dumps(document))
    check_one_line(command("trace", "--open", tmp_path / "odd.json"), "wisdom", "expected some of states")
