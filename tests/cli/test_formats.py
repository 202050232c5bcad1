"""Files of other tools on the command line: circuits counted by query head, prompts of any layout, rows that do not fit."""

import json
from pathlib import Path

import pytest

import circuits
from circuits.graph import Circuit, Graph
from circuits.graph.per_head import separate
from circuits.graph.storage import export
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line
from tests.models import bundled, checkpoints
from tests.tasks.layouts import LAYOUTS, listed


@pytest.fixture(scope="session")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers whose heads share keys."""
    directory = tmp_path_factory.mktemp("checkpoints") / "grouped"
    return checkpoints.save(checkpoints.build(*checkpoints.RECIPES["llama"]), directory)


@pytest.fixture
def theirs(grouped: Path, tmp_path: Path) -> tuple[Circuit, Path]:
    """A circuit of that model, and the file in which EAP-IG would have it: a k and a v edge a query head, no word of groups."""
    graph = circuits.load_model(str(grouped)).graph()
    assert graph.grouped
    circuit = Circuit(graph, {edge: -1.0 for edge in graph.edges() if "a1.h0" not in str(edge)})
    path = tmp_path / "theirs.json"
    export(circuit, path, "mib")
    document = json.loads(path.read_text())
    document["cfg"] = {key: document["cfg"][key] for key in ("n_layers", "n_heads", "parallel_attn_mlp", "d_model")}
    path.write_text(json.dumps(document))
    return circuit, path


def test_info_counts_both_graphs(command: Command, theirs: tuple[Circuit, Path], tmp_path: Path) -> None:
    circuit, path = theirs
    graph = circuit.graph
    said = command("info", path).out
    assert "does not say how many key-value heads" in said and "--key-value-heads" in said
    answer = command("info", path, "--key-value-heads", graph.n_key_value_heads)
    whole = separate(graph).edge_count
    assert f"{len(circuit):,} of {graph.edge_count:,} edges" in answer.out and f"of {whole:,} edges with keys" in answer.out
    listed_there = len(json.loads(path.read_text())["edges"])
    data = json.loads(command("info", path, "--key-value-heads", graph.n_key_value_heads, "--json").out)
    assert data["by_query_head"] == {"edges": listed_there, "graph_edges": whole, "divided": 0, "unsaid": False}
    assert data["counts"]["edges"] == len(circuit) and data["counts"]["graph_edges"] == graph.edge_count
    circuit.save(tmp_path / "own.json")
    assert f"by query head: {listed_there:,} of {whole:,} edges" in command("info", tmp_path / "own.json").out
    check_one_line(command("info", path, "--key-value-heads", 3), "cannot share 3 key-value heads")
    exported = command("export", tmp_path / "own.json", "--to", "mib", "--out", tmp_path / "own.mib.json")
    assert exported.status == 0 and f"{listed_there:,} of {whole:,} edges with keys" in exported.err
    ungrouped = Graph(n_layers=1, n_heads=1, n_key_value_heads=1, d_mlp=4)
    Circuit(ungrouped, ["input->m0"]).save(tmp_path / "plain.json")
    assert "query head" not in command("info", tmp_path / "plain.json").out


def test_a_file_by_query_head_is_judged_and_compared_by_group(
    command: Command, grouped: Path, theirs: tuple[Circuit, Path], tmp_path: Path
) -> None:
    circuit, path = theirs
    circuit.save(tmp_path / "own.json")
    quick = ("--model", grouped, "--count", 3, "--random-circuits", 19, "--no-minimality", "--json")
    one, other = (
        json.loads(command("evaluate", file, *quick, "--out", tmp_path / f"out{place}").out)
        for place, file in enumerate((path, tmp_path / "own.json"))
    )
    assert one["verdict"] == other["verdict"] and one["by_query_head"]["graph_edges"] == separate(circuit.graph).edge_count
    assert other["by_query_head"] is None
    compared = json.loads(command("compare", path, tmp_path / "own.json", "--json").out)
    assert compared["edges"] == {"both": len(circuit), "first": 0, "second": 0}
    assert compared["rank_correlation"] in (None, 1.0) and not compared["opposite"]
    said = command("compare", path, tmp_path / "own.json").out
    assert "A in its file:" in said and "B in its file:" not in said


def test_a_file_of_prompts_is_named_and_its_bad_rows_counted(command: Command, tmp_path: Path) -> None:
    mini = bundled.mini()
    path, quick = tmp_path / "prompts.json", ("--nodes", "a0.h0", "--out", tmp_path / "out", "--json")
    document = json.loads(LAYOUTS["autocircuit"][2](mini))
    path.write_bytes(listed(document))
    first = json.loads(command("patch", "--prompts", path, *quick).out)
    assert "AutoCircuit JSON" in first["source"] and "several answers count by the mean" in first["source"]
    largest = json.loads(command("patch", "--prompts", path, "--several", "max", *quick).out)
    assert "several answers count by the max" in largest["source"]
    apart = command("logits", "--prompts", path, "--out", tmp_path / "apart").out
    assert "of several answers the first" in " ".join(apart.split()) and "by the mean" not in apart
    document["prompts"][1]["clean"] = "The old capital of Japan is"
    path.write_bytes(listed(document))
    check_one_line(command("patch", "--prompts", path, *quick), "row 1 (line")
    check_one_line(command("patch", "--prompts", path, *quick), "--skip-bad")
    answer = command("patch", "--prompts", path, "--skip-bad", *quick)
    assert "1 of 4 rows left out: 1 × the clean prompt has N tokens" in json.loads(answer.out)["source"]
    asked = ("discover", "--edges", 20, "--random-circuits", 19, "--out", tmp_path / "found", "--json")
    found = json.loads(command(*asked, "--task", path, "--skip-bad", "--metric", "probability_difference").out)
    assert "1 of 4 rows left out" in found["source"] and found["prompts_searched"] + found["prompts_held_out"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("patch", "--several", "max"), "--several is about prompts of a file"),
        (("patch", "--task", "induction", "--skip-bad"), "--skip-bad is about prompts of a file"),
        (("discover", "--task", "induction", "--skip-bad"), "--skip-bad is about prompts of a file"),
    ],
)
def test_options_of_files_need_a_file(command: Command, words: tuple[str, ...], message: str) -> None:
    check_one_line(command(*words), message)


def test_facts_that_do_not_fit_are_named_or_left_out(command: Command, tmp_path: Path) -> None:
    rows: list[object] = [
        {"prompt": "The capital of France is", "subject": "France", "attribute": "Paris"},
        {"prompt": "The capital of Peru is", "subject": "Italy", "attribute": "Lima"},
        {"prompt": "The capital of Japan is", "subject": "Japan", "attribute": "Tokyo"},
        5,
    ]
    path = tmp_path / "known.json"
    path.write_text(json.dumps(rows))
    for words in (["behaviour", "--facts", path], ["trace", "--facts", path], ["recall", "--facts", path]):
        check_one_line(command(*words), "known.json: row 1", "the subject 'Italy' is not in it; --skip-bad")
    answer = command("behaviour", "--facts", path, "--skip-bad", "--out", tmp_path / "scores.csv")
    assert answer.status == 0 and "known.json: 2 of 4 rows left out: 1 × " in answer.err
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 3
    check_one_line(command("trace", "--skip-bad"), "--skip-bad is about rows of a file: it needs --facts")
    check_one_line(command("recall", "--skip-bad"), "--skip-bad is about rows of a file: it needs --facts")
