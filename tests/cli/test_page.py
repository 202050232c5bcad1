"""`circuits report`: a page from a folder or a file, and one line where there is nothing to show."""

import json
from pathlib import Path

from circuits.cli.report import Pairs, Report, Table
from circuits.cli.reports.report import report_section
from circuits.cli.reports.study import _next
from circuits.cli.settings import Setting
from circuits.graph import Circuit, Roles
from circuits.models import load_model
from circuits.tasks import look_at_prompts, task
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line
from tests.files import examples
from tests.report.samples import data_of


def few_edges_of_mini() -> Circuit:
    """Three edges on a path, found by EAP on induction."""
    model = load_model("mini")
    edges = {"input->a0.h5<v>": -0.5, "a0.h5->a1.h3<k>": -1.0, "a1.h3->logits": -2.0}
    about = {"model": "mini", "task": "induction", "seed": 0, "weights_sha256": model.fingerprint, "method": "eap"}
    return Circuit(model.graph(), edges, metadata=about)


def test_a_run_of_mini_becomes_a_page_with_what_the_model_says(command: Command, tmp_path: Path) -> None:
    few_edges_of_mini().save(tmp_path / "circuit.json")
    answer = command("report", tmp_path, "--json")
    said = json.loads(answer.out)
    assert said["page"] == str(tmp_path / "report.html") and said["bytes"] < 300_000
    page = data_of((tmp_path / "report.html").read_text())
    explorer = next(block for block in page["sections"][0]["blocks"] if block["kind"] == "explorer")
    head = next(node for node in explorer["nodes"] if node["name"] == "a1.h3")
    assert len(head["attention"]["prompts"]) == len(explorer["prompts"]) == 8 and len(head["writes"]["up"]) == 8
    made = json.dumps(page["sections"][-1])
    assert f"circuits report {tmp_path.name}" in made and str(tmp_path) not in made, "a page is passed on"

    assert command("report", tmp_path, "--no-model", "--out", tmp_path / "b.html", "--title", "<b>").status == 0
    plain = data_of((tmp_path / "b.html").read_text())
    assert plain["title"] == "<b>" and "attention" not in json.dumps(plain["sections"][0]["blocks"][0]["nodes"])


def test_another_model_s_circuit_says_what_is_missing(command: Command, saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert "need the model (m)" in command("report", saved, "--out", out).out
    assert "another shape" in command("report", saved, "--model", "mini", "--out", out).out


def test_what_the_model_tells_of_a_discovery_and_of_a_study_s_circuits_is_asked_for_or_missed(
    command: Command, saved: Path, tmp_path: Path
) -> None:
    whole, study = tmp_path / "whole.json", tmp_path / "study"
    examples.discovery().save(whole)
    assert "need the model" in command("report", whole).out
    (study / "b").mkdir(parents=True)
    examples.study().save(study / "study.json")
    saved.rename(study / "b" / "circuit.json")
    assert "need the model (m): circuits report --model MODEL" in command("report", study).out
    assert "need the model (m): circuits report --model MODEL" in (study / "report.html").read_text()
    few_edges_of_mini().save(study / "b" / "circuit.json")
    answer = command("report", study)
    assert "need the model" not in answer.out and f"file://{study}/report.html" in answer.out
    (section,) = (one for one in data_of((study / "report.html").read_text())["sections"] if one["title"] == "b: the circuit")
    (explorer,) = (block for block in section["blocks"] if block["kind"] == "explorer")
    (head,) = (node for node in explorer["nodes"] if node["name"] == "a1.h3")
    assert len(head["attention"]["prompts"]) == len(explorer["prompts"]) == 8 and explorer["name"] == "b"


def test_nothing_to_show_is_one_line(command: Command, tmp_path: Path) -> None:
    check_one_line(command("report", tmp_path), "nothing in it")
    check_one_line(command("report", tmp_path / "none.json"), "No such file")
    (tmp_path / "circuit.json").write_text('{"format": "transformer-circuits/circuit", "version": 9}')
    check_one_line(command("report", tmp_path / "circuit.json"), "version 9")


def test_what_a_command_says_is_a_section() -> None:
    parts = [Table(("head", "score"), [("a0.h1", "0.5")], title="heads", below="of 2"), Pairs("Sure", [("p", "0.05")]), "a\nb"]
    section = report_section(Report(heading="Title\nand more", parts=parts, next=[("circuits info", "again")])).plain()
    assert section["title"] == "Title"
    kinds = ["paragraphs", "grid", "paragraphs", "paragraphs", "facts", "paragraphs", "grid"]
    assert [block["kind"] for block in section["blocks"]] == kinds and section["blocks"][1]["rows"] == [("a0.h1", "0.5")]


def test_a_circuit_between_roles_of_tokens_is_one_of_its_model(command: Command, tmp_path: Path) -> None:
    model = load_model("mini")
    graph = model.graph(roles=Roles.causal("start", "end"))
    about = {"model": "mini", "task": "induction", "seed": 0, "weights_sha256": model.fingerprint}
    edges = {"input@start->a1.h3@end<k>": -1.0, "a1.h3@end->logits@end": -2.0}
    Circuit(graph, edges, metadata=about).save(tmp_path / "circuit.json")
    drawn = task("induction").draw(model, 4, 0)
    look_at_prompts(model, drawn, task("induction").metric(model, drawn.pairs)).save(tmp_path / "prompts.json")
    answer = command("report", tmp_path)
    assert answer.status == 0 and "another shape" not in answer.out, answer.err
    explorer = data_of((tmp_path / "report.html").read_text())["sections"][0]["blocks"]
    assert '"writes"' in json.dumps(explorer) and "edge between roles of tokens matters is not shown" in answer.out


def test_a_layout_without_roles_is_said_before_the_model_loads(command: Command, tmp_path: Path) -> None:
    graph = load_model("mini").graph(roles=Roles.causal("start", "end"))
    Circuit(graph, {"a1.h3@end->logits@end": -2.0}).save(tmp_path / "circuit.json")
    line = ("export", tmp_path / "circuit.json", "--to", "neuronpedia", "--prompt", "a", "--model", "none/such")
    check_one_line(command(*line), "circuit.json: Neuronpedia's layout has no roles of tokens")


def test_the_page_of_a_study_with_edits_on_names_their_model() -> None:
    setting = Setting(job="study", out=Path("a"), edits=(Path("e"),))
    assert _next({}, setting)[0][0] == "circuits report a --model mini --edits e"
