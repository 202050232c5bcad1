"""Two writers of one place, and a disk that fills: every command is refused by name, before it computes."""

import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import circuits
from circuits.concepts import Dictionary
from circuits.files.staging import staging
from circuits.files.unfinished import marks
from tests.cli.conftest import Command
from tests.cli.test_text_options import COMMANDS
from tests.files.test_writing import small_disk as small_disk

WORDS = {
    "ablate": "m0",
    "attention labels": "SENTENCES",
    "compare": "CIRCUIT CIRCUIT",
    "compose": "m0.n1",
    "evaluate": "CIRCUIT",
    "explain": "m0.n1",
    "features attribute": "DICTIONARY --task facts",
    "features circuit": "DICTIONARY --task facts",
    "features graph": "DICTIONARY --prompt cat",
    "export": "CIRCUIT --to dot",
    "neuron": "m0.n1",
    "report": "CIRCUIT",
}
"""What a command cannot do without."""
FILES = {"behaviour": "scores.csv", "export": "circuit.dot", "heads": "scores.csv", "report": "page.html"}
"""Those that write one file."""
ELSEWHERE = {
    "classify": "writes nothing",
    "features dictionary": "reads its dictionary first",
    "lens train": "one file and its lock: tests/lenses/test_tuned_resumption.py",
}
WRITE = sorted(name for name, one in COMMANDS.items() if any("--out" in parameter.opts for parameter in one.params))
SENTENCE = "1\tWhy\twhy\tADV\t_\t_\t0\troot\t_\t_\n\n"


@pytest.mark.parametrize("name", [name for name in WRITE if name not in ELSEWHERE])
def test_the_second_writer_of_a_place_is_refused_by_name(command: Command, saved: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    place = out / FILES[name] if name in FILES else out
    (tmp_path / "sentences.conllu").write_text(SENTENCE)
    parts = (torch.zeros(2, 3), torch.zeros(2), torch.zeros(2, 3), torch.zeros(3), torch.zeros(2))
    Dictionary("none", "resid1", "relu", 0, *parts).save(tmp_path / "dictionary.safetensors")
    places = {"CIRCUIT": str(saved), "SENTENCES": str(tmp_path / "sentences.conllu")}
    places["DICTIONARY"] = str(tmp_path / "dictionary.safetensors")
    words = [places.get(word, word) for word in WORDS.get(name, "").split()]
    with staging(out, names=["*"], who="circuits of another run"):
        answer = command(*name.split(), *words, "--out", place)
        assert answer.status == 2 and answer.out == ""
        last = answer.err.replace("\r", "\n").splitlines()[-1]
        assert last.startswith(f"Error: {out}: another run is writing ") and "(circuits of another run): wait for it" in last
        assert len(list(out.iterdir())) == 2, "nothing of its own is left there"


@pytest.fixture
def filling(monkeypatch: pytest.MonkeyPatch, small_disk: Path) -> None:
    """The search for induction heads writes its first part, and then somebody else fills the disk."""

    def search(model: circuits.Model, *, found: Callable[[Any], None], **options: object) -> None:
        scores = circuits.score_heads(model, seed=0)
        found(scores)
        try:
            with (small_disk / "of somebody else").open("wb", buffering=0) as file:
                while True:
                    file.write(b"a" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC
        found(scores)
        raise AssertionError("there was room")

    monkeypatch.setattr(circuits, "find_induction_circuit", search)


def test_a_disk_that_fills_under_a_run_is_named(command: Command, tiny: Path, small_disk: Path, filling: None) -> None:
    out = small_disk / "out"
    answer = command("induction", "--model", tiny, "--out", out, "--sequences", 2)
    assert answer.status == 2
    last = answer.err.splitlines()[-1]
    assert last.startswith(f"Error: {out}") and "the disk is full" in last and "are free)" in last
    assert f"saved in {out}, marked by unfinished-induction.json: head_scores.csv" in last
    assert {path.name for path in out.iterdir()} == {"head_scores.csv", "heads.png", "unfinished-induction.json"}
    ((_, mark),) = marks(out)
    assert "No space left" in mark.ended and set(mark.done) == {"head_scores.csv", "heads.png"}


def test_a_disk_without_room_is_refused_before_anything_runs(
    command: Command, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small_disk / "filler").write_bytes(b"a" * 900_000)
    monkeypatch.setattr(circuits, "load_model", None)
    for name in ("induction", "discover", "trace", "study"):
        answer = command(name, "--out", small_disk / "out")
        assert answer.status == 2 and answer.out == ""
        (line,) = answer.err.splitlines()
        assert line.startswith(f"Error: {small_disk / 'out'}: the files need about ") and re.search(r"14\d kB are free", line)
        assert line.endswith("name another folder with --out") and [one.name for one in small_disk.iterdir()] == ["filler"]
