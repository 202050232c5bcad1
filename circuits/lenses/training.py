"""Training a tuned lens: every translator by the divergence of what it makes the model say from what the model says at last.

Translators do not depend on each other, so that each layer's gradient is computed by itself and freed before the next: as
one backward pass over their sum, in the memory of one layer.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import FileFormatError, MemoryBudgetError, NonFiniteError, PromptError
from circuits.files.locking import sole_writer
from circuits.lenses.streaming import Source, block_logits, wide
from circuits.lenses.tuned_lens import PARTS, TunedLens, read_lens_file, translated, write_lens_file
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.layers import normalise
from circuits.models.memory import BUDGET
from circuits.models.weights import Weights
from circuits.progress import Progress, silent
from circuits.runs import Course, kept_beside, steps as run_steps

_HELD = 6
"""Arrays of [position d_vocab] that are alive at once in training."""
_WHAT = "training the tuned lens"
_BETAS, _EPSILON = (0.9, 0.999), 1e-8
_MOMENTS = ("A.mean", "A.square", "b.mean", "b.square")


def train_tuned_lens(
    model: Model,
    tokens: TokenBatch,
    *,
    steps: int = 200,
    rate: float = 2e-3,
    batch: int = 8,
    seed: int = 0,
    path: str | Path | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> TunedLens:
    """Train a translator a layer on prompts, by KL(final ‖ lens) averaged over tokens (Belrose et al. 2023).

    Adam's step size falls linearly to 0; every prompt comes once before any comes again. Translators start as the identity.
    With `path` a training that was stopped or killed goes on where it was: with the same `budget` the file is in the end the
    same to the byte.

    Raises PromptError for numbers out of range, FileFormatError where `path` holds something else or another training, is being
    written by another process, or was to hold another training that was stopped, MemoryBudgetError where one position's logits
    do not fit, NonFiniteError where a loss is none.

    Args:
        model: the model whose streams are translated.
        tokens: the prompts.
        steps: steps of Adam.
        rate: the first step size.
        batch: prompts a step.
        seed: that of the order of prompts.
        path: where the lens is written. Is it there already, it is not trained again. Until then a journal stands beside it.
        budget: bytes of logits that are held at once.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    check_training(steps=steps, rate=rate, batch=batch)
    prepared = model.prepare(tokens)
    settings = _settings(prepared, steps=steps, rate=rate, batch=batch, seed=seed)
    training = _LensCourse(model, prepared, _State.start(model, settings), budget, progress or silent)
    if path is None:
        run_steps(_WHAT, steps, training)
        return training.reached.lens
    target = Path(path)
    with sole_writer(target):
        if target.exists():
            return _finished(target, training.reached, model)
        with kept_beside(target, {**settings, "budget": budget, "dtype": str(model.dtype)}, {model.name: model.fingerprint}):
            run_steps(_WHAT, steps, training)
        write_lens_file(target, training.reached.lens)
    return training.reached.lens


def check_training(*, steps: int, rate: float, batch: int) -> None:
    """Raise PromptError for numbers that no training can have."""
    for name, value in {"steps": steps, "batch": batch}.items():
        if value < 1:
            raise PromptError(f"{name} is {value}; expected a whole number from 1 on")
    if not 0 < rate < float("inf"):
        raise PromptError(f"rate is {rate}; expected a number above 0")


def _settings(tokens: TokenBatch, **numbers: int | float) -> dict[str, Any]:
    digest = hashlib.sha256(tokens.ids.cpu().numpy().tobytes() + tokens.mask.cpu().numpy().tobytes()).hexdigest()
    return {**numbers, "text": digest, "prompts": len(tokens), "tokens": int(tokens.mask.sum())}


@dataclasses.dataclass(frozen=True, eq=False)
class _State:
    """A lens on its way, and Adam's moments."""

    lens: TunedLens
    moments: dict[str, Tensor]

    @classmethod
    def start(cls, model: Model, settings: dict[str, Any]) -> "_State":
        """Before the first step."""
        lens = dataclasses.replace(TunedLens.identity(model), training=settings)
        return cls(lens, {name: torch.zeros_like(getattr(lens, name[0])) for name in _MOMENTS})

    @property
    def done(self) -> int:
        """Steps that were taken."""
        return len(self.lens.losses)

    def stepped(self, losses: Tensor, gradients: dict[str, Tensor], rate: float) -> "_State":
        """One step of Adam."""
        moments, moved, count = {}, {}, self.done + 1
        for name, gradient in gradients.items():
            mean = _BETAS[0] * self.moments[f"{name}.mean"] + (1 - _BETAS[0]) * gradient
            square = _BETAS[1] * self.moments[f"{name}.square"] + (1 - _BETAS[1]) * gradient.square()
            direction = (mean / (1 - _BETAS[0] ** count)) / ((square / (1 - _BETAS[1] ** count)).sqrt() + _EPSILON)
            moved[name] = getattr(self.lens, name) - rate * direction
            moments |= {f"{name}.mean": mean, f"{name}.square": square}
        history = torch.cat([self.lens.losses, losses[None]])
        return _State(dataclasses.replace(self.lens, **moved, losses=history), moments)


