"""The table of tasks: every row gives pairs that can be compared, and nothing else knows the rows."""

import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from circuits.cli import app
from circuits.errors import PromptError
from circuits.models import Model
from circuits.tasks import TASKS, PromptPairs, known_circuit, metrics, task
from circuits.tasks.gaps import refuse_zero_gap
from circuits.tasks.registry import CORRUPTIONS, is_task
from tests.tasks.vocabularies import model


def asked(name: str) -> Model:
    """A model that can be asked: facts are mini's own, years are not among its tokens."""
    return model("mini" if name == "facts" else "byte pairs")


def drawn(name: str, count: int, seed: int) -> PromptPairs:
    return task(name).pairs(asked(name), count, seed)


@pytest.mark.parametrize("name", [*TASKS, *CORRUPTIONS])
def test_a_task_gives_as_many_aligned_pairs_as_asked_for(name: str) -> None:
    found, pairs = task(name), drawn(name, 6, 1)
    assert found.name == name and found.summary and "\n" not in found.summary
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
    refuse_zero_gap(scores[0], scores[1], pairs)


@pytest.mark.parametrize("command", ["discover", "patch"])
def test_the_command_line_lists_every_task(command: str) -> None:
    said = CliRunner().invoke(app, [command, "--task", "nonsense"])
    assert said.exit_code == 2 and all(name in said.output for name in TASKS)
    told = " ".join(CliRunner().invoke(app, [command, "--help"]).output.split())
    assert all(name in told for name in TASKS)


def test_every_task_says_in_one_line_and_in_the_docs_which_question_it_asks() -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([\w:-]+)` \| (.*) \|$", page, flags=re.MULTILINE))
    assert listed == {name: one.question for name, one in {**TASKS, **CORRUPTIONS}.items()}
    assert all(one.question and len(f"asks: {one.question}") <= 128 and one.question.isprintable() for one in TASKS.values())
    assert task("facts:country_capital").question == TASKS["facts"].question


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_another_corruption_changes_the_corrupt_prompts_alone(name: str) -> None:
    """The clean prompts are the task's own, so that circuits for two questions can be held against each other."""
    kind = name.partition(":")[0]
    one, other = drawn(name, 6, 1), drawn(kind, 6, 1)
    assert torch.equal(one.clean.ids, other.clean.ids) and not torch.equal(one.corrupt.ids, other.corrupt.ids)
    assert CORRUPTIONS[name].question != TASKS[kind].question


def test_a_corruption_that_does_not_exist_is_refused_with_those_that_do() -> None:
    assert task("ioi:abc") is TASKS["ioi"]
    assert known_circuit("ioi:swap") is known_circuit("ioi")
    with pytest.raises(PromptError, match="no task 'ioi:noise'; expected ioi:abc, ioi:swap, ioi:third"):
        task("ioi:noise")
    with pytest.raises(PromptError, match="no task 'agreement:swap': agreement has one kind of corrupt prompts"):
        task("agreement:swap")


def test_pronouns_are_asked_for_by_their_short_name_too() -> None:
    assert task("pronouns") is task("gendered-pronoun") and is_task("pronouns")
