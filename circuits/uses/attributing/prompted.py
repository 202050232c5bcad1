"""A larger model that is shown texts with their classes and asked for that of another: one of this machine, or a server."""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch

from circuits.errors import AnswerError, ModelError, PromptError, shown
from circuits.lenses.explaining.endpoint import Endpoint
from circuits.models import Model
from circuits.models.sampling import Writer

LONGEST = 12
"""Tokens of a rationale that a model writes, at most."""
TEXT, RATIONALE, LABEL = "Text:", "Words that tell:", "Label:"


@runtime_checkable
class Prompted(Protocol):
    """Who answers."""

    def classify(self, shots: str, text: str, names: Sequence[str], *, rationale: bool) -> int | None:
        """The place of the class that a text gets behind the texts that are shown; None for an answer that is none of them."""
        ...

    def fits(self, shots: str, texts: Sequence[str], names: Sequence[str]) -> bool:
        """Whether every one of the texts can be asked about behind those that are shown."""
        ...


def shot(text: str, words: Sequence[str] | None, name: str) -> str:
    """A text as it is shown, with its rationale where there is one, and its class."""
    return f"{asked(text, words)} {name}\n"


def asked(text: str, words: Sequence[str] | None) -> str:
    """The same up to the class."""
    said = "" if words is None else f"\n{RATIONALE} {', '.join(words)}"
    return f"{TEXT} {text}{said}\n{LABEL}"


@dataclasses.dataclass(frozen=True, eq=False)
class PromptedModel:
    """A causal language model with a tokenizer, run by this package. What is shown is read once for all texts; a rationale is
    written token by token, then the class is the name to which the model gives most probability."""

    model: Model

    def __post_init__(self) -> None:
        if self.model.tokenizer is None:
            raise ModelError(f"{self.model.name} has no tokenizer: it can neither read texts nor name classes")
        self.model.require_open_end()

    @torch.no_grad()
    def classify(self, shots: str, text: str, names: Sequence[str], *, rationale: bool) -> int | None:
        """See `Prompted`. Raises ModelError for a prompt longer than the model takes."""
        read, (begun, label, *ends) = self._read(shots), self._rows(text, names, rationale)
        length = read.count + len(begun) + LONGEST + len(label) + max(map(len, ends))
        self._require_room(length)
        writer = read.branch(length)
        logits = writer.read(self._ids(begun))
        if rationale:
            for _ in range(LONGEST):
                token = int(logits.argmax())
                if token in self._stops or "\n" in self.model.to_token_strings([token])[0]:
                    break
                logits = writer.read(self._ids([token]))
            logits = writer.read(self._ids(label))
        return max(range(len(names)), key=[self._chance(writer, logits, end) for end in ends].__getitem__)

    def fits(self, shots: str, texts: Sequence[str], names: Sequence[str]) -> bool:
        """See `Prompted`."""
        if self.model.max_positions is None:
            return True
        most = max(sum(map(len, self._rows(text, names, True))) for text in texts)
        return self.model.to_tokens(shots).ids.shape[1] + most + LONGEST <= self.model.max_positions

    def _require_room(self, length: int) -> None:
        if self.model.max_positions is not None and length > self.model.max_positions:
            raise ModelError(
                f"{self.model.name} takes {self.model.max_positions} tokens, the question has {length}: "
                "show fewer or shorter texts"
            )

    def _rows(self, text: str, names: Sequence[str], rationale: bool) -> list[list[int]]:
        """Token ids: of the text, of what comes behind a rationale, and of each class's name."""
        begun = f"{TEXT} {text}\n{RATIONALE}" if rationale else asked(text, None)
        parts = (begun, f"\n{LABEL}", *(f" {name}" for name in names))
        return [self.model.to_tokens(part, prepend_bos=False).ids[0].tolist() for part in parts]

    def _chance(self, writer: Writer, logits: torch.Tensor, ids: Sequence[int]) -> float:
        """The log-probability of a class's name."""
        found = float(logits[0].double().log_softmax(dim=-1)[ids[0]])
        if len(ids) > 1:
            own = writer.branch(writer.count + len(ids))
            rest = own.read_at(self._ids(ids[:-1]), list(range(len(ids) - 1)))[0].double().log_softmax(dim=-1)
            found += sum(float(rest[at, token]) for at, token in enumerate(ids[1:]))
        return found

    def _ids(self, ids: Sequence[int]) -> torch.Tensor:
        return torch.tensor([list(ids)], device=self.model.device)

    @functools.cached_property
    def _stops(self) -> set[int]:
        return {int(i) for i in (self.model.tokenizer.eos_token_id, self.model.tokenizer.pad_token_id) if i is not None}

    @functools.cached_property
    def _known(self) -> dict[str, Writer]:
        """What was read last."""
        return {}

    @torch.no_grad()
    def _read(self, shots: str) -> Writer:
        """The model behind the texts that are shown."""
        if shots not in self._known:
            ids = self.model.to_tokens(shots).ids
            self._require_room(ids.shape[1])
            writer = Writer(self.model.weights, 1, ids.shape[1])
            writer.read(ids)
            self._known.clear()
            self._known[shots] = writer
        return self._known[shots]


@dataclasses.dataclass(frozen=True, eq=False)
class PromptedEndpoint:
    """A server that speaks OpenAI's protocol. It gets the texts that are shown, and each text that is asked about."""

    endpoint: Endpoint

    def classify(self, shots: str, text: str, names: Sequence[str], *, rationale: bool) -> int | None:
        """See `Prompted`. Raises EndpointError where there is no answer."""
        wanted = f"Write the line that begins with {RATIONALE!r}, then the line" if rationale else "Write the line"
        about = f"Each text has one of the labels {', '.join(names)}."
        ask = f"{about}\n\n{shots}{TEXT} {text}\n\n{wanted} that begins with {LABEL!r} for the last text, and nothing else."
        try:
            said = self.endpoint.ask(ask, most=6 * LONGEST)[0]
        except AnswerError:
            return None
        return named_class(said, names)

    def fits(self, shots: str, texts: Sequence[str], names: Sequence[str]) -> bool:
        """Nobody here knows: the server says so itself."""
        return True


def named_class(said: str, names: Sequence[str]) -> int | None:
    """The class that an answer names last, behind `Label:` where that stands there; None for none."""
    text = said.rpartition(LABEL)[2].lower()
    found = [(match.start(), len(name), place) for place, name in enumerate(names) for match in _uses(name.lower(), text)]
    return max(found)[2] if found else None


def _uses(name: str, text: str) -> list[re.Match]:
    return list(re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text))


def check_names(names: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """What classes are called in prompts. Raises PromptError for names that do not fit."""
    found = tuple(name.strip() for name in names) or tuple(classes)
    if len(found) != len(classes) or len({name.lower() for name in found}) < len(found) or not all(found):
        raise PromptError(f"names {shown(', '.join(names))}: expected one for each of {', '.join(classes)}, all different")
    return found
