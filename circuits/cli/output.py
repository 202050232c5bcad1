"""Results on disk: a set of files that appear together, or part by part and marked until the last is there."""

import contextlib
import contextvars
import dataclasses
import datetime
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.errors import FileFormatError
from circuits.files.staging import staging
from circuits.files.unfinished import Unfinished, mark_name, marks

PICTURES = ("png", "svg", "pdf")
"""What pictures can be written as."""
PAGE = "report.html"
"""What `circuits report` writes into a folder: it shows what was there, so a new run takes it away."""
_FORMATS: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("formats", default=PICTURES[:1])
"""As what the pictures of the command under way are written: pictures are drawn by many functions, asked for once."""


@contextlib.contextmanager
def staged(directory: Path, *, replacing: Sequence[str] = ()) -> Iterator[Path]:
    """A folder to write files into; they move into `directory` when the block ends well, else they vanish.

    Files of the same names are replaced, and those in `replacing` go if they were not written anew: they would be of an
    earlier run. Others stay. Raises FileFormatError at once where nothing can be written.
    """
    with _staging(directory) as folder:
        yield folder
        names = _move(folder, directory)
        for name in set(replacing) - set(names):
            (directory / name).unlink(missing_ok=True)


def _move(staging: Path, directory: Path) -> list[str]:
    """Every file moves to its place, also those in folders; gives their names."""
    names = _names(staging)
    for name in names:
        (directory / name).parent.mkdir(exist_ok=True)
        (staging / name).replace(directory / name)
    return names


def _names(folder: Path) -> list[str]:
    """All files in a folder and those below, sorted."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


@contextlib.contextmanager
def _staging(directory: Path, *, names: Collection[str] = (), who: str = "") -> Iterator[Path]:
    """`files.staging`, which names the option that says where files go."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(staging(directory, names=names, who=who))
        except FileFormatError as error:
            raise FileFormatError(f"{error}; name another folder with --out") from None
        yield folder


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

    @property
    def done(self) -> dict[str, str]:
        """The files that are there, with what is in them."""
        return dict(self.mark.done)

    def publish(self, *, lacking: str = "") -> None:
        """What was written since the last time appears in the folder; `lacking`: what it lacks until next time, in words."""
        if not _names(self.staging):
            return
        missing = {name: what for name, what in self.mark.missing.items() if name != self.lacking}
        self.mark = dataclasses.replace(self.mark, missing={**({lacking: ""} if lacking else {}), **missing})
        self.lacking = lacking
        if not self.begun:
            self._begin()
        self._note_done(_move(self.staging, self.folder))

    def drop(self, *names: str) -> None:
        """These files are not to come after all."""
        self.mark = self.mark.without(set(pictured(names)))

    def _begin(self) -> None:
        """Make room: the mark comes before anything goes, and all that is of an earlier run goes before anything comes."""
        from circuits.report.page import is_page

        self._note()
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

    def _note(self, **changes: Any) -> None:
        self.mark = dataclasses.replace(self.mark, **changes)
        self._write(self.name, self.mark)

    def _write(self, name: str, mark: Unfinished) -> None:
        with tempfile.TemporaryDirectory(dir=self.staging) as beside:  # nothing but the mark moves
            mark.save(Path(beside) / name)
            (Path(beside) / name).replace(self.folder / name)

    def _place(self, name: str) -> int:
        """Where a file stands among those of the command."""
        names = list(self.files)
        return names.index(name) if name in self.files else len(names)

    def finish(self) -> None:
        """The last part is there."""
        self.publish()
        (self.folder / self.name).unlink(missing_ok=True)

    def stop(self, why: str) -> str:
        """The run ends before its last part: what is left of it, in words (empty: nothing)."""
        if not self.begun:
            return ""
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
        found = Parts(directory, folder, files, mark, name)
        try:
            yield found
            found.finish()
        except BaseException as error:
            said = found.stop(_why(error))
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
