"""What `circuits explain` asks."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import circuits
from circuits.cli.progress import ProgressBars
from circuits.cli.questions.neuron import MOST
from circuits.cli.text import one_line
from circuits.errors import GraphError, PromptError

_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", re.ASCII)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplainQuestion:
    """Which neuron, layer or module, in which text, and who explains and tests."""

    name: str
    neurons: str | None
    sasc: bool
    towards: str | None
    text: Path | None
    limit: int | None
    top: int
    explainer: str
    simulator: str | None
    seed: int

    @property
    def single(self) -> bool:
        """Whether one neuron is explained."""
        return not self.sasc and circuits.Node.parse(self.name).kind == "neuron"

    def chosen(self) -> list[str]:
        """The neurons of a layer, or the layer. Raises GraphError for numbers that are none."""
        if self.neurons is None:
            return [self.name]
        found = dict.fromkeys(f"{self.name}.n{index}" for part in self.neurons.split(",") for index in _numbers(part.strip()))
        return list(found)

    def check(self) -> None:
        """Raise for names that are malformed and options that do not fit together; needs no model."""
        from circuits.lenses.explaining.roles import check_role

        for role in (self.explainer, self.simulator or self.explainer):
            check_role(role)
        if self.towards is not None and not self.sasc:
            raise PromptError("--towards says along what a module is read: it needs --sasc")
        if self.sasc:
            if self.neurons is not None:
                raise PromptError("--sasc is about one module: leave out --neurons")
            return
        node = circuits.Node.parse(self.name)
        if node.kind not in ("mlp", "neuron"):
            raise GraphError(f"{node} is no neuron and no MLP: expected a name such as m3.n7 or m3; others take --sasc")
        if self.neurons is not None:
            if node.kind == "neuron":
                raise PromptError("--neurons chooses neurons of a layer: name it, such as circuits explain m3 --neurons 0-99")
            self.chosen()

    def check_with(self, model: "circuits.Model") -> None:
        """Raise for names that do not fit the model, before anything takes time."""
        from circuits.lenses.explaining.module_values import module_values
        from circuits.models.choosing import chosen_neurons

        if self.sasc:
            module_values(model, self.name, self.direction(model))
        else:
            chosen_neurons(model, self.chosen())

    def direction(self, model: "circuits.Model") -> Any:
        """The direction of a token's logit; None without --towards."""
        import torch

        from circuits.lenses.readout import direction

        if self.towards is None:
            return None
        return direction(model, torch.tensor([model.single_token(self.towards)], device=model.device))[0].detach()

    def corpus(
        self, model: "circuits.Model", text: str | None, progress: ProgressBars | None = None
    ) -> "circuits.models.TokenBatch":
        """The rows that excerpts are taken from; so many tokens at most."""
        from circuits.lenses.explaining.explaining import WIDTH, rows_to_write
        from circuits.lenses.neurons.report import default_corpus
        from circuits.tasks.sources.corpus import text_rows

        if text is not None:
            return text_rows(model, text, width=WIDTH, limit=MOST if self.limit is None else self.limit)
        found = default_corpus(model, count=rows_to_write(model), seed=self.seed, progress=progress)
        if self.limit is None:
            return found
        return found[: max(1, int((found.mask.sum(dim=1).cumsum(dim=0) <= self.limit).sum()))]

    def sent(self) -> list[str]:
        """What text goes to a server, in words; none where none is asked."""
        asked = (self.explainer, self.simulator or self.explainer)
        servers = dict.fromkeys(r.partition(":")[2] for r in asked if r.startswith("endpoint:"))
        text = "text that the model wrote" if self.text is None else one_line(self.text)
        pieces = "groups of words and explanations" if self.sasc else f"up to {2 * self.top} excerpts of 64 tokens a neuron"
        return [f"To {one_line(server)} go pieces of {text}: {pieces}, with what the neurons do there" for server in servers]


def _numbers(part: str) -> range:
    """A number, or two with a hyphen between them."""
    match = _RANGE.fullmatch(part)
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise GraphError(f"--neurons has {part!r}; expected numbers of neurons such as 0-99 or 3,7,12")
    return range(int(match[1]), int(match[2] or match[1]) + 1)
