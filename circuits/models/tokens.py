"""A batch of token ids with its padding, the one form in which prompts reach a model."""

import dataclasses

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuits.errors import PromptError


@dataclasses.dataclass(frozen=True)
class TokenBatch:
    """Token ids `[prompt position]` and a mask of the same shape that is False at pads. Pads may stand on either side
    and change no number: they are never attended to and do not count as positions."""

    ids: Int[Tensor, "prompt position"]
    mask: Bool[Tensor, "prompt position"]

    def __post_init__(self) -> None:
        if self.ids.shape != self.mask.shape:
            raise PromptError(f"token ids have shape {tuple(self.ids.shape)}, their mask {tuple(self.mask.shape)}")
        if self.ids.numel() == 0 or not bool(self.mask.any(dim=1).all()):
            raise PromptError("a prompt has no tokens")

    @classmethod
    def unpadded(cls, ids: Int[Tensor, "prompt position"]) -> "TokenBatch":
        """Prompts of equal length."""
        return cls(ids, torch.ones_like(ids, dtype=torch.bool))

    @classmethod
    def from_rows(cls, rows: list[list[int]], *, pad_id: int = 0) -> "TokenBatch":
        """Prompts of any length, padded on the right with `pad_id`."""
        width = max((len(row) for row in rows), default=0)
        ids = torch.tensor([row + [pad_id] * (width - len(row)) for row in rows], dtype=torch.long)
        mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows], dtype=torch.bool)
        return cls(ids.reshape(len(rows), width), mask.reshape(len(rows), width))

    @property
    def padded(self) -> bool:
        """Whether any pad is present."""
        return not bool(self.mask.all())

    @property
    def positions(self) -> Int[Tensor, "prompt position"]:
        """The position of each token in its own prompt, from 0; 0 at pads on the left."""
        return (self.mask.long().cumsum(dim=1) - 1).clamp(min=0)

    @property
    def last(self) -> Int[Tensor, " prompt"]:
        """The column of each prompt's last token."""
        width = self.ids.shape[1]
        return width - 1 - self.mask.flip(1).long().argmax(dim=1)

    def columns_at(self, position: int) -> Int[Tensor, " prompt"]:
        """The column of a position in each prompt's own count (from 0; negative from its own end, pads left out); -1 where the
        prompt has none."""
        length = self.mask.sum(dim=1)
        if not -self.ids.shape[1] <= position < self.ids.shape[1]:  # numbers of any size are asked for
            return torch.full_like(length, -1)
        own = torch.full_like(length, position) if position >= 0 else length + position
        there = self.mask & (self.positions == own[:, None])
        return torch.where(there.any(dim=1), there.long().argmax(dim=1), -1)

    def required_columns(self, position: int, *, what: str = "") -> Int[Tensor, " prompt"]:
        """`columns_at`, of a position that some prompt has. `what` opens the message. Raises PromptError where none has it."""
        columns = self.columns_at(position)
        if not bool((columns >= 0).any()):
            longest = int(self.mask.sum(dim=1).max())
            raise PromptError(f"{what}position {position} is outside the prompts, of which the longest has {longest} tokens")
        return columns

    def __len__(self) -> int:
        return self.ids.shape[0]

    def __getitem__(self, rows: slice | Tensor | list[int]) -> "TokenBatch":
        return TokenBatch(self.ids[rows], self.mask[rows])

    def to(self, device: torch.device) -> "TokenBatch":
        """The same batch on a device."""
        return TokenBatch(self.ids.to(device), self.mask.to(device))
