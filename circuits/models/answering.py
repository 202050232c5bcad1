"""What a model answers to one text, as a graph that is drawn over it shows it."""

from collections.abc import Mapping

import torch

from circuits.errors import PromptError
from circuits.graph.neuronpedia import ShownPrompt
from circuits.models.model import Model


def shown_prompt(model: Model, text: str, *, answer: str | None = None, places: Mapping[str, int] | None = None) -> ShownPrompt:
    """A text as the model reads it, with the probability that it gives to an answer behind it.

    Raises PromptError for a text that the model does not take, an answer of several tokens and a place outside of the text,
    ModelError where the tokenizer ends texts itself.

    Args:
        model: the model that is asked.
        text: the prompt.
        answer: a text of one token (default: the model's own top token).
        places: names of positions, each with the token that it is here, from 0, or below 0 from the end.

    >>> import circuits
    >>> model = circuits.load_model("mini")
    >>> circuits.models.shown_prompt(model, "The capital of France is").answer
    ' Paris'
    """
    model.require_open_end()
    batch = model.prepare(text)
    tokens = tuple(model.to_token_strings(batch.ids[0].tolist()))
    for name, place in (places or {}).items():
        if not -len(tokens) <= place < len(tokens):
            raise PromptError(
                f"{name} is token {place} of a prompt of {len(tokens)} tokens: count from 0, or from -1 at its end"
            )
    with torch.no_grad():
        chances = model.run(batch, keep="logits").logits[0, -1].double().softmax(-1)
    token = int(chances.argmax()) if answer is None else model.single_token(answer)
    shown = model.to_token_strings([token])[0]
    return ShownPrompt(text, tokens, shown, token, float(chances[token]), dict(places or {}))
