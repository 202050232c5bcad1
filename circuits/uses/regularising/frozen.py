"""A penalised head on a frozen base: what unwanted words do to a margin is linear in the head, so one reading of the texts is
enough, and the best head is that of a convex problem."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError, NonFiniteError, PromptError
from circuits.models import Edit, Model, TokenBatch
from circuits.models.edits import Compiled
from circuits.models.forward import forward
from circuits.models.layers import embed
from circuits.models.memory import BUDGET
from circuits.probes.regression import Scale
from circuits.progress import Progress, silent
from circuits.uses.attributing.gradients import Baseline, baseline_stream
from circuits.uses.classifying.changed import read_changed
from circuits.uses.classifying.classifier import LONGEST, Classifier, batches, reading
from circuits.uses.classifying.examples import Examples
from circuits.uses.classifying.training import checked_start, chosen_penalty, sha256_of
from circuits.uses.classifying.words import SpeltText, spelt_texts
from circuits.uses.regularising.guidance import Wishes

By = Literal["removal", "gradient"]
"""What a word does: what changes when its tokens are taken out, or input times gradient of its embedding."""
_ROUNDS = 3000
_GAP = 1e-8
"""Nats by which a head may be worse than the best one, as `train_head` has it."""


def train_head_without(
    base: Model,
    examples: Examples,
    wishes: Wishes,
    *,
    by: By = "removal",
    strength: float = 1.0,
    longest: int = LONGEST,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Classifier:
    """A linear head on the last token of which unwanted words move the margins little: logistic regression, with the penalty
    that `train_head` chooses, plus `strength` times the mean square (nats²) of what each unwanted word does to its text's
    margin.

    Wanted words are not asked for: what they should do has no size. Raises PromptError where no word is unwanted,
    NonFiniteError for activations that are no numbers, CircuitsError where the best head is not reached, and what `train_head`
    raises. With a strength of 0 this is the head of `train_head`.

    Args:
        base: the language model, which stays as it is.
        examples: labelled texts.
        wishes: of each text, words that should matter and words that should not.
        by: "removal", exact for texts without the word; or "gradient", to first order.
        strength: of the penalty.
        longest: tokens that are read of a text, at most.
        seed: that of the fifth of the texts that chooses the head's penalty.
        budget: bytes that a pass may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    start = checked_start(base, examples, longest)
    read = _read(start, examples.texts, wishes, by=by, budget=budget, progress=progress)
    if not all(bool(one.isfinite().all()) for one in (read.texts, read.moved)):
        raise NonFiniteError(f"activations of {base.name} hold NaN or infinity: try --dtype float32")
    x, labels = read.texts.double(), torch.tensor(examples.labels, device=base.device)
    decay = chosen_penalty(Scale.of(x).apply(x.clone()), labels, len(examples.classes), seed)
    W, b = _fitted(x, labels, read.moved.double(), labels[read.rows], decay, strength, len(examples.classes))
    said = {"trained": "head", "by": by, "strength": strength, "penalty": decay, "seed": seed, "texts": len(examples)}
    like = base.weights.W_E
    tensors = {"W_U": W.to(like), "b_U": b.to(like)}
    return start.with_tensors(tensors, tuned=False, training={**said, "data": sha256_of(examples)})


