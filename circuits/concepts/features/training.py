"""Dictionaries trained by a library of its own (eai-sparsify, Gao et al. 2024) on what this package's models compute."""

import contextlib
import functools
import io
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.concepts.features.dictionary import Dictionary
from circuits.concepts.features.places import FeaturePlace
from circuits.concepts.features.standing import standing
from circuits.errors import CircuitsError, NonFiniteError, PromptError
from circuits.heads.text_loss import text_batches
from circuits.lenses.neurons.triggers import counted_places
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.memory import BUDGET
from circuits.progress import Progress, silent

_REPORTED = 20
"""Steps between two reports of progress."""
INSTALL = "pip install 'transformer-circuits[dictionaries]'"


def train_dictionary(
    model: Model,
    at: str,
    tokens: TokenBatch,
    *,
    features: int = 1024,
    k: int = 16,
    steps: int = 1000,
    batch: int = 512,
    rate: float = 1e-3,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Dictionary:
    """Train a k-sparse autoencoder of what stands at a place of the model on a text, with sparsify's coder: its own loss
    (the share of variance that is left), rows of the decoder of length 1, Adam. Without AuxK, whose gradient does not reach
    that coder's encoder (`findings/sparsify_auxk_gradient.sh`): a feature that has died stays so, and is counted.

    Pads and the opening BOS do not count. Raises CircuitsError where sparsify is not installed, GraphError for what is no place
    of the model, PromptError for numbers below 1 and texts shorter than a batch, NonFiniteError where training breaks.

    Args:
        model: the model whose place it is.
        at: the place: what an MLP writes (`m2`), a residual stream (`resid3`, `mid3`), attention (`attn3`, or its heads, `a3`).
        tokens: the text.
        features: how many there are.
        k: features that are active at a token.
        steps: of Adam.
        batch: tokens of a step, drawn anew for each.
        rate: of Adam; it rises over a twentieth of the steps and falls to 0 over the last fifth.
        seed: of the start and of the batches.
        budget: bytes of a run.
        progress: hears how many steps are done.
    """
    check_training(model, at, features=features, k=k, steps=steps, batch=batch)
    sparsify = require_library()
    rows = standing_at(model, at, tokens, budget=budget, progress=progress).float().cpu()
    if len(rows) < batch:
        raise PromptError(f"a text of {len(rows)} tokens is shorter than a batch of {batch}")
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        coder = sparsify.SparseCoder(rows.shape[1], sparsify.SparseCoderConfig(num_latents=features, k=k))
        _fit(coder, rows, steps, batch, rate, progress or silent)
    W_enc, b_dec = coder.encoder.weight.detach(), coder.b_dec.detach()
    b_enc = coder.encoder.bias.detach() - W_enc @ b_dec
    said = f"sparsify, {steps} steps of {batch} of {len(rows):,} tokens, seed {seed}"
    tensors: dict[str, Any] = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": coder.W_dec.detach().clone(), "b_dec": b_dec}
    tensors["threshold"] = torch.zeros_like(b_enc)
    return Dictionary(name=f"dictionary-{at}", site=at, kind="topk", k=k, made_by=said, **tensors)


def check_training(model: Model, at: str, *, features: int, k: int, steps: int, batch: int) -> None:
    """Raise what `train_dictionary` would, as far as it can be seen without a text."""
    if min(features, k, steps, batch) < 1 or k > features:
        raise PromptError(
            f"features={features}, k={k}, steps={steps}, batch={batch}: expected 1 or more, no more k than features"
        )
    FeaturePlace.parse(at).check(model, writes=True)


def _fit(coder: Any, rows: Float[Tensor, "place d_model"], steps: int, batch: int, rate: float, progress: Progress) -> None:
    """Train a coder in place, from the rows' mean on."""
    coder.b_dec.data = rows.mean(dim=0)
    optimiser = torch.optim.Adam(coder.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, functools.partial(_rate, steps=steps))
    variance = (rows - rows.mean(dim=0)).square().sum() / len(rows) * batch
    for step in range(steps):
        if step % _REPORTED == 0:
            progress("training a dictionary", step, steps)
        loss = coder(rows[torch.randint(len(rows), (batch,))], total_variance=variance).fvu
        if not bool(loss.isfinite()):
            raise NonFiniteError(f"training a dictionary broke at step {step}: try a smaller rate than {rate:g}")
        optimiser.zero_grad()
        loss.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimiser.step()
        schedule.step()
        coder.set_decoder_norm_to_unit_norm()
    progress("training a dictionary", steps, steps)


def _rate(step: int, steps: int) -> float:
    """The share of the rate at a step: it rises over a twentieth of them, and falls to 0 over the last fifth."""
    return min(1.0, 20 * (step + 1) / steps, 5 * (1 - step / steps))


def require_library() -> Any:
    """The library sparsify. Raises CircuitsError where it is not installed."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it says on stdout that there is no Triton
            import sparsify  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise CircuitsError(f"training a dictionary needs eai-sparsify ({error}): {INSTALL}") from None
    return sparsify


@torch.no_grad()
def standing_at(
    model: Model, at: str, tokens: TokenBatch, *, budget: int = BUDGET, progress: Progress | None = None
) -> Float[Tensor, "place width"]:
    """What stands at a place of a dictionary (`m2`, `resid3`) at every token of a text but pads and the opening BOS."""
    place, report = FeaturePlace.parse(at), progress or silent
    parts, batch, done = [], model.prepare(tokens), 0
    for some in text_batches(model.weights, batch, budget=budget):
        run = forward(model.weights, some, logits=False)
        parts.append(standing(run, place)[counted_places(model, some)])
        done += len(some)
        report("reading the text", done, len(batch))
    return torch.cat(parts)
