"""Progress on stderr, one bar a kind of step."""

import sys
from types import TracebackType

import typer
from tqdm import tqdm

_USUAL, _LONGEST = 30, 44
"""Characters of what is being done: bars of one kind stand below each other, and longer words are cut."""


class ProgressBars:
    """Call it with what is being done, how many of these steps are done, and how many there are."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._what = ""

    def __enter__(self) -> "ProgressBars":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.leave = error is None
        self._close()

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._bar is None or self._what != what:
            self._close()
            self._what = what
            pause, wait = (0.1, 0.0) if sys.stderr.isatty() else (1.0, 0.3)  # a log needs no bars of quick steps
            layout = "{desc} {bar:24} {n_fmt}/{total_fmt}  {elapsed}, {remaining} left"
            desc = what if len(what) <= _LONGEST else f"{what[: _LONGEST - 1]}…"
            self._bar = tqdm(desc=desc.ljust(_USUAL), total=total, mininterval=pause, delay=wait, bar_format=layout)
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._close()

    def say(self, text: str, *, err: bool = False) -> None:
        """Print a text on stdout (or stderr) now, on lines of its own, whatever bar there is."""
        if self._bar is not None and not sys.stderr.isatty():  # a bar cannot be taken back there: end its line
            self._close()
        with tqdm.external_write_mode(file=sys.stderr if err else sys.stdout):
            typer.echo(text, err=err)
            sys.stdout.flush()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