def word_effects(
    classifier: Classifier,
    texts: Sequence[str],
    wishes: Wishes,
    *,
    by: By = "removal",
    baseline: Baseline = "zero",
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> tuple[Float[Tensor, "unwanted d_model"], Int[Tensor, " unwanted"]]:
    """What each unwanted word does to what a head reads of its text, and the text. Times a head's column this is what the word
    does to a class's logit. Raises PromptError where no word is unwanted."""
    read = _read(classifier, texts, wishes, by=by, baseline=baseline, budget=budget, progress=progress)
    return read.moved, read.rows


@dataclasses.dataclass(frozen=True, eq=False)
class _Reading:
    """What a head reads of some texts, and what unwanted words of theirs do to it."""

    texts: Float[Tensor, "text d_model"]
    moved: Float[Tensor, "unwanted d_model"]
    rows: Int[Tensor, " unwanted"]


def _read(
    classifier: Classifier,
    texts: Sequence[str],
    wishes: Wishes,
    *,
    by: By,
    baseline: Baseline = "zero",
    budget: int,
    progress: Progress | None,
) -> _Reading:
    """Read texts, and in the same passes what is left of them without an unwanted word."""
    if by not in ("removal", "gradient"):
        raise PromptError(f"by {by!r}: expected removal or gradient")
    spelt, model = spelt_texts(classifier, texts), classifier.model
    pairs = [(row, word) for row, said in enumerate(wishes) for word, wanted in said.items() if not wanted]
    pairs = [(row, word) for row, word in pairs if word in spelt[row].owners]
    if not pairs:
        raise PromptError("no word that the classifier reads is unwanted: there is nothing to hold its head to")
    rows = torch.tensor([row for row, _ in pairs], device=model.device)
    without = [(row, spelt[row].without(frozenset([word])) or spelt[row].ids) for row, word in pairs if by == "removal"]
    options = {"what": "reading texts, in tokens", "budget": budget, "progress": progress}
    whole, others = read_changed(reading(model), [one.ids for one in spelt], without, **options)
    if by == "removal":
        return _Reading(whole, whole[rows] - others, rows)
    slopes = _slopes(model, [(spelt[row], word) for row, word in pairs], baseline, budget, progress or silent)
    return _Reading(whole, slopes, rows)


@torch.enable_grad()
def _slopes(
    model: Model, pairs: Sequence[tuple[SpeltText, int]], baseline: Baseline, budget: int, report: Progress
) -> Float[Tensor, "unwanted d_model"]:
    """The derivative of what a head reads along a word's embedding less the baseline: for all classes at once."""
    found, done = model.weights.W_E.new_zeros(len(pairs), model.d_model), 0
    for places, batch in batches(model, [list(text.ids) for text, _ in pairs], max(1, budget // (2 * model.n_layers))):
        width = batch.ids.shape[1]
        owned = [[owner == pairs[place][1] for owner in pairs[place][0].owners] for place in places]
        own = torch.tensor([[*row, *[False] * (width - len(row))] for row in owned], device=model.device)
        x = embed(model.weights, batch)
        way = (x - baseline_stream(model.weights, batch, baseline)) * own[:, :, None]
        found[places] = _derivative(model, batch, x, way)
        done += len(places)
        report("reading words", done, len(pairs))
    return found


def _derivative(model: Model, batch: TokenBatch, x: Tensor, way: Tensor) -> Tensor:
    """Of the normed stream at the last tokens, along `way`. The gradient is linear in what it is weighed by: its own
    derivative by those weights is the one in forward mode, which not all operations have."""
    x = x.detach().requires_grad_()
    edits: Compiled = {("input", 0): [(None, Edit("input", x))]}
    run = forward(reading(model).weights, batch, edits=edits, keep="patterns", columns=batch.last)
    read = run.logits[:, 0]
    weighed = torch.zeros_like(read).requires_grad_()
    (slope,) = torch.autograd.grad(read, x, weighed, create_graph=True)
    (along,) = torch.autograd.grad((slope * way.detach()).sum(), weighed)
    return along.detach()


@torch.enable_grad()
def _fitted(
    x: Float[Tensor, "text d_model"],
    labels: Int[Tensor, " text"],
    moved: Float[Tensor, "unwanted d_model"],
    of: Int[Tensor, " unwanted"],
    decay: float,
    strength: float,
    classes: int,
) -> tuple[Float[Tensor, "d_model class"], Float[Tensor, " class"]]:
    """The head with the least loss, by L-BFGS in coordinates in which the loss is about as steep in every direction. Raises
    CircuitsError where it could still be better."""
    scale = Scale.of(x)
    scaled, moves = scale.apply(x.clone()), moved / scale.deviation
    # The penalties' curvature, and a bound on the loss's: of the cross-entropy at most 1/4 for each text.
    held = 2 * strength * moves.T @ moves / len(moves) + decay * torch.eye(moves.shape[1]).to(moves)
    values, vectors = torch.linalg.eigh(held + scaled.T @ scaled / (4 * len(scaled)))
    turn = vectors / values.clamp(min=decay).sqrt()
    V = x.new_zeros(x.shape[1], classes).requires_grad_()
    # Biases are told apart by their differences alone: as `train_head`, from the classes' shares on.
    b = (labels.bincount(minlength=classes).double() / len(labels)).log()[None].requires_grad_()
    signs = F.one_hot(of, classes).double() * (1 + 1 / (classes - 1)) - 1 / (classes - 1)
    steps = torch.optim.LBFGS(
        [V, b],
        max_iter=_ROUNDS,
        max_eval=2 * _ROUNDS,
        tolerance_grad=1e-12,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def loss(W: Tensor) -> Tensor:
        margins = ((moves @ W) * signs).sum(dim=1)
        value = F.cross_entropy(scaled @ W + b, labels) + decay / 2 * W.square().sum()
        return value + strength * margins.square().mean()

    def closure() -> Tensor:
        steps.zero_grad()
        value = loss(turn @ V)
        value.backward()
        return value

    steps.step(closure)
    W = (turn @ V).detach().requires_grad_()
    (slope,) = torch.autograd.grad(loss(W), W)
    # So much better could a head be, as far as the penalties alone curve the loss.
    gap = float((slope * torch.linalg.solve(held, slope)).sum()) / 2
    if not gap <= _GAP:
        raise CircuitsError(f"a held head could be better by up to {gap:.1g} nats: try a strength below {strength:g}")
    turned = W.detach() / scale.deviation[:, None]
    return turned, b.detach()[0] - scale.mean @ turned
