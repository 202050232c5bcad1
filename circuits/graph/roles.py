"""Roles of tokens: named spans that part the columns of every prompt, which nodes and edges of a graph may carry.

A node `a0.h1@S2` is head 1 of layer 0 where it writes at the tokens of role S2. What reads the residual stream stays at one
role: `a0.h1@S2->m3@S2`. Attention alone goes from role to role: `a0.h1@S2->a2.h0@end<k>` is what head a0.h1 writes at S2 as
it is in the keys at which the queries of role end look (Haklay et al. 2025).
"""

import re
from dataclasses import dataclass

from circuits.errors import GraphError, shown

_NAME = re.compile(r"[A-Za-z0-9_]{1,40}", re.ASCII)
_MOST = 64


def check_role(name: object) -> str:
    """The name of a role. Raises GraphError for what is none: letters, digits and _ make one."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise GraphError(f"{shown(name)} is no name of a role; expected up to 40 letters, digits and _, such as subject_last")
    return name


@dataclass(frozen=True)
class Roles:
    """The roles of a graph. Raises GraphError for names that are none or come twice, and for roles that look at none there is.

    `names` stand in the order in which they mostly come in prompts; the last is that of the token at which the answer is read,
    and so the role of the logits. `looks`: for each role the places of those at whose tokens its queries can look.
    """

    names: tuple[str, ...]
    looks: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        for name in self.names:
            check_role(name)
        twice = next((name for name in self.names if self.names.count(name) > 1), None)
        if twice is not None:
            raise GraphError(f"the role {twice} is named twice")
        if not 1 <= len(self.names) <= _MOST:
            raise GraphError(f"{len(self.names)} roles; expected 1 to {_MOST}")
        if len(self.looks) != len(self.names):
            raise GraphError(f"{len(self.names)} roles, but {len(self.looks)} lists of what they look at")
        for place, seen in enumerate(self.looks):
            if place not in seen or list(seen) != sorted(set(seen)) or seen[0] < 0 or seen[-1] >= len(self.names):
                raise GraphError(
                    f"{self.names[place]} looks at {list(seen)}; expected growing places of roles, its own among them"
                )

    @classmethod
    def causal(cls, *names: str) -> "Roles":
        """Roles that come one after the other in every prompt: each looks at itself and at those before it."""
        return cls(names, tuple(tuple(range(place + 1)) for place in range(len(names))))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def links(self) -> int:
        """How many pairs of roles there are of which the one can look at the other."""
        return sum(map(len, self.looks))

    @property
    def end(self) -> str:
        """The role at which the answer is read."""
        return self.names[-1]

    def place(self, name: str | None) -> int:
        """The place of a role. Raises GraphError for none, and for one that is not among them."""
        if name is None:
            raise GraphError(f"it needs a role: write @ and one of {', '.join(self.names)} behind it")
        if name not in self.names:
            raise GraphError(f"no role {shown(name)}: there are {', '.join(self.names)}")
        return self.names.index(name)
