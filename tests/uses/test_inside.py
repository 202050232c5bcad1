"""The engine on a classifier: its output is two classes, and every number is that of brute force."""

import dataclasses

import pytest
import torch
from scipy.stats import ttest_1samp

import circuits
from circuits.attribution import attribute_edges, attribute_nodes
from circuits.errors import PromptError
from circuits.graph import Circuit
from circuits.models import Edit, Model
from circuits.patching.nodes import patch_nodes
from circuits.search.discover import split
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
from circuits.uses.classifying.forms import form_of
from circuits.uses.classifying.words import spelt_texts
from circuits.uses.inside import InsideNeurons, Swaps
from circuits.uses.inside.neurons import read_neurons
from circuits.uses.inside.searching import STEPS

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


def check_circuits(
    found: InsideChange,
    before: Classifier,
    after: Classifier,
    control: Classifier,
    swaps: Swaps,
    circuits_of: dict[tuple[str, str], Circuit],
) -> None:
    """By hand: searched by attribution on each half, judged on the other, compared as sets."""

    def edges(classifier: Classifier, half: int) -> set[str]:
        some = split(swaps.pairs(classifier))[half]
        scores = attribute_edges(classifier.model, some, logit_difference, steps=STEPS)
        return set(map(str, scores.top(12, connected=True).edges))

    def shared(one: set[str], other: set[str]) -> float:
        return len(one & other) / len(one | other)

    sets = {(name, half): edges(one, half) for name, one in (("before", before), ("after", after)) for half in (0, 1)}
    one = found.overlaps[0]
    assert found.shared_edges[0] == shared(sets["before", 0], sets["after", 0])
    assert one.control == shared(sets["before", 0], edges(control, 0))
    assert one.apart == (shared(sets["before", 0], sets["after", 1]) + shared(sets["before", 1], sets["after", 0])) / 2
    assert one.own == (shared(sets["before", 0], sets["before", 1]) + shared(sets["after", 0], sets["after", 1])) / 2
    for when, classifier, verdict in (("before", before, found.verdicts_before[0]), ("after", after, found.verdicts_after[0])):
        circuit = circuits_of["the shortcut", when]
        assert set(map(str, circuit.edges)) == sets[when, 0] and circuit.metadata["verdict"] == verdict.standing
        rest = split(swaps.pairs(classifier))[1]
        assert circuits.search.faithfulness(classifier.model, circuit, rest, logit_difference) == verdict.faithfulness


def test_neurons_are_those_of_brute_force(base: Model) -> None:
    before, after = drawn(base, 0), drawn(base, 1)
    swaps = [shortcut_swaps(before, COUNTED, FEW.held_out, ["friday", "monday"], most=5)]
    swaps += [meaning_swaps(before, COUNTED, FEW.held_out, most=5)]
    found = read_neurons(before, after, swaps, count=2)
    values = []
    for one in swaps:
        for side in (before, after):
            pairs, model = one.pairs(side), side.model
            own, other, moved = model.run(pairs.clean), model.run(pairs.corrupt), torch.zeros(())
            rows, last = torch.arange(5), pairs.clean.last
            for step in range(STEPS):  # the mean gradient between both inputs, at the middles of equal steps
                share = (step + 0.5) / STEPS
                x = (other.residuals[0] + share * (own.residuals[0] - other.residuals[0])).detach()
                leaves = [torch.zeros_like(own.residuals[0], requires_grad=True) for _ in own.neurons]
                edits = [Edit("input", x)]
                edits += [Edit(f"m{at}", lambda here, leaf=leaf: here + leaf) for at, leaf in enumerate(leaves)]
                logits = model.run(pairs.clean, edits=edits).logits[rows, last]
                margin = (logits[rows, pairs.answers] - logits[rows, 1 - pairs.answers]).sum()
                weights = [block.mlp.W_out for block in model.weights.blocks if block.mlp is not None]
                slopes = [one @ W.T for one, W in zip(torch.autograd.grad(margin, leaves), weights, strict=True)]
                falls = [(a - b) * slope for a, b, slope in zip(own.neurons, other.neurons, slopes, strict=True)]
                moved = moved + torch.cat([fall.sum(dim=1) for fall in falls], dim=1) / STEPS
            values.append(moved)
    means = torch.stack([one.mean(dim=0) for one in values]).reshape(2, 2, -1)
    names = [f"m{layer}.n{index}" for layer in range(2) for index in range(base.d_mlp)]
    wanted = [*(means[:, 1] - means[:, 0]), *means.flatten(0, 1)]
    chosen = {names[place] for one in wanted for place in one.abs().topk(2).indices.tolist()}
    assert set(found.names) == chosen and found.scored == len(names) and list(found.names) == sorted(chosen, key=names.index)
    at = [names.index(name) for name in found.names]
    torch.testing.assert_close(torch.stack([found.before, found.after], dim=1), means[:, :, at], rtol=1e-7, atol=1e-10)
    change = values[1] - values[0]
    slow = [ttest_1samp(change[:, place].numpy(), 0).pvalue * len(names) * 2 for place in at]
    torch.testing.assert_close(found.p_values[0], torch.tensor(slow).clamp(max=1), rtol=1e-6, atol=1e-9)
    assert found.held_after[1] == pytest.approx(float(means[1, 1, at].abs().sum() / means[1, 1].abs().sum()))
    check_words(found, before, swaps)


