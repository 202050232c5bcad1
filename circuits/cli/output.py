"""Results on disk: a set of files that appear together, or part by part and marked until the last is there."""

import contextlib
import contextvars
import dataclasses
import datetime
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.errors import CircuitsError, FileFormatError
from circuits.files.staging import staging
from circuits.files.unfinished import Unfinished, mark_name, marks
from circuits.files.writing import check_room, move, naming_a_full_disk

PICTURES = ("png", "svg", "pdf")
"""What pictures can be written as."""
PAGE = "report.html"
"""What `circuits report` writes into a folder: it shows what was there, so a new run takes it away."""
_USUAL_FILE = 50_000
"""Bytes."""
_ROOM = ".room"
"""Holds room for the mark, should the disk fill: it is needed where a run ends before its time."""
_FORMATS: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("formats", default=PICTURES[:1])
"""As what the pictures of the command under way are written: pictures are drawn by many functions, asked for once."""


@contextlib.contextmanager
def staged(directory: Path, *, replacing: Sequence[str] = (), names: Collection[str] = (), who: str = "") -> Iterator[Path]:
    """A folder to write files into; they move into `directory` when the block ends well, else they vanish.

    Files of the same names are replaced, and those in `replacing` (`*` stands for any text) go if they were not written anew:
    they would be of an earlier run. Others stay. `names`: those that nobody else may write meanwhile, `who`: who writes them.
    Raises FileFormatError at once where nothing can be written or somebody else is writing one of them.
    """
    with _staging(directory, names=[*replacing, *names], who=who) as folder:
        yield folder
        new = _names(folder)
        move(new, folder, directory)
        for old in [old for pattern in replacing for old in directory.glob(pattern)]:
            if old.relative_to(directory).as_posix() not in new and not old.is_dir():
                old.unlink(missing_ok=True)


@contextlib.contextmanager
def claimed(file: Path | None, who: str) -> Iterator[Path | None]:
    """A hidden place to write a file at, which nobody else may write meanwhile; None where there is to be none. It appears when
    the block ends well. Raises FileFormatError at once where it cannot be written."""
    if file is None:
        yield None
        return
    with staged(file.parent, names=[file.name], who=who) as folder:
        yield folder / file.name


def _names(folder: Path) -> list[str]:
    """All files in a folder and those below, sorted."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file() and file.name != _ROOM)


@contextlib.contextmanager
def _staging(directory: Path, *, names: Collection[str] = (), who: str = "") -> Iterator[Path]:
    """`files.staging` on a disk that has room for files of these names, and with a full one named; what is raised names the
    option that says where files go."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(staging(directory, names=names, who=who))
            check_room(directory, _needed(directory, names))
        except FileFormatError as error:
            raise FileFormatError(f"{error}; name another folder with --out") from None
        with naming_a_full_disk(directory, lambda: _taken(folder)):
            yield folder


def _needed(directory: Path, names: Collection[str]) -> int:
    """About how many bytes files of these names take: as many as those of an earlier run that are there, and at least so many
    each."""
    there = [old for pattern in names for old in directory.glob(pattern) if old.is_file()]
    return max(_USUAL_FILE * len(names), _taken(*there))


def _taken(*paths: Path) -> int:
    """Bytes of files, and of those in folders."""
    every = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    return sum(file.stat().st_size for file in every if file.is_file())


