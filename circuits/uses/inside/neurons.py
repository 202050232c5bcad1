"""Which single neurons carry a shortcut and which the meaning, and what they answer to."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.attribution import attribute_nodes
from circuits.lenses.neurons.memories import value_rows
from circuits.lenses.neurons.triggers import find_triggers
from circuits.lenses.readout import top_tokens
from circuits.models.choosing import parse_neuron
from circuits.models.memory import BUDGET
from circuits.patching.nodes import patch_nodes
from circuits.progress import Progress
from circuits.tasks.metrics import logit_difference
from circuits.uses.classifying.classifier import Classifier
from circuits.uses.classifying.forms import form_of
from circuits.uses.classifying.words import spelt_texts
from circuits.uses.inside.paired import intervals, two_sided
from circuits.uses.inside.results import InsideNeurons
from circuits.uses.inside.searching import STEPS
from circuits.uses.inside.swaps import Swaps

WORDS, PLACES = 3, 30
"""Words of which is told that a neuron is active there, and the places of its largest activations that they are read from."""


def read_neurons(
    before: Classifier,
    after: Classifier,
    swaps: Sequence[Swaps],
    *,
    count: int,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> InsideNeurons:
    """Score every neuron by attribution (EAP-IG) on the swapped texts, before and after, and look closely at a few: those that
    change most, those that carry most before, and those that carry most after, `count` each of every kind of swaps. These are
    patched one by one, and said are the words of the texts at which they are most active and the class that they raise most by
    themselves.

    p-values are Student's, two-sided, of changes paired by text, times the number of all neurons and kinds (Bonferroni): the
    few are chosen by the same texts. Raises PromptError for a model without MLPs, and what attribution raises.

    Args:
        before: the classifier as it was.
        after: the one that was mended.
        swaps: what is swapped.
        count: neurons of each choice.
        seed: that of the bootstrap.
        budget: bytes that a pass may take above the model and its base runs.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    sides = (before, after)
    falls = [[_attributed(side, one, budget, progress) for side in sides] for one in swaps]
    means = torch.stack([torch.stack([numbers.mean(dim=1) for _, numbers in one]) for one in falls])
    rows, every = _chosen(means, count), falls[0][0][0]
    names = tuple(every[row] for row in rows.tolist())
    changes = [after[rows] - before[rows] for (_, before), (_, after) in falls]
    ends = torch.stack([intervals(one, seed) for one in changes])
    tests = len(every) * len(swaps)
    p_values = [[min(1.0, tests * two_sided(row)) for row in one] for one in changes]
    patched = [torch.stack([_patched(side, one, names, budget, progress) for one in swaps]) for side in sides]
    texts = list(dict.fromkeys(text for one in swaps for text in (*one.clean, *one.corrupt)))
    held = means[:, :, rows].abs().sum(dim=2) / means.abs().sum(dim=2).clamp(min=1e-30)
    return InsideNeurons(
        names=names,
        scored=len(every),
        before=means[:, 0, rows],
        after=means[:, 1, rows],
        low=ends[:, 1],
        high=ends[:, 2],
        p_values=torch.tensor(p_values, dtype=torch.float64),
        patched_before=patched[0],
        patched_after=patched[1],
        held_before=tuple(held[:, 0].tolist()),
        held_after=tuple(held[:, 1].tolist()),
        active_before=_active_words(before, texts, names, progress),
        active_after=_active_words(after, texts, names, progress),
        raises_before=_raised(before, names),
        raises_after=_raised(after, names),
    )


def _attributed(
    classifier: Classifier, swaps: Swaps, budget: int, progress: Progress | None
) -> tuple[list[str], Float[Tensor, "neuron text"]]:
    """The names of all neurons, and by how much the margin falls with each one's value on the swapped text, to first order."""
    how = {"neurons": True, "steps": STEPS, "budget": budget, "progress": progress}
    found = attribute_nodes(classifier.model, swaps.pairs(classifier), logit_difference, **how)
    rows = [row for row, name in enumerate(found.names) if ".n" in name]
    return [found.names[row] for row in rows], (found.clean - found.scores[rows]).double().cpu()


def _chosen(means: Float[Tensor, "kind when neuron"], count: int) -> Int[Tensor, " chosen"]:
    """The neurons that change most and those that carry most, of each kind, in the order of computation."""
    asked = [*(means[:, 1] - means[:, 0]), *means.flatten(0, 1)]
    return torch.cat([one.abs().argsort(descending=True, stable=True)[:count] for one in asked]).unique()


def _patched(
    classifier: Classifier, swaps: Swaps, names: Sequence[str], budget: int, progress: Progress | None
) -> Float[Tensor, " neuron"]:
    """By how much the margin falls when each neuron takes its value on the swapped text, measured."""
    how = {"direction": "noising", "budget": budget, "progress": progress}
    found = patch_nodes(classifier.model, swaps.pairs(classifier), logit_difference, list(names), **how)
    assert found.names == tuple(names)
    return (found.clean - found.scores).double().mean(dim=1).cpu()


def _active_words(
    classifier: Classifier, texts: Sequence[str], names: Sequence[str], progress: Progress | None
) -> tuple[tuple[str, ...], ...]:
    """Of each neuron the words at which its activation is largest, the largest first."""
    spelt, tokens = spelt_texts(classifier, texts), classifier.tokens(texts)
    found = find_triggers(classifier.model, tokens, neurons=list(names), top=PLACES, progress=progress)
    words = []
    for name in names:
        row = found.row(name)
        places = zip(found.highest.prompts[row].tolist(), found.highest.positions[row].tolist(), strict=True)
        owners = [(spelt[prompt], spelt[prompt].owners[position]) for prompt, position in places]
        words.append(tuple(dict.fromkeys(form_of(text.words[owner]) for text, owner in owners if owner >= 0))[:WORDS])
    return tuple(words)


def _raised(classifier: Classifier, names: Sequence[str]) -> tuple[str, ...]:
    """The class that what each neuron writes raises most by itself, through the final norm's gain and the head."""
    nodes = [parse_neuron(classifier.model, name) for name in names]
    with torch.no_grad():
        rows = torch.cat([value_rows(classifier.model, node.layer or 0, [node.index or 0]) for node in nodes])
        _, ids = top_tokens(classifier.model, rows, 1)
    return tuple(classifier.classes[place] for place in ids[:, 0].tolist())
