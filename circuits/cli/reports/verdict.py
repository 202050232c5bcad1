"""A verdict in words, and the search or the judging again; what `circuits discover` and `circuits evaluate` share."""

from circuits.cli.prompts import Behaviour
from circuits.cli.reports.measured import interval
from circuits.cli.settings import Work
from circuits.cli.text import filled
from circuits.files.words import counted
from circuits.search.judging.extent import NODES, JudgingTime
from circuits.search.judging.verdict import NOTHING, SIGNIFICANT, Verdict
from circuits.statistics import FEWEST
from circuits.tasks.metric import Metric, Relative

_LONG = 20.0
"""Seconds from which on it is said beforehand how long judging will take."""


def named(metric: Metric | Relative) -> str:
    """A metric's name in words."""
    return metric.name.replace("_", " ")


def asks(asked: Behaviour) -> str:
    """A line below a heading: what the corrupt prompts ask, where that is known."""
    return f"\nasks: {asked.prompts.question}" if asked.prompts.question else ""


def judged(verdict: Verdict) -> str:
    """A verdict in lines: its standing and why, then its summary."""
    return f"{standing(verdict)}\n{summed(verdict)}"


def summed(verdict: Verdict) -> str:
    """A verdict's summary in lines."""
    return filled(verdict.summary)


def standing(verdict: Verdict) -> str:
    """A verdict's standing and why, in one line."""
    one, word = verdict.faithfulness, verdict.standing
    chance = "not held against random circuits" if verdict.p_value is None else f"p = {verdict.p_value:.2g}"
    faithful = interval(one, verdict.evidence).removeprefix("+")
    why = {
        "proven": "better than chance, and at least half of the behaviour within the interval",
        "partial": "better than chance, but less than half of the behaviour may be in it",
        "unproven": _unproven(verdict),
    }[word]
    return f"{word.capitalize()}: faithfulness {faithful}, {chance} ({why})"


def announced(time: JudgingTime, work: Work) -> None:
    """Say on stderr how long judging will take, where that is long, and how to be asked for less."""
    if time.total < _LONG:
        return
    less = "" if NODES not in time.seconds else f"; --no-minimality leaves out {NODES}"
    work.progress.say(f"{time.summary}{less}", err=True)


def _unproven(verdict: Verdict) -> str:
    """Why a verdict proves nothing: the first reason that holds."""
    most = verdict.metadata.get("random_circuits", len(verdict.null))
    least, one = 1 / (1 + most), verdict.faithfulness
    if verdict.evidence < FEWEST:
        share = "" if verdict.evidence == verdict.prompts else ", since pairs that share a prompt count as one"
        return f"only {counted(verdict.evidence, 'independent prompt')}{share}: it takes {FEWEST} or more"
    if verdict.p_value is None:
        return "random circuits would tell what chance does"
    if least > SIGNIFICANT:
        return f"p cannot fall below {least:.2g} with {most} random circuits: draw 19 or more"
    if verdict.p_value > SIGNIFICANT:
        return "chance does as well"
    return "next to nothing is kept" if one.effect < NOTHING else "the interval reaches down to nothing"


def again(asked: Behaviour, *, seed: int, usual: int = 0, count: int = 64) -> list[str]:
    """The words of a command line about the same prompts; `seed`: but those of this seed, where `usual` is the command's own,
    as `count` is."""
    one = asked.prompts
    words = ["--task", one.task or str(one.prompts)]
    words += [] if asked.metric is None else ["--metric", asked.metric]
    words += [] if one.count in (None, count) else ["--count", str(one.count)]
    words += [] if one.several is None else ["--several", one.several]
    words += ["--skip-bad"] if one.skip_bad else []
    return [*words, *(["--seed", str(seed)] if one.task is not None and seed != usual else [])]
