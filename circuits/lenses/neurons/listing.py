"""All neurons of a search for triggers in one table, the most telling first."""

import itertools

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.lenses.neurons.memories import Values, following_tokens
from circuits.lenses.neurons.places import Triggers
from circuits.models import Model, TokenBatch
from circuits.progress import Progress, silent

_SHOWN = 5
"""Tokens of a value that are listed."""
_REPORTED = 256
"""Neurons between two reports of progress."""


def list_neurons(
    model: Model,
    triggers: Triggers,
    values: Values,
    tokens: TokenBatch,
    *,
    before: int = 8,
    after: int = 3,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """One row a neuron, those first whose value names what follows their triggers more often than chance explains.

    `agreement`: the share of a neuron's triggers whose next token is among the tokens that its value raises most (0 where none
    has a next token, or its largest activation is not above 0). `chance`: the share of all tokens of the text that are among
    them. `surprise`: how much less likely such an agreement is by chance, in nats (the logarithm of the ratio of binomial
    likelihoods, 0 where chance suffices); of equal ones the more active at its peak comes first.
    `values` must be those of the same neurons (`read_values`), `tokens` the prompts in which the triggers were found.
    `progress` hears how many neurons are listed.
    Columns: neuron, agreement, chance, surprise, largest, mean, active, trigger (with `before` and `after` tokens around, the
    token itself between marks), following, raises.
    """
    following, there = following_tokens(model, triggers, tokens)
    all_ids, all_mask = tokens.ids.cpu(), tokens.mask.cpu()
    named = (following[:, :, None] == values.raised[:, None, :]).any(dim=2) & there & (triggers.highest.values > 0)
    counts, hits = there.double().sum(dim=1), named.double().sum(dim=1)
    agreement = hits / counts.clamp(min=1)
    chance = _shares(model, tokens)[values.raised].sum(dim=1)
    surprise = torch.where(agreement > chance, counts * _divergence(agreement, chance), 0.0)
    names, report, rows = triggers.names, progress or silent, []
    for row, name in enumerate(names):
        if row % _REPORTED == 0:
            report("listing neurons", row, len(names))
        place = int(there[row].long().argmax())
        prompt, position = (int(part[row, place]) for part in (triggers.highest.prompts, triggers.highest.positions))
        ids, mask = all_ids[prompt], all_mask[prompt]
        edges = (max(0, position - before), position, position + 1, position + 1 + after)
        parts = [slice(start, stop) for start, stop in itertools.pairwise(edges)]
        words = ["".join(model.to_token_strings(ids[part][mask[part]])) for part in parts]
        rows.append(
            {
                "neuron": name,
                "agreement": float(agreement[row]),
                "chance": float(chance[row]),
                "surprise": float(surprise[row]),
                "largest": float(triggers.largest[row]),
                "mean": float(triggers.mean[row]),
                "active": float(triggers.active[row]),
                "trigger": f"{words[0]}[[{words[1]}]]{words[2]}",
                "following": model.to_token_strings(following[row, [place]])[0] if bool(there[row, place]) else None,
                "raises": " ".join(values.tokens[token] for token in values.raised[row, :_SHOWN].tolist()),
            }
        )
    report("listing neurons", len(names), len(names))
    return pd.DataFrame(rows).sort_values(["surprise", "largest"], ascending=False, kind="stable", ignore_index=True)


def _shares(model: Model, tokens: TokenBatch) -> Float[Tensor, " token"]:
    """How much of the text each token is, those that follow nothing left out; one more token is spread over all of them, so
    that none has a share of 0."""
    later = tokens.ids[:, 1:][tokens.mask[:, 1:] & tokens.mask[:, :-1]].cpu()
    counts = torch.bincount(later, minlength=model.weights.W_U.shape[1]).double()
    return (counts + 1 / len(counts)) / (counts.sum() + 1)


def _divergence(own: Float[Tensor, " neuron"], other: Float[Tensor, " neuron"]) -> Float[Tensor, " neuron"]:
    """KL divergence in nats between two chances of a yes."""
    return torch.special.xlogy(own, own / other) + torch.special.xlogy(1 - own, (1 - own) / (1 - other))
