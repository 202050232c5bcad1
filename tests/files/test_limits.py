"""What files may ask for is looked at before anything of them is parsed: one error, within a second and 64 MB."""

import json
import os
import random
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from circuits.errors import FileFormatError
from circuits.files import limits
from circuits.files.limits import check_content
from circuits.files.reading import read_json, read_json_lines, read_text
from circuits.graph import Circuit
from circuits.patching import Trace
from circuits.tasks import read_conllu, read_facts

MB = 2**20
TOO_MANY = "holds more values than"
HOSTILE: dict[str, tuple[Callable[[Path], object], Callable[[], bytes], str]] = {
    "brackets": (read_json, lambda: b"[" + b"[]," * (31 * MB // 3) + b"[]]", TOO_MANY),
    "deep": (read_json, lambda: b"[" * (31 * MB), "nested too deeply"),
    "a result of brackets": (
        Trace.load,
        lambda: b'{"format": "circuits-trace", "x": [' + b"[1]," * (7 * MB) + b"0]}",
        TOO_MANY,
    ),
    "no result": (Trace.load, lambda: b'{"x": "' + b"a" * (31 * MB) + b'"}', "not a file of format circuits-trace"),
    "a circuit of numbers": (Circuit.load, lambda: b"[" + b"1," * (15 * MB) + b"1]", TOO_MANY),
    "facts": (read_facts, lambda: b"[" + b'{"a":"b"},' * (6 * MB) + b"{}]", TOO_MANY),
    "lines of facts": (read_facts, lambda: b'{"a":"b"}\n' * (6 * MB), TOO_MANY),
    "rows of facts": (read_facts, lambda: b"a,b\n" * (15 * MB), TOO_MANY),
    "no facts at all": (read_facts, lambda: b"\n" * (62 * MB), TOO_MANY),
    "sentences": (read_conllu, lambda: b"1\tt\tt\tt\tt\tt\t0\tt\tt\tt\n" * (8 * MB), "line 2: the word number is"),
    "comments": (read_conllu, lambda: b"# \n" * (60 * MB), "no word in 100,000 lines"),
    "one long line": (read_conllu, lambda: b"a" * (60 * MB), "line 1: longer than"),
    "a text to its last byte": (
        read_text,
        lambda: b"a " * (30 * MB) + b"\xff",
        f"not UTF-8 text: byte {60 * MB} ",
    ),
}
USUAL = ("brackets", "facts", "lines of facts", "a text to its last byte")
"""Those of the ordinary tests; `make hard` runs all."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in USUAL else pytest.mark.slow) for name in HOSTILE])
def test_large_files_of_nothing_are_refused_within_a_second_and_64_mb(name: str, tmp_path: Path) -> None:
    read, content, said = HOSTILE[name]
    (tmp_path / "large.json").write_bytes(content())
    begun = time.process_time()
    with pytest.raises(FileFormatError, match=said) as error:
        read(tmp_path / "large.json")
    assert time.process_time() - begun < 1
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match=said):
            read(tmp_path / "large.json")
        assert tracemalloc.get_traced_memory()[1] < 64e6
    finally:
        tracemalloc.stop()
    assert str(error.value).startswith(f"{tmp_path / 'large.json'}: ") and len(str(error.value)) < 300


def random_value(draw: random.Random, depth: int) -> Any:
    """A value of JSON, with texts that look like its signs."""
    kind = draw.randrange(5) if depth else draw.randrange(3)
    if kind == 0:
        return draw.choice([0, -1, 2.5, True, None])
    if kind in (1, 2):
        return "".join(
            draw.choices(['"', "\\", "[", "]", "{", "}", ",", ":", "a", "é", "\n", "\x01", " "], k=draw.randrange(9))
        )
    if kind == 3:
        return [random_value(draw, depth - 1) for _ in range(draw.randrange(4))]
    return {f'{number}"{{': random_value(draw, depth - 1) for number in range(draw.randrange(4))}


def counted(value: Any) -> Iterator[tuple[int, int]]:
    """What each value inside a list or an object takes, and how deep it stands; what a document is takes nothing."""
    if isinstance(value, dict | list):
        inside = list(value.values()) if isinstance(value, dict) else value
        yield (limits._OBJECT if isinstance(value, dict) else limits._LIST) + limits._VALUE * max(len(inside) - 1, 0), 1
        yield from ((taken, depth + 1) for one in inside for taken, depth in counted(one))
    else:
        yield limits._TEXT * isinstance(value, str), 0


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_values_and_depth_are_counted_without_parsing(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(size)
    monkeypatch.setattr(limits, "DEEPEST", 3)
    monkeypatch.setattr(limits, "_ROUNDS", 0)
    for _ in range(200):
        value = random_value(draw, 5)
        text = json.dumps(value, ensure_ascii=draw.random() < 0.5, indent=draw.choice([None, 1]))
        content = text.encode()
        counter = limits._Json(10**9, lines=False)
        said = [counter.feed(content[at : at + size]) for at in range(0, len(content), size)]
        assert ("nested too deeply" in said) == (max(depth for _, depth in counted(value)) > 3), text
        if not any(said):
            assert counter.taken == sum(taken for taken, _ in counted(value)), text
            assert counter.depth == 0 and not counter.inside and not counter.cut


def test_lines_that_are_damaged_do_not_add_up() -> None:
    good, bad = b'{"a": [1, "x"]}\n', b'{"a": [[[1, "x]\n'
    check_content("file", (good + bad) * 500, kind="rows")
    with pytest.raises(FileFormatError, match="nested too deeply"):
        check_content("file", b'{"a":' * 200, kind="rows")


def test_what_programs_write_is_not_refused() -> None:
    """Dense numbers, tokens, small objects and short rows, a million values each."""
    many = range(500_000)
    for value in (
        [0.5, 0.25] * 500_000,
        [[12, 345, 6789]] * 300_000,
        [{"token": 12, "p": 0.25}] * 200_000,
        {str(n): n for n in many},
    ):
        check_content("file", json.dumps(value).encode())
    check_content("file", b"".join(b"country %d,capital %d\n" % (n, n) for n in range(100_000)), kind="rows")


def test_a_pipe_is_read_once_and_looked_over_all_the_same(tmp_path: Path) -> None:
    def through(content: bytes, read: Callable[[Path], object]) -> object:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(content,))
        writer.start()
        try:
            return read(pipe)
        finally:
            writer.join()
            pipe.unlink()

    assert through(b"[1, 2]", read_json) == [1, 2]
    assert through("\ufeffa\r\nb\rc".encode(), read_text) == "a\nb\nc"
    with pytest.raises(FileFormatError, match="nested too deeply"):
        through(b"[" * 5000, read_json)


def test_the_first_byte_that_is_no_text_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_PIECE", 4)
    path = tmp_path / "text"
    for content, byte in ((b"abc\xc3", 3), (b"abc\xc3\xa9\xff", 5), (b"ab\xe2\x82 ", 2), (b"\xff", 0)):
        path.write_bytes(content)
        for read in (read_text, read_json, read_json_lines, read_facts, read_conllu):
            with pytest.raises(FileFormatError, match=rf"text: not UTF-8 text: byte {byte} cannot be decoded"):
                read(path)
    path.write_bytes("abé€𝄞".encode())
    assert read_text(path) == "abé€𝄞"