def check_words(found: InsideNeurons, before: Classifier, swaps: list[Swaps]) -> None:
    """Of the first neuron: the words at which it is most active, and the class that it raises."""
    name = found.names[0]
    layer, index = int(name[1]), int(name.partition("n")[2])
    texts = [text for one in swaps for text in (*one.clean, *one.corrupt)]
    active: dict[str, float] = {}
    for spelt in spelt_texts(before, texts):
        values = before.model.run(torch.tensor([spelt.ids])).neurons[layer][0, :, index].tolist()
        for owner, value in zip(spelt.owners, values, strict=True):
            if owner >= 0:
                word = form_of(spelt.words[owner])
                active[word] = max(value, active.get(word, value))
    assert found.active_before[0][0] == max(active, key=active.__getitem__)
    weights = before.model.weights
    mlp, norm = weights.blocks[layer].mlp, weights.final_norm
    assert mlp is not None and norm is not None and norm.weight is not None
    written = mlp.W_out[index] - (mlp.W_out[index].mean() if norm.kind == "layer" else 0)
    assert found.raises_before[0] == before.classes[int((written * norm.weight @ weights.W_U).argmax())]


def test_what_changed_is_paired_by_text(base: Model) -> None:
    base = dataclasses.replace(base, weights=base.weights.of_layers(0, 1))
    before, after = drawn(base, 0), drawn(base, 1)
    swaps = [shortcut_swaps(before, COUNTED, FEW.held_out, ["friday", "monday"], most=6)]
    swaps += [meaning_swaps(before, COUNTED, FEW.held_out, most=6)]
    kept: list[tuple[str, str]] = []
    circuits_of: dict[tuple[str, str], Circuit] = {}

    def keep(what: str, when: str, circuit: Circuit) -> None:
        kept.append((what, when))
        circuits_of[what, when] = circuit

    found = compare_inside(before, after, swaps, control=drawn(base, 2), words=["friday"], edges=12, neurons=2, found=keep)
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
    check_circuits(found, before, after, drawn(base, 2), swaps[0], circuits_of)
    same = compare_inside(before, before, swaps[:1], edges=12, neurons=0)
    assert same.neurons is None and same.overlaps[0].own == same.overlaps[0].apart and same.overlaps[0].control is None
    assert float(same.change.abs().max()) == 0 and same.shared_edges == (1.0,) and not bool(same.sure.any())
    effects = patch_nodes(before.model, swaps[0].pairs(before), logit_difference, ["heads", "mlps"], direction="noising")
    torch.testing.assert_close(same.before[0], (effects.clean - effects.scores).mean(dim=1))
    assert InsideChange.from_json(found.as_json()).summary == found.summary and "friday" in found.words
    alone = class_pairs(before, FEW.held_out.texts[:2], "positive")
    assert torch.equal(alone.clean.ids, alone.corrupt.ids)
