"""One writer of a file at a time."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from circuits.errors import FileFormatError

try:
    import fcntl
except ImportError:  # not on this system: then nobody is kept out
    fcntl = None
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


@contextlib.contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Keep other writers of a file out while the block lasts, and no longer where the process is killed.

    What a killed writer left half written beside the file goes. Where the system or the disk knows no locks, nobody is kept
    out and nothing goes. Raises FileFormatError where another process is writing the file or nothing can be written there.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        descriptor = locked(lock)
    except BlockingIOError:
        raise FileFormatError(f"{path}: another process is writing it: wait for it, or name another file") from None
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be written: {error.strerror}") from None
    if descriptor is None:
        yield
        return
    try:
        clear_half_written(path)
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def clear_half_written(path: Path) -> None:
    """What killed writers left half written beside a file goes; nobody else may be writing it."""
    for part in path.parent.iterdir():
        if re.fullmatch(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.tmp", part.name):
            part.unlink(missing_ok=True)


def locked(lock: Path, *, make: bool = True) -> int | None:
    """Open and lock a file, which is made where it is missing (`make=False`: FileNotFoundError); None where there are no locks.
    Raises BlockingIOError where another process has it. Whoever had it before may have removed it in between: then it is
    another file, and tried again."""
    while fcntl is not None:
        descriptor = os.open(lock, os.O_RDWR | (os.O_CREAT if make else 0), 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if lock.stat().st_ino == os.fstat(descriptor).st_ino:
                    return descriptor
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError) and error.errno in _NO_LOCKS:
                lock.unlink(missing_ok=True)
                return None
            raise
        os.close(descriptor)
    return None
