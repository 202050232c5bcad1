"""Maximum flows in networks of layers, exact to rounding."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_SMALL = 1e-15
"""A capacity or an excess up to this is nothing: sums of a row of shares round to less."""
_FAR = 2**30

Array = np.ndarray


def layered_flows(
    capacities: Float[Tensor, "step width width"], start: int, *, progress: Callable[[int], None] = lambda sinks: None
) -> Float[Tensor, " width"]:
    """The maximum flow from a node of the top level to each node of the bottom level, one sink at a time, where the edges go
    from each level to the next with these capacities (`[from, to]`, from the top down; a row sums to 1 or less). `progress`
    is told how many sinks are done.

    Preflows are pushed towards the sink along exact distances (Goldberg & Tarjan 1988), all nodes at one distance together;
    as soon as no excess can reach the sink, what has arrived is the maximum flow.
    """
    steps, width = capacities.shape[:2]
    numbers = capacities.double().cpu().numpy()
    first, inner, drains = numbers[0, start], numbers[1:-1], numbers[-1]
    if steps == 1:
        return torch.from_numpy(first.copy()).to(capacities.device)
    looks_back = not np.triu(numbers, 1).any()
    found = np.zeros(width)
    for sink in range(start + 1 if looks_back else width):
        kept = slice(sink, start + 1) if looks_back else slice(None)  # no other node lies between the two
        found[sink] = _Preflow(inner[:, kept, kept], first[kept], drains[kept, sink]).run()
        progress(sink + 1)
    return torch.from_numpy(found).to(capacities.device)


class _Preflow:
    """What flows to one sink: `excess[level, node]`, `flow[level, from, to]` from each inner level to the next, and the
    `room` that is left from each node of the lowest inner level to the sink."""

    def __init__(self, inner: Array, first: Array, drains: Array) -> None:
        self.inner, self.flow, self.room = inner, np.zeros_like(inner), drains.copy()
        self.excess = np.zeros((len(inner) + 1, len(first)))
        self.excess[0] = first
        self.arrived = 0.0

    def run(self) -> float:
        """Push until no excess can reach the sink; each round moves some node further from it, so rounds end."""
        while True:
            distance = self._distances()
            active = (self.excess > _SMALL) & (distance < _FAR)
            if not active.any():
                return self.arrived
            for far in range(int(distance[active].max()), 1, -1):
                self._push(distance == far, distance == far - 1)
            moved = np.minimum(self.excess[-1], self.room)
            self.excess[-1], self.room = self.excess[-1] - moved, self.room - moved
            self.arrived += float(moved.sum())

    def _distances(self) -> Array:
        """How many edges with room in them lead from each node to the sink; nodes further than any excess stay far."""
        distance = np.full(self.excess.shape, _FAR)
        down = (self.inner - self.flow > _SMALL).astype(np.float32)
        up = (self.flow > _SMALL).astype(np.float32)
        waiting = self.excess > _SMALL
        frontier = np.zeros(self.excess.shape, dtype=bool)
        frontier[-1] = self.room > _SMALL
        far = 1
        while frontier.any():
            distance[frontier] = far
            if not (waiting & (distance == _FAR)).any():
                break
            reached, there = np.zeros_like(frontier), frontier.astype(np.float32)
            for level in range(len(self.inner)):
                if frontier[level + 1].any():
                    reached[level] |= down[level] @ there[level + 1] > 0
                if frontier[level].any():
                    reached[level + 1] |= there[level] @ up[level] > 0
            frontier, far = reached & (distance == _FAR), far + 1
        return distance

    def _push(self, at: Array, nearer: Array) -> None:
        """Send the excess of some nodes over their edges to nodes that are one edge nearer to the sink, in proportion to the
        room of these edges."""
        sending = np.where(at, self.excess, 0.0)
        busy = np.asarray((sending > _SMALL).any(axis=1))
        for level in np.flatnonzero(busy[:-1]):
            room = np.maximum(self.inner[level] - self.flow[level], 0) * nearer[level + 1]
            moved = room * _shares(sending[level], room.sum(axis=1))[:, None]
            self.flow[level] += moved
            gone = moved.sum(axis=1)
            self.excess[level] -= gone
            sending[level] -= gone
            self.excess[level + 1] += moved.sum(axis=0)
        for level in np.flatnonzero(busy[1:]):
            room = self.flow[level] * nearer[level][:, None]
            moved = room * _shares(sending[level + 1], room.sum(axis=0))
            self.flow[level] -= moved
            self.excess[level + 1] -= moved.sum(axis=0)
            self.excess[level] += moved.sum(axis=1)


def _shares(amount: Array, room: Array) -> Array:
    """The share of each room that an amount fills."""
    return np.minimum(np.maximum(amount, 0) / np.maximum(room, 1e-300), 1)
