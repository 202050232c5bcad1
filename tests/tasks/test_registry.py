"""The table of tasks: every row gives pairs that can be compared, and nothing else knows the rows."""

import pytest
import torch
from typer.testing import CliRunner

from circuits.cli import app
from circuits.models import Model
from circuits.tasks import TASKS, PromptPairs, metrics
from circuits.tasks.prompts import refuse_zero_gap
from tests.tasks.vocabularies import model


def asked(name: str) -> Model:
    """A model that can be asked: facts are mini's own, years are not among its tokens."""
    return model("mini" if name == "facts" else "byte pairs")


def drawn(name: str, count: int, seed: int) -> PromptPairs:
    return TASKS[name].pairs(asked(name), count, seed)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_gives_as_many_aligned_pairs_as_asked_for(name: str) -> None:
    task, pairs = TASKS[name], drawn(name, 6, 1)
    assert task.name == name and task.summary and "\n" not in task.summary
    assert len(pairs) == len(pairs.labels) == 6 and torch.equal(pairs.clean.mask, pairs.corrupt.mask)
    assert bool((pairs.clean.ids != pairs.corrupt.ids).any(dim=1).all()), "each pair differs"
    assert bool((pairs.answers != pairs.distractors).all())


@pytest.mark.parametrize("name", TASKS)
def test_the_seed_decides_and_a_smaller_count_gives_the_first(name: str) -> None:
    state = torch.random.get_rng_state()
    once, again, other, few = (drawn(name, *case) for case in ((6, 1), (6, 1), (6, 2), (1, 1)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert once.labels == again.labels and torch.equal(once.corrupt.ids, again.corrupt.ids)
    assert once.labels != other.labels and len(few) == 1


@pytest.mark.parametrize("name", TASKS)
def test_its_metric_tells_clean_from_corrupt(name: str) -> None:
    pairs, chosen = drawn(name, 6, 1), asked(name)
    metric = metrics.Metric.of(TASKS[name].metric(chosen, pairs))
    with torch.no_grad():
        runs = [chosen.run(side, keep="logits") for side in (pairs.clean, pairs.corrupt)]
    scores = [metric(metrics.answer_logits(run, pairs), pairs) for run in runs]
    refuse_zero_gap(*scores, pairs)


@pytest.mark.parametrize("command", ["discover", "patch"])
def test_the_command_line_lists_every_task(command: str) -> None:
    said = CliRunner().invoke(app, [command, "--task", "nonsense"])
    assert said.exit_code == 2 and all(name in said.output for name in TASKS)
    told = " ".join(CliRunner().invoke(app, [command, "--help"]).output.split())
    assert all(name in told for name in TASKS)
