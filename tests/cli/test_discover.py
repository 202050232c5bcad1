"""`circuits discover`: its files can be read again, it says what the library found, and it refuses in one line."""

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import circuits
from circuits.attribution import EdgeScores
from circuits.cli import app
from circuits.cli.commands.discover import FILES
from circuits.cli.prompts import Behaviour, task_or_file
from circuits.cli.questions.discover import COUNT, Search
from circuits.cli.questions.repeated import FILES as REPEATED, _next
from circuits.cli.reports.discover import _known, spread
from circuits.cli.settings import Setting
from circuits.graph import Circuit, Graph
from circuits.search import Recurrence
from circuits.search.discover import Discovery, discover
from circuits.search.judging.curves import Curve
from circuits.search.judging.verdict import Verdict
from circuits.statistics import Effect
from circuits.tasks import known_circuit, task
from tests.cli.conftest import Answer, Command
from tests.cli.test_errors import check_one_line

PNG = b"\x89PNG\r\n\x1a\n"
QUICK = ("--count", 4, "--edges", 12, "--random-circuits", 19)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Answer, Path]:
    """One search in mini, for all tests that only look at what it left."""
    folder = tmp_path_factory.mktemp("discover")
    line = ["discover", "--count", "8", "--edges", "40", "--random-circuits", "19", "--out", str(folder)]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.stderr
    return Answer(result.exit_code, result.stdout, result.stderr), folder


def test_every_file_is_there_and_can_be_read(found: tuple[Answer, Path]) -> None:
    answer, folder = found
    assert {path.name for path in folder.iterdir()} == FILES.keys() - {"tested.csv"}
    circuit, mib = (Circuit.load(folder / name) for name in ("circuit.json", "circuit.mib.json"))
    assert 30 < len(circuit) <= 40 and circuit.edges == mib.edges and circuit.connected().edges == circuit.edges
    assert circuit.metadata["task"] == "induction" and circuit.metadata["method"] == circuit.metadata["search"] == "refine"
    assert circuit.metadata["question"] == task("induction").question
    verdict = Verdict.load(folder / "verdict.json")
    assert (verdict.edges, verdict.prompts, len(verdict.null)) == (len(circuit), 4, 19) and verdict.minimality
    assert verdict.faithfulness.effect > 0.3 and verdict.p_value == pytest.approx(1 / 20)
    scores = EdgeScores.load(folder / "scores.json")
    assert scores.complete and scores.metadata["method"] == "eap-ig", "those that refining began with"
    assert len(Curve.load(folder / "curve.json").shares) == len(rows_of(folder / "curve.csv"))
    for name in ("circuit.png", "curve.png", "verdict.png"):
        assert (folder / name).read_bytes().startswith(PNG)
    assert all(f"  {path.name} " in answer.out for path in folder.iterdir())


def test_the_report_says_what_the_files_say(found: tuple[Answer, Path]) -> None:
    answer, folder = found
    words, edges = " ".join(answer.out.split()), rows_of(folder / "edges.csv")
    verdict, curve = Verdict.load(folder / "verdict.json"), Curve.load(folder / "curve.json")
    assert "First circuit: 40 edges by eap-ig (10 steps); now it is refined" in words
    assert "by refine; 4 prompts searched on, 4 held out; metric: logit difference" in words
    assert f"\nasks: {task('induction').question}\n" in answer.out
    assert " ".join(verdict.summary.split()) in words and f"p = {verdict.p_value:.2g}" in words
    assert answer.out.count(f"{verdict.standing.capitalize()}: ") == 1, "said as soon as it is known, and not again"
    assert f"CPR {curve.cpr:.3f}" in words and f"CMD {curve.cmd:.3f}" in words
    sizes = [abs(float(row["score"])) for row in edges]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == verdict.edges
    listed = [line.split()[0] for line in answer.out.splitlines() if "->" in line and not line.startswith(" ")]
    assert listed == [row["edge"] for row in edges[:15]] and f"{len(edges) - 15} more in edges.csv" in answer.out
    assert "negative = the edge opposes it" in answer.out and "Against the" not in answer.out
    assert "circuits evaluate" in answer.out and "--method eap-ig" in answer.out and "circuits compare" in answer.out


