"""A language model of this machine that explains neurons and simulates them, run by this package."""

import dataclasses
import re
from collections.abc import Sequence

import torch

from circuits.errors import ModelError, NonFiniteError, PromptError
from circuits.lenses.explaining.excerpts import LEVELS, Excerpt
from circuits.lenses.explaining.wording import explaining_prompt, sentences_prompt, simulating_prompt
from circuits.models import Model, TokenBatch
from circuits.models.sampling import most_probable, sampled

_LONGEST = 24
"""Tokens of an explanation."""


@dataclasses.dataclass(frozen=True, eq=False)
class LocalModel:
    """A causal language model with a tokenizer."""

    model: Model

    def __post_init__(self) -> None:
        if self.model.tokenizer is None:
            raise ModelError(f"{self.model.name} has no tokenizer: it can neither read excerpts nor write explanations")

    def write(self, prompt: str, *, length: int = _LONGEST) -> str:
        """The most probable rest of the prompt's last line."""
        model = self.model
        model.require_open_end()
        ids = model.to_tokens(prompt).ids[0]
        self._require_room(len(ids) + length)
        ends = {int(i) for i in (model.tokenizer.eos_token_id, model.tokenizer.pad_token_id) if i is not None}

        def stop(token: int) -> bool:
            """At the end of the line, or of all."""
            return token in ends or "\n" in model.to_token_strings([token])[0]

        return model.to_string(most_probable(model.weights, ids, length, stop=stop)).strip()

    def explain(self, shown: Sequence[Excerpt], scale: float) -> str:
        """What the model writes behind the strongest excerpts. Raises ModelError where it writes nothing."""
        found = " ".join(self.write(explaining_prompt(shown, scale)).split())
        found = re.sub(r"(\[\d+\])+(?=\W|$)", "", found).strip()  # numbers of the excerpts that it goes on writing
        if not found:
            raise ModelError(f"{self.model.name} wrote no explanation: try another model")
        return found

    def simulate(self, explanation: str, tokens: Sequence[str]) -> list[float]:
        """The expected activation at each token: the mean of 0 to 10 by the probabilities that the model gives to these numbers
        behind the token, among themselves. Where 10 is more than one token, of 0 to 9. All tokens in one run."""
        model, ids, columns = self.model, list[int](), list[int]()
        for text, asked in simulating_prompt(explanation, tokens):
            ids += model.to_tokens(text, prepend_bos=None if not ids else False).ids[0].tolist()
            if asked:
                columns.append(len(ids) - 1)
        self._require_room(len(ids))
        numbers = self._numbers()
        with torch.no_grad():
            logits = model.run(TokenBatch.unpadded(torch.tensor([ids])), keep="logits").logits[0, columns]
        chances = logits[:, numbers].double().softmax(dim=1).cpu()
        if not bool(chances.isfinite().all()):
            raise NonFiniteError(f"{model.name} gives numbers that are none to what it simulates")
        return (chances @ torch.arange(len(numbers), dtype=torch.float64)).tolist()

    def sentences(self, explanation: str, count: int) -> tuple[list[str], list[str]]:
        """So many sentences with what an explanation says, and so many with nothing special, drawn with seed 0."""
        return self._sentences(explanation, count), self._sentences(None, count)

    def _sentences(self, about: str | None, count: int) -> list[str]:
        model, generator = self.model, torch.Generator().manual_seed(0)
        ids = model.to_tokens(sentences_prompt(about)).ids[0]
        self._require_room(len(ids) + _LONGEST)
        rows = sampled(model.weights, ids, count, _LONGEST, generator=generator)
        lines = [model.to_string(row).partition("\n")[0].strip() for row in rows]
        return [line for line in lines if line]

    def _numbers(self) -> list[int]:
        """The tokens 0, 1, … as ids."""
        found = []
        for number in range(LEVELS + 1):
            try:
                found.append(self.model.single_token(str(number)))
            except PromptError:
                if number < LEVELS:
                    raise ModelError(f"{self.model.name} has no token for {number}: it cannot simulate activations") from None
        return found

    def _require_room(self, length: int) -> None:
        most = self.model.max_positions
        if most is not None and length > most:
            raise ModelError(
                f"{self.model.name} takes {most} tokens, the question has {length}: "
                "take a model of longer prompts, or shorter rows of text"
            )
