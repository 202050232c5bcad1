"""Results on disk: a set of files that appear together, or not at all."""

import contextlib
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from circuits.errors import FileFormatError

_DOTS_PER_INCH = 150


@contextlib.contextmanager
def staged(directory: Path, *, replacing: Sequence[str] = ()) -> Iterator[Path]:
    """A folder to write files into; they move into `directory` when the block ends well, else they vanish.

    Files of the same names are replaced, and those in `replacing` go if they were not written anew: they would be of an
    earlier run. Others stay. Raises FileFormatError at once where nothing can be written.
    """
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    there = next(folder for folder in (directory, *directory.parents) if folder not in missing)
    if not there.is_dir():
        where = "it" if there == directory else str(there)
        raise FileFormatError(f"{directory}: cannot be written: {where} is a file; name a folder with --out")
    staging = directory / f".{secrets.token_hex(4)}.tmp"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
    except OSError as error:
        _remove(missing)
        raise FileFormatError(f"{directory}: cannot be written: {error.strerror}; name another folder with --out") from None
    try:
        yield staging
        files = sorted(staging.iterdir())
        for file in files:
            file.replace(directory / file.name)
        for name in set(replacing) - {file.name for file in files}:
            (directory / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        _remove(missing)


def _remove(folders: list[Path]) -> None:
    """Take away those folders that are empty, innermost first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def save_figure(figure: Any, path: Path) -> None:
    """Write a picture, fine enough for print."""
    figure.savefig(path, dpi=_DOTS_PER_INCH)
