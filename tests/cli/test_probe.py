"""`circuits probe`: what it writes and says, what it shows again, and what it refuses."""

import json
import re
from pathlib import Path

import pytest

import circuits
from circuits.cli.reports.tree_text import tree_text
from circuits.probes import (
    Anomalies,
    CoreferenceProbes,
    HeadPatterns,
    HeadPruning,
    Probes,
    PromptProbes,
    PropertyUse,
    SpanProbes,
    TreeProbes,
)
from circuits.probes.trees.results import ShownTree
from circuits.tasks import Sentence, grammar_sentences
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line
from tests.tasks.test_conllu import GOOD

FILES = {"probes.json", "probes.csv", "classes.csv", "probes.png", "use.json", "use.csv", "use.png"}


def conllu(sentences: tuple[Sentence, ...]) -> str:
    """Sentences as a file has them."""
    blocks = []
    for one in sentences:
        lines = [f"# text = {one.text}"]
        for number, word in enumerate(one.words, 1):
            head = 0 if word.head is None else word.head + 1
            cells = (number, word.form, word.lemma, word.tag, "_", word.feats, head, word.relation, "_", "_")
            lines.append("\t".join(map(str, cells)))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some annotated sentences."""
    path = tmp_path_factory.mktemp("data") / "made.conllu"
    path.write_text(f"{conllu(grammar_sentences(60))}\n{GOOD}")
    return path


def test_probes_are_written_said_and_shown_again(command: Command, tiny: Path, data: Path, tmp_path: Path) -> None:
    out, kept = tmp_path / "out", tmp_path / "kept"
    options = ("--data", data, "--model", tiny, "--seeds", 1, "--hidden", 4, "--ranks", 1, "--least", 5, "--keep", kept)
    answer = command("probe", *options, "--out", out)
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == FILES, "and no mark of an unfinished run"
    found, use = Probes.load(out / "probes.json"), PropertyUse.load(out / "use.json")
    assert found.column == "upos" and found.sites == ("resid0", "resid1", "resid2") and found.random
    assert [one.what for one in found.hidden] == ["one hidden layer of 4", "linear, of rank 1"]
    assert use.sites == found.sites
    assert answer.out.index("without any model: majority") < answer.out.index("upos read off")
    assert f"{data}: multiword tokens are read as the words in them (2), empty nodes are passed over (1)" in answer.err
    asked = "--ranks 1 --least 5 --seeds 1 --hidden 4"
    again = f"circuits probe --property relation --data {data} --keep {kept} {asked} --model {tiny}"
    assert again in answer.out, "what was asked for is asked again"
    assert "made.conllu" in answer.out and "what the model loses" in answer.out and "beyond random" in answer.out
    assert len(list(kept.iterdir())) == 2, "the model's activations, and those of random weights"
    again = command("probe", "--open", out / "probes.json", "--out", tmp_path / "again", "--json")
    said = json.loads(again.out)
    assert said["best"] == found.sites[found.best] and len(said["places"]) == 3 and said["use"]["lost"]
    assert {path.name for path in (tmp_path / "again").iterdir()} == FILES - {"probes.json", "use.json"}
    less = ("--property", "Number", "--layers", 2, "--no-use", "--no-random", "--hidden", 0)
    more = command("probe", *options, *less, "--out", out, "--json")
    assert [row["site"] for row in json.loads(more.out)["places"]] == ["resid0", "resid2"]
    assert json.loads(more.out)["use"] is None
    assert {path.name for path in out.iterdir()} == {"probes.json", "probes.csv", "classes.csv", "probes.png"}, (
        "nothing of the earlier run"
    )


def test_trees_are_written_said_and_shown_again(command: Command, tiny: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--data", data, "--model", tiny, "--rank", 4, "--epochs", 1, "--layers", 2, "--out", out)
    options = (*options, "--jabberwocky", "--ranks", "1,4")
    answer = command("probe", "tree", *options)
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == {"trees.json", "trees.csv", "trees.png", "tree_arcs.png"}
    found = TreeProbes.load(out / "trees.json")
    assert found.sites == ("resid0", "resid2") and found.random and "each word attached to the next one" in answer.out
    assert "by rank: 1: " in answer.out and "relations are right" in answer.out and "Such a sentence: " in answer.out
    again = json.loads(command("probe", "tree", "--open", out / "trees.json", "--json").out)
    assert again["judged"] == found.judged and len(again["places"]) == 2
    check_one_line(command("probe", "tree", "--pooling", "x"), "--pooling x: expected last or mean")
    wrong = ("probe", "tree", "--geometry", "flat", "--model", tiny)
    check_one_line(command(*wrong), "--geometry flat: expected euclidean or poincare")
    check_one_line(command("probe", "tree", "--ranks", "2,x"), "--ranks 2,x: 'x' is no number of directions")
    check_one_line(command("probe", "--open", out / "trees.json"), "circuits probe tree --open")


def test_spans_are_written_said_and_shown_again(command: Command, tiny: Path, data: Path, tmp_path: Path) -> None:
    out, lines = tmp_path / "out", tmp_path / "ner.jsonl"
    size = ("--rank", 4, "--hidden", 4, "--epochs", 1, "--least", 5, "--model", tiny, "--out", out)
    answer = command("probe", "spans", "--data", data, *size)
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == {"spans.json", "spans.csv", "spans.png"}
    found = SpanProbes.load(out / "spans.json")
    assert found.spans == 2 and found.random and found.mix is not None
    assert "centre of gravity" in answer.out and "same words" in answer.out
    again = json.loads(command("probe", "spans", "--open", out / "spans.json", "--json").out)
    assert again["judged"] == found.judged and len(again["places"]) == 3 and again["mix"]["centre"] == found.mix.centre
    rows = [{"text": one.text, "targets": [{"span1": [0, 2], "label": one.words[0].tag}]} for one in grammar_sentences(60)]
    lines.write_text("\n".join(map(json.dumps, rows)))
    less = ("--layers", 2, "--no-random", "--no-mix", "--json")
    told = json.loads(command("probe", "spans", "--data", lines, *size, *less).out)
    assert told["asked"] == "ner" and told["spans"] == 1 and told["mix"] is None
    check_one_line(command("probe", "spans", "--data", lines, "--property", "phrase"), "leave out --property")
    check_one_line(command("probe", "spans", "--data", data, "--property", "upos"), "expected relation, phrase, phrase-upos")


def test_heads_are_told_and_taken_out(command: Command, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--model", tiny, "--limit", 320, "--draws", 2, "--kinds", "zero", "--rounds", 1, "--out", out)
    answer = command("probe", "heads", *options)
    assert answer.status == 0, answer.err
    kinds = ("json", "csv", "png")
    assert {path.name for path in out.iterdir()} == {f"{name}.{kind}" for name in ("patterns", "pruning") for kind in kinds}
    found, lost = HeadPatterns.load(out / "patterns.json"), HeadPruning.load(out / "pruning.json")
    assert lost.classes and {one.kind for one in lost.classes} == {"zero"} and lost.free is not None
    assert "made maps of held-out prompts told right" in answer.out and "random heads" in answer.out
    again = json.loads(command("probe", "heads", "--open", out / "patterns.json", "--json").out)
    assert len(again["heads"]) == found.pattern.numel() and again["free"] == list(lost.free.heads)
    command("probe", "heads", *options, "--no-prune")
    assert {path.name for path in out.iterdir()} == {f"patterns.{kind}" for kind in kinds}, "nothing of the earlier run"
    check_one_line(command("probe", "heads", "--kinds", "noise"), "--kinds noise")


def test_wrong_sentences_are_found_in_layers(command: Command, tiny: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "out", tmp_path / "order.jsonl"
    options = ("--model", tiny, "--pairs", 30, "--shuffles", 20, "--limit", 2000, "--out", out)
    answer = command("probe", "anomaly", *options)
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == {"anomalies.json", "anomalies.csv", "anomalies.png"}
    found = Anomalies.load(out / "anomalies.json")
    assert found.groups == ("order", "number", "category", "all") and found.counts == (10, 10, 10, 30)
    again = json.loads(command("probe", "anomaly", "--open", out / "anomalies.json", "--json").out)
    assert len(again["places"]) == 4 * len(found.sites)
    file.write_text("\n".join(json.dumps({"sentence_good": f"A {n} b c.", "sentence_bad": f"A b {n} c."}) for n in range(12)))
    told = json.loads(command("probe", "anomaly", *options, "--minimal-pairs", file, "--json").out)
    assert told["groups"] == ["order"] and told["counts"] == [12]
    check_one_line(command("probe", "anomaly", "--minimal-pairs", tmp_path / "none.jsonl"), "none.jsonl: No such file")


@pytest.mark.parametrize("name", ["probe", "neurons"])
def test_bad_data_are_refused_with_their_place_before_a_model_is_loaded(
    command: Command, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def load(*arguments: object, **options: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(circuits, "load_model", load)
    text = conllu(grammar_sentences(12))
    (tmp_path / "one.conllu").write_text(re.sub("\t[A-Z]+\t_\t", "\tNOUN\t_\t", text))
    (tmp_path / "few.conllu").write_text(conllu(grammar_sentences(4)))
    (tmp_path / "lacking.conllu").write_text(text.replace("\t_\t_\n", "\t_\n", 1))
    wrong_head = re.sub(r"^1\t(.*)\t\d+\t(\w+)\t_\t_$", r"1\t\1\t9\t\2\t_\t_", text, count=1, flags=re.M)
    (tmp_path / "head.conllu").write_text(wrong_head)
    words = sum(len(one.words) for one in grammar_sentences(12))
    for file, options, said in (
        ("one.conllu", (), f"one.conllu: upos has 1 class ('NOUN' {words} times, first in {tmp_path}/one.conllu:2)"),
        ("few.conllu", ("--least", 1), "few.conllu: 4 sentences with a labelled word: a probe needs 10 or more"),
        ("lacking.conllu", (), "lacking.conllu: line 2: 9 columns between tabs; expected 10"),
        ("head.conllu", (), "head.conllu: line 2: the head is word 9 of a sentence of"),
        ("one.conllu", ("--property", "Tense"), f"none of {words} words has 'Tense' (from {tmp_path}/one.conllu:2 on it is _)"),
        ("one.conllu", ("--property", "relation", "--least", 5000), "0 of them on 5000 words or more: a probe needs two"),
    ):
        answer = command(name, "--data", tmp_path / file, *options, "--out", tmp_path / "out")
        check_one_line(answer, said)
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_is_one_line(command: Command, tiny: Path, data: Path, tmp_path: Path) -> None:
    model = ("--model", tiny, "--out", tmp_path / "out")
    broken = tmp_path / "broken.conllu"
    broken.write_text(data.read_text().replace("\t_\t_\n", "\t_\n", 1))
    long = tmp_path / "long.conllu"
    word = "{0}\tword\tword\tNOUN\t_\t_\t{1}\tdep\t_\t_"
    long.write_text("\n\n".join(["\n".join(word.format(number, number - 1) for number in range(1, 200))] * 10) + "\n")
    for options, words in (
        (("--data", tmp_path / "none.conllu"), "none.conllu: No such file"),
        (("--data", broken), "broken.conllu: line 2: 9 columns between tabs; expected 10"),
        (("--data", data, "--property", "xpos"), "made.conllu: none of"),
        (("--data", data, "--property", "Tense"), "has 'Tense'"),
        (("--data", data, "--property", "SpaceAfter"), "SpaceAfter has 1 class ('No' 2 times"),
        (("--data", data, "--least", 5000), "0 of them on 5000 words or more: a probe needs two"),
        (
            ("--data", long, "--property", "depth", "--least", 1),
            "none of 10 sentences can be used: 10 are too long (tiny takes ",
        ),
        (("--pooling", "first"), "--pooling first: expected last or mean"),
        (("--ranks", "2,-1"), "--ranks 2,-1: '-1' is no whole number"),
        (("--hidden", "many"), "--hidden many: 'many' is no whole number"),
        (("--layers", "0,x"), "'x' is no number of a layer"),
        (("--layers", "0", "--sites", "heads"), "leave out one of them"),
        (("--data", data, "--layers", "9"), "has no resid9"),
        (("--open", data), "not"),
    ):
        answer = command("probe", *options, *(() if "--open" in options else model))
        check_one_line(answer, words)
    assert not (tmp_path / "out").exists()


def test_prompts_are_written_said_and_shown_again(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    relation = ("--relations", "person_plays_instrument", "--count", 10)
    answer = command("probe", "prompts", *relation, "--epochs", 1, "--seeds", 1, "--vectors", 1, "--out", out)
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == {"prompts.json", "prompts.csv", "prompts.png"}
    found = PromptProbes.load(out / "prompts.json")
    assert len(found.subjects) == 10 and found.objects[0] <= 4 and found.with_random
    assert "210: more than were asked for" in answer.out and "wrong by random weights too" in answer.out
    again = json.loads(command("probe", "prompts", "--open", out / "prompts.json", "--json").out)
    assert [row["relation"] for row in again["relations"]] == [*found.relations, "all facts", "hard facts"]
    check_one_line(command("probe", "prompts", "--relations", "x"), "there is no 'x' among")
    check_one_line(command("probe", "prompts", "--skip-bad"), "it needs --data")
    check_one_line(command("probe", "--open", out / "prompts.json"), "circuits probe prompts --open")


def test_arcs_stand_above_words_and_below() -> None:
    tree = ShownTree(("a", "red", "dog", "ran"), ((2, 0), (2, 1), (3, 2)), ((0, 1), (1, 2), (2, 3)))
    assert tree_text(tree).splitlines() == [
        "┌──────┐",
        "│  ┌───┼───┐",
        "a red dog ran",
        "└──┴───┴───┘",
        "below, 2 of 3 relations are right; wrong: a-red; missed: dog-a",
    ]


def test_coreference_is_written_said_and_shown_again(command: Command, tiny: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--model", tiny, "--layers", 2, "--rank", 4, "--epochs", 2, "--seeds", 1, "--words", 900, "--out", out)
    answer = command("probe", "coreference", *options)
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == {"coreference.json", "coreference.csv", "coreference.png"}
    found = CoreferenceProbes.load(out / "coreference.json")
    assert found.sites == ("resid0", "resid2") and found.random and "nearest noun" in answer.out
    again = json.loads(command("probe", "coreference", "--open", out / "coreference.json", "--json").out)
    assert again["judged"] == found.judged and len(again["places"]) == 2
    check_one_line(command("probe", "coreference", "--data", data, "--model", tiny), "no word has Entity= in MISC")
    check_one_line(command("probe", "coreference", "--pooling", "x"), "--pooling x: expected last or mean")
