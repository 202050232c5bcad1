"""Which tokens of some prompts have which role."""

import dataclasses

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuits.errors import PromptError
from circuits.graph import Roles


@dataclasses.dataclass(frozen=True, eq=False)
class RoleColumns:
    """Which tokens have which role. `columns`: the place of each token's role in `roles.names`, -1 at pads."""

    roles: Roles
    columns: Int[Tensor, "prompt position"]

    @property
    def names(self) -> tuple[str, ...]:
        """The roles' names."""
        return self.roles.names

    def masks(self, roles: Roles | None = None) -> Bool[Tensor, "role prompt position"]:
        """Where each role has tokens; of other `roles` by their names. Raises PromptError for one that is in none of the
        prompts."""
        names = self.names if roles is None else roles.names
        missing = next((name for name in names if name not in self.names), None)
        if missing is not None:
            raise PromptError(f"no prompt has the role {missing}: there are {', '.join(self.names)}")
        return torch.stack([self.columns == self.names.index(name) for name in names])
