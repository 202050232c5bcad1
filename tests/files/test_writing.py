"""Files are whole, on the disk before they have their names, and a full disk is named with what was needed."""

import errno
import os
import subprocess
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from circuits.errors import FileFormatError
from circuits.files import writing
from circuits.files.staging import is_hidden, staging
from circuits.files.words import size_in_words
from circuits.files.writing import check_room, free_bytes, move, naming_a_full_disk, settle, write_whole
from tests import conftest


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Every wait for the disk: for what, and which files of the target were there by then."""
    found: list[tuple[str, list[str]]] = []

    def fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        target = next((one for one in (name, *name.parents) if one.name == "target"), name)
        found.append((name.name, sorted(one.name for one in target.rglob("*") if one.is_file() and one.name[0] != ".")))
        conftest.FSYNC(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks the system which file is meant")


@proc
def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, waited: list[tuple[str, list[str]]]) -> None:
    (tmp_path / "target").mkdir()
    write_whole(tmp_path / "target" / "file", b"content")
    (name, before), (folder, after) = waited
    assert name.startswith(".file.") and before == [] and (folder, after) == ("target", ["file"])


@proc
def test_files_that_move_are_waited_for_together(tmp_path: Path, waited: list[tuple[str, list[str]]]) -> None:
    (tmp_path / "target").mkdir()
    with staging(tmp_path / "target") as hidden:
        (hidden / "below").mkdir()
        for name in ("a", "b", "below/c"):
            write_whole(hidden / name, b"content")
        assert is_hidden(hidden / "below" / "c") and not is_hidden(hidden) and waited == [], "they have not their place yet"
        move(["a", "b", "below/c"], hidden, tmp_path / "target")
    files, folders = waited[:3], waited[3:]
    assert [name for name, _ in files] == ["a", "b", "c"]
    assert sorted(name for name, _ in folders) == ["below", "target"] and all(there == ["a", "b", "c"] for _, there in folders)


def test_a_disk_that_cannot_wait_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(number: int) -> None:
        def fsync(descriptor: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fsync)

    fails(errno.EINVAL)
    settle([tmp_path])
    fails(errno.EIO)
    with pytest.raises(FileFormatError, match="file: cannot be written: Input/output error"):
        write_whole(tmp_path / "file", b"content")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(line, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no disk can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_named_with_what_was_needed(small_disk: Path) -> None:
    write_whole(small_disk / "file", b"a" * 400_000)
    said = r"disk/large: cannot be written: the disk is full \(800 kB are needed, 64\d kB are free\)"
    with pytest.raises(FileFormatError, match=said):
        write_whole(small_disk / "large", b"a" * 800_000)
    assert [one.name for one in small_disk.iterdir()] == ["file"]
    with pytest.raises(FileFormatError, match=r"disk: the files need about 2\.0 MB, and 64\d kB are free on its disk"):
        check_room(small_disk, 2_000_000)
    check_room(small_disk, 500_000)
    assert free_bytes(small_disk / "not" / "there") == free_bytes(small_disk)
    with (
        pytest.raises(FileFormatError, match="disk: cannot be written: the disk is full after 650 kB"),
        naming_a_full_disk(small_disk, lambda: 650_000),
        (small_disk / "table.csv").open("wb") as table,
    ):
        table.write(b"a" * 900_000)


def test_other_errors_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError), naming_a_full_disk(tmp_path, lambda: 0):
        (tmp_path / "none").read_bytes()
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=0, total=0))
    check_room(tmp_path, 10**15)


def test_sizes_in_words() -> None:
    sizes = {1: "1 byte", 999: "999 bytes", 1000: "1.0 kB", 64_700: "65 kB", 3_440_000: "3.4 MB", 5 * 10**12: "5.0 TB"}
    assert {size: size_in_words(size) for size in sizes} == sizes
