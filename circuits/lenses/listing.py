"""All neurons of a search for triggers in one table, the most telling first."""

import itertools

import pandas as pd

from circuits.lenses.found import Triggers
from circuits.lenses.memories import Values, following_tokens
from circuits.models import Model, TokenBatch

_SHOWN = 5
"""Tokens of a value that are listed."""


def list_neurons(
    model: Model, triggers: Triggers, values: Values, tokens: TokenBatch, *, before: int = 8, after: int = 3
) -> pd.DataFrame:
    """One row a neuron, those first whose value names most often what follows their triggers.

    `agreement`: the share of a neuron's triggers whose next token is among the tokens that its value raises most (0 where none
    has a next token, or its largest activation is not above 0); of equal ones the more active at its peak comes first.
    `values` must be those of the same neurons (`read_values`), `tokens` the prompts in which the triggers were found.
    Columns: neuron, agreement, largest, mean, active, trigger (with `before` and `after` tokens around, the token itself
    between marks), following, raises.
    """
    following, there = following_tokens(model, triggers, tokens)
    named = (following[:, :, None] == values.raised[:, None, :]).any(dim=2) & there & (triggers.highest.values > 0)
    agreement = named.double().sum(dim=1) / there.double().sum(dim=1).clamp(min=1)
    rows = []
    for row, name in enumerate(triggers.names):
        place = int(there[row].long().argmax())
        prompt, position = (int(part[row, place]) for part in (triggers.highest.prompts, triggers.highest.positions))
        ids, mask = tokens.ids[prompt].cpu(), tokens.mask[prompt].cpu()
        edges = (max(0, position - before), position, position + 1, position + 1 + after)
        parts = [slice(start, stop) for start, stop in itertools.pairwise(edges)]
        words = ["".join(model.to_token_strings(ids[part][mask[part]])) for part in parts]
        rows.append(
            {
                "neuron": name,
                "agreement": float(agreement[row]),
                "largest": float(triggers.largest[row]),
                "mean": float(triggers.mean[row]),
                "active": float(triggers.active[row]),
                "trigger": f"{words[0]}[[{words[1]}]]{words[2]}",
                "following": model.to_token_strings(following[row, [place]])[0] if bool(there[row, place]) else None,
                "raises": " ".join(values.tokens[token] for token in values.raised[row, :_SHOWN].tolist()),
            }
        )
    return pd.DataFrame(rows).sort_values(["agreement", "largest"], ascending=False, kind="stable", ignore_index=True)
