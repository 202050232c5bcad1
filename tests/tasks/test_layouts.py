"""Every layout of prompts that is read: told by its content, refused with its line when damaged; several answers; bad rows."""

import csv
import io
import json
import random
from pathlib import Path

import pytest
import torch

from circuits.errors import CircuitsError, FileFormatError, PromptError
from circuits.models import Model
from circuits.patching import patch_nodes
from circuits.tasks import (
    PromptPairs,
    metrics,
    read_counterfact_json,
    read_facts,
    read_feature_circuits_jsonl,
    read_function_vectors_json,
    read_mib_json,
    read_prompts,
)
from circuits.tasks.metric import Metric
from tests.damage import mutate
from tests.models import bundled
from tests.tasks.layouts import CAPITALS, LAYOUTS, OPPOSITES, Rows, listed, swapped, table
from tests.tasks.vocabularies import model as model_with


@pytest.fixture(scope="module")
def mini() -> Model:
    return bundled.mini()


def words(model: Model, tokens: torch.Tensor) -> list[str]:
    return [model.to_string([int(token)]) for token in tokens]


def sets(model: Model, rows: torch.Tensor | None) -> list[list[str]]:
    assert rows is not None
    return [[model.to_string([token]) for token in row if token >= 0] for row in rows.tolist()]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_is_known_by_its_content(mini: Model, tmp_path: Path, name: str) -> None:
    layout, count, make = LAYOUTS[name]
    path = tmp_path / "prompts"  # no suffix tells anything
    path.write_bytes(make(mini))
    found = read_prompts(path, mini)
    assert found.layout.startswith(layout) and found.describe().startswith(layout)
    assert len(found.pairs) == count and not found.pairs.left_out
    assert bool((found.pairs.answers != found.pairs.distractors).all())


def test_the_answers_are_those_of_the_file(mini: Model, tmp_path: Path) -> None:
    def read(name: str) -> PromptPairs:
        (tmp_path / name).write_bytes(LAYOUTS[name][2](mini))
        return read_prompts(tmp_path / name, mini).pairs

    for name in ("eap-ig ids", "eap-ig labels", "autocircuit", "autocircuit ids"):
        pairs = read(name)
        assert list(zip(words(mini, pairs.answers), words(mini, pairs.distractors), strict=True)) == [
            (answer, distractor) for _, _, answer, distractor in swapped()
        ]
    assert sets(mini, read("autocircuit").answer_sets) == [[answer, " London"] for _, _, answer, _ in swapped()]
    years = read("eap-ig greater-than")
    assert sets(mini, years.answer_sets) == [list("56789"), list("3456789"), list("789")], "digits above the year's first"
    assert sets(mini, years.distractor_sets) == [list("0123"), list("01"), list("012345")]
    assert [words(mini, part) for part in (read("eap-ig gender bias").answers, read("mib ioi").answers)] == [
        [" she", " he"],
        [" Mary", " John"],
    ]
    names = read("eap-ig ioi")
    assert (words(mini, names.answers), words(mini, names.distractors)) == ([" Mary", " John"], [" John", " Mary"])
    assert names.answer_words == ("Mary", "John")
    assert [one[0] for one in sets(mini, read("eap-ig hypernymy").distractor_sets)] == [" anim", " places"]
    assert words(mini, read("eap-ig facts").distractors) == [" Japan", " Italy", " Spain"]
    verbs = read("eap-ig agreement")
    right, wrong = sets(mini, verbs.answer_sets), sets(mini, verbs.distractor_sets)
    assert {" are", " have", " know"} <= set(right[0]) and {" is", " has", " knows"} <= set(right[1])
    assert (right[0], right[1]) == (wrong[1], wrong[0])
    assert words(mini, read("mib multiple choice").distractors) == [" C", " D"]
    assert words(mini, read("mib arithmetic").answers) == [" 3", " 8"]
    assert words(mini, read("feature circuits").answers) == [" are", " has"]


@pytest.mark.parametrize("kind", ["byte pairs", "spaced words"])
def test_years_of_two_digits_are_all_of_the_century(tmp_path: Path, kind: str) -> None:
    """With a tokenizer that takes two digits together, the answers are the years above, the others all up to it."""
    model = model_with(kind)
    (tmp_path / "years.csv").write_bytes(LAYOUTS["eap-ig greater-than"][2](model))
    pairs = read_prompts(tmp_path / "years.csv", model).pairs
    for row, year in enumerate((43, 27, 65)):
        right, wrong = (part[row] for part in (sets(model, pairs.answer_sets), sets(model, pairs.distractor_sets)))
        assert [int(text) for text in right] == list(range(year + 1, 100))
        assert [int(text) for text in wrong] == list(range(year + 1))


