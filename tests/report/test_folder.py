"""What is wrong with a folder is said in a line, or on the page."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from circuits.errors import FileFormatError
from circuits.files.unfinished import Unfinished
from circuits.graph import Circuit, Graph, neuronpedia
from circuits.graph.neuronpedia import ShownPrompt
from circuits.report import read_saved, run_page
from tests.files import examples
from tests.report.samples import data_of, write_run

GRAPH = Graph(n_layers=2, n_heads=2, n_key_value_heads=2, d_mlp=8)


def words(folder: Path) -> str:
    """All that a page says, as text."""
    return json.dumps(data_of(run_page(read_saved(folder)).html()), ensure_ascii=False)


def test_an_empty_folder_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="nothing in it that a page can show"):
        read_saved(tmp_path)
    with pytest.raises(FileFormatError, match="No such file"):
        read_saved(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '{"format": "circuits-verdict", "version": 99}',
            "version 99 of the format circuits-verdict: this program reads version 1; a newer",
        ),
        ('{"format": "circuits-future", "version": 1}', "circuits-future, which this version does not know"),
        ('{"format": "circuits-verdict", "version": 1, "edges": 3}', "does not fit together"),
        ("{", "not JSON"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_line_by_itself_and_a_row_among_others(tmp_path: Path, text: str, said: str) -> None:
    bad = tmp_path / "verdict.json"
    bad.write_text(text)
    with pytest.raises(FileFormatError, match=said):
        read_saved(bad)
    examples.circuit().save(tmp_path / "circuit.json")
    saved = read_saved(tmp_path)
    assert said in saved.unread["verdict.json"] and not saved.unread["verdict.json"].startswith(str(tmp_path))
    page = run_page(saved)
    assert page.sections[0].title == "What is missing" and page.sections[1].title == "The circuit"
    assert said in words(tmp_path)


def test_a_stranger_s_json_is_passed_over_and_refused_by_itself(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[1, 2]")
    with pytest.raises(FileFormatError, match="not a saved result"):
        read_saved(tmp_path / "other.json")
    examples.curve().save(tmp_path / "curve.json")
    assert list(read_saved(tmp_path).results) == ["curve.json"]


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    examples.circuit().save(tmp_path / "circuit.json")
    done, missing = {"circuit.json": ""}, {"verdict.json": ""}
    mark = Unfinished(command="circuits discover", began="2026-01-02T03:04:05", done=done, missing=missing)
    mark.save(tmp_path / "unfinished-discover.json")
    page = run_page(read_saved(tmp_path))
    assert page.sections[0].word == "incomplete" and "did not finish" in words(tmp_path)
    assert page.sections[2].word == "not judged"


def test_a_circuit_without_evidence_and_without_scores_says_so(tmp_path: Path) -> None:
    Circuit(GRAPH, ["input->m1", "m1->logits"]).save(tmp_path / "c.json")
    said = words(tmp_path / "c.json")
    assert "no evidence" in said and "no scores" in said and "not judged" in said


def test_a_verdict_of_another_circuit_is_not_told_of_its_nodes(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert '"need"' in words(tmp_path)
    examples.circuit().top(1).save(tmp_path / "circuit.json")
    assert '"need"' not in words(tmp_path) and "another size" in words(tmp_path)


def test_a_table_of_heads_is_read_strictly(tmp_path: Path) -> None:
    table = tmp_path / "head_scores.csv"
    table.write_text("name,layer,head,copying\na0.h0,0,0,0.5\na0.h1,0,1,-0.25\n")
    assert read_saved(tmp_path).head_scores == {"copying": [[0.5, -0.25]]}
    for text in ("name,copying\na0.h1,1\n", "name,copying\na0.h0,nan\n", "x\n1\n", "name\na0.h0\n", "name,copying\nm0,1\n"):
        table.write_text(text)
        assert "head_scores.csv" in read_saved(tmp_path).unread, text


def test_a_study_s_folder_shows_the_circuits_that_the_study_names_and_no_other(tmp_path: Path) -> None:
    study = examples.study()
    names = dict(zip(("ioi:swap", "b"), study.circuits, strict=True))
    named = [dataclasses.replace(one, settings=dataclasses.replace(one.settings, task=task)) for task, one in names.items()]
    dataclasses.replace(study, circuits=tuple(named)).save(tmp_path / "study.json")
    for name in ("ioi-swap", "b", "facts"):
        (tmp_path / name).mkdir()
    for name in ("ioi-swap", "facts"):
        examples.circuit().save(tmp_path / name / "circuit.json")
    saved = read_saved(tmp_path)
    titles = [section.title for section in run_page(saved).sections]
    assert titles == ["What is missing", "The study", "ioi-swap: the circuit", "ioi-swap: verdict", "How this was made"]
    assert "no task of the study" in saved.unread["facts"] and "nothing in it" in saved.unread["b"]


def test_a_curve_is_the_slider_s_where_it_is_of_the_circuit_s_own_method(tmp_path: Path) -> None:
    write_run(tmp_path)
    verdict = examples.verdict()

    def shown(method: str) -> tuple[dict, dict]:
        """The slider's curve, and the verdict's chart of it."""
        curve = dataclasses.replace(examples.curve(), metadata={"scores": {"method": method}})
        curve.save(tmp_path / "curve.json")
        sections = data_of(run_page(read_saved(tmp_path)).html())["sections"]
        chart = next(one for one in sections[1]["blocks"] if one.get("caption", "").startswith("Over all sizes"))
        return sections[0]["blocks"][0], chart

    own, chart = shown("eap")
    assert own["curve"]["edges"] == [3, 14, 28] and "strongest edges by eap alone" in chart["caption"]
    other, chart = shown("eap-ig")
    assert other["curve"]["edges"] == [] and other["words"]["curve"] == "", "the slider says that it was not measured"
    assert "by eap-ig alone" in chart["caption"] and f"the circuit itself: {verdict.edges} edges" in chart["caption"]
    point = next(one for one in chart["series"] if one["name"].startswith("the circuit"))
    assert (point["x"], point["y"]) == ([verdict.edges], [verdict.faithfulness.effect])


def test_the_page_tells_a_command_line_where_one_was_saved_and_makes_none_up(tmp_path: Path) -> None:
    about = {"model": "mini", "task": "induction", "method": "refine", "search": "refine", "source": "task induction"}
    for more in ({}, {"command": "circuits discover --edges 3 --by support"}):
        Circuit(GRAPH, ["input->m1", "m1->logits"], metadata={**about, **more}).save(tmp_path / "c.json")
        said = words(tmp_path / "c.json")
        assert ("circuits discover" in said) == bool(more) and more.get("command", "") in said


def test_files_of_tensors_and_exports_for_neuronpedia_are_read_too(tmp_path: Path) -> None:
    examples.triggers().save(tmp_path / "triggers.safetensors")
    examples.tuned_lens().save(tmp_path / "lens.safetensors")
    save_file({"weights": torch.zeros(2)}, tmp_path / "model.safetensors")
    titles = [section.title for section in run_page(read_saved(tmp_path)).sections]
    assert "Triggers of neurons" in titles and "A tuned lens" in titles
    with pytest.raises(FileFormatError, match="not a saved result"):
        read_saved(tmp_path / "model.safetensors")
    circuit = Circuit(GRAPH, {"input->m1": -0.5, "m1->logits": 1.0})
    prompt = ShownPrompt("a b", ("a", " b"), " c", 1, 0.25)
    neuronpedia.save(circuit, tmp_path / "c.neuronpedia.json", prompt, slug="s", scan="m")
    assert read_saved(tmp_path / "c.neuronpedia.json").first(Circuit) == circuit
    assert len(read_saved(tmp_path).all(Circuit)) == 1
    circuit.save(tmp_path / "circuit.json")
    assert list(read_saved(tmp_path).all(Circuit)) == ["circuit.json"], "what is exported says the same"
