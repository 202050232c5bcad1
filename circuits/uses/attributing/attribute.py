"""Attribution of a classifier's answers to the words of its texts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import PromptError, shown
from circuits.models.memory import BUDGET
from circuits.progress import Progress, silent
from circuits.uses.attributing.attended import attention_weights, direct_split
from circuits.uses.attributing.faithful import DRAWS, SHARES, faithfulness
from circuits.uses.attributing.gradients import input_gradients, margins_of
from circuits.uses.attributing.paths import LEAST_GAP, MOST, STEPS, PathBaseline, integrated_gradients
from circuits.uses.attributing.results import METHODS, WordAttributions, missing
from circuits.uses.classifying.classifier import Classifier, batches
from circuits.uses.classifying.words import SpeltText, spelt_texts, word_sums


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attributing:
    """How words are attributed. Raises PromptError for what does not exist.

    `method`: one of `METHODS`; `baseline`: what stands for no text, "blank" (the default), "mean", "zero" or "pad" for
    "integrated", "mean" (the default) or "zero" for "gradient";
    `steps` and `most`: gradients on the way from it, at first and at most.
    """

    method: str = "integrated"
    baseline: PathBaseline | None = None
    steps: int = STEPS
    most: int = MOST

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise PromptError(f"method {shown(self.method)}: expected one of {', '.join(METHODS)}")
        known = ("mean", "zero") if self.method == "gradient" else get_args(PathBaseline)
        if self.baseline is not None and self.baseline not in known:
            raise PromptError(f"baseline {shown(self.baseline)}: expected {' or '.join(known)} for {METHODS[self.method]}")
        if not 1 <= self.steps <= self.most:
            raise PromptError(f"{self.steps} steps and at most {self.most}: expected from 1 on, and no fewer at most")

    @property
    def start(self) -> PathBaseline | None:
        """The baseline; None for a method that needs none."""
        usual: Mapping[str, PathBaseline] = {"integrated": "blank", "gradient": "mean"}
        return self.baseline or usual[self.method] if self.method in usual else None

    @property
    def said(self) -> str:
        """In words."""
        if self.start is None:
            return METHODS[self.method]
        start = {"blank": "a blank page", "pad": "the token that pads"}.get(self.start, f"the {self.start} embedding")
        return f"{METHODS[self.method]}, from {start}"


@dataclasses.dataclass(frozen=True, eq=False)
class WordNumbers:
    """Numbers of the words of some texts, and what they are to sum to with the rest (NaN: nothing)."""

    numbers: tuple[tuple[float, ...], ...]
    totals: Float[Tensor, " text"]
    rest: Float[Tensor, " text"]
    errors: Float[Tensor, " text"]
    steps: tuple[int, ...] = ()


def attribute_words(
    classifier: Classifier,
    texts: Sequence[str],
    *,
    labels: Sequence[int] = (),
    how: Attributing | None = None,
    explain: str = "prediction",
    test: bool = True,
    shares: Sequence[float] = SHARES,
    draws: int = DRAWS,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> WordAttributions:
    """How much each word of some texts speaks for the class that a classifier says they have, and whether those that count most
    are those that decide.

    Raises PromptError where nothing is asked about, or for labels that do not fit; what reading the texts raises.

    Args:
        classifier: whose answers are explained.
        texts: what is read; words are what stands between spaces.
        labels: the class of each text, as places in its classes, where it is known.
        how: the method (default: integrated gradients from a blank page).
        explain: "prediction", the class that the classifier gives, or "label", the one that the text has.
        test: whether words are taken out to see what they do.
        shares: of the words that are taken out.
        draws: random choices of as many words beside them.
        seed: theirs.
        budget: bytes that a pass may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    how = how or Attributing()
    if not texts or (labels and len(labels) != len(texts)):
        raise PromptError(
            f"{len(texts)} texts and {len(labels)} labels: expected at least one text, and as many labels or none"
        )
    if explain not in ("prediction", "label") or (explain == "label" and not labels):
        raise PromptError(f"explain {shown(explain)}: expected prediction, or label for texts with labels")
    spelt = spelt_texts(classifier, texts)
    logits = classifier.logits(texts, budget=budget, progress=progress)
    predictions = logits.argmax(dim=1)
    explained = predictions if explain == "prediction" else torch.tensor(list(labels), device=predictions.device)
    found = word_numbers(classifier, spelt, explained, how, budget=budget, progress=progress)
    tested = None
    if test:
        options = {"shares": shares, "draws": draws, "seed": seed, "budget": budget, "progress": progress}
        tested = faithfulness(classifier, spelt, found.numbers, explained, **options)
    return WordAttributions(
        model=classifier.model.name,
        weights_sha256=classifier.model.fingerprint,
        classes=classifier.classes,
        method=how.method,
        baseline=how.start or "",
        texts=tuple(texts),
        words=tuple(one.words for one in spelt),
        labels=tuple(labels),
        predictions=tuple(predictions.tolist()),
        explained=tuple(explained.tolist()),
        margins=margins_of(logits, explained).double().cpu(),
        faithfulness=tested,
        **vars(found),
    )


def word_numbers(
    classifier: Classifier,
    texts: Sequence[SpeltText],
    labels: Int[Tensor, " text"],
    how: Attributing,
    *,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> WordNumbers:
    """The numbers of the words of texts as a classifier reads them, for a class of each.

    Args:
        classifier: whose margins are explained.
        texts: as it reads them.
        labels: the class of each.
        how: the method.
        budget: bytes that a pass may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if how.method == "integrated":
        options = {"baseline": how.start, "steps": how.steps, "most": how.most, "budget": budget, "progress": progress}
        path = integrated_gradients(classifier, texts, labels, **options)
        sums, nothing = word_sums(path.numbers, texts), torch.zeros(len(texts), dtype=torch.float64)
        return WordNumbers(cut_to(sums, texts), (path.ends - path.starts).cpu(), nothing, path.errors.cpu(), path.steps)
    report, done = progress or silent, 0
    sums = torch.zeros(len(texts), max(len(one.words) for one in texts), dtype=torch.float64)
    totals, rest, errors = missing(len(texts)), torch.zeros(len(texts), dtype=torch.float64), missing(len(texts))
    for places, batch in batches(classifier.model, [one.ids for one in texts], budget // classifier.model.n_layers):
        some = [texts[place] for place in places]
        if how.method == "gradient":
            baseline = "zero" if how.start == "zero" else "mean"
            numbers = input_gradients(classifier.model.weights, batch, labels[places], baseline=baseline)
        elif how.method == "direct":
            split = direct_split(classifier.model, batch, labels[places])
            numbers = split.numbers
            totals[places] = split.margins.double().cpu()
            rest[places] = (split.rest + numbers.sum(dim=1) - word_sums(numbers, some).sum(dim=1)).double().cpu()
            gaps = (numbers.sum(dim=1) + split.rest - split.margins).double().abs()
            errors[places] = (gaps / split.margins.double().abs().clamp(min=LEAST_GAP)).cpu()
        else:
            numbers = attention_weights(classifier.model, batch, rollout=how.method == "rollout")
        own = word_sums(numbers, some).double().cpu()
        sums[torch.tensor(places)[:, None], torch.arange(own.shape[1])] = own
        done += len(places)
        report("attributing", done, len(texts))
    return WordNumbers(cut_to(sums, texts), totals, rest, errors)


def cut_to(sums: Float[Tensor, "text word"], texts: Sequence[SpeltText]) -> tuple[tuple[float, ...], ...]:
    """Each text's own numbers."""
    return tuple(tuple(row[: len(one.words)]) for row, one in zip(sums.tolist(), texts, strict=True))
