"""The search methods, and which options go with which.

To add one, write a file beside this one that ends in its `Method`, and name it in `METHODS`; or register it from outside
(`register_method`). What takes long to import is imported by `run` when it is called: the command's help lists the table.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

from circuits.errors import CircuitsError
from circuits.search.methods.acdc import ACDC
from circuits.search.methods.attribution import EXACT, GRADIENTS
from circuits.search.methods.method import LEVELS, OPTIONS, Level, Method
from circuits.search.methods.prune import PRUNE
from circuits.search.methods.refine import REFINE
from circuits.search.methods.shrink import SHRINK

METHODS = {method.name: method for method in (*GRADIENTS, EXACT, ACDC, PRUNE, SHRINK, REFINE)}
"""By name, in the order in which they are listed."""
REGISTERED: dict[str, Method] = {}
"""What `register_method` has added in this process."""
DEFAULT, OTHERWISE = "refine", "eap-ig"
"""What is taken where no method is named, and where the first does not take what is asked."""


def register_method(method: Method) -> None:
    """Make a search method of one's own known to `discover` by its name, for this process.

    A method of that name registered before is replaced. Raises CircuitsError for what is no `Method`, for a field that does
    not fit, and for the name of a method of the package.
    """
    if not isinstance(method, Method):
        raise CircuitsError(f"register_method: expected a Method, got {type(method).__name__}")
    if method.name in METHODS:
        raise CircuitsError(f"register_method: {method.name} is a method of the package, which cannot be replaced")
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        if (wanted := _misfit(field.name, value)) is not None:
            raise CircuitsError(f"register_method: {method.name}: {field.name}={value!r}, expected {wanted}")
    REGISTERED[method.name] = method


def _misfit(name: str, value: object) -> str | None:
    """What was expected of a field that does not fit, or None."""
    match name:
        case "run":
            return None if callable(value) else "a function"
        case "sign":
            return None if value in (-1, 0, 1) and isinstance(value, int) else "-1, 0 or 1"
        case "options":
            fits = isinstance(value, Mapping) and set(value) <= set(OPTIONS)
            return None if fits else f"a mapping from those of {', '.join(OPTIONS)} that it takes to their defaults"
        case "levels":
            fits = isinstance(value, tuple) and value and set(value) <= set(LEVELS)
            return None if fits else f"a tuple of {', '.join(LEVELS)}"
        case "estimates" | "gradient" | "gives_circuit" | "proposes":
            return None if isinstance(value, bool) else "True or False"
    needed = name in ("name", "summary", "score")
    fits = isinstance(value, str) and (value.strip() or not needed)
    return None if fits else "a text that is not empty" if needed else "a text"


def find_method(name: str) -> Method:
    """The method of that name. Raises CircuitsError for a name that no method has."""
    known = METHODS | REGISTERED
    if name not in known:
        raise CircuitsError(f"unknown method {name!r}: there are {', '.join(known)}")
    return known[name]


def method_for(name: str | None, *, level: Level, verify: bool, by: str | None, given: Mapping[str, object]) -> Method:
    """The method of that name; without one the default, or where that does not take what is asked (as `check_fit` has it), the
    other one."""
    if name is not None:
        return find_method(name)
    first = METHODS[DEFAULT]
    asked = {option for option, value in given.items() if value is not None}
    fits = level in first.levels and asked <= set(first.options) and not verify and by is None
    return first if fits else METHODS[OTHERWISE]


def check_fit(
    method: Method,
    *,
    level: Level,
    verify: bool,
    given: Mapping[str, object],
    by: str | None = None,
    spelled: Mapping[str, str] | None = None,
) -> None:
    """Raise CircuitsError, naming it, for the first thing asked of a method that it does not take.

    `given`: those of `OPTIONS` that a call sets (None: it does not). `by`: how edges are chosen by their scores, where that is
    said. `spelled`: what options are called where that is not the name here, as "--steps".
    """
    words = {name: name for name in ("method", "verify", "by", *OPTIONS, *LEVELS)} | dict(spelled or {})

    def refuse(what: str, fits: Callable[[Method], bool]) -> None:
        """Raise where the method does not fit, naming those that do."""
        if not fits(method):
            able = " or ".join(one.name for one in (METHODS | REGISTERED).values() if fits(one))
            raise CircuitsError(f"{words[what]} goes with {words['method']} {able}, not with {method.name}")

    for name, value in given.items():
        if value is not None:
            refuse(name, lambda one, name=name: name in one.options)
    refuse(level, lambda one: level in one.levels)
    if by not in (None, "size", "support"):
        raise CircuitsError(f"{words['by']} is {by!r}: expected size or support")
    if by is not None:
        words["by"] += f" {by}"
        refuse("by", lambda one: not one.gives_circuit and (by == "size" or one.signed))
    if verify and by == "support":
        raise CircuitsError(f"{words['verify']} patches the strongest edges by size: leave out {words['by']}")
    if verify:
        refuse("verify", lambda one: one.estimates)
        if level != "heads":
            raise CircuitsError(f"{words['verify']} patches edges between heads and whole MLPs: leave out {words[level]}")


def sign_of(recorded: str) -> Literal[-1, 0, 1] | None:
    """The sign of scores that support what is measured, by the method's name in a result's metadata; None for a name that no
    method has."""
    for method in (METHODS | REGISTERED).values():
        if method.label == recorded:
            return method.sign
    return None
