"""Training a tuned lens: every translator by the divergence of what it makes the model say from what the model says at last.

Translators do not depend on each other, so that each layer's gradient is computed by itself and freed before the next: as
one backward pass over their sum, in the memory of one layer.
"""

import contextlib
import dataclasses
import hashlib
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import FileFormatError, MemoryBudgetError, NonFiniteError, PromptError
from circuits.files.locking import sole_writer
from circuits.lenses.streaming import Source, block_logits, wide
from circuits.lenses.tuned_lens import TunedLens, read_lens_file, translated, write_lens_file
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.layers import normalise
from circuits.models.memory import BUDGET
from circuits.models.weights import Weights
from circuits.progress import Progress, silent

_HELD = 6
"""Arrays of [position d_vocab] that are alive at once in training."""
_SECONDS, _SHARE = 20.0, 50
"""What may be lost at most, in seconds of work; and in times what a writing takes, so that writing takes its 2 % at most."""
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
    save_every: int = 50,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> TunedLens:
    """Train a translator a layer on prompts, by KL(final ‖ lens) averaged over tokens (Belrose et al. 2023).

    Adam's step size falls linearly to 0; every prompt comes once before any comes again. Translators start as the identity. A
    training that was stopped or killed goes on from `path`: with the same `budget` the file is in the end the same to the
    byte.

    Raises PromptError for numbers out of range, FileFormatError where `path` holds something else or another training, or is
    being written by another process, MemoryBudgetError where one position's logits do not fit, NonFiniteError where a loss
    is none.

    Args:
        model: the model whose streams are translated.
        tokens: the prompts.
        steps: steps of Adam.
        rate: the first step size.
        batch: prompts a step.
        seed: that of the order of prompts.
        path: where the state is written, and read from at the beginning.
        save_every: steps between two writings; where they take long, it is written earlier.
        budget: bytes of logits that are held at once.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    check_training(steps=steps, rate=rate, batch=batch, save_every=save_every)
    prepared = model.prepare(tokens)
    state = _State.start(model, _settings(prepared, steps=steps, rate=rate, batch=batch, seed=seed))
    report = progress or silent

    def taken(state: _State, step: int) -> _State:
        """One step."""
        losses, gradients = _gradients(model, prepared[_drawn(len(prepared), batch, step, seed)], state, budget)
        if not bool(losses.isfinite().all()):
            layer = int((~losses.isfinite()).nonzero()[0])
            said = f"the loss of layer {layer} is {float(losses[layer])} at step {step}: try a lower rate than {rate}"
            raise NonFiniteError(said)
        return state.stepped(losses, gradients, rate * (1 - step / steps))

    target = None if path is None else Path(path)
    with contextlib.nullcontext() if target is None else sole_writer(target):
        if target is not None and target.exists():
            state = _resumed(target, state, model)
        report("training the tuned lens", state.done, steps)
        due = time.monotonic() + _SECONDS
        for step in range(state.done, steps):
            state = taken(state, step)
            now = time.monotonic()
            if target is not None and ((step + 1) % save_every == 0 or now >= due) and step + 1 < steps:
                write_lens_file(target, state.lens, state.moments)
                due = time.monotonic() + max(_SECONDS, _SHARE * (time.monotonic() - now))
            report("training the tuned lens", step + 1, steps)
        if target is not None:
            write_lens_file(target, state.lens, {})
    return state.lens


def check_training(*, steps: int, rate: float, batch: int, save_every: int = 1) -> None:
    """Raise PromptError for numbers that no training can have."""
    for name, value in {"steps": steps, "batch": batch, "save_every": save_every}.items():
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


def _resumed(path: Path, fresh: _State, model: Model) -> _State:
    """The state in a file, on the model's device. Raises FileFormatError unless it is one of this very training."""
    lens, moments = read_lens_file(path)
    lens.require_model(model)
    for name, value in fresh.lens.training.items():
        if lens.training.get(name) != value:
            theirs = f"{name} is {lens.training.get(name)!r} there and {value!r} here"
            raise FileFormatError(f"{path}: is of another training ({theirs}): name another file, or delete this one")
    like = fresh.lens.A
    finished = len(lens.losses) == lens.training["steps"]
    shapes = {name: tuple(tensor.shape) for name, tensor in moments.items()}
    expected = {} if finished else {name: tuple(tensor.shape) for name, tensor in fresh.moments.items()}
    if shapes != expected or len(lens.losses) > lens.training["steps"] or lens.A.dtype != like.dtype:
        raise FileFormatError(f"{path}: its training cannot go on from it: it is in another number format, or not whole")
    parts = {name: getattr(lens, name).to(like) for name in ("A", "b", "losses")}
    return _State(dataclasses.replace(lens, **parts), {name: tensor.to(like) for name, tensor in moments.items()})


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
