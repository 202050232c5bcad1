"""A language model of this machine that explains neurons and simulates them, run by this package."""

import dataclasses
import functools
import re
from collections.abc import Sequence

import torch

from circuits.errors import AnswerError, ModelError, NonFiniteError
from circuits.lenses.explaining.excerpts import LEVELS, Excerpt
from circuits.lenses.explaining.wording import explaining_prompt, sentences_prompt, simulating_examples, simulating_lines
from circuits.models import Model
from circuits.models.sampling import Writer, most_probable, sampled

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
        """What the model writes behind the strongest excerpts. Raises AnswerError where it writes nothing."""
        found = " ".join(self.write(explaining_prompt(shown, scale)).split())
        found = re.sub(r"(\[\d+\])+(?=\W|$)", "", found).strip()  # numbers of the excerpts that it goes on writing
        if not found:
            raise AnswerError(f"{self.model.name} wrote no explanation: try another model")
        return found

    @torch.no_grad()
    def simulate(self, explanation: str, tokens: Sequence[str]) -> list[float]:
        """The expected activation at each token: the mean of 0 to 10 by the probabilities that the model gives to these numbers
        behind the token, among themselves. Where 10 is more than one token, of 0 to 9. All tokens in one run, which goes on
        from the examples, read once."""
        model, ids, columns = self.model, list[int](), list[int]()
        for text, asked in simulating_lines(explanation, tokens):
            ids += model.to_tokens(text, prepend_bos=False).ids[0].tolist()
            if asked:
                columns.append(len(ids) - 1)
        numbers, length = self._numbers, self._examples.count + len(ids)
        self._require_room(length)
        logits = self._examples.branch(length).read_at(torch.tensor([ids], device=model.device), columns)[0]
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

    @functools.cached_property
    def _examples(self) -> Writer:
        """The model behind the examples that stand in front of every question."""
        ids = self.model.to_tokens(simulating_examples()).ids
        self._require_room(ids.shape[1])
        self.model.require_finite()
        writer = Writer(self.model.weights, 1, ids.shape[1])
        writer.read(ids.to(self.model.device))
        return writer

    @functools.cached_property
    def _numbers(self) -> list[int]:
        """The tokens 0, 1, … behind a tab, as ids."""
        (before,), found = self.model.to_tokens("a\t").ids.tolist(), list[int]()
        for number in range(LEVELS + 1):
            (ids,) = self.model.to_tokens(f"a\t{number}").ids.tolist()
            if ids[:-1] == before:
                found.append(ids[-1])
            elif number < LEVELS:
                raise ModelError(f"{self.model.name} has no token for {number}: it cannot simulate activations")
        return found

    def _require_room(self, length: int) -> None:
        most = self.model.max_positions
        if most is not None and length > most:
            raise ModelError(
                f"{self.model.name} takes {most} tokens, the question has {length}: "
                "take a model of longer prompts, or shorter rows of text"
            )
