"""What `circuits neuron` asks."""

import dataclasses
import math
from pathlib import Path

import circuits
from circuits.cli.progress import ProgressBars
from circuits.cli.prompts import require_text
from circuits.errors import GraphError, PromptError

MOST = 200_000
"""Tokens of a text that are looked through, unless the command line says how many."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeuronQuestion:
    """Which neurons, in which text, and what else is asked of them."""

    name: str | None
    text: Path | None
    limit: int | None
    top: int
    through: str | None
    clamp: float | None
    prompt: str | None
    seed: int

    @property
    def node(self) -> "circuits.Node | None":
        """The neuron or the MLP of that name; None for all. Raises GraphError for another node."""
        node = None if self.name is None else circuits.Node.parse(self.name)
        if node is not None and node.kind not in ("mlp", "neuron"):
            raise GraphError(f"{node} is no neuron and no MLP: expected a name such as m3.n7 or m3")
        return node

    def words(self) -> list[str]:
        """The text again, as words of a command line."""
        said = {"--text": self.text, "--limit": self.limit, "--seed": self.seed or None}
        return [word for name, value in said.items() if value is not None for word in (name, str(value))]

    def corpus(
        self, model: "circuits.Model", text: str | None, progress: ProgressBars | None = None
    ) -> "circuits.models.TokenBatch":
        """The prompts that are looked through: of the text, or a corpus for where there is none; so many tokens at most."""
        from circuits.lenses.neurons.report import default_corpus
        from circuits.tasks.sources.corpus import text_rows

        if text is not None:
            return text_rows(model, text, limit=MOST if self.limit is None else self.limit)
        found = default_corpus(model, seed=self.seed, progress=progress)
        if self.limit is None:
            return found
        return found[: max(1, int((found.mask.sum(dim=1).cumsum(dim=0) <= self.limit).sum()))]

    def check(self) -> None:
        """Raise where the options contradict each other; needs no model."""
        node = self.node
        if self.prompt is not None and self.clamp is None:
            raise PromptError("--prompt is the text on which a neuron is held: it needs --clamp VALUE")
        if self.prompt is not None:
            require_text(self.prompt, "--prompt")
        if self.clamp is not None and not math.isfinite(self.clamp):
            raise PromptError(f"--clamp is {self.clamp}; expected a finite number")
        single = {"--clamp": self.clamp, "--through": self.through}
        given = next((name for name, value in single.items() if value is not None), None)
        if given is not None and (node is None or node.kind == "mlp"):
            raise PromptError(f"{given} is about one neuron: name it, such as circuits neuron m3.n7 {given} ...")

    def check_with(self, model: "circuits.Model") -> None:
        """Raise for names and prompts that do not fit the model, before anything takes time."""
        from circuits.models.choosing import chosen_neurons

        chosen_neurons(model, None if self.name is None else [self.name])
        if self.through is not None:
            circuits.read_values(model, [self.name or ""], k=1, through=self.through)
        if self.prompt is not None:
            model.prepare(self.prompt)
