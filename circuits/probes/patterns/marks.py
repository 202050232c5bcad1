"""Where in a map a pattern would have its weight, and what a map has there in a few numbers."""

import dataclasses
import unicodedata
from collections.abc import Collection

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import PromptError
from circuits.models import Model, TokenBatch

CLASSES = ("self", "previous", "first", "delimiter", "same", "after same", "block", "mixed")
"""What a head attends to: its own token; the one before; the first; delimiters; earlier copies of its token; what followed
those (induction); all of its block, the tokens since the last delimiter; none of these alone."""
NEAR = 8
"""Tokens that count as near, besides the own one and the one before."""


@dataclasses.dataclass(frozen=True, eq=False)
class MapMarks:
    """Of prompts of one length, which keys each pattern would look at from each query: `keys` in the order of CLASSES but for
    the last, which has none."""

    keys: Bool[Tensor, "prompt class query key"]
    near: Bool[Tensor, "query key"]
    allowed: Bool[Tensor, "query key"]
    delimited: bool
    """Whether there is a delimiter at all: without one neither delimiters nor blocks can be told."""

    @classmethod
    def of(cls, ids: Int[Tensor, "prompt position"], delimiters: Collection[int], *, causal: bool = True) -> "MapMarks":
        """Of these tokens. Tokens at the first place are no copies of others, nor delimiters."""
        width = ids.shape[1]
        place = torch.arange(width, device=ids.device)
        earlier = place[:, None] > place
        allowed = earlier | (place[:, None] == place) if causal else torch.ones_like(earlier)
        same = (ids[:, :, None] == ids[:, None, :]) & earlier & (place > 0)
        after = torch.zeros_like(same)
        after[:, :, 1:] = same[:, :, :-1]
        ends = torch.isin(ids, torch.tensor(sorted(delimiters), dtype=ids.dtype, device=ids.device)) & (place > 0)
        block = ends.long().cumsum(dim=1) - ends.long()
        parts = [
            (place[:, None] == place).expand_as(same),
            (place[:, None] - 1 == place).expand_as(same),
            (place == 0).expand_as(same),
            ends[:, None, :].expand_as(same),
            same,
            after,
            block[:, :, None] == block[:, None, :],
        ]
        distance = place[:, None] - place
        return cls(torch.stack(parts, dim=1) & allowed, (distance > 1) & (distance <= NEAR), allowed, bool(ends.any()))

    @property
    def classes(self) -> tuple[str, ...]:
        """The patterns that can be told apart here."""
        return tuple(name for name in CLASSES if self.delimited or name not in ("delimiter", "block"))

    def of_prompts(self, rows: slice | Tensor) -> "MapMarks":
        """Of some of the prompts."""
        return dataclasses.replace(self, keys=self.keys[rows])

    def features(self, maps: Float[Tensor, "prompt head query key"]) -> Float[Tensor, "prompt head feature"]:
        """What is known of a map: its weight on the keys of each pattern and on near ones, averaged over the queries that have
        such keys; the weight that keys alike would have there; its entropy against that of keys alike; and its largest weight.
        The first query, which has but one key, does not count."""
        maps = maps[:, :, 1:].float()
        near = self.near.expand(len(maps), 1, *self.near.shape)
        keys = torch.cat([self.keys, near], dim=1)[:, :, 1:]
        counted = keys.any(dim=3).float()
        total = counted.sum(dim=2).clamp(min=1)
        weight = torch.einsum("phqk,pmqk,pmq->phm", maps, keys.float(), counted) / total[:, None]
        room = self.allowed.sum(dim=1)[1:].float()
        alike = (keys.sum(dim=3) / room * counted).sum(dim=2) / total
        entropy = -(maps * maps.clamp(min=1e-12).log()).sum(dim=3) / room.log()
        rest = torch.stack([entropy.mean(dim=2), maps.amax(dim=3).mean(dim=2)], dim=2)
        return torch.cat([weight, alike[:, None].expand_as(weight), rest], dim=2)


def rows_of(model: Model, tokens: TokenBatch) -> TokenBatch:
    """Prompts to look at maps of: of one length, at least 8 tokens. Raises PromptError for others, and for one prompt alone."""
    tokens = model.prepare(tokens)
    if tokens.padded or tokens.ids.shape[1] < 8 or len(tokens) < 2:
        raise PromptError(
            f"{len(tokens)} prompts of up to {tokens.ids.shape[1]} tokens: maps are looked at on two prompts or more of one "
            "length, of 8 tokens or more"
        )
    return tokens


def delimiter_ids(model: Model, tokens: TokenBatch) -> tuple[int, ...]:
    """The tokens of a text that are punctuation or end a line; none for a model without a tokenizer."""
    if model.tokenizer is None:
        return ()
    return tuple(token for token in tokens.ids.unique().tolist() if _ends(model.to_string([token])))


def _ends(text: str) -> bool:
    kept = text.strip(" ")
    return bool(kept) and all(one == "\n" or unicodedata.category(one).startswith("P") for one in kept)
