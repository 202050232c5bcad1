"""How much of what is shown goes through each node of a graph, by shares of what nodes read, and which are worth keeping."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def shares_of(links: Float[Tensor, "target source"]) -> Float[Tensor, "target source"]:
    """Of all that is written into a target, of either sign, the share of each source; rows without any stay 0."""
    sizes = links.abs()
    return sizes / sizes.sum(dim=1, keepdim=True).clamp(min=1e-30)


def influence_of(links: Float[Tensor, "node node"], start: Float[Tensor, " node"]) -> Float[Tensor, " node"]:
    """What goes through each node on the way back from those that begin with something: the sum over all paths, of any length,
    of the products of shares. Links go one way (a node reads none that reads it), so that the sum ends."""
    shares = shares_of(links)
    unit = torch.eye(len(links), dtype=links.dtype, device=links.device)
    return torch.linalg.solve((unit - shares).T, start) - start


def kept_nodes(influence: Float[Tensor, " node"], always: Bool[Tensor, " node"], share: float) -> Bool[Tensor, " node"]:
    """The fewest nodes that have a share of all influence, and those that stay always."""
    return _fewest(influence, share) | always


def kept_links(links: Float[Tensor, "node node"], start: Float[Tensor, " node"], share: float) -> Bool[Tensor, "node node"]:
    """The fewest links that carry a share of all influence: what reaches the target times the source's share of it."""
    carried = shares_of(links) * (influence_of(links, start) + start)[:, None]
    return _fewest(carried.flatten(), share).reshape(links.shape) & (links != 0)


def _fewest(sizes: Float[Tensor, " one"], share: float) -> Bool[Tensor, " one"]:
    """The fewest that add up to a share of all."""
    order = sizes.argsort(descending=True, stable=True)
    before = sizes[order].cumsum(0) - sizes[order]
    kept = torch.zeros(len(sizes), dtype=torch.bool)
    kept[order] = (before < share * sizes.sum()) & (sizes[order] > 0)
    return kept
