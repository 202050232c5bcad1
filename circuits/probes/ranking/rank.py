"""Rank the neurons of a model by what they know of a property of words, and see how far the first ones go."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError, GraphError, PromptError
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.probes.controls import majority
from circuits.probes.fitting import judge_place
from circuits.probes.question import Question
from circuits.probes.ranking.agreement import largest_correlations, standardised
from circuits.probes.ranking.gaussians import Gaussians, choose_by_gaussians
from circuits.probes.ranking.means import apart_by_means
from circuits.probes.ranking.results import WAYS, NeuronRankings
from circuits.probes.ranking.weights import by_mass, fit_elastic_net
from circuits.probes.reading import Pooling, WordText
from circuits.probes.regression import Scale
from circuits.probes.storing import Activations, activations
from circuits.progress import Progress, silent
from circuits.runs import shards
from circuits.tasks.sources.conllu import Sentence

SIZES = (1, 2, 5, 10, 20, 50, 100, 200)
CANDIDATES = 1024
"""Neurons that a classifier and a probe are given at most."""
CHOSEN, AMONG = 50, 512
"""How many neurons Gaussians choose, and among how many: a covariance a class has so many squared numbers."""


def rank_neurons(
    model: Model,
    sentences: Sequence[Sentence] | WordText,
    property: str = "upos",
    *,
    by: Sequence[str] = ("lca", "gaussian", "probeless"),
    layers: Sequence[int] | None = None,
    others: Sequence[Model] = (),
    sizes: Sequence[int] = SIZES,
    pooling: Pooling = "last",
    words: int | None = None,
    least: int = 20,
    folder: str | Path | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> NeuronRankings:
    """Rank the neurons of a model by what they know of a property of words, each way by itself, and judge how much a probe
    tells from the first ones alone. What is known need not be used: `knock_out` takes the neurons out.

    Rankings are made on training sentences (greedy Gaussians choose by development sentences), all on neurons of mean 0 and
    deviation 1 there, but for `raw`. Classifier and Gaussians look at the neurons whose means of classes are farthest apart;
    behind those that they rank the others follow in this order. A fifth of the sentences is judged on.

    Raises CircuitsError for a way that there is not, GraphError for layers without neurons, PromptError for sizes that are none
    and where `agreement` has no other model or one that splits words otherwise, and what `probe` raises.

    Args:
        model: whose neurons are ranked.
        sentences: with their words' properties (`circuits.tasks.read_conllu`).
        property: as `probe` has it.
        by: `lca` (weights of a sparse classifier, Dalvi 2019), `gaussian` (chosen one by one, Torroba Hennigen 2020),
            `probeless` (distance of means, Antverg & Belinkov 2022), `raw` (the same in the neurons' own units), `agreement`
            (the largest correlation with a neuron of each other model, the least of these, Bau 2018).
        layers: whose neurons (default: all).
        others: models of the same tokenizer, for `agreement`.
        sizes: how many of the first neurons a probe is given.
        pooling: what stands for a word of several tokens, "last" or "mean".
        words: read sentences until there are so many words (default: all).
        least: leave out classes that fewer words have.
        folder: where activations are kept for the next time (default: nowhere).
        budget: bytes that reading may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    ways = _ways(by, others)
    places = ranked_layers(model, layers)
    if not sizes or min(sizes) < 1 or sorted(set(sizes)) != list(sizes):
        raise PromptError(f"sizes={list(sizes)}: expected numbers of neurons from 1 on, each larger than the one before")
    text = sentences if isinstance(sentences, WordText) else WordText.of(model, sentences, words=words)
    question = Question.of(text, property, least=least, baselines=False)
    other_texts = _other_texts(model, text, others) if "agreement" in ways else []
    options: dict[str, Any] = {"pooling": pooling, "folder": folder, "budget": budget, "progress": progress}
    with activations(model, text, sites=[f"m{layer}" for layer in places], **options) as read:
        scores = _means(read, places, question)
        if "agreement" in ways:
            paired = list(zip(others, other_texts, strict=True))
            scores["agreement"] = _shared(read, places, paired, question.split.train, options).to(scores["probeless"])
        asked = [one for way, one in scores.items() if way in ways]
        known = _Known.of(read, places, question, scores, asked, max(sizes))
        ranked = {way: known.ranked(way, progress or silent) for way in ways}
        return _judged(
            model, known, question, ranked, list(sizes), pooling, [other.name for other in others], progress or silent
        )


def _ways(by: Sequence[str], others: Sequence[Model]) -> list[str]:
    wrong = next((way for way in by if way not in WAYS), None)
    if wrong is not None or not by:
        raise CircuitsError(f"by={wrong if by else list(by)!r}: expected some of {', '.join(WAYS)}")
    if "agreement" in by and not others:
        raise PromptError("agreement compares with other models: give one or more that read the same tokens")
    return list(dict.fromkeys(by))


def ranked_layers(model: Model, layers: Sequence[int] | None) -> list[int]:
    """The layers whose neurons are ranked, all for None. Raises GraphError for one without neurons."""
    chosen = list(range(model.n_layers)) if layers is None else sorted(set(layers))
    wrong = next((layer for layer in chosen if not 0 <= layer < model.n_layers), None)
    if wrong is not None or not chosen or not model.d_mlp:
        has = f"layers 0 to {model.n_layers - 1}" if model.d_mlp else "no MLPs"
        raise GraphError(f"no neurons in {'any layer' if wrong is None else f'layer {wrong}'}: {model.name} has {has}")
    return chosen


def _means(read: Activations, places: Sequence[int], question: Question) -> dict[str, Tensor]:
    """How far apart the means of classes are at each neuron, in deviations and as they are; a layer at a time."""
    train = question.split.train
    labels, classes = question.labels.labels[train], question.asked.classes
    fair, raw = [], []
    for layer in places:
        x = read.of(f"m{layer}")[train].double()
        fair.append(apart_by_means(x, labels, classes=classes))
        raw.append(apart_by_means(x, labels, classes=classes, standardised=False))
    return {"probeless": torch.cat(fair), "raw": torch.cat(raw)}


@dataclasses.dataclass(frozen=True, eq=False)
class _Known:
    """What is known of every neuron (`scores`: by way, higher = more salient), and the activations of the candidates."""

    layers: Int[Tensor, " neuron"]
    indices: Int[Tensor, " neuron"]
    candidates: Int[Tensor, " candidate"]
    x: Float[Tensor, "word candidate"]
    question: Question
    scores: dict[str, Tensor]

    @classmethod
    def of(
        cls,
        read: Activations,
        places: Sequence[int],
        question: Question,
        scores: dict[str, Tensor],
        asked: Sequence[Tensor],
        first: int,
    ) -> "_Known":
        """Candidates: the neurons whose means are farthest apart, and the first ones of rankings that look at all."""
        width = read.model.d_mlp
        firsts = [one.argsort(descending=True, stable=True)[:first] for one in asked]
        chosen = torch.cat([scores["probeless"].argsort(descending=True, stable=True)[:CANDIDATES], *firsts]).unique()
        kept = [read.of(f"m{layer}")[:, chosen[chosen // width == at] % width] for at, layer in enumerate(places)]
        layers = torch.tensor(list(places)).repeat_interleave(width)
        return cls(layers, torch.arange(width).repeat(len(places)), chosen, torch.cat(kept, dim=1), question, scores)

    def ranked(self, way: str, progress: Progress) -> tuple[Tensor, Tensor]:
        """The order of a ranking, and what it goes by for each neuron."""
        rest = self.scores["probeless"]
        if way in self.scores:
            found = self.scores[way]
            return found.argsort(descending=True, stable=True), found

        def chosen_by(shard: int) -> tuple[Tensor, Tensor]:
            """The neurons that come first, and what they go by."""
            return self._by_gaussians(progress) if way == "gaussian" else self._by_weights()

        ((chosen, values),) = shards(f"ranking neurons by {way}", 1, chosen_by)
        behind = rest.clone()
        behind[chosen] = -torch.inf
        order = torch.cat([chosen, behind.argsort(descending=True, stable=True)[: len(rest) - len(chosen)]])
        scores = torch.full_like(rest, torch.nan)
        scores[chosen] = values.to(rest)
        return order, scores

    def _by_weights(self) -> tuple[Tensor, Tensor]:
        """Neurons with any weight, by how little of some class's weight lies before them (Dalvi 2019)."""
        train = self.question.split.train
        x = Scale.of(self.x[train]).apply(self.x[train])
        fitted = fit_elastic_net(x, self.question.labels.labels[train], classes=self.question.asked.classes)
        before, sizes = by_mass(fitted.weights), fitted.weights.abs()
        # The heaviest neuron of every class has nothing before it: of these, and of other equals, the heavier comes first.
        heavy = (sizes / sizes.sum(dim=0).clamp(min=1e-30)).amax(dim=1).argsort(descending=True, stable=True)
        order = heavy[before[heavy].argsort(stable=True)]
        order = order[before[order] < 1]
        return self.candidates[order], 1 - before[order]

    def _by_gaussians(self, progress: Progress) -> tuple[Tensor, Tensor]:
        """Neurons in the order in which Gaussians choose them, and the bits known with each."""
        labels, split = self.question.labels.labels, self.question.split
        among = self.scores["probeless"][self.candidates].argsort(descending=True, stable=True)[:AMONG]
        scale = Scale.of(self.x[split.train][:, among])
        x = [scale.apply(self.x[part][:, among]).double() for part in (split.train, split.develop)]
        gaussians = Gaussians.of(x[0], labels[split.train], classes=self.question.asked.classes)
        count = min(CHOSEN, len(among))
        found = choose_by_gaussians(gaussians, x[1], labels[split.develop], count=count, progress=progress)
        return self.candidates[among[found.neurons]], found.bits


def _other_texts(model: Model, text: WordText, others: Sequence[Model]) -> list[WordText]:
    """The text as other models read it. Raises PromptError for one that leaves out other words."""
    found = [WordText.of(other, text.sentences) for other in others]
    for other, one in zip(others, found, strict=True):
        if one.places != text.places:
            raise PromptError(f"{other.name} leaves out other words than {model.name}: give models of one tokenizer")
    return found


def _shared(
    read: Activations, places: Sequence[int], others: Sequence[tuple[Model, WordText]], train: Tensor, options: dict[str, Any]
) -> Float[Tensor, " neuron"]:
    """Of each neuron the largest correlation with a neuron of each other model, the least over models. As many layers are held
    as the budget takes, and another model's pass by them one at a time."""
    bytes_a_layer = len(train) * read.model.d_mlp * read.model.weights.W_E.element_size()
    at_once = max(1, options["budget"] // (3 * bytes_a_layer))
    report, least = options["progress"] or silent, list[Tensor]()
    total = len(places) * sum(other.n_layers for other, _ in others)
    for number, (other, text) in enumerate(others):
        with activations(other, text, sites="neurons", **options) as theirs:
            found = list[Tensor]()
            for start in range(0, len(places), at_once):
                own = [standardised(read.of(f"m{layer}")[train]) for layer in places[start : start + at_once]]

                def layers(
                    own: list[Tensor] = own, theirs: Activations = theirs, before: int = number * len(places) + start
                ) -> Iterator[Tensor]:
                    """The other model's, one at a time."""
                    for done, name in enumerate(theirs.names, 1):
                        yield standardised(theirs.of(name)[train])
                        report("comparing neurons", before * len(theirs.names) + done * len(own), total)

                found += largest_correlations(own, layers())
        least = [torch.cat(found)] if not least else [torch.minimum(least[0], torch.cat(found))]
    return least[0]


def _judged(
    model: Model,
    known: _Known,
    question: Question,
    ranked: dict[str, tuple[Tensor, Tensor]],
    sizes: list[int],
    pooling: str,
    others: Sequence[str],
    progress: Progress,
) -> NeuronRankings:
    sizes = [size for size in sizes if size <= len(known.candidates)] or [len(known.candidates)]
    at = {int(neuron): column for column, neuron in enumerate(known.candidates.tolist())}
    shares: list[list[tuple[float, float, float, float]]] = []
    orders, what = [order for order, _ in ranked.values()], "probing the first neurons"

    def probed(place: int) -> list[tuple[float, float, float, float]]:
        """What probes of the first neurons of one ranking tell, by how many these are."""
        first = [at[neuron] for neuron in orders[place][: max(sizes)].tolist()]
        return [_share(known.x[:, first[:size]], question) for size in sizes]

    for found in shards(what, len(orders), probed):
        shares.append(found)
        progress(what, len(shares), len(orders))
    answers = majority(question.types, question.labels.labels, question.split)
    whole = judge_place(known.x, question.asked, controls=False, codelength=False)
    left_out = {**question.text.left_out, **{f"words {why}": count for why, count in question.labels.left_out.items()}}
    numbers = torch.tensor(shares, dtype=torch.float64)
    return NeuronRankings(
        model=model.name,
        weights_sha256=model.fingerprint,
        property=question.labels.name,
        classes=question.labels.classes,
        pooling=pooling,
        words=int((question.labels.labels >= 0).sum()),
        judged=len(question.gold),
        sentences=len(question.text.aligned),
        left_out=left_out,
        layers=known.layers,
        indices=known.indices,
        ways=tuple(ranked),
        order=torch.stack([order for order, _ in ranked.values()]),
        candidates=len(known.candidates),
        scores=torch.stack([scores for _, scores in ranked.values()]),
        sizes=torch.tensor(sizes),
        accuracy=numbers[:, :, 0],
        errors=numbers[:, :, 1],
        selectivity=numbers[:, :, 2],
        selectivity_errors=numbers[:, :, 3],
        whole=question.error(whole.right),
        majority=question.error((answers == question.gold).double()[None]),
        others=tuple(others),
    )


def _share(x: Tensor, question: Question) -> tuple[float, float, float, float]:
    """Accuracy and selectivity of a probe on some neurons, each with its standard error."""
    judged = judge_place(x, question.asked, codelength=False)
    seen = question.asked.seen[0]
    return (*question.error(judged.right), *question.error(judged.right - judged.control_right, seen))
