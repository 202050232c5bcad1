"""Running the command line, in this process and in one of its own, without a network."""

import fnmatch
import functools
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
import typer.testing
from typer.testing import CliRunner

import circuits
from circuits.cli import app, output
from circuits.concepts import texts
from circuits.errors import FileFormatError
from circuits.graph import Circuit, Graph
from circuits.lenses.neurons import report
from circuits.models import Model, TokenBatch, load_model
from circuits.progress import Progress
from circuits.report.kinds import KINDS, format_of, origin_in
from circuits.tasks.sources import corpus
from circuits.tasks.sources.corpus import written_text
from tests import HANGS
from tests.models import checkpoints

# Building all commands from their signatures takes longer than most of them run on a tiny model; they hold no state.
typer.testing._get_command = functools.cache(typer.testing._get_command)  # pyright: ignore[reportPrivateUsage]


class Answer:
    """Exit status, stdout and stderr of one command."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


Command = Callable[..., Answer]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses every connection."""

    def refuse(*args: object, **options: object) -> None:
        raise OSError("no network in the tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@functools.lru_cache(maxsize=8)
def loaded(name: str, device: str, dtype: torch.dtype, files: tuple[tuple[str, int, int], ...]) -> Model:
    """A model, which commands do not change; loaded anew where one of its files is another one."""
    return load_model(name, device=device, dtype=dtype)


@pytest.fixture(autouse=True)
def models_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in this process get the same model for the same words."""

    def load(name: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Model:
        there = [Path(name), *Path(name).rglob("*")] if Path(name).exists() else []
        files = ((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in there)
        return loaded(str(name), device, dtype, tuple(files))

    monkeypatch.setattr(circuits, "load_model", load)


_WRITTEN: dict[tuple, TokenBatch] = {}


@pytest.fixture(autouse=True)
def texts_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same model writes the same text for the same seed, which takes a second and is tested elsewhere."""

    def write(
        model: Model, *, count: int = 64, length: int = 64, seed: int = 0, progress: Progress | None = None
    ) -> TokenBatch:
        asked = (model.fingerprint, model.device, model.dtype, str(model.opening()), count, length, seed)
        if asked not in _WRITTEN:
            _WRITTEN[asked] = written_text(model, count=count, length=length, seed=seed, progress=progress)
        return _WRITTEN[asked]

    for module in (corpus, report, texts):
        monkeypatch.setattr(module, "written_text", write)


@pytest.fixture(autouse=True)
def files_are_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file that appears is one that its command says it may write: only those go before a later run's appear."""
    note = output.Parts._note_done

    def checked(self: output.Parts, names: Sequence[str], **changes: object) -> None:
        """Note them, if they are declared."""
        odd = [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.files)]
        assert not odd, f"{self.mark.command} does not say that it writes {', '.join(odd)}"
        note(self, names, **changes)

    monkeypatch.setattr(output.Parts, "_note_done", checked)


@pytest.fixture
def command() -> Command:
    """`command("heads", "--top", 3)` in this process."""

    def run(*arguments: object) -> Answer:
        words = [str(argument) for argument in arguments]
        before = results_of(words)
        result = CliRunner().invoke(app, words)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        for file in [file for file, when in results_of(words).items() if before.get(file) != when]:
            told = "circuits " if words[0] == "study" else f"circuits {words[0]}"
            assert origin_in(file).startswith(told), f"{file} does not tell the command line that saved it"
        return Answer(result.exit_code, result.stdout, result.stderr)

    return run


def results_of(words: list[str]) -> dict[Path, int]:
    """The saved results where a command line says that files go, each with when it was written."""
    place = Path(words[words.index("--out") + 1]) if "--out" in words[:-1] else None
    if place is None or words[0] == "export":
        return {}
    files = [one for one in (place, *place.rglob("*")) if one.suffix in (".json", ".safetensors") and one.is_file()]
    return {file: file.stat().st_mtime_ns for file in files if is_result(file)}


def is_result(file: Path) -> bool:
    """Whether a file is one of a result of the package, for itself and no other program."""
    try:
        return format_of(file) in KINDS
    except FileFormatError:
        return False


@pytest.fixture
def process() -> Command:
    """The same in a process of its own, as a shell starts it."""

    def run(*arguments: object) -> Answer:
        line = [sys.executable, "-m", "circuits", *map(str, arguments)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=HANGS, check=False)
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a GPT-2 of two layers with random weights."""
    directory = tmp_path_factory.mktemp("checkpoints") / "tiny"
    return checkpoints.save(checkpoints.build(*checkpoints.RECIPES["gpt2"]), directory)


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Path]:
    """A small circuit file, with text in it that a terminal or a markup language would obey."""
    circuit = Circuit(
        Graph(n_layers=2, n_heads=2, n_key_value_heads=2, d_mlp=8),
        {"a0.h1->a1.h0<k>": 0.5, "a1.h0->logits": -1.5, "input->a0.h1<v>": None},
        roles={"a0.h1": "previous token", "a1.h0": "[bold]induction[/bold] \x1b[31m"},
        metadata={"task": "induction", "model": "m", "summary": "two\nlines"},
    )
    path = tmp_path / "circuit.json"
    circuit.save(path)
    yield path
