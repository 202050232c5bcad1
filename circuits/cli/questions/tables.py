"""What `circuits tables` asks."""

import dataclasses

import circuits
from circuits.cli.prompts import names_of


@dataclasses.dataclass(frozen=True)
class TablesQuestion:
    """What tables are made of, and which are printed."""

    top: int
    context: int
    offset: int
    through_mlp0: bool
    alone: bool
    head: str | None

    def heads(self, model: "circuits.Model") -> list[str]:
        """The heads asked for, those of layer 0 where none are. Raises GraphError for what is no head."""
        from circuits.models.choosing import head_of

        if self.head is None:
            return [f"a0.h{head}" for head in range(model.n_heads)]
        return ["a{}.h{}".format(*head_of(model, name)) for name in dict.fromkeys(names_of(self.head))]
