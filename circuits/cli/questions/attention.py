"""What `circuits attention` asks."""

import dataclasses

import circuits
from circuits.cli.prompts import names_of, require_text
from circuits.errors import CircuitsError, GraphError

KINDS = ("mean", "resample")


@dataclasses.dataclass(frozen=True)
class AttentionQuestion:
    """What is traced."""

    prompt: str
    answer: str | None
    position: int
    heads: str | None
    replace: str
    seed: int

    def __post_init__(self) -> None:
        require_text(self.prompt)
        if self.replace not in KINDS:
            raise CircuitsError(f"--replace is {self.replace!r}; expected one of {', '.join(KINDS)}")
        for name in self.head_names:
            if circuits.Node.parse(name).kind != "head":
                raise GraphError(f"{name} has no attention pattern, only heads do: name one, such as a0.h1")

    @property
    def head_names(self) -> list[str]:
        """The heads whose patterns are drawn."""
        return [] if self.heads is None else names_of(self.heads)
