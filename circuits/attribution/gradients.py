"""Gradients of a metric by what every reader of a run reads, each by itself."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import NonFiniteError
from circuits.models import Edit, Model, Run, TokenBatch
from circuits.models.edits import compile_edits
from circuits.models.forward import forward
from circuits.models.geometry import Geometry, Rotation, rotate
from circuits.models.layers import SLOTS, Slot, activate, headed, norm_scale, placed
from circuits.models.weights import MLP, Attention, Norm, all_finite
from circuits.patching.engine.base import refuse_non_finite
from circuits.patching.engine.reading import Reading


@dataclasses.dataclass(frozen=True, eq=False)
class Gradients:
    """A run (detached) and the gradients of the sum of what was read (`scores`). Gradients by q, k, v, z and neurons are those
    by `Run.q` and its like; `mlp` and `final` are those by the residual stream as an MLP or the logits alone read it. Those by
    what nodes write (z, neurons, input) are there where they were asked for."""

    run: Run
    scores: Float[Tensor, " scored"]
    q: tuple[Float[Tensor, "prompt position head d_head"], ...]
    k: tuple[Float[Tensor, "prompt position group d_head"], ...]
    v: tuple[Float[Tensor, "prompt position group d_head"], ...]
    z: tuple[Float[Tensor, "prompt position head d_head"], ...]
    mlp: tuple[Float[Tensor, "prompt position d_model"], ...]
    neurons: tuple[Float[Tensor, "prompt position d_mlp"], ...]
    input: Float[Tensor, "prompt position d_model"] | None
    final: Float[Tensor, "prompt position d_model"]
    held_norms: bool = False
    """Whether norms were held at their scale, so that nothing flows through it."""


def gradients(
    model: Model,
    reading: Reading,
    tokens: TokenBatch,
    edits: tuple[Edit, ...] = (),
    *,
    writers: bool = True,
    heads: bool = False,
) -> Gradients:
    """Run `tokens` (of the clean or of the corrupt prompts), with edits, and go back once from the metric that is read.
    `writers`: also to what nodes write, which takes more memory; `heads`: to what heads write (z). Raises NonFiniteError where
    the metric or a gradient is not a number."""
    # The weights ask for no gradient, so something on the way must, or there is no graph to go back through.
    if not any(isinstance(edit.value, Tensor) and edit.value.requires_grad for edit in edits):
        edits = (Edit("input", lambda x: x.detach().requires_grad_(True)), *edits)
    with torch.enable_grad():
        run = forward(model.weights, tokens, edits=compile_edits(edits, model.graph()), keep="reads", logits=False)
        # Unembedded at the answer columns alone: logits of all tokens would be the largest array of the run, and gradients of
        # zero.
        scores = reading.scores(model.weights, reading.at_columns(run.residuals[-1])[None])[0]
        return back_from(scores, run, writers=writers, heads=heads)


def back_from(
    scores: Float[Tensor, " scored"], run: Run, *, writers: bool = True, heads: bool = False, held_norms: bool = False
) -> Gradients:
    """The gradients of a metric of a run that kept its reads."""
    mlps = tuple(read.mlp for read in run.reads if read.mlp is not None)
    z, neurons, start = (run.z, run.neurons, run.residuals[:1]) if writers else (run.z if heads else (), (), ())
    wanted = (*run.q, *run.k, *run.v, *z, *mlps, *neurons, *start, run.residuals[-1])
    # The sum: prompts of a batch do not see each other, so one way back gives every prompt its own gradient.
    found = _slopes(scores.sum(), wanted)
    _refuse_non_finite(scores, found, run)
    taken, counts = iter(found), (run.q, run.k, run.v, z, mlps, neurons)
    q, k, v, z, mlp, neurons = (tuple(next(taken) for _ in count) for count in counts)
    by_input = next(taken) if writers else None
    return Gradients(detached(run), scores.detach(), q, k, v, z, mlp, neurons, by_input, next(taken), held_norms)


def _slopes(total: Tensor, wanted: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Gradients by tensors; zero for those that come before the first edit."""
    tracked = [part for part in wanted if part.requires_grad]
    found = iter(torch.autograd.grad(total, tracked, allow_unused=True, materialize_grads=True))
    return tuple(next(found) if part.requires_grad else torch.zeros_like(part) for part in wanted)


def _refuse_non_finite(scores: Tensor, found: tuple[Tensor, ...], run: Run) -> None:
    """Raise NonFiniteError where a metric or a gradient holds NaN or infinity, with the first site of the run that does."""
    right = bool(scores.detach().isfinite().all())
    if right and all(all_finite(part) for part in found):
        return
    with torch.no_grad():
        refuse_non_finite(run)
    raise NonFiniteError("a gradient of the metric holds NaN or infinity" if right else "the metric is not a finite number")