def test_what_is_said_is_what_the_library_finds(command: Command, tiny: Path, tmp_path: Path) -> None:
    answer = command("discover", "--model", tiny, *QUICK, "--method", "eap", "--seed", 3, "--out", tmp_path, "--json")
    said = json.loads(answer.out)
    model = circuits.load_model(str(tiny))
    pairs = circuits.tasks.induction(model, count=4, seed=3)
    metric = circuits.metrics.logit_difference
    expected = discover(model, pairs, metric, method="eap", edges=12, random_circuits=19, seed=3)
    assert {row["edge"]: row["score"] for row in said["edges"]} == pytest.approx(
        {str(edge): score for edge, score in expected.circuit.edges.items()}
    )
    assert said["verdict"]["faithfulness"] == pytest.approx(expected.verdict.faithfulness.as_json())
    assert expected.curve is not None and said["cpr"] == pytest.approx(expected.curve.cpr)
    assert said["known"] is None and (said["prompts_searched"], said["prompts_held_out"]) == (2, 2)


def test_a_share_of_all_edges_and_what_supports_the_metric(command: Command, tiny: Path, tmp_path: Path) -> None:
    line = ("discover", "--model", tiny, *QUICK[:2], *QUICK[4:], "--edges", "10%", "--by", "support", "--out", tmp_path)
    answer = command(*line)
    assert answer.status == 0 and "by eap-ig (10 steps), those that support the metric; " in answer.out, answer.err
    circuit, scores = Circuit.load(tmp_path / "circuit.json"), EdgeScores.load(tmp_path / "scores.json")
    expected = scores.top(round(0.1 * len(scores)), by="support", connected=True)
    assert circuit.edges == expected.edges and Curve.load(tmp_path / "curve.json").metadata["by"] == "support"


@pytest.mark.parametrize(
    ("kept", "method", "curve", "said"),
    [
        (0.9, "eap", (0.2, 0.9), ""),
        (
            0.5,
            "eap",
            (0.2, 0.9),
            "Less than 0.8 is kept: try --method refine or --edges 10%; the strongest edges by eap reach it "
            "with 152 (10 % of all), so the behaviour is spread over many",
        ),
        (
            0.5,
            "eap",
            (0.85, 0.9),
            "Less than 0.8 is kept: try --method refine; the strongest edges by eap reach it with 15 (1 % of all)",
        ),
        (
            0.5,
            "refine",
            (0.2, 0.9),
            "Less than 0.8 is kept: try --edges 10%; the strongest edges by eap reach it with 152 (10 % of "
            "all), so the behaviour is spread over many",
        ),
        (0.5, "acdc", None, "Less than 0.8 is kept: try --method refine or --edges 200"),
    ],
)
def test_where_little_is_kept_the_report_says_what_to_try_and_whether_it_is_spread(
    found: tuple[Answer, Path], kept: float, method: str, curve: tuple[float, float] | None, said: str
) -> None:
    options: dict[str, Any] = {"by": None, "steps": None, "threshold": None, "verify": False, "random_circuits": 0}
    search = Search(name=method, level="heads", size=None, edges=100, **options)
    scores = EdgeScores.load(found[1] / "scores.json")
    points = None
    if curve is not None:
        effects = tuple(Effect(value, value, value) for value in curve)
        points = Curve((0.01, 0.1), (15, 152), effects, torch.zeros(0, 2, dtype=torch.float64))
    scores = dataclasses.replace(scores, metadata={"method": "eap"})
    verdict = Verdict.load(found[1] / "verdict.json")
    verdict = dataclasses.replace(verdict, faithfulness=Effect(kept, kept, kept), searched_on=Effect(kept, kept, kept))
    discovery = Discovery(Circuit.load(found[1] / "circuit.json"), verdict, scores if curve else None, points)
    assert " ".join(spread(discovery, search).split()) == said
    fitted = dataclasses.replace(discovery, verdict=dataclasses.replace(verdict, searched_on=Effect(1.0, 1.0, 1.0)))
    if said:
        assert "not searched on (1.00 of those): try --count 16" in " ".join(spread(fitted, search).split())
        assert spread(fitted, search, drawn=False).endswith("try more prompts")
    else:
        more = dataclasses.replace(verdict, faithfulness=Effect(2.1, 2.0, 2.2))
        by = dataclasses.replace(search, by="support")
        assert "2.10 is more than the model does" in spread(dataclasses.replace(discovery, verdict=more), by)


