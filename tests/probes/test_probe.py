"""Probes of what was planted, what they are held against, and properties of words."""

import dataclasses
from pathlib import Path

import pytest
import torch

from circuits.errors import CircuitsError, GraphError, PromptError
from circuits.probes import Probes, probe, property_use
from circuits.probes.columns import column, depths, label_words
from circuits.probes.controls import WordTypes, from_neighbours, majority
from circuits.probes.regression import Problem, Scale, Turned, fit_logistic, scores_of
from circuits.probes.splitting import Split, split_words
from circuits.probes.wide import fit_hidden
from circuits.tasks import Sentence, grammar_sentences
from tests.probes.spoken import before, previous_model, sentence_of
from tests.tasks.test_conllu import GOOD, read


@pytest.fixture(scope="module")
def found() -> Probes:
    return probe(previous_model(), before(180), "upos", seeds=2, hidden=16, ranks=[1, 7])


def test_a_label_of_layer_1_is_read_off_behind_it_and_not_before(found: Probes) -> None:
    assert found.sites == ("resid0", "resid1", "resid2", "resid3") and set(found.classes) == {
        f"c{token}" for token in range(1, 9)
    }
    table = found.to_dataframe().set_index("site")["accuracy"]
    assert max(table["resid0"], table["resid1"]) < 0.3, "chance is an eighth"
    assert min(table["resid2"], table["resid3"]) > 0.99
    assert found.interval(1)[1] < found.interval(2)[0], "the intervals do not touch"
    assert max(found.random) < 0.9 and found.baselines["majority"][0] < 0.3
    assert found.baselines["neighbours"][0] > 0.9, "the word before stands in the window"
    assert float(found.bits[2]) < 2.0 < 2.8 < float(found.bits[0]), "without a probe 3 bits"
    wide, line, whole = found.hidden
    assert wide.accuracy > 0.99 and found.sites[found.best] in found.summary
    assert line.accuracy < 0.6 < 0.9 < whole.accuracy, "eight classes at unit vectors' tips do not lie on a line"
    f1 = found.of_classes().set_index("class")
    assert found.class_f1 is not None and found.class_words is not None and int(found.class_words.sum()) == found.judged
    assert f1["f1_resid2"].min() > 0.95 and f1["f1_resid0"].max() < 0.6
    assert found.class_f1.nanmean(dim=1).tolist() == pytest.approx(found.macro_f1.tolist())
    assert found.left_out["words without"] == 180, "the first word of each"


def test_the_property_is_used_where_it_is_computed_and_not_before(found: Probes) -> None:
    use = property_use(previous_model(), before(180), found, count=24, draws=2)
    assert use.used in ("resid2", "resid3") and use.used in use.summary
    lost = dict(zip(use.sites, use.beyond.tolist(), strict=True))
    assert min(lost["resid2"], lost["resid3"]) > 4 * max(abs(lost["resid0"]), abs(lost["resid1"])) > 0
    erased, moved, kept, random = use.lost[use.sites.index("resid2"), :, 0].tolist()
    assert moved > erased > 10 * abs(random) and moved > 10 * abs(kept)
    assert use.ranks.tolist() == [7, 7, 7, 7] and use.counts[0] > 0


def test_the_loss_of_the_whole_model_is_that_of_a_plain_run(found: Probes) -> None:
    model, sentences = previous_model(), before(180)
    use = property_use(model, sentences, found, count=2, sites=["resid3"], draws=1)
    drawn = split_words(*labelled(sentences)).judge
    judged = labelled(sentences)[1][drawn].unique()
    chosen = judged[torch.randperm(len(judged), generator=torch.Generator().manual_seed(0))][:2].tolist()
    losses: list[list[float]] = [[], []]
    for number in chosen:
        tokens = model.to_tokens(sentences[number].text)
        chances = model.run(tokens).logits[0].log_softmax(dim=1)
        for column_, token in enumerate(tokens.ids[0, 1:].tolist()):
            losses[0 if column_ > 1 else 1].append(-float(chances[column_, token]))
    for part in (0, 1):
        assert len(losses[part]) == int(use.counts[part])
        assert sum(losses[part]) / len(losses[part]) == pytest.approx(float(use.whole[part]))


