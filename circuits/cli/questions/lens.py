"""What `circuits lens` and `circuits lens train` ask."""

import dataclasses

import circuits
from circuits.cli.progress import ProgressBars
from circuits.cli.prompts import names_of
from circuits.cli.settings import Setting
from circuits.errors import GraphError

PROMPT = "The capital of France is"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LensQuestion:
    """What is read."""

    prompt: str
    answer: str | None = None
    nodes: list[str] | None = None
    sublayers: bool = False
    top: int = 5

    def read(
        self, model: "circuits.Model", setting: Setting, progress: ProgressBars, tuned: "circuits.TunedLens | None" = None
    ) -> "circuits.Lens":
        """Read the prompt through the logit lens, or through a tuned one."""
        between = self.sublayers and model.d_mlp
        return circuits.logit_lens(
            model,
            model.to_tokens(self.prompt),
            sites=["residual", "middle"] if between else ["residual"],
            nodes=self.nodes,
            answers=self.answer,
            top=self.top,
            tuned=tuned,
            budget=setting.budget,
            progress=progress,
        )


def parse_nodes(text: str | None) -> list[str] | None:
    """The names in `a,b+c`."""
    if text is None:
        return None
    names = names_of(text)
    if not names:
        raise GraphError("--nodes names no node: expected names such as a1.h2,m3,m0.n5")
    return names
