"""What `circuits logits` asks."""

import dataclasses
from typing import Any

import circuits
from circuits.cli.prompts import PromptOptions, require_text
from circuits.errors import PromptError

SIDES = ("clean", "corrupt")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitsQuestion:
    """A prompt with or without an answer and a distractor, or pairs that bring their own; and how far it is split."""

    prompt: str | None
    answer: str | None
    distractor: str | None
    pairs: PromptOptions
    neurons: int | None
    positions: bool
    side: str

    def check(self) -> None:
        """Raise PromptError where the options contradict each other; needs no model."""
        if self.side not in SIDES:
            raise PromptError(f"unknown side {self.side!r}: expected clean or corrupt")
        given = self.pairs.given()
        if self.prompt is not None:
            require_text(self.prompt)
        if self.prompt is not None and given:
            raise PromptError(f"a prompt and {given[0]} both say where prompts come from: give one of them")
        if self.prompt is None and (self.answer is not None or self.distractor is not None):
            named = "--answer" if self.answer is not None else "--distractor"
            raise PromptError(
                f"{named} goes with a prompt: circuits logits PROMPT {named} TEXT (tasks and files bring their own)"
            )
        self.pairs.check()
        self.pairs.check_file()

    def ask(self, model: "circuits.Model", budget: int) -> "circuits.DirectLogits":
        """Take the logits apart."""
        side: Any = self.side
        split = {"neurons": self.neurons, "positions": self.positions, "budget": budget, "side": side}
        if self.prompt is None:
            pairs = self.pairs.pairs(model)
            if pairs.answer_sets is not None:
                self.pairs.read[:] = [
                    f"{said.partition('; several')[0]}; of several answers the first" for said in self.pairs.read
                ]
            return circuits.logits(model, pairs, **split)
        return circuits.logits(model, self.prompt, answers=self.answer, distractors=self.distractor, **split)

    def source(self) -> str:
        """Where the prompts come from, in words."""
        return repr(self.prompt) if self.prompt is not None else f"{self.pairs.describe()}, {self.side} prompts"

    def words(self) -> list[str]:
        """The question as words of a command line, without --neurons and --positions."""
        if self.prompt is None:
            return [*self.pairs.arguments(), *(["--side", self.side] if self.side != "clean" else [])]
        parts = {"--answer": self.answer, "--distractor": self.distractor}
        return [self.prompt, *(word for name, text in parts.items() if text is not None for word in (name, text))]
