"""`circuits edit`: one fact, many, several together, edits in other commands, and what a user can get wrong."""

import json
from pathlib import Path

import pytest

from circuits.cli.questions.edit import EditQuestion, one_rewrite
from circuits.cli.reports.edit import edit_report
from circuits.cli.settings import Setting
from circuits.models import WeightEdit
from circuits.tasks import mini_facts
from circuits.uses.editing import EditScores, EditsTogether
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line
from tests.files.examples import edits_together
from tests.models.bundled import mini
from tests.models.test_weight_edits import an_edit

FRANCE = ("The capital of France is", "--subject", "France", "--to", " Rome")
QUICK = ("--limit", 64, "--prefixes", 0, "--write", 0)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Statistics of keys go into a folder of the test's."""
    monkeypatch.chdir(tmp_path)


def test_a_fact_is_edited_and_the_file_changes_the_answer_of_other_commands(command: Command, tmp_path: Path) -> None:
    answer = command("edit", *FRANCE, "--limit", 64, "--prefixes", 1, "--write", 4, "--out", tmp_path / "edit")
    assert answer.status == 0, answer.err
    assert {path.name for path in (tmp_path / "edit").iterdir()} == {"edit.json", "edit.csv", "edit.png", "edit.safetensors"}
    assert answer.out.startswith("mini, layer 0: The capital of France is → Rome (was Paris)")
    for words in ("neighbour", "efficacy", "paraphrase", "fluency", "Hase et al.", "writes, after", "--edits"):
        assert words in answer.out
    found = EditScores.load(tmp_path / "edit" / "edit.json")
    assert found.outcomes[0].edited.new_before < 0.01 and found.outcomes[0].edited.new_after > 0.9
    assert len(found.outcomes[0].paraphrases) == 2 and len(found.outcomes[0].neighbours) == 10
    delta = tmp_path / "edit" / "edit.safetensors"
    assert WeightEdit.load(delta).weights_sha256 == mini().fingerprint and delta.stat().st_size < 20_000
    said = command("lens", "The capital of France is", "--edits", delta, "--json", "--out", tmp_path / "lens")
    assert said.status == 0 and "mini with an edit on: France: Rome (layer 0)" in said.err
    plain = command("lens", "The capital of France is", "--json", "--out", tmp_path / "plain")
    assert json.loads(said.out)["model"] == "mini + France: Rome (layer 0)" and json.loads(plain.out)["model"] == "mini"
    assert " Rome" in said.out and " Rome" not in plain.out
    assert len(list((tmp_path / "out" / "key-statistics").iterdir())) == 1
    shown = command("edit", "--open", tmp_path / "edit" / "edit.json", "--json")
    assert json.loads(shown.out)["scores"][0]["after"] == 1.0


def test_edits_are_named_in_the_folder_and_in_steps_to_try_next() -> None:
    setting = Setting(job="lens", edits=(Path("a b.safetensors"),))
    assert setting.folder == Path("out/lens-mini-edited")
    assert setting.command("heads") == "circuits heads --edits 'a b.safetensors'"


def test_facts_are_edited_one_at_a_time_in_every_layer_beside_tracing(command: Command, tmp_path: Path) -> None:
    answer = command("edit", "--count", 2, "--layers", "0,1", *QUICK, "--out", tmp_path)
    assert answer.status == 0, answer.err
    found = EditScores.load(tmp_path / "edit.json")
    assert found.layers == [0, 1] and len(found.outcomes) == 4 and found.kinds == ["states", "mlp"]
    for words in ("2 facts edited one at a time in each of 2 layers", "GPT-2 XL", "75.4%", "R² of the layer alone"):
        assert words in answer.out
    assert answer.err.count(" → ") == 8, "a line a fact and layer, with both answers"
    assert not (tmp_path / "edit.safetensors").exists()
    data = json.loads(command("edit", "--open", tmp_path / "edit.json", "--json").out)
    assert set(data["tracing"]) == {"states", "mlp"} and data["facts"] == 2


def test_several_facts_are_edited_together(command: Command, tmp_path: Path) -> None:
    answer = command("edit", "--together", "--count", 2, *QUICK, "--out", tmp_path)
    assert answer.status == 0, answer.err
    found = EditsTogether.load(tmp_path / "edit.json")
    assert len(found.alone) == 2 and "lost together" in answer.out
    assert WeightEdit.load(tmp_path / "edit.safetensors").method == "MEMIT"
    shown = command("edit", "--open", tmp_path / "edit.json")
    assert shown.status == 0 and "lost together" in shown.out


