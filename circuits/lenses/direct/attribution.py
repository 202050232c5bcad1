"""Direct logit attribution: what every node writes to the answer's logit, through the final norm as it was."""

import dataclasses
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import MemoryBudgetError, NonFiniteError, PromptError, shown
from circuits.lenses.direct.contributions import LayerContributions, at_columns, layer_contributions
from circuits.lenses.direct.direct_logits import DirectLogits
from circuits.lenses.direct.targets import Readout, Target, ask
from circuits.lenses.readout import constant, direction
from circuits.models import Model, Run, TokenBatch
from circuits.models.forward import forward
from circuits.models.layers import embed, normalise, unembed
from circuits.models.memory import BUDGET, beside_budget
from circuits.models.model import Prompts
from circuits.tasks import PromptPairs

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""How far the rows may sum beside the logit, as a share of 1 + the sum of their sizes; 0.1 in half precision."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Found:
    """Contributions of some prompts; `outer` are the rows that belong to no layer."""

    answers: Int[Tensor, " prompt"]
    total: Float[Tensor, " prompt"]
    outer: dict[str, Tensor]
    layers: list[LayerContributions]


@torch.no_grad()
def logits(
    model: Model,
    prompts: PromptPairs | Prompts,
    *,
    answers: Target | None = None,
    distractors: Target | None = None,
    neurons: int | Literal["all"] | None = None,
    positions: bool = False,
    side: Literal["clean", "corrupt"] = "clean",
    budget: int = BUDGET,
) -> DirectLogits:
    """Take the answer's logit (less the distractor's) apart into what each node writes to it, exactly.

    Each output at the answer's position goes through the final norm, its scale that of the run, onto the answer's column of
    the unembedding less the distractor's. PromptPairs bring their own answers and distractors; other prompts are read at
    their last token. The rows are checked to sum to the logit that the model computes (before a soft cap, where it has one):
    to 1e-9 in float64, relative to 1 + the sizes of the rows. Raises PromptError for answers that do not fit, NonFiniteError
    with the first node that is no number, MemoryBudgetError where `budget` bytes do not hold what is kept of every prompt.

    Args:
        model: the model whose logit is taken apart.
        prompts: pairs, a text, texts, token ids or a batch.
        answers: texts of one token, or ids; one for all or one a prompt (default: the model's own top token).
        distractors: likewise (default: none, the answer's logit alone).
        neurons: a number splits every MLP into so many neurons with the largest |mean over prompts|, the rest and its bias;
            "all" keeps every neuron; None: whole MLPs.
        positions: split each head by the column that it attends to.
        side: which prompts of pairs are read: "clean" or "corrupt".
        budget: bytes of what is kept of every prompt.

    >>> import circuits
    >>> model = circuits.load_model("mini")
    >>> found = circuits.logits(model, "When Mary and John went to the store, Mary gave a drink to", answers=" John")
    >>> len(found.rows), found.rows[:2]
    (42, ('input', 'a0.h0'))
    """
    _check_neurons(model, neurons)
    readout = ask(model, prompts, answers, distractors, side)
    _check_memory(model, readout, neurons, positions, budget)
    size = max(1, budget // _bytes_of_a_run(model, readout.tokens.ids.shape[1]))
    batches = [readout[start : start + size] for start in range(0, len(readout.tokens), size)]
    parts = [_take_apart(model, batch, positions=positions, neurons=neurons is not None) for batch in batches]
    rows = _rows(parts, neurons)
    values, total = torch.stack(list(rows.values())).double().cpu(), torch.cat([part.total for part in parts]).double().cpu()
    _check_sum(values, total, model.dtype)
    found = torch.cat([part.answers for part in parts])
    against = () if readout.distractors is None else tuple(model.to_token_strings(readout.distractors))
    return DirectLogits(
        model=model.name,
        rows=tuple(rows),
        values=values,
        total=total,
        answers=tuple(model.to_token_strings(found)),
        distractors=against,
        capped=model.weights.logit_soft_cap is not None,
        tokens=_token_strings(model, readout.tokens),
        sources=_sources(parts) if positions else None,
    )


def _check_neurons(model: Model, neurons: int | str | None) -> None:
    if neurons is None:
        return
    if not model.d_mlp:
        raise PromptError(f"{model.name} has no MLPs to split into neurons")
    if neurons != "all" and (not isinstance(neurons, int) or isinstance(neurons, bool) or neurons < 1):
        raise PromptError(f'neurons={shown(neurons)}: expected a number from 1 on, or "all"')


# Memory


def _bytes_of_a_run(model: Model, width: int) -> int:
    """What the factors of one prompt take."""
    heads, groups = model.n_heads * model.d_head, model.n_key_value_heads * model.d_head
    per_layer = 2 * model.d_model + 2 * heads + 2 * groups + 3 * model.d_mlp
    return width * model.n_layers * per_layer * model.weights.W_E.element_size()


def _check_memory(model: Model, readout: Readout, neurons: int | str | None, positions: bool, budget: int) -> None:
    """Raise MemoryBudgetError where what is kept of every prompt to the end does not fit the budget."""
    prompts, width = readout.tokens.ids.shape
    heads = model.n_heads * (1 + width * positions)
    kept = 8 * prompts * model.n_layers * (heads + (model.d_mlp if neurons is not None else 1))
    if kept > budget:
        raise MemoryBudgetError(
            f"the contributions of {prompts} prompts take {beside_budget(kept, budget)}: "
            "ask about fewer prompts at a time, without neurons or without positions, or raise the budget"
        )


# One batch


def _take_apart(model: Model, readout: Readout, *, positions: bool, neurons: bool) -> _Found:
    weights, columns = model.weights, readout.columns
    run = forward(weights, readout.tokens, logits=False)
    _refuse_non_finite(run, columns)
    final = at_columns(run.residuals[-1], columns)
    answers, distractors = readout.answers, readout.distractors
    answers = unembed(weights, final).argmax(dim=-1) if answers is None else answers
    if distractors is not None and bool((same := answers == distractors).any()):
        raise PromptError(f"prompt {int(same.long().argmax())}: the distractor is the model's own answer; name another")
    wide = torch.promote_types(model.dtype, torch.float32)
    onto = direction(model, answers, distractors).to(wide) / at_columns(run.final_scale, columns).to(wide)
    total = _total(model, final.to(wide), answers, distractors)
    if not bool(onto.isfinite().all() and total.isfinite().all()):
        raise NonFiniteError("the final norm or the unembedding of an answer or distractor holds NaN or infinity")
    outer = _outer_rows(model, readout, answers, onto)
    options = {"sources": positions, "neurons": neurons}
    layers = [layer_contributions(run, layer, onto, columns, **options) for layer in range(model.n_layers)]
    return _Found(answers, total, outer, layers)


def _outer_rows(
    model: Model, readout: Readout, answers: Int[Tensor, " prompt"], onto: Float[Tensor, "prompt d_model"]
) -> dict[str, Tensor]:
    """Token embedding, learned positions, and what the final norm's and the unembedding's biases add."""
    weights, columns = model.weights, readout.columns[:, None]
    here = TokenBatch.unpadded(readout.tokens.ids.gather(1, columns))
    embedded = embed(dataclasses.replace(weights, W_pos=None), here)[:, 0].to(onto.dtype)
    found = {"input": (embedded * onto).sum(dim=-1)}
    if weights.W_pos is not None:
        place = weights.W_pos[readout.tokens.positions.gather(1, columns)[:, 0]].to(onto.dtype)
        found["positions"] = (place * onto).sum(dim=-1)
    if weights.b_U is not None or (weights.final_norm is not None and weights.final_norm.bias is not None):
        found["bias"] = constant(model, answers, readout.distractors).to(onto.dtype)
    return found


def _total(
    model: Model,
    final: Float[Tensor, "prompt d_model"],
    answers: Int[Tensor, " prompt"],
    distractors: Int[Tensor, " prompt"] | None,
) -> Float[Tensor, " prompt"]:
    """The logit (difference) as the model computes it, from the normed residual stream; before any cap."""
    weights, norm = model.weights, model.weights.final_norm
    if norm is not None:
        weight, bias = (None if part is None else part.to(final.dtype) for part in (norm.weight, norm.bias))
        norm = dataclasses.replace(norm, weight=weight, bias=bias)
    normed = normalise(final, norm)

    def logit(tokens: Tensor) -> Tensor:
        """The logits of tokens, one a prompt."""
        value = (normed * weights.W_U.T[tokens].to(normed.dtype)).sum(dim=-1)
        return value if weights.b_U is None else value + weights.b_U[tokens]

    return logit(answers) if distractors is None else logit(answers) - logit(distractors)


def _refuse_non_finite(run: Run, columns: Int[Tensor, " prompt"]) -> None:
    """Raise NonFiniteError with the first node, in the order of computation, that is no number where the answer is read."""
    sites = [("input", at_columns(run.residuals[0], columns))]
    for layer in range(len(run.weights.blocks)):
        z = at_columns(run.z[layer], columns)
        sites += [(f"a{layer}.h{head}", z[:, head]) for head in range(z.shape[1])]
        sites.append((f"the attention of layer {layer}", at_columns(run.middles[layer], columns)))
        if layer < len(run.neurons):
            sites.append((f"m{layer}", at_columns(run.neurons[layer], columns)))
        sites.append((f"the residual stream after layer {layer}", at_columns(run.residuals[layer + 1], columns)))
    for name, value in sites:
        bad = ~value.isfinite().all(dim=-1)
        if bool(bad.any()):
            raise NonFiniteError(f"{name} holds NaN or infinity on prompt {int(bad.long().argmax())}, at the answer's position")


# All batches


def _rows(parts: list[_Found], neurons: int | str | None) -> dict[str, Tensor]:
    """Every row over all prompts, in the order of computation."""
    outer = {name: torch.cat([part.outer[name] for part in parts]) for name in parts[0].outer}
    rows = {name: outer[name] for name in ("input", "positions") if name in outer}
    for layer in range(len(parts[0].layers)):
        here = [part.layers[layer] for part in parts]
        heads = torch.cat([one.heads for one in here], dim=1)
        rows |= {f"a{layer}.h{head}": values for head, values in enumerate(heads)}
        rows |= _bias_row(f"a{layer}.bias", [one.attention_bias for one in here])
        split, bias = (
            torch.cat([one.neurons for one in here], dim=1),
            _bias_row(f"m{layer}.bias", [one.mlp_bias for one in here]),
        )
        if len(split) and neurons is None:
            rows[f"m{layer}"] = sum(bias.values(), split.sum(dim=0))
        elif len(split):
            rows |= _neuron_rows(layer, split, neurons if isinstance(neurons, int) else len(split)) | bias
    return rows | ({"bias": outer["bias"]} if "bias" in outer else {})


def _bias_row(name: str, parts: list[Float[Tensor, " prompt"] | None]) -> dict[str, Tensor]:
    there = [part for part in parts if part is not None]
    return {name: torch.cat(there)} if there else {}


def _neuron_rows(layer: int, split: Float[Tensor, "neuron prompt"], count: int) -> dict[str, Tensor]:
    order = split.mean(dim=1).abs().argsort(descending=True, stable=True)
    rows = {f"m{layer}.n{neuron}": split[neuron] for neuron in sorted(order[:count].tolist())}
    return rows if count >= len(split) else rows | {f"m{layer}.rest": split[order[count:]].sum(dim=0)}


def _sources(parts: list[_Found]) -> Float[Tensor, "head prompt position"]:
    layers = [[part.layers[layer].sources for part in parts] for layer in range(len(parts[0].layers))]
    return torch.cat([torch.cat([one for one in here if one is not None], dim=1).double().cpu() for here in layers])


def _check_sum(values: Float[Tensor, "row prompt"], total: Float[Tensor, " prompt"], dtype: torch.dtype) -> None:
    """What cannot happen: rows that do not sum to the logit."""
    gap = (values.sum(dim=0) - total).abs()
    allowed = _TOLERANCE.get(dtype, 0.1) * (1 + values.abs().sum(dim=0))
    assert bool((gap <= allowed).all()), f"contributions miss the logit by {float(gap.max()):.3g} (dtype {dtype})"


def _token_strings(model: Model, tokens: TokenBatch) -> tuple[tuple[str, ...], ...]:
    """The text of every column; "" at pads, and a token without text of its own as �."""
    rows = []
    for ids, mask in zip(tokens.ids, tokens.mask.tolist(), strict=True):
        texts = model.to_token_strings(ids)
        rows.append(tuple((text or "�") if there else "" for text, there in zip(texts, mask, strict=True)))
    return tuple(rows)