@dataclasses.dataclass(eq=False)
class _LensCourse(Course):
    """The course of a training: how far it has come, and on what."""

    model: Model
    tokens: TokenBatch
    reached: _State
    budget: int
    report: Progress

    def step(self, number: int) -> None:
        """One step on its prompts. Raises NonFiniteError where a loss is none."""
        how = self.reached.lens.training
        steps, rate = how["steps"], how["rate"]
        self.report(_WHAT, number, steps)
        rows = self.tokens[_drawn(len(self.tokens), how["batch"], number, how["seed"])]
        losses, gradients = _gradients(self.model, rows, self.reached, self.budget)
        if not bool(losses.isfinite().all()):
            layer = int((~losses.isfinite()).nonzero()[0])
            said = f"the loss of layer {layer} is {float(losses[layer])} at step {number}: try a lower rate than {rate}"
            raise NonFiniteError(said)
        self.reached = self.reached.stepped(losses, gradients, rate * (1 - number / steps))
        self.report(_WHAT, number + 1, steps)

    def state(self) -> dict[str, Tensor]:
        """Translators, losses and Adam's moments."""
        return {**{name: getattr(self.reached.lens, name) for name in PARTS}, **self.reached.moments}

    def take(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        there = {name: value.to(self.reached.lens.A) for name, value in state.items()}
        lens = dataclasses.replace(self.reached.lens, **{name: there.pop(name) for name in PARTS})
        self.reached = _State(lens, there)


def _finished(path: Path, fresh: _State, model: Model) -> TunedLens:
    """The lens in a file, on the model's device. Raises FileFormatError unless it is that of this very training."""
    lens, beside = read_lens_file(path)
    lens.require_model(model)
    for name, value in fresh.lens.training.items():
        if lens.training.get(name) != value:
            theirs = f"{name} is {lens.training.get(name)!r} there and {value!r} here"
            raise FileFormatError(f"{path}: is of another training ({theirs}): name another file, or delete this one")
    like = fresh.lens.A
    if beside or len(lens.losses) != lens.training["steps"] or lens.A.dtype != like.dtype:
        raise FileFormatError(f"{path}: is in another number format, or not whole: name another file, or delete this one")
    return dataclasses.replace(lens, **{name: getattr(lens, name).to(like) for name in PARTS})


def _drawn(prompts: int, batch: int, step: int, seed: int) -> Int[Tensor, " row"]:
    """The prompts of a step, from the orders of their rounds; needs nothing from the steps before."""
    places = range(step * batch, step * batch + min(batch, prompts))
    orders: dict[int, Tensor] = {}
    for place in places:
        number = place // prompts
        if number not in orders:
            generator = torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)
            orders[number] = torch.randperm(prompts, generator=generator)
    return torch.stack([orders[place // prompts][place % prompts] for place in places])


def _gradients(
    model: Model, batch: TokenBatch, state: _State, budget: int
) -> tuple[Float[Tensor, " layer"], dict[str, Tensor]]:
    """Each layer's KL(final ‖ lens), averaged over tokens, and its gradient by the layer's translator."""
    weights, mask = model.weights, batch.mask
    with torch.no_grad():
        run = forward(weights, batch, logits=False)
        streams = [x[mask] for x in run.residuals]
        final = normalise(streams[-1], weights.final_norm)
    size = _positions(weights, budget)
    count = len(final)
    losses = state.lens.b.new_zeros(model.n_layers)
    gradients = {name: torch.zeros_like(getattr(state.lens, name)) for name in ("A", "b")}
    for start in range(0, count, size):
        chunk = slice(start, start + size)
        with torch.no_grad():
            logits = block_logits(weights, Source(final[chunk]), 0, weights.W_U.shape[1])
            known = logits.log_softmax(dim=-1)
            goal = known.exp()
            own = (goal * known).sum()
        for layer in range(model.n_layers):
            A, b = (getattr(state.lens, name)[layer].detach().requires_grad_() for name in ("A", "b"))
            loss = (_cross_entropy(weights, streams[layer][chunk], A, b, goal) + own) / count
            for name, gradient in zip(("A", "b"), torch.autograd.grad(loss, (A, b)), strict=True):
                gradients[name][layer] += gradient
            losses[layer] += loss.detach()
    return losses, gradients


@torch.enable_grad()
def _cross_entropy(weights: Weights, x: Tensor, A: Tensor, b: Tensor, goal: Float[Tensor, "position d_vocab"]) -> Tensor:
    """Of the translated stream's distribution under the final one, summed over positions."""
    source = Source(normalise(translated(x, A, b), weights.final_norm))
    return F.cross_entropy(block_logits(weights, source, 0, weights.W_U.shape[1]), goal, reduction="sum")


def _positions(weights: Weights, budget: int) -> int:
    """How many positions' logits fit."""
    each = _HELD * wide(weights.W_U.dtype).itemsize * weights.W_U.shape[1]
    if each > budget:
        raise MemoryBudgetError(f"training needs {each:,} bytes for one position's logits, budget is {budget:,}")
    return budget // each
