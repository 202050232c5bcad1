"""Files that appear whole, or not at all, and are on the disk before they appear."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from circuits.errors import FileFormatError
from circuits.files.staging import is_hidden
from circuits.files.words import size_in_words

_FULL = {errno.ENOSPC, errno.EDQUOT}


def write_whole(path: Path, content: bytes) -> None:
    """Write to a new file beside the target, then rename it; raises FileFormatError where that fails, with what was needed
    where the disk is full. It is on the disk before it has its name, so that a power cut leaves the old file or the new one; in
    a hidden folder, whose files still move, that is left to `move`."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    lasting = not is_hidden(path)
    try:
        try:
            with temporary.open("xb") as file:
                file.write(content)
                if lasting:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
            if lasting:
                settle([path.parent])
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(path, error, needed=len(content)) from None


def move(names: Collection[str], source: Path, target: Path) -> None:
    """Files of one folder move into another one of the same disk, also those in folders below: first all of them are on the
    disk, then they appear, then the folders are on the disk too."""
    settle(source / name for name in names)
    folders = {target}
    for name in names:
        place = target / name
        place.parent.mkdir(exist_ok=True)
        folders.add(place.parent)
        (source / name).replace(place)
    settle(folders)


def settle(paths: Collection[Path] | Iterator[Path]) -> None:
    """Wait until files or folders are on the disk; where the system cannot say that of a folder, nothing is waited for."""
    for path in paths:
        with contextlib.suppress(PermissionError, IsADirectoryError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # the disk knows no such thing
                    raise
            finally:
                os.close(descriptor)


def is_full(error: OSError) -> bool:
    """Whether something could not be written because the disk, or what a user may have of it, is full."""
    return error.errno in _FULL


def unwritable(path: Path, error: OSError, *, needed: int = 0) -> FileFormatError:
    """What is said of a file that cannot be written; where the disk is full, with what is free and what was needed."""
    if not is_full(error):
        return FileFormatError(f"{path}: cannot be written: {error.strerror}")
    need = f"{size_in_words(needed)} are needed, " if needed else ""
    return FileFormatError(f"{path}: cannot be written: the disk is full ({need}{size_in_words(free_bytes(path))} are free)")


def check_room(directory: Path, needed: int) -> None:
    """Raise FileFormatError, with both numbers, where a disk has less room than files will need. A disk that does not say how
    large it is is passed over."""
    free = free_bytes(directory)
    if free < needed:
        raise FileFormatError(
            f"{directory}: the files need about {size_in_words(needed)}, and {size_in_words(free)} are free on its disk"
        )


def free_bytes(path: Path) -> int:
    """Bytes that may still be written on the disk of a path, whose last parts need not be there; 2**63 where it does not say
    how large it is."""
    for place in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            usage = shutil.disk_usage(place)
            return usage.free if usage.total else 2**63
    return 2**63


@contextlib.contextmanager
def naming_a_full_disk(directory: Path, written: Callable[[], int]) -> Iterator[None]:
    """While the block lasts, a full disk that whoever writes does not name is told as the one of a directory, with what was
    `written` there so far."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        said = f"the disk is full after {size_in_words(written())} ({size_in_words(free_bytes(directory))} are free)"
        told = FileFormatError(f"{error.filename or directory}: cannot be written: {said}")
        for note in getattr(error, "__notes__", []):
            told.add_note(note)
        raise told from None
