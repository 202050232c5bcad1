"""Places of a text as a reader wants them: with the tokens around, and what the neuron does there."""

import dataclasses

import torch

from circuits.graph import Node
from circuits.lenses.neurons.activations import neuron_layers
from circuits.lenses.neurons.places import Places
from circuits.models import Model, TokenBatch


@dataclasses.dataclass(frozen=True)
class Context:
    """A place of a text, with the tokens around it."""

    activation: float
    prompt: int
    position: int
    tokens: tuple[str, ...]
    at: int
    """Which of `tokens` is the place."""
    activations: tuple[float, ...]
    """The neuron's activation at each of `tokens`."""
    following: str | None
    """The token after the place; None at the end of a prompt."""

    def marked(self, *, opening: str = "[[", closing: str = "]]") -> str:
        """The tokens as text, with the place between marks."""
        before, here, after = self.tokens[: self.at], self.tokens[self.at], self.tokens[self.at + 1 :]
        return "".join((*before, opening, here, closing, *after))


def contexts(
    model: Model, neuron: Node, places: Places, row: int, tokens: TokenBatch, *, before: int = 10, after: int = 4
) -> tuple[Context, ...]:
    """The places of one neuron (`row` of the places), each with up to `before` and `after` tokens around it."""
    found = []
    prompts, positions = places.prompts[row].tolist(), places.positions[row].tolist()
    seen = sorted(set(prompts))
    activations = _activations(model, neuron, model.prepare(tokens[seen]))
    for prompt, position, value in zip(prompts, positions, places.values[row].tolist(), strict=True):
        mask = tokens.mask[prompt].cpu()
        columns = [c for c in range(position - before, position + after + 1) if 0 <= c < len(mask) and mask[c]]
        words = tuple(model.to_token_strings(tokens.ids[prompt, columns]))
        values = activations[seen.index(prompt), columns].tolist()
        at = columns.index(position)
        nexts = position + 1 if position + 1 < len(mask) and mask[position + 1] else None
        following = None if nexts is None else model.to_token_strings(tokens.ids[prompt, [nexts]])[0]
        found.append(Context(value, prompt, position, words, at, tuple(values), following))
    return tuple(found)


def _activations(model: Model, neuron: Node, prompts: TokenBatch) -> torch.Tensor:
    """The neuron's activation everywhere in some prompts, `[prompt position]`."""
    layer = neuron.layer or 0
    with torch.no_grad():
        for reached, values in neuron_layers(model.weights, prompts, last=layer):
            if reached == layer:
                return values[:, :, neuron.index].double().cpu()
    raise AssertionError(f"layer {layer} has no neurons")
