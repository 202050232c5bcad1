"""Reports say on how many prompts a position was there to be measured."""

import torch

from circuits.cli.reports.measured import prompts_of
from circuits.cli.reports.patch import patch_report
from circuits.patching import Ablation, Effects

ABOUT = {"model": "mini", "metric": "logit_difference", "patched": "nodes", "source": "file pairs.json"}


def effects(having: torch.Tensor | None) -> Effects:
    ends = torch.tensor([2.0, 3.0, 4.0]).double(), torch.zeros(3).double()
    scores = torch.tensor([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]]).double()
    return Effects(("m0@4", "m0@last"), scores, *ends, "denoising", ("a", "b", "c"), ABOUT, having=having)


def test_a_report_of_patches_counts_the_prompts_that_have_each_position() -> None:
    there = torch.tensor([[False, True, True], [True, True, True]])
    report = patch_report(effects(there), {}, 5)
    table = report.parts[0]
    assert table.header[-1] == "prompts that have the position"
    assert {row[0]: row[-1] for row in table.rows} == {"m0@4": "2 of 3", "m0@last": "3 of 3"}
    assert {row["patch"]: row["prompts"] for row in report.data["effects"]} == {"m0@4": 2, "m0@last": 3}
    assert {row["patch"]: row["effect"] for row in report.data["effects"]} == {"m0@4": 3 / 7, "m0@last": 1 / 3}


def test_nothing_is_said_of_positions_that_every_prompt_has() -> None:
    report = patch_report(effects(None), {}, 5)
    assert len(report.parts[0].header) == 2 and "prompts" not in report.data["effects"][0]


def test_a_report_of_ablations_says_how_many_prompts_lack_the_position() -> None:
    scores = torch.tensor([[1.0, 2.0]]).double()
    found = Ablation(("m0@4",), scores, scores[0] + 1, ("b", "c"), {**ABOUT, "without_position": 1})
    assert prompts_of(found) == "2 prompts (file pairs.json), 1 without the position left out"
