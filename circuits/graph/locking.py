"""One writer of a file at a time."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from circuits.errors import FileFormatError

try:
    import fcntl
except ImportError:  # not on this system: then nobody is kept out
    fcntl = None


@contextlib.contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Keep other writers of a file out while the block lasts, and no longer where the process is killed.

    What a killed writer left half written beside the file goes. Raises FileFormatError where another process is writing it
    or nothing can be written there.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        descriptor = _locked(lock)
    except BlockingIOError:
        raise FileFormatError(f"{path}: another process is writing it: wait for it, or name another file") from None
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        for part in path.parent.iterdir():
            if part.name.startswith(f".{path.name}.") and part.suffix == ".tmp":
                part.unlink(missing_ok=True)
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _locked(lock: Path) -> int:
    """Open and lock a file. Whoever had it before may have removed it in between: then it is another file, and tried again."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT)
        try:
            if fcntl is None:
                return descriptor
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if lock.stat().st_ino == os.fstat(descriptor).st_ino:
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