def test_facts_that_are_left_out_of_several_together_are_told_with_the_reason() -> None:
    report = edit_report(edits_together(), {})
    assert "first of 1 left out: 'a <b>': too long" in report.parts
    assert report.data["skipped"] == [{"prompt": "a <b>", "reason": "too long"}]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("The capital of France is", "--subject", "Spain", "--to", " Rome"), "the subject 'Spain' is not in it"),
        (("The capital of France is", "--subject", "France", "--to", " Romeville"), "is 3 tokens"),
        (("The capital of France is", "--subject", "France", "--to", " Paris"), "already: nothing is to be edited"),
        (("The capital of France is", "--subject", "France", "--to", "Rome"), "did you mean ' Rome'?"),
        ((*FRANCE, "--layer", "9"), "'9' is no layer of mini; expected numbers from 0 to 3"),
        ((*FRANCE, "--layer", "-1"), "'-1' is no layer of mini"),
        ((*FRANCE, "--neighbour", "no answer"), 'expected "PROMPT=ANSWER"'),
        (("The capital of France is", "--to", " Rome"), "PROMPT and --subject go together"),
        (("The capital of France is", "--subject", "France"), "PROMPT and --to go together"),
        ((*FRANCE, "--count", "3"), "PROMPT is one fact"),
        ((*FRANCE, "--neighbour", "The capital of Spain is= Rome"), "has the new answer as its own"),
        ((*FRANCE, "--paraphrase", ""), "--paraphrase is empty"),
        (("--keep", "3"), "--keep 3: expected"),
        (("--together", "--keep", "nan"), "--keep nan: expected"),
        (("--together", "--keep", "inf"), "--keep inf: expected"),
        (("--together", "--reference", __file__), "--reference is about facts that are edited one at a time"),
        (("--statistics", __file__), "is no folder"),
        ((*FRANCE, "--neighbour", "The Colosseum is in= Rome"), "has the new answer as its own"),
        ((*FRANCE, "--neighbour", "The Colosseum is in= Rome now"), "begins its answer as"),
        (("--statistics", "/proc/x"), "--statistics /proc/x: cannot be written"),
        (("--layers", "1,1,all"), "all is every layer, and stands by itself"),
        (("--devices", "cpu"), "--devices cpu: layers are spread over two or more, such as cuda:0,cuda:1"),
        ((*FRANCE, "--memory", "1"), "(--memory)"),
        (("--edits", ""), "is a folder; an edit is a file"),
        (("--paraphrase", "x"), "give one"),
        ((*FRANCE, "--edits", "none.safetensors"), "none.safetensors: No such file or directory"),
        ((*FRANCE, "--text", "none.txt"), "none.txt: No such file or directory"),
    ],
)
def test_what_cannot_be_edited_is_refused_in_a_line(
    command: Command, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    answer = command("edit", *words, *QUICK, "--out", tmp_path / "out")
    check_one_line(answer)
    assert said in answer.err and not (tmp_path / "out").exists()


def test_a_file_of_another_kind_is_refused_with_what_is_expected(command: Command, tmp_path: Path) -> None:
    scores, odd, unknown = (tmp_path / name for name in ("edit.json", "odd.json", "unknown.json"))
    scores.write_text(json.dumps({"format": "circuits-edits", "name": None}))
    odd.write_text("{}")
    samples = [{"subject": "Quux", "object": "blorp"}]
    unknown.write_text(json.dumps({"name": "x", "prompt_templates": ["The zzz of {} is"], "samples": samples}))
    for words, said in (
        (("--edits", scores), "edit.json: holds no weights; an edit is edit.safetensors beside it"),
        (("--facts", scores), "edit.json: no file of facts; expected one of LRE relation, CounterFact"),
        (("--facts", odd), "odd.json: no file of facts"),
        (("--facts", unknown), "none of 1 facts can be edited; first, 'The zzz of Quux is': the model answers"),
        (("--facts", unknown, "--together"), "none of 1 facts can be edited"),
    ):
        answer = command("edit", *words, *QUICK, "--out", tmp_path / "out")
        check_one_line(answer)
        assert said in answer.err


def test_an_edit_for_another_model_or_given_twice_is_refused(command: Command, tmp_path: Path) -> None:
    delta = tmp_path / "edit.safetensors"
    an_edit(mini()).save(delta)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(delta.read_bytes()[:-5])
    damaged = command("logits", "The cat", "--edits", cut, "--out", tmp_path / "other")
    check_one_line(damaged)
    assert str(cut) in damaged.err
    twice = command("logits", "The cat", "--edits", delta, "--edits", delta, "--out", tmp_path / "other")
    check_one_line(twice)
    assert "is given twice" in twice.err
    other = command("logits", "The cat", "--edits", delta, "--dtype", "float64", "--out", tmp_path / "other")
    check_one_line(other)
    assert "was made for 'mini' with weights" in other.err and "in float64, it in float32" in other.err
    opened = command("edit", "--open", delta)
    check_one_line(opened)
    assert "--open shows scores: edit.json beside it" in opened.err
    alone = command("report", delta, "--edits", delta)
    check_one_line(alone)
    assert "--edits" in alone.err and not (tmp_path / "other").exists()


def test_what_is_asked_besides_is_given_or_that_of_the_prompt_s_relation() -> None:
    fact = mini_facts(relation="country_capital")[0]
    asked = {"prompt": fact.prompt, "subject": fact.subject, "to": " Rome"}
    known = one_rewrite(mini(), EditQuestion(**asked))
    assert known.relation == "country_capital" and len(known.paraphrases) == 2 and len(known.neighbours) == 10
    given = {"paraphrases": ("Its capital is",), "neighbours": ("The capital of Spain is= Madrid",)}
    other = one_rewrite(mini(), EditQuestion(**asked, **given))
    assert other.paraphrases == ("Its capital is",) and other.neighbours == (("The capital of Spain is", " Madrid"),)