def test_verbs_may_come_from_a_list_beside_the_file(mini: Model, tmp_path: Path) -> None:
    path = tmp_path / "sva.csv"
    path.write_bytes(LAYOUTS["eap-ig agreement"][2](mini))
    verbs = (("is", "are"), ("frobs", "frob"), ("has", "have"))
    (tmp_path / "combined_verb_list.csv").write_bytes(table([{"sing": one, "plur": other} for one, other in verbs]))
    assert sets(mini, read_prompts(path, mini).pairs.answer_sets) == [[" are", " have"], [" is", " has"]]
    (tmp_path / "combined_verb_list.csv").write_text("a,b\n1,2\n")
    with pytest.raises(FileFormatError, match=r"combined_verb_list\.csv: lacks the column 'sing'"):
        read_prompts(path, mini)


def test_facts_of_every_layout_are_facts(mini: Model, tmp_path: Path) -> None:
    for name in ("lre", "rome", "counterfact"):
        (tmp_path / name).write_bytes(LAYOUTS[name][2](mini))
        facts = read_facts(tmp_path / name)
        assert [(fact.prompt, fact.subject, fact.attribute) for fact in facts] == [
            (f"The capital of {country} is", country, capital) for country, capital in CAPITALS
        ]
    assert read_counterfact_json(tmp_path / "counterfact") == read_facts(tmp_path / "counterfact")
    assert {fact.relation for fact in read_facts(tmp_path / "counterfact")} == {"P36"}
    (tmp_path / "opposites.json").write_bytes(LAYOUTS["function vectors"][2](mini))
    facts = read_function_vectors_json(tmp_path / "opposites.json", shots=3, seed=4)
    assert read_function_vectors_json(tmp_path / "opposites.json", shots=3, seed=4) == facts, "the seed draws the examples"
    openings = {fact.prompt.removesuffix(f"Q: {fact.subject}\nA:") for fact in facts}
    assert len(openings) == 1 and openings.pop().count("\nA: ") == 3, "all facts stand behind the same examples"
    for fact in facts:
        assert (fact.subject, fact.attribute) in OPPOSITES and fact.relation == "opposites"
        assert fact.prompt.count(fact.subject) == 1
    with pytest.raises(FileFormatError, match="10 word pairs; with 9 examples 11 are needed"):
        read_function_vectors_json(tmp_path / "opposites.json", shots=9)


def test_a_counterfactual_of_mib_can_be_chosen(mini: Model, tmp_path: Path) -> None:
    path = tmp_path / "ioi.jsonl"
    path.write_bytes(LAYOUTS["mib ioi"][2](mini))
    usual, other = read_mib_json(path, mini), read_mib_json(path, mini, counterfactual="abc_counterfactual")
    assert " Tom" in mini.to_string(other.corrupt.ids[0].tolist()) and " Tom" not in mini.to_string(
        usual.corrupt.ids[0].tolist()
    )
    with pytest.raises(FileFormatError, match=r'row 0 \(line 1\): "none_counterfactual" is None'):
        read_mib_json(path, mini, counterfactual="none_counterfactual")


PAIRED = ("LRE relation", "ROME facts", "CounterFact", "function-vector word pairs", "BLiMP minimal pairs")
"""Layouts whose rows are paired with one another, so that a row may be left without a partner."""


@pytest.mark.parametrize("name", LAYOUTS)
def test_damaged_files_are_read_or_refused_in_one_line_with_their_name(mini: Model, tmp_path: Path, name: str) -> None:
    chooser, path, content = random.Random(name), tmp_path / "mutated", LAYOUTS[name][2](mini)
    outcomes = {"read": 0, "refused": 0, "with its row": 0}
    for turn in range(150):  # sixty, and more where a layout has not shown every outcome
        if turn >= 60 and min(outcomes.values()) > 0:
            break
        path.write_bytes(mutate(content, chooser))
        try:
            found = read_prompts(path, mini, skip_bad=turn % 3 == 0, several="max" if turn % 2 else "mean")
            assert turn % 3 == 0 or not found.pairs.left_out or LAYOUTS[name][0] in PAIRED
            outcomes["read"] += 1
        except FileFormatError as error:
            outcomes["refused"] += 1
            outcomes["with its row"] += "row " in str(error) or "line " in str(error)
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error) and len(str(error)) < 1500
    assert min(outcomes.values()) > 0, outcomes


