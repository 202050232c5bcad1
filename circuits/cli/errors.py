"""What a user can get wrong ends in one line and an exit status, not in a traceback."""

import contextlib
import contextvars
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator
from types import FrameType
from typing import TYPE_CHECKING

import typer

from circuits.cli.text import one_line
from circuits.errors import CircuitsError

if TYPE_CHECKING:
    Context = typer.Context
else:
    Context = typer.Context.__base__
    """What typer hands to a command that asks for a `typer.Context`."""
WRONG, INTERRUPTED, UNREAD = 2, 130, 141
_TOO_LITTLE = "not enough memory: try fewer prompts or sequences, or a smaller model"
_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")

TOLD: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("told", default=None)
"""Where the line goes too: a worker's stderr has no reader."""


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what a user can get wrong into one line on stderr and exit status 2 (where it was stopped by a signal, 128 and the
    signal's number: 130 for Ctrl-C, 143 for `kill` and `timeout`, 141 without
    a word where nobody reads the output any more). The line ends with the notes that the error carries."""
    try:
        yield
    except KeyboardInterrupt as stop:
        words = [str(stop) or "interrupted", *_notes(stop)]
        _stop("; ".join(words if len(words) > 1 else [*words, "nothing was written"]), getattr(stop, "status", INTERRUPTED))
    except BrokenPipeError:
        # Who read the output has gone, as `head` does: no error. What is left to be written has no reader either.
        with contextlib.suppress(OSError):  # where stdout is no file of the system's
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(UNREAD) from None
    except CircuitsError as error:
        _stop("; ".join([str(error), *_notes(error)]), WRONG)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _stop("; ".join([f"{where}{error.strerror or error}", *_notes(error)]), WRONG)
    except MemoryError as error:
        _stop("; ".join([_TOO_LITTLE, *_notes(error)]), WRONG)
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in _MEMORY):
            raise
        _stop("; ".join([_TOO_LITTLE, *_notes(error)]), WRONG)


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", []))


def _stop(message: str, status: int) -> None:
    if (told := TOLD.get()) is not None:
        told.append(one_line(message))
    typer.echo(f"Error: {one_line(message)}", err=True)
    raise typer.Exit(status) from None


class Stopped(KeyboardInterrupt):
    """A signal that ends the program: `kill` and `timeout` send SIGTERM, a terminal that closes SIGHUP."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """While the block lasts, a signal that would end the process at once raises `Stopped` instead, as Ctrl-C raises
    KeyboardInterrupt: what was found is then left in order. Those that are ignored or handled by somebody else stay so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    chosen = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    chosen = [number for number in chosen if signal.getsignal(number) == signal.SIG_DFL]
    for number in chosen:
        signal.signal(number, _raise_stopped)
    try:
        yield
    finally:
        for number in chosen:
            signal.signal(number, signal.SIG_DFL)


def _raise_stopped(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


def refuse_with_open(context: Context, *used: str) -> None:
    """Raise CircuitsError for the first option on the command line that `--open` leaves without effect: all but `--open`,
    `--out`, `--pictures`, `--json` and those that are `used`."""
    said = _unused(context, ("open_file", "out", "pictures", "as_json", *used))
    if said is not None:
        raise CircuitsError(f"--open shows what was measured before and computes nothing: leave out {said}")


def _unused(context: Context, used: Collection[str]) -> str | None:
    """The first option or argument on the command line that is not among the used ones, as it is written there."""
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and name not in used:
            return (
                parameter.opts[0] if parameter.opts[0].startswith("-") else getattr(parameter, "metavar", None) or name.upper()
            )
    return None


def check_at_least(option: str, value: int, least: int) -> None:
    """Raise CircuitsError, naming the option, for a number below the least."""
    if value < least:
        raise CircuitsError(f"{option} is {value}; expected a whole number from {least} on")
