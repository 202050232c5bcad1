"""Long jobs that are stopped go on where they were: the same results, and no shard is computed twice."""

import contextlib
import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import circuits
from circuits.models import Model, TokenBatch
from circuits.probes.fitting import Asked, Judged
from circuits.probes.probing import judge_places
from circuits.probes.splitting import Split
from circuits.progress import Progress
from circuits.runs.journal import Journal
from circuits.runs.ledger import Ledger
from circuits.runs.runner import Own, Runner, joining
from circuits.tasks import score_facts
from circuits.tasks.behavioural.likelihood import token_log_probabilities
from tests.models.random_models import random_shape, random_weights, record_of

Job = Callable[[Progress], list[torch.Tensor]]


def _random_model() -> Model:
    """A random model with MLPs."""
    rng = random.Random(0)
    while True:
        shape = random_shape(rng)
        model = Model("random", "random", record_of(shape, random_weights(shape, rng)), None, bos=0)
        if model.d_mlp:
            return model


def _kept(path: Path, job: Job, stop: int | None) -> tuple[list[torch.Tensor], int, int]:
    """What a job finds, how many shards it computed, and how many were there; stopped when `stop` of them are."""
    ledger = Ledger(lambda: Journal.open(path, {}))
    resumed = len(ledger.journal)

    def stopping(what: str, done: int, total: int) -> None:
        if stop is not None and len(ledger.journal) >= stop:
            raise KeyboardInterrupt

    found = list[torch.Tensor]()
    try:
        with joining(Runner(Own(ledger))), contextlib.suppress(KeyboardInterrupt):
            found = job(stopping)
        return found, sum(ledger.computed.values()), resumed
    finally:
        ledger.close(remove=False)


def _goes_on(tmp_path: Path, job: Job) -> None:
    plain = job(lambda what, done, total: None)
    whole, count, _ = _kept(tmp_path / "whole", job, None)
    assert count > 2
    nothing, first, _ = _kept(tmp_path / "part", job, 2)
    again, rest, resumed = _kept(tmp_path / "part", job, None)
    assert not nothing and first == resumed >= 2 and first + rest == count
    for found in (whole, again):
        assert len(found) == len(plain) and all(map(torch.equal, found, plain))
    assert (tmp_path / "part").stat().st_size and _kept(tmp_path / "whole", job, None)[1] == 0


def test_triggers_of_neurons(tmp_path: Path) -> None:
    model = _random_model()
    tokens = TokenBatch.from_rows(torch.randint(5, (64, 6), generator=torch.Generator().manual_seed(0)).tolist())

    def job(progress: Progress) -> list[torch.Tensor]:
        found = circuits.find_triggers(model, tokens, top=3, lowest=True, batch=2, progress=progress)
        assert found.lowest is not None
        kept = [found.highest.values, found.highest.prompts, found.highest.positions, found.lowest.values]
        return [*kept, found.mean, found.active]

    _goes_on(tmp_path, job)
    alone = circuits.find_triggers(model, tokens, top=3, lowest=True, batch=64)  # one part
    assert torch.equal(alone.highest.prompts, job(lambda what, done, total: None)[1])


def test_log_probabilities_of_text(tmp_path: Path) -> None:
    model, rows = _random_model(), [[1, 2, 3, 4][:width] for width in (1, 2, 3, 4)]
    _goes_on(tmp_path, lambda progress: token_log_probabilities(model, rows, budget=1, progress=progress))


def test_facts(tmp_path: Path) -> None:
    mini = circuits.load_model("mini")
    small = dataclasses.replace(mini, weights=mini.weights.of_layers(0, 1), make_bridge=None)
    facts = circuits.tasks.mini_facts()[:12]

    def job(progress: Progress) -> list[torch.Tensor]:
        return list(score_facts(small, facts, budget=2**22, progress=progress).values.values())

    _goes_on(tmp_path, job)


def test_probes_place_by_place(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x = {f"resid{layer}": torch.randn(60, 4, generator=generator) for layer in range(4)}
    labels, rows = torch.arange(60) % 3, torch.arange(60)
    split = Split(rows[:40], rows[40:50], rows[50:])
    asked = Asked(labels, 3, rows // 5, (labels.roll(1),), (split,), (torch.ones(10, dtype=torch.bool),))

    def job(progress: Progress) -> list[torch.Tensor]:
        judged: list[Judged] = judge_places(x.__getitem__, list(x), asked, "probing", progress)
        return [part for one in judged for part in (one.answers, one.right, one.probe.weights, torch.tensor(one.bits))]

    _goes_on(tmp_path, job)


def test_acdc_reader_by_reader(tmp_path: Path) -> None:
    model = _random_model()
    generator = torch.Generator().manual_seed(0)
    clean, corrupt = (TokenBatch.from_rows(torch.randint(5, (3, 4), generator=generator).tolist()) for _ in range(2))
    pairs = circuits.PromptPairs(clean, corrupt, torch.tensor([1, 2, 3]), torch.tensor([0, 1, 2]), torch.tensor([3, 3, 3]))

    def job(progress: Progress) -> list[torch.Tensor]:
        found = circuits.search.acdc_thresholds(model, pairs, [0.001, 0.01, 0.1], connected=False, progress=progress)
        assert len({len(one) for one in found}) == 3
        scores = [list(one.edges.values()) for one in found]
        counts = [one.metadata["evaluations"] for one in found]
        return [torch.tensor(one, dtype=torch.float64) for one in (*scores, counts)]

    _goes_on(tmp_path, job)


@pytest.mark.parametrize("parts", [1, 5])
def test_the_largest_of_parts_are_those_of_all(parts: int) -> None:
    from circuits.lenses.neurons.highest import Highest

    block = torch.randint(0, 9, (50, 7), generator=torch.Generator().manual_seed(1)).float()
    whole, joined = (Highest(7, 4, dtype=torch.float32, device=torch.device("cpu")) for _ in range(2))
    whole.add(block, torch.arange(50))
    for rows in torch.arange(50).chunk(parts):
        one = Highest(7, 4, dtype=torch.float32, device=torch.device("cpu"))
        one.add(block[rows], rows)
        joined.join(one.values, one.places)
    assert torch.equal(whole.values, joined.values) and torch.equal(whole.places, joined.places)
