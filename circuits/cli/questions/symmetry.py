"""What `circuits symmetry` asks."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import circuits
from circuits.cli.progress import ProgressBars
from circuits.cli.prompts import Behaviour, PromptOptions
from circuits.cli.questions.probe import numbers_of
from circuits.cli.settings import Setting
from circuits.errors import PromptError, shown

if TYPE_CHECKING:
    from torch import Tensor

WIDTH = 32
"""Tokens of a line of text that are read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SymmetryQuestion:
    """Which tokens are exchanged where, and which units may change places."""

    swap: str | None
    prompts: PromptOptions
    text: Path | None
    units: str
    layers: str | None
    count: int

    def check(self) -> None:
        """Raise PromptError for what can be seen to be wrong before a model is loaded."""
        if self.units not in ("heads", "neurons"):
            raise PromptError(f"--of {self.units}: expected heads or neurons")
        if self.swap is not None and len(self.swap.split(",")) != 2:
            raise PromptError(f"--swap {shown(self.swap)}: expected two tokens with a comma between them, such as ' he, she'")
        if self.text is not None and self.swap is None:
            raise PromptError("--text has no answers to exchange: name two tokens with --swap")
        _ = numbers_of("--layers", self.layers)
        if self.text is None:
            self.prompts.check()

    def ask(self, setting: Setting, progress: ProgressBars, **drawn: Any) -> "circuits.concepts.Equivariance":
        """The answer."""
        from circuits.concepts import equivariance
        from circuits.concepts.branches.equivariance import check_layers
        from circuits.tasks.sources.corpus import read_text

        layers = None if self.layers is None else numbers_of("--layers", self.layers)

        def fits(model: "circuits.Model") -> None:
            """Raise for layers that the model lacks."""
            check_layers(model, range(model.n_layers) if layers is None else layers, self.units)

        lines = None if self.text is None else read_text(self.text).splitlines()
        if lines is None:
            model, pairs, _ = Behaviour(prompts=self.prompts, metric=None).prepare(setting, progress, check=fits)
            given, tokens = pairs.clean, (pairs.answers, pairs.distractors)
        else:
            model = setting.load(progress)
            fits(model)
            given, tokens = self._lines(model, lines), None
        if self.swap is not None or tokens is None:
            one, other = (model.single_token(text) for text in (self.swap or "").split(","))
            tokens = (given.ids.new_full((len(given),), one), given.ids.new_full((len(given),), other))
        prompts, moved = _exchanged(given, *tokens)
        about: dict[str, Any] = {"symmetry": self._words(), "units": self.units, "budget": setting.budget, "progress": progress}
        return equivariance(model, prompts, moved, layers=layers, **about, **drawn)

    def _lines(self, model: "circuits.Model", lines: list[str]) -> "circuits.models.TokenBatch":
        """The first tokens of the lines with one of the two texts in them."""
        from circuits.models import TokenBatch

        texts = [text.strip() for text in (self.swap or "").split(",")]
        chosen = [line.strip() for line in lines if any(text in line for text in texts)]
        if not chosen:
            raise PromptError(f"{self.text}: no line has {' or '.join(map(shown, texts))}")
        batch = model.to_tokens(chosen)
        one, other = (model.single_token(text) for text in (self.swap or "").split(","))
        cut = TokenBatch(batch.ids[:, :WIDTH], batch.mask[:, :WIDTH])
        there = ((cut.ids == one) | (cut.ids == other)).any(dim=1).nonzero()[:, 0][: self.count]
        return TokenBatch(cut.ids[there], cut.mask[there]) if len(there) else cut

    def _words(self) -> str:
        if self.swap is None:
            return f"{self.prompts.task or self.prompts.prompts} with its two answers exchanged"
        one, other = self.swap.split(",")
        source = self.text.name if self.text is not None else self.prompts.task or str(self.prompts.prompts)
        return f"{source} with {shown(one)} and {shown(other)} exchanged"


def _exchanged(
    given: "circuits.models.TokenBatch", one: "Tensor", other: "Tensor"
) -> "tuple[circuits.models.TokenBatch, circuits.models.TokenBatch]":
    """Prompts in which one of the two tokens stands, and the same with them exchanged. Raises PromptError where there are
    too few."""
    from circuits.concepts import swapped
    from circuits.concepts.branches.equivariance import FEWEST
    from circuits.models import TokenBatch

    moved = swapped(given, one, other)
    kept = ((moved.ids != given.ids) & given.mask).any(dim=1)
    if int(kept.sum()) < FEWEST:
        raise PromptError(
            f"{int(kept.sum())} of {len(given)} prompts hold one of the tokens that are exchanged: expected {FEWEST} or more; "
            "name other tokens with --swap"
        )
    return TokenBatch(given.ids[kept], given.mask[kept]), TokenBatch(moved.ids[kept], given.mask[kept])