def test_verification_adds_its_table_and_leaves_nothing_behind(command: Command, tiny: Path, tmp_path: Path) -> None:
    answer = command("discover", "--model", tiny, *QUICK, "--verify", "--out", tmp_path)
    assert answer.status == 0, answer.err
    assert "exact effect [95 % interval]" in answer.out and "positive = the edge supports the metric" in answer.out
    tested = {row["edge"]: row for row in rows_of(tmp_path / "tested.csv")}
    circuit = Circuit.load(tmp_path / "circuit.json")
    assert {str(edge) for edge in circuit.edges} <= {name for name, row in tested.items() if row["confirmed"] == "True"}
    first = rows_of(tmp_path / "edges.csv")[0]
    assert float(first["score"]) == float(first["effect"]) == pytest.approx(float(tested[first["edge"]]["effect"]))
    command("discover", "--model", tiny, *QUICK, "--out", tmp_path)
    assert not (tmp_path / "tested.csv").exists(), "no table of an earlier run stays beside this circuit"


@pytest.mark.slow
def test_neurons(command: Command, tiny: Path, tmp_path: Path) -> None:
    answer = command("discover", "--model", tiny, *QUICK, "--level", "neurons", "--out", tmp_path)
    assert answer.status == 0, answer.err
    missing = {"circuit.mib.json", "scores.json", "tested.csv", "curve.json", "curve.csv", "curve.png"}
    assert {path.name for path in tmp_path.iterdir()} == FILES.keys() - missing
    assert Circuit.load(tmp_path / "circuit.json").graph.neurons and "heads and neurons" in answer.out