ROWS: Rows = [
    {"clean": clean, "corrupted": corrupt, "label": json.dumps([right, wrong])} for clean, corrupt, right, wrong in swapped()
]
BAD: list[tuple[dict[str, object], str]] = [
    (
        {"clean": "The capital of France is", "corrupted": "The big capital of Japan is", "label": '[" Paris", " Rome"]'},
        "equally many",
    ),
    (
        {"clean": "The capital of Italy is", "corrupted": "The capital of big Japan is", "label": '[" Rome", " Tokyo"]'},
        "equally many",
    ),
    (
        {"clean": "The capital of France is", "corrupted": "The capital of France is", "label": '[" Paris", " Rome"]'},
        "are the same",
    ),
    (
        {"clean": "The capital of France is", "corrupted": "The capital of Japan is", "label": '[" Paris", " Paris"]'},
        "must differ",
    ),
    ({"clean": "The capital of France is", "corrupted": "The capital of Japan is", "label": '[" Paris"]'}, "a JSON list"),
    ({"clean": " ", "corrupted": "The capital of Japan is", "label": '[" Paris", " Rome"]'}, "text that is not empty"),
]


def test_rows_that_do_not_fit_are_left_out_and_counted_by_reason(mini: Model, tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    mixed = [ROWS[0], BAD[0][0], ROWS[1], *(row for row, _ in BAD[1:]), ROWS[2], ROWS[3]]
    path.write_bytes(table(mixed))
    with pytest.raises(FileFormatError) as refused:
        read_prompts(path, mini)
    first = str(refused.value)
    assert first.startswith(f"{path}: row 6 (line 8): the label"), "what is in a row comes before how it aligns"
    assert "--skip-bad" in first
    found = read_prompts(path, mini, skip_bad=True)
    assert words(mini, found.pairs.answers) == [right for _, _, right, _ in swapped()]
    skipped = found.pairs.left_out
    assert len(found.pairs) + sum(skipped.values()) == len(mixed) and sum(skipped.values()) == len(BAD)
    assert max(skipped.values()) == 2 and len(skipped) == len(BAD) - 1, "two rows share a reason, whatever their lengths"
    assert f"{len(BAD)} of {len(mixed)} rows left out: 2 × the clean prompt has N tokens" in found.describe()
    for row, reason in BAD:
        path.write_bytes(table([ROWS[0], row]))
        with pytest.raises(FileFormatError, match=reason) as refused:
            read_prompts(path, mini)
        assert str(refused.value).startswith(f"{path}: row 1 (line 3): "), refused.value
        path.write_bytes(table([row, row]))
        with pytest.raises(FileFormatError, match=r"none of 2 rows fits: 2 × [^;]+$"):
            read_prompts(path, mini, skip_bad=True)


def test_rows_are_named_by_their_line(mini: Model, tmp_path: Path) -> None:
    """Also where texts span lines, where lines are empty, and in a list that is indented."""
    path = tmp_path / "prompts"
    rows = [{**ROWS[0], "clean": "The capital\nof France is", "corrupted": "The capital\nof Japan is"}, ROWS[1]]
    path.write_bytes(table([*rows, {**ROWS[2], "label": "["}]))
    with pytest.raises(FileFormatError, match=r"row 2 \(line 6\): the label"):
        read_prompts(path, mini)
    lines = LAYOUTS["feature circuits"][2](mini).decode().splitlines()
    path.write_text(f"\n{lines[0]}\n\n{lines[1][:-1]}\n")
    with pytest.raises(FileFormatError, match=r"row 1 \(line 4\): not JSON"):
        read_prompts(path, mini)
    document = json.loads(LAYOUTS["rome"][2](mini))
    document[2]["prompt"] = "The capital of Peru is"
    path.write_bytes(listed(document))
    expected = [number for number, line in enumerate(path.read_text().split("\n"), 1) if line == " {"][2]
    with pytest.raises(
        FileFormatError,
        match=rf"row 2 \(line {expected}\): the prompt 'The capital of Peru is': the subject 'Italy' is not in it",
    ):
        read_prompts(path, mini)
    document = json.loads(LAYOUTS["autocircuit"][2](mini))
    document["prompts"][1]["answers"] = []
    path.write_bytes(listed(document))
    with pytest.raises(FileFormatError, match=r'row 1 \(line \d+\): "answers" must be a list'):
        read_prompts(path, mini)


UNREAD = {
    "EWoK": table([{"Context1": "a", "Context2": "b", "Target1": "c", "Target2": "d"}]),
    "texts to train on": b'{"text": "a"}\n{"text": "b"}\n',
    "a circuit file": b'{"cfg": {}, "nodes": {}, "edges": {}}',
    "Parquet": b"PAR1\x15\x04",
    "gzip": b"\x1f\x8b\x08",
    "pickle": b"\x80\x04\x95",
    "JSON with the keys": b'[{"ask": 1, "say": 2}]',
    "is empty": b" \n",
}


@pytest.mark.parametrize("name", UNREAD)
def test_layouts_that_are_not_read_are_named(mini: Model, tmp_path: Path, name: str) -> None:
    path = tmp_path / "other"
    path.write_bytes(UNREAD[name])
    with pytest.raises(FileFormatError, match=name) as refused:
        read_prompts(path, mini)
    assert "\n" not in str(refused.value)
    if "Read are" in str(refused.value):
        for layout in ("EAP-IG CSV", "AutoCircuit JSON", "CounterFact", "MIB task", "sparse feature circuits"):
            assert layout in str(refused.value)


SIZE = 11


def random_sets(seed: int, several: str) -> PromptPairs:
    """Pairs with one to four right and one to three wrong answers each."""
    rng = random.Random(seed)
    rows = [[rng.randrange(SIZE) for _ in range(4)] for _ in range(6)]
    other = [[row[0], (row[1] + 1) % SIZE, *row[2:]] for row in rows]
    drawn = [rng.sample(range(SIZE), 7) for _ in rows]
    right, wrong = [one[: rng.randint(1, 4)] for one in drawn], [one[4 : rng.randint(5, 7)] for one in drawn]
    firsts = [one[0] for one in right], [one[0] for one in wrong]
    pairs = PromptPairs.from_tokens(SIZE, clean=rows, corrupt=other, answers=firsts[0], distractors=firsts[1])
    return pairs.with_answers(right, wrong, several="max" if several == "max" else "mean")


def slow(name: str, row: torch.Tensor, right: list[int], wrong: list[int], several: str) -> float:
    chances = row.softmax(dim=0)
    logits = [[float(row[token]) for token in side] for side in (right, wrong)]
    shares = [[float(chances[token]) for token in side] for side in (right, wrong)]
    best = max(logits[0])
    before = sum(float(row[token]) >= best for token in range(SIZE) if token not in right)
    joined = max if several == "max" else (lambda values: sum(values) / len(values))
    added = max if several == "max" else sum
    return {
        "logit_difference": joined(logits[0]) - joined(logits[1]),
        "probability": added(shares[0]),
        "log_probability": float(torch.tensor(added(shares[0]), dtype=torch.float64).log()),
        "probability_difference": added(shares[0]) - added(shares[1]),
        "rank": float(before),
        "accuracy": float(before == 0),
    }[name]


@pytest.mark.parametrize("several", ["mean", "max"])
@pytest.mark.parametrize("name", [name for name, metric in metrics.METRICS.items() if isinstance(metric, Metric)])
def test_a_metric_of_several_answers_is_what_the_loop_says(name: str, several: str) -> None:
    for seed in range(20):
        pairs = random_sets(seed, several)
        logits = 2 * torch.randn(6, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        lists = [[[t for t in row if t >= 0] for row in part.tolist()] for part in (pairs.answer_sets, pairs.distractor_sets)]  # type: ignore[union-attr]
        expected = [slow(name, row, right, wrong, several) for row, right, wrong in zip(logits, *lists, strict=True)]
        metric = metrics.METRICS[name]
        assert isinstance(metric, Metric)
        torch.testing.assert_close(metric(logits, pairs), torch.tensor(expected, dtype=torch.float64))
        part = [4, 1]
        torch.testing.assert_close(metric(logits[part], pairs[part]), torch.tensor(expected, dtype=torch.float64)[part])


@pytest.mark.parametrize("several", ["mean", "max"])
def test_reading_answers_alone_is_reading_all_logits(mini: Model, tmp_path: Path, several: str) -> None:
    """Where only the answers' logits are computed, several of them give the same effects; a small budget cuts nothing off."""
    path = tmp_path / "verbs.csv"
    path.write_bytes(LAYOUTS["eap-ig agreement"][2](mini))
    pairs = read_prompts(path, mini, several="max" if several == "max" else "mean").pairs
    whole = Metric("all", lambda logits, pairs: metrics.logit_difference(logits, pairs), by_prompt=True)
    found = [patch_nodes(mini, pairs, metric, ["a0.h0", "m1"]) for metric in (metrics.logit_difference, whole)]
    torch.testing.assert_close(found[0].scores, found[1].scores, atol=1e-5, rtol=1e-5)
    small = patch_nodes(mini, pairs, metrics.logit_difference, ["a0.h0", "m1"], budget=2**22)
    torch.testing.assert_close(found[0].scores, small.scores, atol=1e-5, rtol=1e-5)


def test_sets_that_do_not_fit_are_refused() -> None:
    pairs = random_sets(0, "mean")
    one = [[1]] * len(pairs)
    with pytest.raises(PromptError, match="both an answer and a distractor"):
        pairs.with_answers(one, [[2, 1]] * len(pairs))
    with pytest.raises(PromptError, match="has no distractor"):
        pairs.with_answers(one, [[]] * len(pairs))
    with pytest.raises(PromptError, match="differ in length"):
        pairs.with_answers(one[:2], one)


def test_a_row_with_a_token_on_both_sides_is_refused(mini: Model, tmp_path: Path) -> None:
    document = json.loads(LAYOUTS["autocircuit"][2](mini))
    document["prompts"][2]["wrong_answers"].append(" London")
    (tmp_path / "both.json").write_bytes(listed(document))
    with pytest.raises(FileFormatError, match=r"row 2 \(line \d+\): answer and distractor are the same token"):
        read_prompts(tmp_path / "both.json", mini)


def test_token_ids_outside_the_vocabulary_are_refused(mini: Model, tmp_path: Path) -> None:
    """Ids of another tokenizer are most often found out so."""
    rows = list(csv.DictReader(io.StringIO(LAYOUTS["eap-ig ids"][2](mini).decode())))
    rows[1]["incorrect_idx"] = str(mini.weights.W_U.shape[1])
    (tmp_path / "ids.csv").write_bytes(table([dict(row) for row in rows]))
    with pytest.raises(FileFormatError, match=r"row 1 \(line 3\): the distractor has token id \d+, outside the vocabulary"):
        read_prompts(tmp_path / "ids.csv", mini)


def test_readers_by_name_read_the_same(mini: Model, tmp_path: Path) -> None:
    path = tmp_path / "prefixes.json"
    path.write_bytes(LAYOUTS["feature circuits"][2](mini))
    assert torch.equal(read_feature_circuits_jsonl(path, mini).answers, read_prompts(path, mini).pairs.answers)
    with pytest.raises(CircuitsError, match="expected"):
        read_function_vectors_json(path)


def test_a_third_name_is_no_indirect_object(mini: Model, tmp_path: Path) -> None:
    """Where the harder corruption does not swap the two names, the token ids say what the answer is."""
    start, (answer, other) = "When John and Mary went to the house,", (mini.single_token(word) for word in (" Mary", " John"))
    row = [f"{start} {name} gave a book to" for name in ("John", "Tom", "Tom")] + [str(answer), str(other)]
    path = tmp_path / "ioi.csv"
    path.write_text("clean,corrupted,corrupted_hard,correct_idx,incorrect_idx\n" + ",".join(f'"{one}"' for one in row) + "\n")
    pairs = read_prompts(path, mini).pairs
    assert (pairs.answers.tolist(), pairs.distractors.tolist()) == ([answer], [other])


def test_rows_of_ids_that_open_otherwise_than_most_are_named_or_left_out(mini: Model, tmp_path: Path) -> None:
    rows = [
        {"clean": ids, "corrupt": [*ids[:-1], 778], "answers": [5], "wrong_answers": [6]}
        for ids in ([904, 777], [0, 904, 777], [0, 904, 770])
    ]
    path = tmp_path / "ids.json"
    path.write_text(json.dumps({"prompts": rows}))
    with pytest.raises(FileFormatError, match=r"row 0 .*starts without BOS \(token 0\), most rows do not; --skip-bad"):
        read_prompts(path, mini)
    found = read_prompts(path, mini, skip_bad=True).pairs
    assert found.clean.ids.tolist() == [[0, 904, 777], [0, 904, 770]] and sum(found.left_out.values()) == 1


def test_rows_that_are_no_objects_share_a_reason(mini: Model, tmp_path: Path) -> None:
    path = tmp_path / "mixed.json"
    good = {"clean": [904, 777], "corrupt": [904, 778], "answers": [5], "wrong_answers": [6]}
    path.write_text(json.dumps({"prompts": [good, 5, None, "x", [1]]}))
    assert read_prompts(path, mini, skip_bad=True).pairs.left_out == {"the row is no object, first in row 1 (line 1)": 4}


@pytest.mark.parametrize("content", ["null", "5", '"text"', "true\n"])
def test_one_json_value_is_no_table(mini: Model, tmp_path: Path, content: str) -> None:
    path = tmp_path / "one.json"
    path.write_text(content)
    with pytest.raises(FileFormatError, match=r"holds one JSON value, .*; expected a list or an object"):
        read_prompts(path, mini)
