"""`circuits compose`: what it writes and says, what it shows again, and what it refuses."""

import json
from pathlib import Path

import pytest

from circuits.concepts import NeuronForms
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line

FILES = {"forms.json", "forms.csv", "forms.png"}


def sentence(number: int) -> str:
    """Six words, which differ a little."""
    animal, verb = ("cat", "dog", "horse", "cow")[number % 4], ("sees", "likes", "hears")[number % 3]
    rows = [
        ("The", "the", "DET", "det", 2),
        (animal, animal, "NOUN", "nsubj", 3),
        (verb, verb[:-1], "VERB", "root", 0),
        ("a", "a", "DET", "det", 5),
        (("bird", "tree")[number % 2], "bird", "NOUN", "obj", 3),
        (".", ".", "PUNCT", "punct", 3),
    ]
    lines = [f"# sent_id = doc{number // 5}-{number}"]
    for at, (form, lemma, tag, relation, head) in enumerate(rows, 1):
        lines.append(f"{at}\t{form}\t{lemma}\t{tag}\t_\t_\t{head}\t{relation}\t_\t_")
    return "\n".join(lines) + "\n\n"


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("compose") / "animals.conllu"
    file.write_text("".join(map(sentence, range(60))))
    return file


def test_neurons_over_annotated_words_and_a_lexicon(command: Command, annotated: Path, tmp_path: Path) -> None:
    out, lexicon = tmp_path / "out", tmp_path / "big.json"
    lexicon.write_text(json.dumps({"large animals": ["horse", "cow"], "small animals": ["cat", "dog", "bird"]}))
    names = [f"m1.n{index}" for index in range(5)]
    options = ("--concepts", annotated, "--concepts", lexicon, "--share", 0.1, "--moves", 2, "--length", 2)
    answer = command("compose", *names, *options, "--out", out)
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == FILES
    found = NeuronForms.load(out / "forms.json")
    assert [one.neuron for one in found.neurons] == names and found.words == 360 and found.moves == 2
    assert found.source == "animals.conllu and big.json" and found.loss_tokens > 300 and found.agreement is not None
    assert all(one.iou >= one.concept_iou and one.both <= one.active <= 36 for one in found.neurons)
    assert "mini: m1.n0, m1.n1, m1.n2, m1.n3 … over" in answer.out and found.neurons[0].form in answer.out
    again = json.loads(command("compose", "--open", out / "forms.json", "--out", tmp_path / "again", "--json").out)
    assert [one["form"] for one in again["neurons"]] == [one.form for one in found.neurons]
    assert {path.name for path in (tmp_path / "again").iterdir()} == {"forms.csv", "forms.png"}


def test_a_lexicon_alone_reads_a_text_at_the_last_tokens_of_words(command: Command, tmp_path: Path) -> None:
    text, lexicon = tmp_path / "book.txt", tmp_path / "lexicon.json"
    text.write_text("The cat saw unbelievable weather. Rain, rain again! " * 40)
    lexicon.write_text('{"weather": ["rain", "weather"], "animal": ["cat"]}')
    options = ("--concepts", lexicon, "--text", text, "--moves", 0, "--use", 0, "--out", tmp_path / "out")
    answer = command("compose", "m0.n1", *options, "--json")
    assert answer.status == 0, answer.err
    found = json.loads(answer.out)
    assert (found["concepts"], found["unit"], found["source"]) == (2, "words", "lexicon.json")
    (one,) = found["neurons"]
    assert one["null"] is None and one["rise"] is None and one["form"]


def test_what_is_wrong_with_the_question_is_one_line(command: Command, annotated: Path, tmp_path: Path) -> None:
    one, empty, other, text = (tmp_path / name for name in ("one.json", "empty.json", "other.json", "book.txt"))
    one.write_text('{"sea": ["ship"]}')
    empty.write_text('{"sea": ["ship"], "land": []}')
    other.write_text('{"sea": ["ship"], "land": ["hill"]}')
    text.write_text("Nothing of that kind stands here. " * 50)
    for options, words in (
        ((), "name neurons or a layer"),
        (("a0.h1",), "a0.h1 is no neuron and no MLP"),
        (("m9.n1", "--text", text), "m9"),
        (("m1.n1", "--concepts", tmp_path / "none.conllu"), "none.conllu: No such file"),
        (("m1.n1", "--concepts", one), "one.json: 1 concepts: expected 2 or more"),
        (("m1.n1", "--concepts", empty), "the concept 'land': expected a list of words"),
        (("m1.n1", "--concepts", other, "--text", text), "none of the concepts holds at any word of the text"),
        (("m1.n1", "--concepts", other, "--concepts", annotated, "--kinds", "xpos"), "none of the concepts holds at any word"),
        (("m1.n1", "--concepts", annotated, "--least", 4000), "holds at 4000 words of the text or more"),
        (("m1.n1", "--concepts", annotated, "--text", text), "leave out one of them"),
        (("m1.n1", "--concepts", annotated, "--above", 1e9), "m1.n1 is active at none of 360 words"),
        (("m1.n1", "--share", 0.1, "--above", 0), "--share and --above"),
        (("m1.n1", "--share", 2), "--share 2: expected"),
        (("m1.n1", "--kinds", "upos"), "'upos' is no kind of concepts of a text without annotations"),
        (("m1.n1", "--penalty", 0), "--penalty 0: expected"),
    ):
        check_one_line(command("compose", *options, "--out", tmp_path / "out"), words)
    assert not (tmp_path / "out").exists()
