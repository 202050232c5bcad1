"""Rationales in a larger model's prompt: which texts and words are shown, what is asked, and what answers count."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import circuits
from circuits.errors import CircuitsError, ModelError, PromptError
from circuits.models import Model
from circuits.statistics import mcnemar
from circuits.uses import Amplified, Attributing, Classifier, Examples, amplify, planted_shortcut, train_head
from circuits.uses.attributing.prompted import PromptedModel, asked, named_class, shot
from circuits.uses.attributing.showing import confused
from tests.files.examples import amplified

FEW = planted_shortcut(count=40, judged=24, seed=3)


@pytest.fixture(scope="module")
def base() -> Model:
    mini = circuits.load_model("mini")
    return dataclasses.replace(mini, weights=mini.weights.of_layers(0, 1), make_bridge=None)


@pytest.fixture(scope="module")
def trained(base: Model) -> Classifier:
    return train_head(base, FEW.train)


@dataclasses.dataclass
class Reader:
    """Answers by the words that a prompt shows last: right with opinions of a rationale, else always the first class."""

    asked: list[tuple[str, str, bool]] = dataclasses.field(default_factory=list)
    most: int = 3

    def classify(self, shots: str, text: str, names: Sequence[str], *, rationale: bool) -> int | None:
        self.asked.append((shots, text, rationale))
        return None if "plot" in text and not rationale else int(rationale)

    def fits(self, shots: str, texts: Sequence[str], names: Sequence[str]) -> bool:
        return shots.count("Text:") <= self.most


def test_the_texts_shown_are_those_got_wrong_most_surely(trained: Classifier) -> None:
    found = confused(trained, FEW.flipped, 3, words=2)
    assert sorted(one.label for one in found) == [0, 0, 0, 1, 1, 1]
    chances = trained.logits(FEW.flipped.texts).double().softmax(dim=1)
    surest = {
        text: float(row[1 - label] - row[label])
        for text, label, row in zip(FEW.flipped.texts, FEW.flipped.labels, chances, strict=True)
    }
    for label in (0, 1):
        own = sorted(
            (surest[text] for text, one in zip(FEW.flipped.texts, FEW.flipped.labels, strict=True) if one == label),
            reverse=True,
        )
        assert sorted((one.confidence for one in found if one.label == label), reverse=True) == pytest.approx(own[:3])
    for one in found:
        assert len(one.words) == len(one.random) == 2 and set(one.words) | set(one.random) <= set(one.text.split())
        assert not set(one.words) & set(one.random), "random words are others"
        assert "." not in one.words and (one.prediction != one.label) == (one.confidence > 0)
    with pytest.raises(PromptError, match="13 texts of each class to show: negative has 12"):
        confused(trained, FEW.flipped, 13)
    beside = Examples(("Great film, great cast!", "Film. (Dull), film", "!", "Dull"), (1, 0, 1, 0), FEW.train.classes)
    shown = confused(trained, beside, 1, words=2)
    assert {one.text: set(one.words + one.random) for one in shown} == {
        beside.texts[0]: {"Great", "film"},
        beside.texts[1]: {"Film", "Dull"},
    }
    one = next(one for one in shown if one.label == 1)
    assert len(one.words) == len(one.random) == 1, "half of the three words, so that there are others"


def test_conditions_differ_in_rationales_alone_and_are_judged_on_the_same_texts(trained: Classifier, tmp_path: Path) -> None:
    reader, judged = Reader(), FEW.held_out[:6]
    found = amplify(
        trained,
        FEW.flipped,
        judged,
        reader,
        name="re<b>ader",
        names=("bad", "good"),
        chosen_from="flipped ones",
        shown=2,
        words=2,
    )
    assert [rationale for _, _, rationale in reader.asked] == [False] * 6 + [True] * 12
    shown = [dict.fromkeys(shots for shots, _, _ in reader.asked[at : at + 6]) for at in (0, 6, 12)]
    assert all(len(one) == 1 for one in shown) and len({*shown[0], *shown[1], *shown[2]}) == 3
    lines = [line for line in found.prompt("rationales").splitlines() if not line.startswith("Words")]
    assert lines == found.prompt("none").splitlines() and next(iter(shown[1])) == found.prompt("rationales")
    assert [one.label for one in found.examples] in ([0, 1], [1, 0]), "of four as many as it takes, as many of each class"
    assert found.shown == "1 of each class (not 2 of each: re<b>ader takes no more), chosen from flipped ones"
    labels = torch.tensor(judged.labels)
    assert found.accuracy("rationales").effect == pytest.approx(float((labels == 1).double().mean()))
    none = torch.tensor([-1 if "plot" in text else 0 for text in judged.texts])
    assert found.answers[0].equal(none) and found.accuracy("none").effect == pytest.approx(
        float((none == labels).double().mean())
    )
    wins, losses = int(((labels == 1) & (none != labels)).sum()), int(((labels != 1) & (none == labels)).sum())
    assert found.p_value("none") == min(1.0, 2 * mcnemar(wins, losses, two_sided=True)) and found.p_value("random") == 1.0
    gain = found.gain("none")
    assert gain.effect == pytest.approx((wins - losses) / 6) and gain.low < 0 < gain.high
    assert found.weights_sha256 == trained.model.fingerprint
    found.save(tmp_path / "amplified.json")
    assert Amplified.load(tmp_path / "amplified.json").examples == found.examples
    with pytest.raises(PromptError, match="expected one for each of negative, positive"):
        amplify(trained, FEW.flipped, judged, reader, name="reader", names=("one",))
    single = amplify(trained, FEW.flipped, judged, Reader(most=1), name="reader", shown=2, words=2)
    assert len(single.examples) == 1 and "which favours the classes that are shown (not 2 of each: reader" in single.shown


def test_rationales_may_harm_and_both_comparisons_are_corrected() -> None:
    right, wrong = torch.zeros(20, dtype=torch.int64), torch.ones(20, dtype=torch.int64)
    mixed = torch.cat([wrong[:13], right[:7]])
    own = {"texts": ("a",) * 20, "labels": right, "small": right}
    found = dataclasses.replace(amplified(), **own, answers=torch.stack([right, mixed, mixed]))
    assert found.p_value("none") == pytest.approx(4 * 2.0**-13) and found.p_value("random") == 1.0
    assert found.gain("none").high < 0 and "-65%" in found.summary and found.gain("random").effect == 0
    with pytest.raises(CircuitsError, match="expected none or random"):
        found.p_value("small")


def test_a_model_of_this_machine_answers_with_the_likeliest_name(base: Model) -> None:
    shots = shot("Good film .", ["Good"], "Mary went") + "\n" + shot("Bad film .", ["Bad"], "John") + "\n"
    names, larger = ("Mary went", "John"), PromptedModel(base)
    text = "A film of some worth ."
    chances = []
    for name in names:
        ids = [
            base.to_tokens(shots).ids[0].tolist(),
            *(base.to_tokens(part, prepend_bos=False).ids[0].tolist() for part in (asked(text, None), f" {name}")),
        ]
        logits = base.run(torch.tensor([*ids[0], *ids[1], *ids[2]])).logits[0].double().log_softmax(dim=-1)
        start = len(ids[0]) + len(ids[1])
        chances.append(sum(float(logits[start + at - 1, token]) for at, token in enumerate(ids[2])))
    assert larger.classify(shots, text, names, rationale=False) == chances.index(max(chances))
    assert larger.classify(shots, text, names, rationale=True) in (0, 1)
    short = dataclasses.replace(base, weights=dataclasses.replace(base.weights, max_positions=40))
    with pytest.raises(ModelError, match="show fewer or shorter"):
        PromptedModel(short).classify(shots, text, names, rationale=True)


def test_answers_of_servers_name_a_class_or_none() -> None:
    names = ("negative", "positive")
    for said, place in (
        ("Label: positive", 1),
        ("Words that tell: dull\nLabel: Negative.", 0),
        ("not negative but positive", 1),
        ("unpositive", None),
        ("", None),
    ):
        assert named_class(said, names) == place


def test_rationales_hold_the_planted_cue(base: Model) -> None:
    planted = planted_shortcut(count=60, judged=24, strength=1.0, seed=2)
    cues = {
        *planted.shortcut,
        *(
            text.split()[place]
            for split in (planted.held_out,)
            for text, spans in zip(split.texts, split.rationales, strict=True)
            for start, end in spans or ()
            for place in range(start, end)
        ),
    }
    found = confused(train_head(base, planted.train), planted.held_out, 8, words=3, how=Attributing(method="gradient"))
    own, chance = (sum(word in cues for one in found for word in getattr(one, name)) for name in ("words", "random"))
    assert own > chance
