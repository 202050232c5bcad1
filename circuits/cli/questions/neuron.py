"""What `circuits neuron` asks."""

import dataclasses
import math
from pathlib import Path

import circuits
from circuits.cli.prompts import require_text
from circuits.errors import GraphError, PromptError


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeuronQuestion:
    """Which neurons, in which text, and what else is asked of them."""

    name: str | None
    text: Path | None
    limit: int
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
