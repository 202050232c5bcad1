"""Every option of every command that names a file to read: one line, with the file's name and the byte that is no UTF-8."""

import inspect
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from circuits.cli import app
from tests.cli.conftest import Command

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
WRITTEN = {"out", "keep", "statistics"}
"""Where files go."""
TENSORS = {"files", "classifier", "before", "after", "tuned", "dictionary", "edits"}
"""Files of numbers: no text."""


def file_options(name: str) -> Iterator[tuple[str, str, str]]:
    """The parameters of a command that name files: parameter, as it is written, metavar."""
    command = COMMANDS[name]
    annotations = {one.name: one.annotation for one in inspect.signature(command.callback).parameters.values()}
    for parameter in command.params:
        metavar = str(getattr(parameter, "metavar", None))
        is_path = Path in named_in(annotations.get(parameter.name))
        if parameter.name not in WRITTEN and not getattr(parameter, "hidden", False) and (is_path or "FILE" in metavar):
            yield parameter.name, parameter.opts[0] if parameter.param_type_name == "option" else "", metavar


def named_in(annotation: object) -> set[object]:
    """Every type that an annotation names."""
    parts = typing.get_args(annotation)
    return (
        {annotation} if not parts else set().union(*map(named_in, parts[:1] if hasattr(annotation, "__metadata__") else parts))
    )


CASES = [(name, *option) for name in COMMANDS for option in file_options(name)]
BAD, BYTE = b'{"a": "\xff"}\n', "byte 7 cannot be decoded"
LABELLED = b'{"text": "a fine film", "label": "good"}\n{"text": "a dull film", "label": "bad"}\n'
NEEDS: dict[tuple[str, str], str] = {
    **{(name, "test"): "--data LABELLED" for name in COMMANDS if name.startswith("classify ")},
    ("ablate", "prompts"): "m0",
    ("classify feedback", "feedback"): "--classifier CIRCUIT",
    ("classify inside", "before"): "--after CIRCUIT",
    ("classify inside", "after"): "--before CIRCUIT",
    ("classify inside", "data"): "--words film",
    ("classify inside", "test"): "--data LABELLED --words film",
    ("classify report", "test"): "--data LABELLED",
    ("compare", "a"): "CIRCUIT",
    ("compare", "b"): "CIRCUIT",
    ("compose", "concepts"): "m0.n1",
    ("compose", "text"): "m0.n1",
    ("concept", "classifier"): "--target good",
    ("concept", "data"): "--classifier CIRCUIT --target good",
    ("evaluate", "task"): "CIRCUIT",
    ("explain", "text"): "m0.n1",
    ("export", "file"): "--to dot",
    ("features dictionary", "text"): "CIRCUIT",
    ("features graph", "files"): "--prompt a",
    ("lens train", "text"): "lens.safetensors",
    ("neuron", "text"): "m0.n1",
    ("symmetry", "text"): "--swap a,b",
}
"""What must stand before an option, so that its file is read."""
ELSEWHERE = {
    **{
        (name, "edits"): "shared by all, read as the model loads: tests/cli/test_edit.py"
        for name, one, *_ in CASES
        if one == "edits"
    },
    ("behaviour", "open_file"): "a file that was written",
    ("classify feedback", "feedback"): "the classifier comes first: tests/uses/test_feedback.py",
    ("classify inside", "after"): "as --before",
    ("classify inside", "control"): "as --before",
    ("concept", "data"): "as the --data of others",
    ("features attribute", "prompts"): "the dictionary comes first",
    ("features circuit", "prompts"): "the dictionary comes first",
    ("features dictionary", "file"): "numbers",
    ("features dictionary", "text"): "the dictionary comes first",
    ("lens train", "file"): "a file that is written",
    ("neurons", "open_file"): "numbers",
    ("models", "convert"): "weights: tests/models/test_native_files.py",
}
"""What is not asked here, and why."""


@pytest.mark.parametrize("name", sorted({name for name, *_ in CASES}))
def test_a_byte_that_is_no_text_is_named_in_one_line(
    command: Command, tiny: Path, saved: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labelled.jsonl").write_bytes(LABELLED)
    for suffix in (".json", ".safetensors"):
        (tmp_path / f"bad{suffix}").write_bytes(BAD)
    places = {"CIRCUIT": str(saved), "LABELLED": "labelled.jsonl"}
    with_model = name != "export" and any("--model" in one.opts for one in COMMANDS[name].params)
    for parameter, option, _ in file_options(name):
        if (name, parameter) in ELSEWHERE:
            continue
        bad = "bad.safetensors" if parameter in TENSORS else "bad.json"
        before = [places.get(word, word) for word in NEEDS.get((name, parameter), "").split()]
        model = ["--model", tiny] if with_model and parameter != "open_file" else []
        given = [option, bad] if option else [bad]
        answer = command(*name.split(), *(given + before if parameter == "a" else before + given), *model)
        lines = [line for line in answer.err.replace("\r", "\n").splitlines() if "/1" not in line and line.strip()]
        assert answer.status == 2 and answer.out == "" and len(lines) == 1, (option, lines)
        assert lines[0].startswith("Error: ") and bad in lines[0], (option, lines)
        assert parameter in TENSORS or BYTE in lines[0], (option, lines)
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir()), option


def test_what_is_left_out_is_there() -> None:
    assert {(name, parameter) for name, parameter, *_ in CASES} >= {*ELSEWHERE, *NEEDS}
    assert len(CASES) - len(ELSEWHERE) > 100