def detached(run: Run) -> Run:
    """The same run without the graph that leads to it."""
    names = ("residuals", "middles", "q", "k", "v", "z", "neurons", "patterns", "mlps")
    parts = {name: tuple(part.detach() for part in getattr(run, name)) for name in names}
    reads = tuple(
        dataclasses.replace(
            read,
            **{slot: getattr(read, slot).detach() for slot in SLOTS},
            mlp=None if read.mlp is None else read.mlp.detach(),
            pre=tuple(part.detach() for part in read.pre),
        )
        for read in run.reads
    )
    edited = {layer: value.detach() for layer, value in run.edited_mlps.items()}
    return dataclasses.replace(run, logits=run.logits.detach(), reads=reads, edited_mlps=edited, **parts)


def unit_and_scale(x: Float[Tensor, "... d_model"], norm: Norm | None) -> tuple[Tensor | None, Tensor]:
    """The normalised residual without gain and bias (None without a norm), and what the norm divided by."""
    scale = norm_scale(x, norm)
    if norm is None:
        return None, scale
    centred = x - x.mean(dim=-1, keepdim=True) if norm.kind == "layer" else x
    return centred / scale, scale


def slot_slopes(model: Model, found: Gradients, layer: int) -> tuple[list[Tensor], Tensor | None]:
    """What readings of a layer hold beside weights: for queries, keys and values slopes `[reader prompt position width]`, a
    reader a head (a group for keys and values), and what they are projected on."""
    unit, scale = unit_and_scale(found.run.residuals[layer], model.weights.blocks[layer].attention_norm)
    slopes = [slot_slope(model, found, layer, slot, getattr(found, slot)[layer], scale) for slot in SLOTS]
    return slopes, None if found.held_norms else unit


def slots_apart(attention: Attention) -> bool:
    """Whether a norm joins heads: then each head's reading depends on the weights of all, which are shared and not one a
    head, and queries, keys and values are read each by themselves."""
    counts = {"q": attention.n_heads, "k": attention.n_key_value_heads, "v": attention.n_key_value_heads}
    return any(joining(attention, slot) is not None and counts[slot] > 1 for slot in SLOTS)


def joining(attention: Attention, slot: Slot) -> Norm | None:
    """The norm over all heads of a slot, where there is one."""
    return {"q": attention.q_norm, "k": attention.k_norm, "v": None}[slot] if attention.norm_over_heads else None


def slot_slope(
    model: Model, found: Gradients, layer: int, slot: Slot, slope: Float[Tensor, "prompt position head d_head"], scale: Tensor
) -> Float[Tensor, "head prompt position width"]:
    """What the readings of one slot hold beside weights, from the gradient by its values; `scale`: what the norm before it
    divided by."""
    attention = model.weights.blocks[layer].attention
    if joining(attention, slot) is not None:
        return torch.stack(_through_norms(model, found, layer, slot, slope)) / scale
    norm = {"q": attention.q_norm, "k": attention.k_norm, "v": None}[slot]
    rotation = None if slot == "v" else Geometry(model.weights, found.run.tokens, model.dtype).rotation(layer)
    if norm is not None:
        slope = _through_placing(model, found, layer, slot, slope).unflatten(-1, (slope.shape[2], -1))
    elif rotation is not None:  # back through a rotation is a rotation the other way
        slope = rotate(slope, Rotation(rotation.cos, -rotation.sin, rotation.adjacent))
    return slope.permute(2, 0, 1, 3) / scale


def _through_placing(model: Model, found: Gradients, layer: int, slot: Slot, slope: Tensor) -> Tensor:
    """The gradient by a slot's linear part `[prompt position head_d_head]`, from that by its normed and rotated value."""
    attention: Attention = model.weights.blocks[layer].attention
    geometry = Geometry(model.weights, found.run.tokens, model.dtype)
    with torch.enable_grad():
        start = getattr(found.run.reads[layer], slot).detach().requires_grad_(True)
        value = placed(headed(start, attention, slot), slot, geometry.rotation(layer))
        return torch.autograd.grad(value, start, slope)[0]


def _through_norms(model: Model, found: Gradients, layer: int, slot: Slot, slope: Tensor) -> list[Tensor]:
    """For each head the gradient by the linear part of all heads, which a norm over heads joins."""
    parts = []
    # One way back a head: what reaches the linear part through the shared norm must be told apart by head.
    for head in range(slope.shape[2]):
        alone = torch.zeros_like(slope)
        alone[:, :, head] = slope[:, :, head]
        parts.append(_through_placing(model, found, layer, slot, alone))
    return parts


def neuron_slopes(mlp: MLP, pre: tuple[Tensor, ...], slope: Tensor) -> tuple[Tensor, ...]:
    """The gradient by each neuron's own pre-activations (linear part and gate), from that by its activation. A neuron of a
    SoLU layer reads alone: the others' share in its softmax stays."""
    driver = pre[-1]
    with torch.enable_grad():
        start = driver.detach().requires_grad_(True)
        if mlp.activation == "solu":
            # By hand: autograd would go back through the softmax to all neurons of the layer, but an edge into one neuron moves
            # this one alone.
            share = driver.softmax(dim=-1)
            rise = share + driver * share * (1 - share)
        else:
            rise = torch.autograd.grad(activate(start, mlp.activation).sum(), start)[0]
    if mlp.W_gate is None:
        return (slope * rise,)
    return slope * activate(driver, mlp.activation), slope * pre[0] * rise