@dataclasses.dataclass(eq=False)
class Parts:
    """The files of one run, which appear in their folder part by part, each of them whole.

    With the first part the mark appears (`files.unfinished`) and what an earlier run left goes; with the last one the mark
    goes. So at every moment, also where the process is killed, all files in the folder that the command writes are of one run,
    and a set that is not whole is marked.
    """

    folder: Path
    """Where the files go."""
    staging: Path
    """Where they are written."""
    files: Mapping[str, str]
    """All that the command may write, with what is in it; `*` stands for any text."""
    mark: Unfinished
    name: str
    """The mark's file name."""
    begun: bool = False
    """Whether the folder has been made ready for the first part."""
    lacking: str = ""
    """What the last part lacks, in words."""
    found: bool = False
    """Whether anything that was found is there, beside what was only asked."""

    @property
    def done(self) -> dict[str, str]:
        """The files that are there, with what is in them."""
        return dict(self.mark.done)

    def publish(self, *, lacking: str = "", found: bool = True) -> None:
        """What was written since the last time appears in the folder; `lacking`: what it lacks until next time, in words;
        `found`: whether it is of what was found, not only of what was asked."""
        if not _names(self.staging):
            return
        missing = {name: what for name, what in self.mark.missing.items() if name != self.lacking}
        self.mark = dataclasses.replace(self.mark, missing={**({lacking: ""} if lacking else {}), **missing})
        self.lacking = lacking
        self.found = self.found or found
        if not self.begun:
            self._begin()
        new = _names(self.staging)
        move(new, self.staging, self.folder)
        self._note_done(new)

    def drop(self, *names: str) -> None:
        """These files are not to come after all."""
        self.mark = self.mark.without(set(pictured(names)))

    def _begin(self) -> None:
        """Make room: the mark comes before anything goes, and all that is of an earlier run goes before anything comes."""
        from circuits.report.page import is_page

        self._note(lasting=True)
        self.begun = True  # from here on there is something to say where the run is stopped
        for pattern in self.files:
            for old in sorted(self.folder.glob(pattern)):
                if old.is_file() or old.is_symlink():
                    old.unlink(missing_ok=True)
            if "/" in pattern:
                _remove_empty((self.folder / pattern).parent)
        if is_page(self.folder / PAGE):
            (self.folder / PAGE).unlink(missing_ok=True)
        for path, other in marks(self.folder):
            left = other.without(set(self.files))
            if path.name != self.name and left != other:
                self._write(path.name, left) if left.done else path.unlink(missing_ok=True)

    def _note_done(self, names: Sequence[str], **changes: Any) -> None:
        """These files are there."""
        done = {**self.mark.done, **{name: self.files.get(name, "") for name in names}}
        missing = {name: what for name, what in self.mark.missing.items() if name not in done}
        self._note(done={name: done[name] for name in sorted(done, key=self._place)}, missing=missing, **changes)

    def _note(self, *, lasting: bool = False, **changes: Any) -> None:
        self.mark = dataclasses.replace(self.mark, **changes)
        self._write(self.name, self.mark, lasting=lasting)

    def _write(self, name: str, mark: Unfinished, *, lasting: bool = False) -> None:
        with tempfile.TemporaryDirectory(dir=self.staging) as beside:  # nothing but the mark moves
            mark.save(Path(beside) / name)
            if lasting:
                move([name], Path(beside), self.folder)
            else:
                (Path(beside) / name).replace(self.folder / name)

    def _place(self, name: str) -> int:
        """Where a file stands among those of the command."""
        names = list(self.files)
        return names.index(name) if name in self.files else len(names)

    def finish(self) -> None:
        """The last part is there."""
        self.publish()
        (self.folder / self.name).unlink(missing_ok=True)

    def stop(self, why: str, *, refused: bool = False) -> str:
        """The run ends before its last part: what is left of it, in words (empty: nothing). Where it is `refused`, and nothing
        was found, nothing is left: there is nothing to go on from."""
        if not self.begun:
            return ""
        if refused and not self.found:
            for name in (*self.mark.done, self.name):
                (self.folder / name).unlink(missing_ok=True)
            return ""
        (self.staging / _ROOM).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it may have been stopped while files moved
            self._note_done([name for name in self.files if (self.folder / name).is_file()], ended=why)
        return f"saved in {self.folder}, marked by {self.name}: {', '.join(self.mark.done)}{self.mark.lacks}"


@contextlib.contextmanager
def parts(
    directory: Path, *, job: str, command: str, files: Mapping[str, str], expected: Collection[str] | None = None
) -> Iterator[Parts]:
    """The parts of a run of a command in a folder. Where the block ends well, the last part is published; where it is stopped
    or fails, what was published stays, marked, and a note of the error says so.

    `files`: all that the command may write, with what is in each; `expected`: those that this run will write (default: all
    that have a whole name). Raises FileFormatError at once where nothing can be written, or another process is writing one of
    these files there.
    """
    name = mark_name(job)
    coming = [name for name in files if "*" not in name] if expected is None else expected
    began = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    with _staging(directory, names=[*files, name], who=command) as folder:
        missing = {name: files.get(name, "") for name in coming}
        mark = Unfinished(command=command, began=began, done={}, missing=missing, staging=folder.stem)
        (folder / _ROOM).write_bytes(bytes(_USUAL_FILE // 2))
        found = Parts(directory, folder, files, mark, name)
        try:
            yield found
            found.finish()
        except BaseException as error:
            refused = isinstance(error, CircuitsError) and not isinstance(error, FileFormatError)  # it may be a full disk
            said = found.stop(_why(error), refused=refused)
            if said:
                error.add_note(said)
            raise


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _why(error: BaseException) -> str:
    """What stopped a run, in words."""
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextlib.contextmanager
def pictures_as(formats: tuple[str, ...]) -> Iterator[None]:
    """While the block lasts, pictures are written in these formats."""
    before = _FORMATS.set(formats)
    try:
        yield
    finally:
        _FORMATS.reset(before)


def save_figure(figure: Any, path: Path) -> None:
    """Write a picture, fine enough for print; one that is named .png in all formats that were asked for."""
    from circuits.cli.running import WORKER
    from circuits.plots.saving import save

    if WORKER.get() is not None:  # nobody looks at the files of a worker
        return
    save(figure, path, formats=_FORMATS.get() if path.suffix.lower() == ".png" else ())


def pictured(names: Iterable[str], formats: Sequence[str] = PICTURES) -> list[str]:
    """Names of files, with a name for each format in place of a picture's."""
    found = []
    for name in names:
        stem = name.removesuffix(".png")
        found += [name] if stem == name else [f"{stem}.{one}" for one in formats]
    return found