def labelled(sentences: list[Sentence]) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels and sentences of all words."""
    places = [(number, word) for number, one in enumerate(sentences) for word in range(len(one.words))]
    return label_words(sentences, places, "upos").labels, torch.tensor([number for number, _ in places])


def test_a_wide_probe_is_less_selective_than_a_linear_one_at_equal_accuracy() -> None:
    """Each word type is a point in a few dimensions; the task is a half-space, the control any labels of the points."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(60, 6, generator=generator)
    types = torch.randint(60, (1500,), generator=generator)
    x = Scale.of(points[types]).apply(points[types])
    task = (points[types] @ torch.randn(6, generator=generator) > 0).long()
    control = WordTypes(types, 60).control(task, seed=3)
    train, judge = slice(0, 1000), slice(1000, None)
    scores = {}
    for name, labels in (("task", task), ("control", control)):
        linear = fit_logistic(Turned.of(x[train]), [Problem(labels[train], 0.001)], classes=2)[0]
        wide = fit_hidden(x[train], labels[train], classes=2, hidden=1000, epochs=40, decay=0.0)
        for kind, answers in (("linear", scores_of(x[judge], linear)), ("wide", wide.scores(x[judge]))):
            scores[kind, name] = float((answers.argmax(dim=1) == labels[judge]).float().mean())
    assert min(scores["linear", "task"], scores["wide", "task"]) > 0.97
    linear, wide = (scores[kind, "task"] - scores[kind, "control"] for kind in ("linear", "wide"))
    assert linear > 0.3 > 0.1 > wide


def test_splits_are_of_whole_sentences_and_all_seeds_are_judged_on_the_same() -> None:
    labels, sentence = labelled(before(50))
    one, two = split_words(labels, sentence, seed=0), split_words(labels, sentence, seed=1)
    assert torch.equal(one.judge, two.judge) and not torch.equal(one.develop, two.develop)
    for split in (one, two):
        parts = [set(sentence[part].tolist()) for part in (split.train, split.develop, split.judge)]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2]) and len(set.union(*parts)) == 50
        assert sorted(torch.cat([split.train, split.develop, split.judge]).tolist()) == (labels >= 0).nonzero()[:, 0].tolist()
    with pytest.raises(PromptError, match="a probe needs 10 or more"):
        split_words(labels[:30], sentence[:30])


def test_what_needs_no_model_by_hand() -> None:
    labels = torch.tensor([0, 0, 1, 1, 1, 0, 2, 1, 0])
    forms = ["a", "a", "a", "b", "c", "c", "d", "b", "e"]
    types = WordTypes.of(forms)
    split = Split(train=torch.arange(8), develop=torch.arange(0), judge=torch.tensor([2, 5, 6, 7, 8]))
    assert majority(types, labels, split).tolist() == [0, 1, 2, 1, 1], "of equal ones the more frequent label"
    assert types.seen(split.train, split.judge).tolist() == [True, True, True, True, False]
    control = types.control(labels, seed=0)
    by_type = {form: set(control[[at for at, one in enumerate(forms) if one == form]].tolist()) for form in forms}
    assert all(len(values) == 1 for values in by_type.values())
    assert torch.equal(types.control(torch.tensor([-1] * 8 + [2])), torch.tensor([-1] * 8 + [2]))


def test_the_window_sees_neighbours_of_the_same_sentence() -> None:
    labels, sentence = labelled(before(120))
    forms = [word.form for one in before(120) for word in one.words]
    split = split_words(labels, sentence)
    answers = from_neighbours(forms, sentence, labels, split)
    assert float((answers == labels[split.judge]).double().mean()) > 0.9
    shuffled = from_neighbours(forms, torch.arange(len(forms)), labels, split)
    assert float((shuffled == labels[split.judge]).double().mean()) < 0.5, "no word has a neighbour"


