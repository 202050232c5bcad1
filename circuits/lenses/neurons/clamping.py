"""Holding neurons at a value of one's own, and seeing what the model then says (Geva et al. 2022)."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import NonFiniteError, PromptError
from circuits.files.results import Result
from circuits.graph import Node
from circuits.models import Edit, Model, TokenBatch
from circuits.models.choosing import parse_neuron


@dataclasses.dataclass(frozen=True)
class Shift:
    """A token's probability as the next one, before and after."""

    token: str
    before: float
    after: float

    @property
    def change(self) -> float:
        """After minus before."""
        return self.after - self.before


@dataclasses.dataclass(frozen=True, eq=False)
class Clamp(Result, format="circuits-clamp"):
    """What neurons held at given activations change of the next token."""

    model: str
    prompt: str
    clamped: dict[str, float]
    """Neuron → the activation that it is held at."""
    natural: dict[str, float]
    """Neuron → its own activation at the prompt's last token."""
    before: tuple[Shift, ...]
    """The most probable next tokens of the model as it is, the first first."""
    after: tuple[Shift, ...]
    """Those of the model with the neurons held."""
    rising: tuple[Shift, ...]
    """Tokens whose probability grows most, the most first."""
    falling: tuple[Shift, ...]
    """Tokens whose probability shrinks most, the most first."""
    kl: float
    """Kullback-Leibler divergence of the next token's distribution after from the one before, in nats."""
    continuation: tuple[str, str]
    """What the model writes next, always the most probable token: before, after."""

    @property
    def summary(self) -> str:
        """What is held, how far the prediction moves, and what the model says before and after."""
        held = ", ".join(f"{name} at {value:.3g}" for name, value in [*self.clamped.items()][:3])
        said = f"{self.before[0].token!r} before, {self.after[0].token!r} after"
        return f"{self.model} with {held}: {said}, KL {self.kl:.3g} nats."

    def to_dataframe(self) -> pd.DataFrame:
        """One row a token that rises or falls: probability before, after, and the change; most risen first."""
        rows = [{**dataclasses.asdict(shift), "change": shift.change} for shift in (*self.rising, *reversed(self.falling))]
        return pd.DataFrame(rows, columns=["token", "before", "after", "change"])


def clamp(
    model: Model,
    prompt: str | Tensor,
    values: Mapping[str, float],
    *,
    positions: Sequence[int] | None = None,
    top: int = 10,
    continuation: int = 12,
) -> Clamp:
    """Hold neurons at given activations on a prompt and compare the next token with the model's own.

    Raises GraphError for neurons that the model lacks, PromptError for other than one prompt and positions outside it,
    NonFiniteError for values that are no finite numbers.

    Args:
        model: the model that is run.
        prompt: one prompt, as text or token ids.
        values: neuron (`m3.n7`) → activation.
        positions: places in the prompt where they are held (negative from its end; default: everywhere, also in what is
            written next).
        top: tokens each way.
        continuation: tokens that are written, fewer where the context ends.
    """
    if top < 1 or continuation < 0:
        raise PromptError(f"top={top}, continuation={continuation}: expected a top of at least 1 and a length of at least 0")
    nodes = {str(parse_neuron(model, name)): float(value) for name, value in values.items()}
    bad = next((name for name, value in nodes.items() if not math.isfinite(value)), None)
    if bad is not None or not nodes:
        raise NonFiniteError(f"{bad} is to be held at {nodes[bad]}") if bad else PromptError("no neuron is named to be held")
    batch = model.prepare(prompt)
    if len(batch) != 1 or batch.padded:
        raise PromptError(f"neurons are held on one prompt at a time, without pads; got {len(batch)} prompts")
    where = None if positions is None else [int(batch.required_columns(one)[0]) for one in positions]
    edits = [Edit(name, value, where) for name, value in nodes.items()]
    with torch.no_grad():
        run = model.run(batch)
        whole = _distribution(run.logits)
        held = _distribution(model.run(batch, edits=edits, keep="logits").logits)
        written = tuple(_continued(model, batch, chosen, continuation) for chosen in ([], edits))
    parsed = {name: Node.parse(name) for name in nodes}
    natural = {name: float(run.neurons[node.layer or 0][0, -1, node.index]) for name, node in parsed.items()}
    change = held.exp() - whole.exp()

    def shifts(order: Tensor) -> tuple[Shift, ...]:
        """The first tokens in an order, with their probabilities before and after."""
        ids = order[:top].tolist()
        words = model.to_token_strings(ids)
        return tuple(Shift(w, float(whole[i].exp()), float(held[i].exp())) for w, i in zip(words, ids, strict=True))

    before, after, rising, falling = (shifts(numbers.argsort(stable=True)) for numbers in (-whole, -held, -change, change))
    rising = tuple(shift for shift in rising if shift.change > 0)
    falling = tuple(shift for shift in falling if shift.change < 0)
    kl = float((held.exp() * (held - whole)).sum().clamp(min=0))
    text = prompt if isinstance(prompt, str) else "".join(model.to_token_strings(batch.ids[0]))
    return Clamp(model.name, text, nodes, natural, before, after, rising, falling, kl, (written[0], written[1]))


def _distribution(logits: Float[Tensor, "prompt position d_vocab"]) -> Float[Tensor, " d_vocab"]:
    """Log-probabilities of the token after the last one."""
    found = logits[0, -1].double().log_softmax(dim=-1).cpu()
    if not bool(found.isfinite().all()):
        raise NonFiniteError("the next token's logits hold NaN or infinity")
    return found


def _continued(model: Model, batch: TokenBatch, edits: list[Edit], length: int) -> str:
    """The text of the most probable next tokens, one after another."""
    ids, start = batch.ids, batch.ids.shape[1]
    room = length if model.max_positions is None else min(length, model.max_positions - start)
    for _ in range(max(room, 0)):
        logits = model.run(TokenBatch.unpadded(ids), edits=edits, keep="logits").logits
        ids = torch.cat([ids, logits[:, -1:].argmax(dim=-1)], dim=1)
    if model.tokenizer is None:
        return " ".join(model.to_token_strings(ids[0, start:]))
    return model.to_string(ids[0, start:])
