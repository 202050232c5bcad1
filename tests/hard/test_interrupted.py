"""Interruptions at random operations of every long job: nothing is left behind, and the next run is the undisturbed one."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

import circuits
from tests.test_budgets import FUNCTIONS, case

EACH = 9
"""Interruptions of each job."""
JOBS: dict[str, Callable[[], Any]] = {
    name: lambda measure=measure: measure(*case(), circuits.tasks.metrics.logit_difference, 2**28)
    for name, (_, measure) in FUNCTIONS.items()
}


class Stopped(KeyboardInterrupt):
    """Raised at a random operation."""


class Counting(TorchFunctionMode):
    """Counts the operations on tensors, and stops at one of them."""

    def __init__(self, stop: int = -1) -> None:
        super().__init__()
        self.count, self.stop = 0, stop

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the operation, or stop before it."""
        self.count += 1
        if self.count == self.stop:
            raise Stopped
        return func(*args, **(kwargs or {}))


def bits(found: torch.Tensor) -> bytes:
    """What a result is, to the last bit."""
    return found.detach().cpu().contiguous().numpy().tobytes()


def state() -> tuple[Any, ...]:
    """What a job must leave as it was. Python's own generator is left out: the shape checks of the tests draw from it."""
    model, _ = case()
    import numpy as np

    return (
        model.weights.fingerprint(),
        torch.random.get_rng_state().tolist(),
        str(np.random.get_state()[1][:4]),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        [(name, tensor.requires_grad, tensor.grad is None, tensor._backward_hooks) for name, tensor in model.weights.tensors()],
    )


@pytest.mark.parametrize("name", JOBS)
def test_a_job_that_is_stopped_anywhere_leaves_nothing_behind(name: str) -> None:
    draw = random.Random(name)
    undisturbed = bits(JOBS[name]())
    with Counting() as counting:
        assert bits(JOBS[name]()) == undisturbed
    before = state()
    assert counting.count > 50
    stopped = 0
    for _ in range(4 * EACH):  # the shape checks of the tests look at some tensors by chance, so that counts differ a little
        try:
            with Counting(draw.randint(1, counting.count)):
                JOBS[name]()
        except Stopped:
            stopped += 1
        assert state() == before
        if stopped == EACH:
            break
    assert stopped == EACH
    assert bits(JOBS[name]()) == undisturbed


def test_there_are_two_hundred_interruptions() -> None:
    assert EACH * len(JOBS) >= 200
