"""What a patch changes: a value at one site of the running model, at some positions."""

import dataclasses
import functools
from typing import Literal

import torch
from torch import Tensor

from circuits.errors import NonFiniteError

Kind = Literal[
    "residual",
    "q_in",
    "k_in",
    "v_in",
    "q",
    "k",
    "v",
    "knockout",
    "pattern",
    "head",
    "attention",
    "middle",
    "mlp_in",
    "neuron_in",
    "neuron",
    "mlp",
]
STAGE: dict[Kind, int] = {
    "residual": 0,
    **dict.fromkeys(("q_in", "k_in", "v_in", "q", "k", "v", "knockout", "pattern"), 1),
    "head": 2,
    "attention": 3,
    "middle": 4,
    "mlp_in": 5,
    **dict.fromkeys(("neuron_in", "neuron"), 6),
    "mlp": 7,
}
"""The order of sites inside a layer; within a stage, the order in which they are listed."""
ORDER = {kind: place for place, kind in enumerate(STAGE)}
ADDED = ("q_in", "k_in", "v_in", "mlp_in", "neuron_in")
"""Sites whose value is added to what one reader reads; elsewhere the value takes the place of the old one."""


@dataclasses.dataclass(frozen=True, eq=False)
class Change:
    """A value at a site of one layer. What `value` holds, and its shape (the prompt axis may be 1):

    - `residual` (layer 0 … n_layers, before that layer), `attention`, `middle` (after attention was added), `mlp`: what
      stands there instead, `[prompt position d_model]`; with `add=True` what is added to it;
    - `q_in` (index: a head), `k_in`, `v_in` (index: a key-value group), `mlp_in`, `neuron_in` (index: a neuron): what is
      added to the residual stream that this reader alone reads, `[prompt position d_model]`;
    - `q`, `k`, `v`, `head` (mixed values z): `[prompt position d_head]`; `neuron`: `[prompt position]`;
    - `pattern`: `[prompt query key]`, positions are queries; `knockout`: Boolean `[prompt query key]`, True where a query
      may not look any more (index None: every head).

    `mask` `[prompt position]` says where. Changes are compared by identity: variants that begin with the same objects are
    computed together.
    """

    kind: Kind
    layer: int
    index: int | None
    value: Tensor
    mask: Tensor
    add: bool = False
    label: str = ""

    @property
    def stage(self) -> int:
        """Where in its layer it acts."""
        return STAGE[self.kind]

    @functools.cached_property
    def span(self) -> slice | None:
        """The columns where it acts, if they follow each other and are the same in every prompt; None otherwise."""
        columns = self.mask.any(dim=0).nonzero()[:, 0].tolist()
        if not columns or columns[-1] - columns[0] + 1 != len(columns):
            return None
        span = slice(columns[0], columns[-1] + 1)
        return span if bool(self.mask[:, span].all()) else None

    def require_finite(self) -> None:
        """Raise NonFiniteError, with the site's name, for a value that holds NaN or infinity where it is used."""
        if self.value.dtype == torch.bool:
            return
        used = torch.where(self.mask.reshape(*self.mask.shape, *[1] * (self.value.ndim - 2)), self.value, 0)
        if not bool(used.isfinite().all()):
            raise NonFiniteError(f"the value patched in at {self.name} holds NaN or infinity")

    @property
    def name(self) -> str:
        """The site, as errors call it."""
        return self.label or f"{self.kind} of layer {self.layer}" + ("" if self.index is None else f", {self.index}")


Variant = tuple[Change, ...]
"""Changes made together in one run."""
