"""What a user can get wrong ends in one clear line on stderr and status 2."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from circuits.cli import errors
from circuits.cli.errors import plain_errors
from circuits.errors import ModelError
from tests import HANGS
from tests.cli.conftest import Answer, Command


def check_one_line(answer: Answer, *words: str) -> None:
    assert answer.status == 2
    assert answer.out == ""
    lines = [line for line in answer.err.replace("\r", "\n").splitlines() if "/1" not in line and line.strip()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("name", ["./nowhere", "no/such/place", " ", "/dev/null", "gtp2"])
@pytest.mark.parametrize("job", ["induction", "heads"])
def test_a_model_that_is_nowhere(command: Command, tmp_path: Path, job: str, name: str) -> None:
    out = [] if job == "heads" else ["--out", tmp_path / "out" / "deep"]
    check_one_line(command(job, "--model", name, *out), "mini", name)
    assert not (tmp_path / "out").exists(), "a failed run leaves nothing behind"


def test_a_directory_that_holds_no_model(command: Command, tmp_path: Path) -> None:
    check_one_line(command("heads", "--model", tmp_path), "config.json")


@pytest.mark.parametrize("job", ["info", "export"])
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.json", None, ["missing.json", "No such file"]),
        ("empty.json", "", ["empty.json"]),
        ("broken.json", '{"format": ', ["broken.json"]),
        ("other.json", '{"a": 1}', ["other.json", "format"]),
        ("list.json", "[1, 2]", ["list.json"]),
        ("circuit.graphml", "<graphml/>", ["only written"]),
        ("notes.txt", "hello", ["notes.txt", ".json"]),
        ("bytes.json", "\x00\x01", ["bytes.json"]),
    ],
)
def test_a_file_that_is_no_circuit(
    command: Command, tmp_path: Path, job: str, name: str, content: str | None, words: list[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    to = ["--to", "dot"] if job == "export" else []
    check_one_line(command(job, tmp_path / name, *to), *words)


def test_a_folder_in_place_of_a_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    check_one_line(command("info", tmp_path / "folder.json"), "folder.json")


def test_an_unknown_format(command: Command, saved: Path) -> None:
    check_one_line(command("export", saved, "--to", "pdf"), "pdf", "graphml", "dot", "mib", "json")


def test_what_a_format_cannot_say(command: Command, saved: Path) -> None:
    document = json.loads(saved.read_text())
    document["nodes"][0]["positions"] = [3]
    saved.write_text(json.dumps(document))
    check_one_line(command("export", saved, "--to", "mib"), "positions", str(saved))


@pytest.mark.parametrize("below", ["file", "file/folder"])
def test_a_place_that_cannot_be_written(command: Command, saved: Path, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("in the way")
    place = tmp_path / below
    check_one_line(command("induction", "--out", place), str(place), "is a file; name another folder with --out")
    check_one_line(command("export", saved, "--to", "dot", "--out", place / "circuit.dot"), "cannot be written")
    assert (tmp_path / "file").read_text() == "in the way"
    check_one_line(command("heads", "--out", tmp_path / "scores.txt"), ".csv", ".png")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "abacus"], ["abacus", "cpu"]),
        (["--device", "cuda:99"], ["cuda:99"]),
        (["--device", "meta"], ["meta"]),
        (["--dtype", "int8"], ["int8", "float32"]),
        (["--sort", "loudness"], ["loudness", "prefix_matching"]),
        (["--text", "nowhere.txt"], ["nowhere.txt", "No such file"]),
    ],
)
def test_an_option_that_cannot_be_met(command: Command, arguments: list[str], words: list[str]) -> None:
    check_one_line(command("heads", *arguments), *words)


def test_text_that_is_no_text(command: Command, tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff")
    check_one_line(command("heads", "--text", tmp_path / "picture.png"), "UTF-8")
    (tmp_path / "short.txt").write_text("ab")
    check_one_line(command("heads", "--model", tiny, "--text", tmp_path / "short.txt"), "too short")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-command"], ["no-such-command", "--help"]),
        (["induction", "--nope"], ["--nope", "induction --help"]),
        (["info"], ["FILE", "info --help"]),
        (["induction", "--sequences", "1"], ["--sequences", "induction --help"]),
        (["lans"], ["lens", "--help"]),
        (["lens", "--top", "x\ny"], ["--top", "integer"]),
        (["lens", "--out"], ["--out", "--help"]),
    ],
)
def test_what_the_parser_refuses(command: Command, arguments: list[str], words: list[str]) -> None:
    check_one_line(command(*arguments), *words)


def test_no_command_shows_them_all(command: Command) -> None:
    answer = command()
    assert answer.status in (0, 2), "as click has it"
    assert "induction" in answer.out + answer.err and "Traceback" not in answer.err


def test_a_real_process_says_the_same(process: Command, tmp_path: Path) -> None:
    check_one_line(process("info", tmp_path / "missing.json"), "missing.json")
    check_one_line(process("heads", "--model", "./nowhere"), "./nowhere")


def test_an_interrupt_ends_with_130(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: Path) -> None:
    import circuits

    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(circuits, "find_induction_circuit", interrupt)
    answer = command("induction", "--model", tiny, "--out", tmp_path / "out")
    assert answer.status == errors.INTERRUPTED == 130
    assert answer.err.splitlines()[-1] == "Error: interrupted; nothing was written"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (ModelError("a\nb \x1b[31m"), 2, "Error: a b �[31m"),
        (PermissionError(13, "Permission denied", "/x"), 2, "Error: /x: Permission denied"),
        (MemoryError(), 2, "Error: not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 2, "Error: not enough memory"),
    ],
)
def test_other_trouble_is_one_line_too(capsys: pytest.CaptureFixture[str], error: Exception, status: int, words: str) -> None:
    import typer

    with pytest.raises(typer.Exit) as stop, plain_errors():
        raise error
    assert stop.value.exit_code == status
    assert capsys.readouterr().err.startswith(words)


@pytest.mark.parametrize("error", [RuntimeError("shape"), ValueError("bug")])
def test_a_fault_of_the_program_is_not_hidden(error: Exception) -> None:
    with pytest.raises(type(error)), plain_errors():
        raise error


def test_where_nobody_reads_on_a_program_ends_as_others_do() -> None:
    code = (
        "import sys, typer; from circuits.cli.app import app; from circuits.cli.text import one_line\n"
        "app.command('many')(lambda: [typer.echo('line') for _ in range(100_000)] and None)\n"
        "sys.argv = ['circuits', 'many']; app()"
    )
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert first.stdout is not None and first.stdout.readline() == b"line\n"
    first.stdout.close()
    assert first.wait(HANGS) == 141 and first.stderr is not None and first.stderr.read() == b""
    first.stderr.close()


def test_an_aborted_question_is_one_line(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    from circuits.cli.settings import Setting

    def end(*args: object, **options: object) -> None:
        raise EOFError

    monkeypatch.setattr(Setting, "answer", end)
    answer = command("models")
    assert answer.status == 1 and answer.err.strip() == "Error: aborted"
