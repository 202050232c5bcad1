"""Training a classifier: its head alone, or all weights."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import ModelError, NonFiniteError, PromptError
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.memory import BUDGET
from circuits.models.weights import Weights
from circuits.probes.regression import Problem, Scale, Turned, fit_logistic
from circuits.progress import Progress, silent
from circuits.runs import Course, kept_beside, steps as run_steps
from circuits.uses.classifying.classifier import HEAD, LONGEST, Classifier, features
from circuits.uses.classifying.examples import Examples

Trained = Literal["head", "all"]
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Penalties of a head's squared weights that are tried."""
HELD = 5
"""One in so many texts judges the penalties."""
_TOLERANCE = 1e-8
"""Nats by which a head could be better at most: it is computed in float64, and few texts leave the loss flat."""
_COMPUTED = ("inverse_frequencies", "alibi_slopes")
"""No weights: they follow from the architecture."""
_WHAT = "training the classifier"
Penalty = Callable[[Weights, TokenBatch, Int[Tensor, " text"], Int[Tensor, " text"]], Float[Tensor, ""]]
"""What is added to the loss of a batch: of the weights, the tokens, the labels and the places of the texts among the examples.
It must be differentiable by the weights."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How all weights are trained, or a head with a penalty: by AdamW, whose rate rises over the first tenth of the steps and
    then falls to 0 in a line. Raises PromptError for numbers out of range."""

    epochs: int = 3
    rate: float = 2e-4
    batch: int = 16
    decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise PromptError(f"{name} is {getattr(self, name)}; expected a whole number from 1 on")
        if not 0 < self.rate < float("inf") or not 0 <= self.decay < float("inf"):
            raise PromptError(f"rate {self.rate}, decay {self.decay}: expected a rate above 0 and a decay from 0 on")

    def steps(self, texts: int) -> int:
        """Steps of a training on so many texts."""
        return self.epochs * -(-texts // self.batch)

    def rate_at(self, step: int, steps: int) -> float:
        """The rate of a step."""
        rising = max(1, steps // 10)
        return self.rate * min((step + 1) / rising, (steps - step) / max(1, steps - rising))


def train_head(
    base: Model,
    examples: Examples,
    *,
    longest: int = LONGEST,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Classifier:
    """A linear head on the last token, the model as it is: logistic regression, whose penalty a fifth of the texts chooses.

    Raises PromptError where a class has fewer than two texts, NonFiniteError for activations that are no numbers.

    Args:
        base: the language model.
        examples: labelled texts.
        longest: tokens that are read of a text, at most.
        seed: that of the fifth that chooses.
        budget: bytes that a pass may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    start = checked_start(base, examples, longest)
    x = features(start.model, start.rows(examples.texts), budget=budget, progress=progress).double()
    if not bool(x.isfinite().all()):
        raise NonFiniteError(f"activations of {base.name} hold NaN or infinity: try --dtype float32")
    labels = torch.tensor(examples.labels, device=x.device)
    scale = Scale.of(x)
    scaled = scale.apply(x.clone())
    penalty = chosen_penalty(scaled, labels, len(examples.classes), seed)
    (fit,) = fit_logistic(Turned.of(scaled), [Problem(labels, penalty)], classes=len(examples.classes), tolerance=_TOLERANCE)
    W = fit[:-1] / scale.deviation[:, None]
    tensors = {"W_U": W, "b_U": fit[-1] - scale.mean @ W}
    like = base.weights.W_E
    said = {"trained": "head", "penalty": penalty, "seed": seed, "texts": len(examples), "data": sha256_of(examples)}
    return start.with_tensors({name: tensor.to(like) for name, tensor in tensors.items()}, tuned=False, training=said)


def train_all(
    base: Model,
    examples: Examples,
    *,
    recipe: Recipe | None = None,
    only: Trained = "all",
    penalty: Penalty | None = None,
    penalised: Mapping[str, Any] | None = None,
    longest: int = LONGEST,
    path: str | Path | None = None,
    progress: Progress | None = None,
    seen: Callable[[int, Classifier], None] | None = None,
) -> Classifier:
    """Train all weights, or the head with a penalty, on the mean cross-entropy (nats) plus the penalty.

    A training that was stopped goes on where it was, and ends where it would have ended. Raises PromptError where a class has
    fewer than two texts, ModelError for half-precision weights, NonFiniteError where the loss is none, FileFormatError where
    another training was stopped at `path`, or is under way there.

    Args:
        base: the language model; its tensors are left as they are.
        examples: labelled texts.
        recipe: steps, rates and seed.
        only: "all" weights, or the "head" alone.
        penalty: what is added to each batch's loss.
        penalised: what the penalty is, for the file.
        longest: tokens that are read of a text, at most.
        path: a file that the training leads to: beside it stands a journal until the training is done.
        progress: hears what is being done, how much of it is done, and how much there is.
        seen: is given the number of steps taken and the classifier as it is then, after every step.
    """
    recipe = recipe or Recipe()
    if base.dtype in (torch.float16, torch.bfloat16):
        raise ModelError(
            f"the weights of {base.name} are {str(base.dtype)[6:]}: their steps would be lost in rounding; load float32"
        )
    start, report = checked_start(base, examples, longest), progress or silent
    said: dict[str, Any] = {"trained": only, **dataclasses.asdict(recipe), "texts": len(examples), "data": sha256_of(examples)}
    said |= {"penalty": dict(penalised)} if penalised else {}
    stepping = _Stepping.start(start, said, only, recipe)
    training = _ClassifierCourse(stepping, recipe, start.rows(examples.texts), examples.labels, penalty, report, seen)
    settings = {**said, "longest": start.longest, "dtype": str(base.dtype)}
    kept = contextlib.nullcontext() if path is None else kept_beside(Path(path), settings, {base.name: start.base_sha256})
    with kept:
        run_steps(_WHAT, training.steps, training)
    return stepping.classifier()


def checked_start(base: Model, examples: Examples, longest: int) -> Classifier:
    """The untrained classifier of some examples. Raises PromptError where a class has fewer than two texts."""
    few = next((name for name, count in examples.counts.items() if count < 2), None)
    if few is not None:
        raise PromptError(f"{examples.counts[few]} texts of the class {few}: expected 2 or more of each")
    return Classifier.on(base, examples.classes, longest=min(longest, base.max_positions or longest))


def sha256_of(examples: Examples) -> str:
    """SHA-256 of texts, labels and rationales."""
    parts = [examples.texts, examples.labels, examples.classes, examples.rationales]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def chosen_penalty(x: Float[Tensor, "text d_model"], labels: Int[Tensor, " text"], classes: int, seed: int) -> float:
    """The penalty of a head under which a fifth of the texts is likeliest, fitted on the others. `x`: what it reads, scaled."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
    held, kept = order[: max(1, len(x) // HELD)], order[max(1, len(x) // HELD) :]
    turned = Turned.of(x[kept])
    fits = fit_logistic(
        turned, [Problem(labels[kept], penalty) for penalty in PENALTIES], classes=classes, tolerance=_TOLERANCE
    )
    losses = [float(F.cross_entropy(torch.addmm(fit[-1], x[held], fit[:-1]), labels[held])) for fit in fits]
    return PENALTIES[losses.index(min(losses))]


@dataclasses.dataclass(frozen=True, eq=False)
class _Stepping:
    """What is trained, AdamW over it, and what it belongs to."""

    untrained: Classifier
    leaves: dict[str, Tensor]
    adam: torch.optim.AdamW
    said: dict[str, Any]

    @classmethod
    def start(cls, untrained: Classifier, said: dict[str, Any], only: Trained, recipe: Recipe) -> "_Stepping":
        """Before the first step."""
        tensors = dict(untrained.model.weights.tensors())
        names = HEAD if only == "head" else [name for name in tensors if not name.endswith(_COMPUTED)]
        leaves = {name: tensors[name].detach().clone().requires_grad_() for name in names}
        return cls(untrained, leaves, torch.optim.AdamW(leaves.values(), lr=recipe.rate, weight_decay=recipe.decay), said)

    @torch.enable_grad()
    def step(
        self,
        batch: TokenBatch,
        labels: Int[Tensor, " text"],
        places: Int[Tensor, " text"],
        penalty: Penalty | None,
        rate: float,
    ) -> None:
        """One step of AdamW. Raises NonFiniteError where the loss is none."""
        weights = self.untrained.model.weights.with_tensors(self.leaves)
        loss = F.cross_entropy(forward(weights, batch, keep="logits", columns=batch.last).logits[:, 0], labels)
        if penalty is not None:
            loss = loss + penalty(weights, batch, labels, places)
        if not bool(loss.isfinite()):
            raise NonFiniteError(f"the loss is {float(loss.detach())}: try a lower rate than {self.said['rate']}")
        self.adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.leaves.values(), 1.0)
        self.adam.param_groups[0]["lr"] = rate
        self.adam.step()

    def classifier(self) -> Classifier:
        """What is trained so far, free of gradients."""
        tensors = {name: leaf.detach().clone() for name, leaf in self.leaves.items()}
        return self.untrained.with_tensors(tensors, tuned=self.said["trained"] == "all", training=self.said)

    def state(self) -> dict[str, Any]:
        """Weights, and AdamW's moments of those that had a gradient."""
        moments = {name: dict(self.adam.state[leaf]) for name, leaf in self.leaves.items() if leaf in self.adam.state}
        return {"weights": {name: leaf.detach() for name, leaf in self.leaves.items()}, "moments": moments}

    def take(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for name, leaf in self.leaves.items():
            leaf.data.copy_(state["weights"][name])
        for name, moments in state["moments"].items():
            leaf = self.leaves[name]
            # AdamW counts its steps on the CPU.
            placed = {kind: value if kind == "step" else value.to(leaf) for kind, value in moments.items()}
            self.adam.state[leaf] = placed


@dataclasses.dataclass(eq=False)
class _ClassifierCourse(Course):
    """The course of a training: what is trained, on what, and who hears of it."""

    stepping: _Stepping
    recipe: Recipe
    rows: Sequence[Sequence[int]]
    labels: Sequence[int]
    penalty: Penalty | None
    report: Progress
    seen: Callable[[int, Classifier], None] | None

    @property
    def steps(self) -> int:
        """How many there are."""
        return self.recipe.steps(len(self.rows))

    def step(self, number: int) -> None:
        """One step on its texts."""
        self.report(_WHAT, number, self.steps)
        device = self.stepping.untrained.model.device
        places = _drawn(len(self.rows), self.recipe, number)
        batch = TokenBatch.from_rows([self.rows[place] for place in places.tolist()]).to(device)
        labels = torch.tensor([self.labels[place] for place in places.tolist()], device=device)
        self.stepping.step(batch, labels, places.to(device), self.penalty, self.recipe.rate_at(number, self.steps))
        self.report(_WHAT, number + 1, self.steps)
        if self.seen is not None:
            self.seen(number + 1, self.stepping.classifier())

    def state(self) -> dict[str, Any]:
        """Weights and moments."""
        return self.stepping.state()

    def take(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.stepping.take(state)


def _drawn(texts: int, recipe: Recipe, step: int) -> Int[Tensor, " text"]:
    """The texts of a step: every epoch goes through all of them in an order of its own."""
    epoch, place = divmod(step, -(-texts // recipe.batch))
    order = torch.randperm(texts, generator=torch.Generator().manual_seed((recipe.seed * 1_000_003 + epoch) % 2**63))
    return order[place * recipe.batch : (place + 1) * recipe.batch]
