"""What a user can get wrong ends in one line and an exit status, not in a traceback."""

import contextlib
from collections.abc import Iterator

import typer

from circuits.cli.text import one_line
from circuits.errors import CircuitsError

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
