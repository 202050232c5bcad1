"""A training of a tuned lens that was stopped or killed goes on to the same bytes; others are kept out."""

import dataclasses
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from circuits.errors import FileFormatError, ModelError
from circuits.lenses import TunedLens, compare_lenses, logit_lens
from circuits.models import TokenBatch
from circuits.runs.journal import _unframed
from circuits.runs.payload import decoded
from tests.lenses.test_tuned_lens import random_model, train
from tests.models.random_models import D_VOCAB


class StoppedError(Exception):
    """The process ends here."""


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is kept after every step."""
    monkeypatch.setattr("circuits.runs.runner._SECONDS", 0.0)
    monkeypatch.setattr("circuits.runs.runner._SHARE", 0)


def states(folder: Path) -> list[Path]:
    """What unfinished trainings have left."""
    return sorted(folder.glob("unfinished-*"))


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("stops", [[1], [2], [3, 6], [5], [6]])
def test_stopped_and_gone_on_with_is_the_same_to_the_byte(tmp_path: Path, stops: list[int]) -> None:
    model, batch = random_model(3)
    whole = train(model, batch, path=tmp_path / "whole.safetensors")
    path = tmp_path / "stopped.safetensors"
    for stop in stops:

        def progress(what: str, done: int, total: int, stop: int = stop) -> None:
            if done == stop:
                raise StoppedError

        with pytest.raises(StoppedError):
            train(model, batch, path=path, progress=progress)
        assert not path.exists()
    told: list[int] = []
    again = train(model, batch, path=path, progress=lambda what, done, total: told.append(done))
    assert told[0] == stops[-1] - 1, "the step that was stopped is taken again, and none before it"
    assert path.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert torch.equal(again.A, whole.A) and len(again.losses) == 7
    assert torch.equal(train(model, batch, path=path).A, whole.A), "a finished training is not done again"
    assert not list(tmp_path.glob(".*"))


def test_fast_steps_are_not_kept_one_by_one(tmp_path: Path) -> None:
    model, batch = random_model(3)

    def progress(what: str, done: int, total: int) -> None:
        if done == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(model, batch, path=tmp_path / "quick.safetensors", progress=progress)
    assert not list(tmp_path.iterdir()), "no work is worth keeping, and nothing stays"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in the processes that are killed: the same bytes are promised for the same number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def killed_after(steps: int, rest: float, train_on: Callable[[Callable[[str, int, int], None]], object]) -> bool:
    """Train in a process that is killed some seconds after so many steps; whether it was still at it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            train_on(lambda what, done, total: os.write(writing, b"."))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    for _ in range(steps + 1):  # the first is told before any step
        os.read(reading, 1)
    time.sleep(rest)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    os.close(reading)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the training failed"
    return os.WIFSIGNALED(status)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.usefixtures("one_thread", "every_step")
def test_killed_twelve_times_and_gone_on_with_is_the_same_to_the_byte(tmp_path: Path) -> None:
    model, batch = random_model(3)
    path, whole, rng = tmp_path / "killed.safetensors", tmp_path / "whole.safetensors", random.Random(0)
    options, taken = {"steps": 100}, [0]
    started = time.monotonic()
    train(model, batch, path=whole, **options)
    step = (time.monotonic() - started) / 100
    for _ in range(12):
        killed = killed_after(
            rng.randrange(3), rng.uniform(0, 2 * step), lambda told: train(model, batch, path=path, progress=told, **options)
        )
        assert killed, "it ended before it could be killed"
        for _, data in filter(None, map(_unframed, tmp_path.glob("unfinished-*.state"))):
            taken.append(decoded(data)[0])
            assert taken[-1] >= taken[-2], "no step is lost"
    assert 5 < taken[-1] < 100
    train(model, batch, path=path, **options)
    assert path.read_bytes() == whole.read_bytes()
    assert sorted(tmp_path.iterdir()) == [path, whole], "nothing half written stays"


def test_a_second_writer_is_refused_while_the_first_one_trains(tmp_path: Path) -> None:
    model, batch = random_model(3)
    path, refused = tmp_path / "tuned.safetensors", []

    def progress(what: str, done: int, total: int) -> None:
        with pytest.raises(FileFormatError, match="another process is writing it"):
            train(model, batch, path=path)
        refused.append(done)

    train(model, batch, path=path, progress=progress)
    assert sorted({*refused}) == list(range(8)) and sorted(tmp_path.iterdir()) == [path]
    with pytest.raises(FileFormatError, match="cannot be written: No such file"):
        train(model, batch, path=tmp_path / "nowhere" / "tuned.safetensors", progress=pytest.fail)


def test_the_seed_alone_decides(tmp_path: Path) -> None:
    model, batch = random_model(4)
    state = torch.random.get_rng_state()
    one, two, other = train(model, batch), train(model, batch), train(model, batch, seed=6)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one.A, two.A) and not torch.equal(one.A, other.A)
    assert bool(torch.equal(train(model, batch, path=tmp_path / "x.safetensors").A, one.A))


def test_another_training_and_another_model_are_refused_by_name(tmp_path: Path) -> None:
    model, batch = random_model(4)
    path = tmp_path / "tuned.safetensors"
    lens = train(model, batch, path=path)
    before = path.read_bytes()
    for options, words in (({"steps": 9}, "steps is 7 there and 9 here"), ({"seed": 1}, "seed is 5"), ({"rate": 0.5}, "rate")):
        with pytest.raises(FileFormatError, match=words):
            train(model, batch, path=path, **options)
    with pytest.raises(FileFormatError, match="text is"):
        train(model, batch[[0, 1, 2]], path=path)
    with pytest.raises(FileFormatError, match="text is"):
        train(model, TokenBatch((batch.ids + 1) % D_VOCAB, batch.mask), path=path)
    assert path.read_bytes() == before
    moved = dataclasses.replace(model.weights, W_U=model.weights.W_U * 1.001)
    other = dataclasses.replace(model, name="another", weights=moved)
    for attempt in (lambda: TunedLens.load(path, other), lambda: logit_lens(other, batch, tuned=lens)):
        with pytest.raises(ModelError, match=r"was trained for random .* not for another"):
            attempt()
    with pytest.raises(ModelError, match="not for another"):
        compare_lenses(other, batch, lens)
    with pytest.raises(ModelError, match="not for another"):
        train(other, batch, path=path)
    assert TunedLens.load(path, model).model == "random"


@pytest.mark.usefixtures("every_step")
def test_what_was_stopped_is_not_gone_on_with_on_other_weights(tmp_path: Path) -> None:
    model, batch = random_model(4)
    path = tmp_path / "tuned.safetensors"

    def progress(what: str, done: int, total: int) -> None:
        if done == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(model, batch, path=path, progress=progress)
    tensors = dict(model.weights.tensors())
    name = next(name for name in tensors if "W_out" in name)  # not what the lens is bound to
    other = dataclasses.replace(model, weights=model.weights.with_tensors({name: tensors[name] * 1.001}))
    for attempt in (lambda: train(other, batch, path=path), lambda: train(model, batch, path=path, seed=6)):
        with pytest.raises(FileFormatError, match="is of another run"):
            attempt()
    assert len(train(model, batch, path=path).losses) == 7
