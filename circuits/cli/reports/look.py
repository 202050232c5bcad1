"""What a look at the prompts found, as reports and programs say it."""

from collections.abc import Mapping
from typing import Any

from circuits.cli.text import filled, one_line
from circuits.tasks import PromptReport


def figures(report: PromptReport, *, positions: bool = False) -> dict[str, Any]:
    """The counts, the summary and the advice as plain values; `positions`: whether columns are asked about."""
    return {
        "prompts": len(report),
        "drawn": report.drawn,
        "right": len(report.right),
        "above_on_clean": len(report.preferred),
        "below_on_corrupt": int((report.corrupt < 0).sum()),
        "summary": report.summary,
        "advice": list(report.advice(positions=positions)),
    }


def looked(found: Mapping[str, Any]) -> str:
    """The summary in a line or two, and a line for each thing that calls for something."""
    return "\n".join([filled(f"Prompts: {found['summary']}"), *(filled(f"! {line}") for line in found["advice"])])


def warned(report: PromptReport, *, positions: bool = False) -> list[str]:
    """What is said before the run: the advice alone."""
    return [one_line(f"prompts: {line}") for line in report.advice(positions=positions)]
