"""What a user can get wrong ends in one line and an exit status, not in a traceback."""

import contextlib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import typer

from circuits.cli.text import one_line
from circuits.errors import CircuitsError

if TYPE_CHECKING:
    Context = typer.Context
else:
    Context = typer.Context.__base__
    """What typer hands to a command that asks for a `typer.Context`."""
WRONG, INTERRUPTED = 2, 130
_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what a user can get wrong into one line on stderr and exit status 2 (130 where it was interrupted)."""
    try:
        yield
    except KeyboardInterrupt as stop:
        _stop(str(stop) or "interrupted; nothing was written", INTERRUPTED)
    except BrokenPipeError:
        raise
    except CircuitsError as error:
        _stop(str(error), WRONG)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _stop(f"{where}{error.strerror or error}", WRONG)
    except MemoryError:
        _stop("not enough memory: try fewer prompts or sequences, or a smaller model", WRONG)
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in _MEMORY):
            raise
        _stop("not enough memory: try fewer prompts or sequences, or a smaller model", WRONG)


def _stop(message: str, status: int) -> None:
    typer.echo(f"Error: {one_line(message)}", err=True)
    raise typer.Exit(status) from None


def refuse_with_open(context: Context, *used: str) -> None:
    """Raise CircuitsError for the first option on the command line that `--open` leaves without effect: all but `--open`,
    `--out`, `--json` and those that are `used`."""
    said = _unused(context, ("open_file", "out", "as_json", *used))
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
