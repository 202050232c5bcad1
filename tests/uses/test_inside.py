"""The engine on a classifier: its output is two classes, and every number is that of brute force."""

import dataclasses

import pytest
import torch

import circuits
from circuits.attribution import attribute_edges, attribute_nodes
from circuits.errors import PromptError
from circuits.models import Edit, Model
from circuits.patching.nodes import patch_nodes
from circuits.tasks.metrics import logit_difference
from circuits.uses import (
    Classifier,
    InsideChange,
    class_pairs,
    compare_inside,
    label_words,
    meaning_swaps,
    planted_shortcut,
    shortcut_swaps,
)

FEW = planted_shortcut(count=60, judged=30, seed=3)
COUNTED = label_words(FEW.train)


@pytest.fixture(scope="module")
def base() -> Model:
    mini = circuits.load_model("mini", dtype=torch.float64)
    return dataclasses.replace(mini, weights=mini.weights.of_layers(0, 2), make_bridge=None)


def drawn(base: Model, seed: int) -> Classifier:
    generator = torch.Generator().manual_seed(seed)
    head = {"W_U": torch.randn(256, 2, generator=generator).double(), "b_U": torch.randn(2, generator=generator).double()}
    return Classifier.on(base, FEW.train.classes).with_tensors(head, tuned=False, training={})


def test_swapped_texts_are_as_long_and_speak_for_another_class(base: Model) -> None:
    classifier = drawn(base, 0)
    shortcut = shortcut_swaps(classifier, COUNTED, FEW.held_out, ["Friday", "Monday"], most=8)
    for clean, corrupt, name in zip(shortcut.clean, shortcut.corrupt, shortcut.classes, strict=True):
        days = [{"Friday", "Monday"} & set(text.split()) for text in (clean, corrupt)]
        assert days == [{"Friday"}, {"Monday"}] if name == "negative" else days == [{"Monday"}, {"Friday"}]
    meaning = meaning_swaps(classifier, COUNTED, FEW.held_out, most=8)
    label = dict(zip(FEW.held_out.texts, FEW.held_out.labels, strict=True))
    for clean, corrupt, name in zip(meaning.clean, meaning.corrupt, meaning.classes, strict=True):
        assert FEW.held_out.classes[label[clean]] == name and clean != corrupt
        assert {"Friday", "Monday"} & set(clean.split()) == {"Friday", "Monday"} & set(corrupt.split())
    lengths = [len(classifier.rows([text])[0]) for one in (shortcut, meaning) for text in (*one.clean, *one.corrupt)]
    assert lengths[:8] == lengths[8:16]
    with pytest.raises(PromptError, match="in 0 of 30 texts: expected 5"):
        shortcut_swaps(classifier, COUNTED, FEW.held_out, ["sunday"])


def test_patching_and_attributing_a_classifier_are_those_of_brute_force(base: Model) -> None:
    classifier = drawn(base, 0)
    swaps = shortcut_swaps(classifier, COUNTED, FEW.held_out, ["friday", "monday"], most=5)
    pairs, model = swaps.pairs(classifier), classifier.model
    effects = patch_nodes(model, pairs, logit_difference, ["heads", "mlps"], direction="noising")
    others = model.run(pairs.corrupt)
    rows, last = torch.arange(len(pairs)), pairs.clean.last

    def margins(edits: list[Edit]) -> torch.Tensor:
        logits = model.run(pairs.clean, edits=edits).logits[rows, last]
        return logits[rows, pairs.answers] - logits[rows, 1 - pairs.answers]

    torch.testing.assert_close(effects.clean, margins([]))
    slow = []
    for name in effects.names:
        layer = int(name[1])
        head = name.partition("h")[2]
        value = others.z[layer][:, :, int(head)] if head else others.residuals[layer + 1] - others.middles[layer]
        slow.append(margins([Edit(name, value)]))
    torch.testing.assert_close(effects.scores, torch.stack(slow), atol=1e-9, rtol=1e-9)
    # To first order: the estimate is the derivative of the margin as the node moves a little way to the other text.
    nodes = attribute_nodes(model, pairs, logit_difference, method="eap")
    z, step = others.z[0][:, :, 1], 1e-4
    moved = [margins([Edit("a0.h1", lambda own, way=way: own + way * (z - own))]) for way in (step, -step)]
    estimate = nodes.scores[nodes.names.index("a0.h1")] - nodes.clean
    torch.testing.assert_close(estimate, (moved[0] - moved[1]) / (2 * step), atol=1e-6, rtol=1e-5)
    found = circuits.discover(
        model, pairs, logit_difference, method="eap", edges=60, held_out=pairs, random_circuits=1, minimality=False
    )
    again = circuits.evaluate(model, found.circuit, pairs, logit_difference, random_circuits=1, minimality=False)
    assert 0 < len(found.circuit) <= 60 and again.faithfulness == found.verdict.faithfulness
    whole = attribute_edges(model, pairs, logit_difference)
    every = circuits.evaluate(model, whole.top(len(whole)), pairs, logit_difference, random_circuits=1, minimality=False)
    assert every.faithfulness.effect == pytest.approx(1, abs=1e-9), "all edges are the model"


def test_what_changed_is_paired_by_text(base: Model) -> None:
    before, after = drawn(base, 0), drawn(base, 1)
    swaps = [shortcut_swaps(before, COUNTED, FEW.held_out, ["friday", "monday"], most=6)]
    swaps += [meaning_swaps(before, COUNTED, FEW.held_out, most=6)]
    kept: list[tuple[str, str]] = []
    found = compare_inside(
        before, after, swaps, words=["friday"], edges=5, found=lambda what, when, _: kept.append((what, when))
    )
    assert found.kinds == ("the shortcut", "the meaning") and len(kept) == 4 and len(found.shared_edges) == 2
    torch.testing.assert_close(found.change, found.after - found.before)
    table = found.to_dataframe()
    whole = found.whole_after[1]
    own = table[(table.kind == "the meaning") & (table.node == found.nodes[3])].iloc[0]
    if whole.low > 0 or whole.high < 0:
        assert own.share_after == pytest.approx(own.after / whole.effect)
    assert found.p_values is not None and found.p_values.shape == found.change.shape
    apart = (found.low > 0) | (found.high < 0)
    assert int(found.sure.sum()) < int(apart.sum()), (
        "intervals that do not hold 0, one by one, are more than what is sure of all"
    )
    assert torch.equal(dataclasses.replace(found, p_values=None).sure, apart)
    same = compare_inside(before, before, swaps[:1], edges=5)
    assert float(same.change.abs().max()) == 0 and same.shared_edges == (1.0,) and not bool(same.sure.any())
    effects = patch_nodes(before.model, swaps[0].pairs(before), logit_difference, ["heads", "mlps"], direction="noising")
    torch.testing.assert_close(same.before[0], (effects.clean - effects.scores).mean(dim=1))
    assert InsideChange.from_json(found.as_json()).summary == found.summary and "friday" in found.words
    alone = class_pairs(before, FEW.held_out.texts[:2], "positive")
    assert torch.equal(alone.clean.ids, alone.corrupt.ids)