def test_columns_of_words(tmp_path: Path) -> None:
    first, second = read(tmp_path, GOOD.replace("VERB\t_\t_\t0\troot", "VERB\tVB\tMood=Ind|Tense=Pres\t0\troot", 1))
    assert column(first, "upos")[:3] == ["PROPN", "AUX", "PART"] and column(first, "xpos")[3] == "VB"
    assert column(second, "relation")[1] == "det" and column(second, "deprel")[1] == "det:def"
    assert column(first, "Tense") == ["_", "_", "_", "Pres", "_", "_"] and column(first, "SpaceAfter")[4] == "No"
    assert column(first, "head") == ["+3", "+2", "+1", "root", "-1", "-2"] and column(first, "lemma")[2] == "not"
    assert depths(first) == [1, 1, 1, 0, 1, 1] and column(second, "depth") == ["1", "1", "0", "1"]
    chain = sentence_of([1] * 12, ["X"] * 12)
    words = [dataclasses.replace(word, head=place - 1 if place else None) for place, word in enumerate(chain.words)]
    chain = dataclasses.replace(chain, words=tuple(words))
    assert depths(chain) == list(range(12)) and column(chain, "depth")[6:] == ["6"] + ["7+"] * 5
    assert first.place == f"{tmp_path / 'some.conllu'}:3"


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("xpos", {}, r"some.conllu: none of 10 words has 'xpos' \(from .*some.conllu:3 on it is _\)"),
        ("Tense", {}, "none of 10 words has 'Tense'"),
        ("lemma", {"least": 3}, r"some.conllu: lemma has 10 classes \('Mia' 1 times, first in .*:3\), 0 of them on 3 words"),
        ("misc", {"least": 1}, "some.conllu: misc has 1 class .* 1 of them on 1 words or more: a probe needs two"),
    ],
)
def test_a_property_that_cannot_be_probed_is_named_with_its_place(tmp_path: Path, name: str, options: dict, words: str) -> None:
    sentences = read(tmp_path, GOOD)
    places = [(number, word) for number, one in enumerate(sentences) for word in range(len(one.words))]
    with pytest.raises(PromptError, match=words) as error:
        label_words(sentences, places, name, **options)
    assert "\n" not in str(error.value)


def test_numbers_and_places_that_cannot_be_are_refused(found: Probes) -> None:
    model, sentences = previous_model(), before(180)
    with pytest.raises(PromptError, match="seeds=0"):
        probe(model, sentences, seeds=0)
    with pytest.raises(PromptError, match="hidden=-1"):
        probe(model, sentences, hidden=-1)
    with pytest.raises(PromptError, match="ranks=0"):
        probe(model, sentences, ranks=[4, 0])
    with pytest.raises(GraphError, match="a1 is no residual stream"):
        property_use(model, sentences, found, sites=["a1"])
    with pytest.raises(PromptError, match="give the same model and words"):
        property_use(model, sentences[:100], found)
    with pytest.raises(PromptError, match="at least 2 sentences"):
        property_use(model, sentences, found, count=1)
    with pytest.raises(CircuitsError, match="one number a place"):
        dataclasses.replace(found, sites=found.sites[:2])


def test_the_grammar_makes_trees_with_words_of_two_kinds() -> None:
    made = grammar_sentences(300, seed=1)
    assert made == grammar_sentences(300, seed=1) != grammar_sentences(300, seed=2)
    tags: dict[str, set[str]] = {}
    for one in made:
        assert sum(word.head is None for word in one.words) == 1 and max(depths(one)) < 5
        for word in one.words:
            assert one.text[word.start : word.end] == word.form
            tags.setdefault(word.form, set()).add(word.tag)
    assert sum(len(kinds) > 1 for kinds in tags.values()) > 15
