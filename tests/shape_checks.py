"""Shape and type checks of the package while tests run: every function, but not every call of it."""

import collections
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jaxtyping
from torch import Tensor

_check = jaxtyping.jaxtyped


class ShapeChecks:
    """A call is checked while a file of tests has seen few like it: the same function with tensors of the same shapes
    and types of numbers; after that one in `every`. Of a function that was called `many` times one call in `every` is
    looked at. A check takes as long as twenty small sums, and a test calls some functions ten thousand times."""

    def __init__(self, *, first: int, many: int, every: int) -> None:
        self.first, self.many, self.every = first, many, every
        self.off = True
        self._calls: collections.Counter[int] = collections.Counter()
        self._seen: collections.Counter[tuple] = collections.Counter()

    def forget(self) -> None:
        """Forget what was seen."""
        self._calls.clear()
        self._seen.clear()

    def jaxtyped(self, *, typechecker: Any) -> Callable[[Any], Any]:
        """A decorator in the place of `jaxtyping.jaxtyped`."""

        def decorated(what: Any) -> Any:
            if not inspect.isclass(what):
                return self._sparing(what, typechecker)
            if dataclasses.is_dataclass(what) and "__init__" in vars(what):
                what.__init__ = self._sparing(what.__init__, typechecker)
            return what

        return decorated

    def _sparing(self, function: Callable[..., Any], typechecker: Any) -> Callable[..., Any]:
        code = id(function.__code__)  # a hash of the code itself takes longer than many a call

        @functools.cache
        def checked() -> Callable[..., Any]:
            # Made when it is first asked for: a function inside another one is defined anew at every call of that.
            return _check(function, typechecker=typechecker)

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            __tracebackhide__ = True
            if self.off:
                return function(*args, **options)
            self._calls[code] = calls = self._calls[code] + 1
            if calls > self.many and calls % self.every:
                return function(*args, **options)
            key = (code, *[(one.shape, one.dtype) for one in (*args, *options.values()) if isinstance(one, Tensor)])
            self._seen[key] = seen = self._seen[key] + 1
            if seen > self.first and seen % self.every:
                return function(*args, **options)
            return checked()(*args, **options)

        return call