@pytest.mark.parametrize("options", [("--method", "acdc"), ("--method", "acdc", "--threshold", 0.0001)])
def test_acdc(command: Command, tiny: Path, tmp_path: Path, options: tuple) -> None:
    answer = command("discover", "--model", tiny, "--count", 2, "--random-circuits", 0, *options, "--out", tmp_path, "--json")
    assert answer.status == 0, answer.err
    said = json.loads(answer.out)
    assert said["method"] == "acdc" and said["cpr"] is None and said["standing"] == "unproven"
    assert Circuit.load(tmp_path / "circuit.json").metadata["method"] == "acdc"
    assert not {"scores.json", "curve.json", "curve.png"} & {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
def test_pruning(command: Command, tiny: Path, tmp_path: Path) -> None:
    answer = command("discover", "--model", tiny, *QUICK, "--method", "prune", "--out", tmp_path)
    assert answer.status == 0, answer.err
    assert all(0 <= float(row["score"]) <= 1 for row in rows_of(tmp_path / "edges.csv"))


def test_prompts_of_a_file(command: Command, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    rows = [("abcab", "adcab", "c", "d"), ("efgef", "ehgef", "g", "h"), ("ijkij", "imkij", "k", "m")]
    with path.open("w", newline="") as file:
        labels = [(clean, corrupt, json.dumps([answer, other])) for clean, corrupt, answer, other in rows]
        csv.writer(file).writerows([("clean", "corrupted", "label"), *labels])
    options = ("--edges", 8, "--random-circuits", 0, "--method", "eap", "--out", tmp_path / "out", "--json")
    said = json.loads(command("discover", "--model", tiny, "--task", path, *options).out)
    assert (said["source"], said["task"]) == ("file pairs.csv, EAP-IG CSV, labels", "pairs.csv")
    assert said["question"] is None and "question" not in Circuit.load(tmp_path / "out" / "circuit.json").metadata
    assert (said["prompts_searched"], said["prompts_held_out"]) == (2, 1)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_file_that_cannot_be_halved_is_refused_before_a_model_is_loaded(command: Command, tmp_path: Path, rows: int) -> None:
    path = tmp_path / "pairs.jsonl"
    row = {"clean_prefix": "The boy", "patch_prefix": "The boys", "clean_answer": " is", "patch_answer": " are"}
    path.write_text("".join(f"{json.dumps(row)}\n" for _ in range(rows)))
    answer = command("discover", "--model", "./nowhere", "--task", path, "--out", tmp_path / "out")
    check_one_line(answer, "pairs.jsonl", f"{rows} row", "with one clean prompt", "held out")


def test_a_circuit_says_its_verdict_as_soon_as_that_is_known(
    command: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: Any, found: Any, **options: Any) -> None:
        def hear(part: Any) -> None:
            found(part)
            if isinstance(part, Verdict):
                raise KeyboardInterrupt

        discover(*given, found=hear, **options)

    monkeypatch.setattr(circuits, "discover", stopped)
    answer = command("discover", "--model", tiny, *QUICK, "--method", "eap", "--seed", 3, "--out", tmp_path)
    assert answer.status == 130 and "not done: completeness, minimality; missing: circuit.mib.json" in answer.err
    circuit, verdict = Circuit.load(tmp_path / "circuit.json"), Verdict.load(tmp_path / "verdict.json")
    assert circuit.metadata["verdict"] == verdict.standing and circuit.metadata["summary"] == verdict.summary


def test_known_heads() -> None:
    gpt2 = Graph(n_layers=12, n_heads=12, n_key_value_heads=12, d_mlp=3072)
    heads = {name for names in known_circuit("ioi").heads.values() for name in names}
    said = _known(Circuit(gpt2, [], ["a9.h9", "a10.h0", "a0.h0", "a1.h1", "m3"]), "ioi")
    assert said is not None and said["precision"] == 0.5 and said["recall"] == pytest.approx(2 / len(heads))
    assert "Wang" in said["reference"] and said["heads"] == len(heads)
    neurons = Graph(n_layers=12, n_heads=12, n_key_value_heads=12, d_mlp=3072, neurons=True)
    assert _known(Circuit(neurons, [], ["a9.h9"]), "ioi") is not None
    assert _known(Circuit(gpt2, [], ["a9.h9"]), "induction") is None
    assert _known(Circuit(Graph(n_layers=1, n_heads=1, n_key_value_heads=1, d_mlp=1), [], ["a0.h0"]), "ioi") is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "./nowhere"], ["nowhere", "mini"]),
        (["--task", "chess"], ["chess", "induction", "gendered-pronoun", "a file"]),
        (["--task", "nowhere.csv"], ["nowhere.csv", "No such file"]),
        (["--task", "/"], ["/", "not a file"]),
        (["--method", "magic"], ["magic", "eap-ig"]),
        (["--level", "atoms"], ["atoms", "neurons"]),
        (["--count", "1"], ["--count is 1", "2 pairs"]),
        (["--edges", "0"], ["--edges is 0"]),
        (["--edges", "100000"], ["--edges is 100,000", "the graph has"]),
        (["--seed", "-1"], ["--seed", "greater than or equal to 0"]),
        (["--edges", "2.5"], ["--edges is '2.5'", "2%"]),
        (["--edges", "0%"], ["--edges is '0%'"]),
        (["--edges", "101%"], ["--edges is '101%'"]),
        (["--by", "name"], ["--by is 'name'", "size or support"]),
        (["--by", "support", "--method", "acdc"], ["--by support goes with --method eap or", "not with acdc"]),
        (["--by", "support", "--method", "prune"], ["--by support goes with", "not with prune"]),
        (["--by", "size", "--method", "refine"], ["--by size goes with", "not with refine"]),
        (["--by", "support", "--verify"], ["--verify", "by size", "--by support"]),
        (["--random-circuits", "-1"], ["--random-circuits is -1"]),
        (["--steps", "0"], ["--steps is 0"]),
        (["--steps", "3", "--method", "exact"], ["--steps", "eap-ig", "exact"]),
        (["--threshold", "0.1"], ["--threshold", "acdc"]),
        (["--roles", "--edges", "900,000"], ["--edges is 900,000", "the graph has"]),
        (["--roles", "--verify"], ["--verify", "leave out --roles"]),
        (["--roles", "--method", "refine"], ["--roles goes with", "not with refine"]),
        (["--roles", "--method", "prune"], ["--roles goes with", "not with prune"]),
        (["--roles", "--method", "shrink"], ["--roles goes with", "not with shrink"]),
        (["--level", "neurons", "--method", "acdc"], ["neurons", "acdc"]),
        (["--level", "neurons", "--verify"], ["--verify", "neurons"]),
        (["--verify", "--method", "acdc"], ["--verify", "acdc"]),
        (["--verify", "--method", "prune"], ["--verify", "prune"]),
        (["--metric", "loudness"], ["loudness", "logit_difference"]),
        (["--metric", "rank"], ["rank", "no gradient", "refine"]),
        (["--device", "abacus"], ["abacus", "cpu"]),
    ],
)
def test_what_cannot_be_searched_is_one_line_and_no_file(
    command: Command, tiny: Path, tmp_path: Path, options: list[str], words: list[str]
) -> None:
    check_one_line(command("discover", "--model", tiny, "--out", tmp_path / "out", *options), *words)
    assert not (tmp_path / "out").exists()


def test_a_search_that_keeps_nothing_says_how_the_prompts_are_and_leaves_nothing(
    command: Command, tiny: Path, tmp_path: Path
) -> None:
    nothing = ("--threshold", "1e9", "--method", "acdc", "--count", "2")
    answer = command("discover", "--model", tiny, "--out", tmp_path / "out", *nothing)
    assert answer.status == 2 and answer.out.startswith("Prompts: ") and answer.err.count("Error: acdc kept no edge") == 1
    assert "saved in" not in answer.err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("job", ["discover", "evaluate", "compare"])
def test_help_teaches(command: Command, job: str) -> None:
    answer = command(job, "--help")
    assert answer.status == 0 and "Examples:" in answer.out and f"circuits {job} " in answer.out
    assert f"\n  {job} " in command("--help").out


def test_a_search_is_repeated_and_shown_again(command: Command, tiny: Path, tmp_path: Path) -> None:
    options = ("--model", tiny, "--count", 8, "--edges", 6, "--method", "eap")
    answer = command("discover", *options, "--seeds", 3, "--against", tiny, "--out", tmp_path / "a", "--json")
    assert answer.status == 0, answer.err
    said = json.loads(answer.out)
    assert {path.name for path in (tmp_path / "a").iterdir()} == REPEATED.keys()
    found = Recurrence.load(tmp_path / "a" / "stability.json")
    assert len(found.runs) == 12 and [row["between"] for row in said["overlaps"]].count("models") == 1
    models = next(row for row in said["overlaps"] if row["between"] == "models")
    assert models["overlap"] == 1.0, "the same model on the same prompts"
    assert [row["edges"] for row in said["returning"][found.models[0]]] == sorted(
        (int((found.times() >= often).sum()) for often in range(1, 7)), reverse=True
    )
    assert {evidence["of"] for evidence in Circuit.load(tmp_path / "a" / "consensus.json").evidence.values()} == {6}
    again = command("discover", "--open", tmp_path / "a" / "stability.json", "--out", tmp_path / "b")
    assert again.status == 0 and found.summary.split(";")[0] in " ".join(again.out.split())
    assert (tmp_path / "b" / "overlaps.csv").read_bytes() == (tmp_path / "a" / "overlaps.csv").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--seeds", 1), "--seeds is 1: it takes 3 or more"),
        (("--sample", "all"), "--sample goes with --seeds"),
        (("--against", "mini"), "--against goes with --seeds"),
        (("--seeds", 3, "--sample", "thirds"), "unknown sample 'thirds'"),
        (("--seeds", 3, "--count", 3), "--count is 3; expected 4 pairs or more"),
        (("--seeds", 3, "--sample", "parts", "--count", 4), "--count is 4: half of them make no 3 parts; give 5 or more"),
        (("--open", "no.json", "--seeds", 3), "leave out --seeds"),
    ],
)
def test_what_a_repeated_search_cannot_be_is_one_line(command: Command, arguments: tuple, words: str) -> None:
    check_one_line(command("discover", *arguments), words)


def test_a_search_between_roles_is_repeated(command: Command, tiny: Path, tmp_path: Path) -> None:
    options = ("--model", tiny, "--count", 8, "--edges", 9, "--method", "eap", "--roles", "--out", tmp_path)
    answer = command("discover", *options, "--seeds", 3)
    assert answer.status == 0, answer.err
    assert {path.name for path in tmp_path.iterdir()} >= {"stability.json", "overlaps.csv", "judged.csv", "stability.png"}
    found = Recurrence.load(tmp_path / "stability.json")
    assert found.graph.roles is not None and all("@" in name for name in found.names())
    (tmp_path / "none").mkdir()
    check_one_line(
        command("discover", *options, "--out", tmp_path / "none", "--seeds", 3, "--edges", "9,000,000"), "--edges is"
    )
    assert not list((tmp_path / "none").iterdir())


def test_models_of_another_shape_are_refused_before_a_search(command: Command, tiny: Path, tmp_path: Path) -> None:
    answer = command("discover", "--model", tiny, "--seeds", 3, "--against", "mini", "--out", tmp_path / "a")
    check_one_line(answer, "models of different shapes")
    assert not list((tmp_path / "a").glob("*.json"))


def test_what_holds_is_judged_on_the_prompts_of_the_search() -> None:
    asked = Behaviour(prompts=task_or_file("facts", count=8, seed=0, usual=COUNT), metric=None)
    ((line, _),) = _next(asked, Setting(job="discover", out=Path("a")))
    assert line == "circuits evaluate a/consensus.json --task facts --count 8"
