"""The tasks by the names that the command line gives them, each with its pairs and its own metric."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

from circuits.errors import PromptError, shown
from circuits.models import Model
from circuits.progress import Progress
from circuits.tasks.library.agreement import agreement
from circuits.tasks.library.docstring import docstring, docstring_metric
from circuits.tasks.library.facts import fact_pairs, mini_facts
from circuits.tasks.library.gendered_pronouns import gendered_pronouns
from circuits.tasks.library.greater_than import greater_than, greater_than_metric
from circuits.tasks.library.induction import induction
from circuits.tasks.library.ioi import ioi
from circuits.tasks.library.multiple_choice import LABELS, Labels, multiple_choice
from circuits.tasks.metric import Metric
from circuits.tasks.metrics import logit_difference
from circuits.tasks.prompts import PromptPairs
from circuits.tasks.readings import Drawn, draw_right
from circuits.tasks.sources.readers import Fact


def _logit_difference(model: Model, pairs: PromptPairs) -> Metric:
    return logit_difference


def _facts(model: Model, count: int, seed: int) -> PromptPairs:
    return _some_of(model, mini_facts(), count, seed)


def _some_of(model: Model, facts: tuple[Fact, ...], count: int, seed: int) -> PromptPairs:
    """Pairs of the package's own facts; nobody gave those that find no partner."""
    return dataclasses.replace(fact_pairs(model, facts, count=count, seed=seed), left_out={})


@dataclasses.dataclass(frozen=True)
class Task:
    """A behaviour to ask about: `pairs(model, count, seed)` gives prompts, `metric(model, pairs)` its default metric."""

    name: str
    summary: str
    pairs: Callable[[Model, int, int], PromptPairs]
    metric: Callable[[Model, PromptPairs], Metric] = _logit_difference
    known: bool = False
    """Whether it asks for one certain answer that a model may not know: `draw` then keeps the prompts that it gets right."""
    question: str = ""
    """What its corrupt prompts ask of a circuit: what differs between the two prompts, and what is the same in both, so that
    edges outside the circuit carry it too."""

    def draw(self, model: Model, count: int, seed: int = 0, *, progress: Progress | None = None) -> Drawn:
        """`count` pairs; of a task that asks for what a model knows, such as the model gets right, and how many were drawn for
        them (`Drawn.count`). Raises PromptError as `pairs` does."""
        if not self.known:
            return Drawn(self.pairs(model, count, seed))
        return draw_right(model, self.pairs, count, seed, progress=progress)


_IOI = "which of two people is given something (Wang et al. 2022)"
_INDUCTION = "what followed this token the last time (Olsson et al. 2022)"
_DOCSTRING = "the argument to document next (Heimersheim and Janiak 2023)"
_CHOICE = "the letter of the choice that was asked for (Lieberum et al. 2023)"
_FACTS = "whose attribute it is; what is asked of the subject is the same in both prompts"

_ALL = (
    Task(
        "induction",
        _INDUCTION,
        induction,
        question="which token followed; where it stood is the same in both prompts, so what finds it is not asked for",
    ),
    Task(
        "induction:prefix",
        _INDUCTION,
        functools.partial(induction, differ="prefix"),
        question="where this token stood before; in the corrupt prompt it did not, and what followed is the same in both",
    ),
    Task(
        "ioi",
        _IOI,
        ioi,
        known=True,
        question="who the people are and who gives, at all; the corrupt prompt has three other names, so names count too",
    ),
    Task(
        "ioi:swap",
        _IOI,
        functools.partial(ioi, corruption="swap"),
        known=True,
        question="which of the two is the giver; in the corrupt prompt the other one gives, the people are the same in both",
    ),
    Task(
        "ioi:third",
        _IOI,
        functools.partial(ioi, corruption="third"),
        known=True,
        question="whether the giver is one of the two; in the corrupt prompt somebody else gives, the two are the same in both",
    ),
    Task(
        "greater-than",
        "a span ends in a later year (Hanna et al. 2023)",
        greater_than,
        greater_than_metric,
        question="which year the span began in; in the corrupt prompt it is 01, after which nearly every year is later",
    ),
    Task(
        "docstring",
        _DOCSTRING,
        docstring,
        docstring_metric,
        question="which argument is due; the corrupt prompt has other names, both in the definition and in the docstring",
    ),
    Task(
        "docstring:random_answer",
        _DOCSTRING,
        functools.partial(docstring, corruption="random_answer"),
        docstring_metric,
        question="what the argument that is due is called; which place it has is the same in both prompts",
    ),
    Task(
        "docstring:random_doc",
        _DOCSTRING,
        functools.partial(docstring, corruption="random_doc"),
        docstring_metric,
        question="which arguments were documented so far; all names in the definition are the same in both prompts",
    ),
    Task(
        "facts",
        "the attribute of a subject, from the table that mini knows",
        _facts,
        known=True,
        question=_FACTS,
    ),
    Task(
        "gendered-pronoun",
        "the pronoun that goes with a name (Mathwin et al. 2023)",
        gendered_pronouns,
        question="she or he; the corrupt prompt has a name that goes with the other",
    ),
    Task(
        "agreement",
        "the verb that goes with a subject's number (Linzen et al. 2016)",
        agreement,
        question="one or many; the corrupt prompt has the subject in the other number, the noun in between is the same in both",
    ),
    Task(
        "multiple-choice",
        _CHOICE,
        multiple_choice,
        known=True,
        question="which choice is right; in the corrupt prompt it stands at another letter, the words are the same in both",
    ),
    Task(
        "multiple-choice:labels",
        _CHOICE,
        functools.partial(multiple_choice, corruption="labels"),
        known=True,
        question="which letter the right choice has; in the corrupt prompt two letters changed places, the choices did not",
    ),
)

TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in _ALL if ":" not in task.name})
"""Every task by its name, with the corruption that it has unless told."""
CORRUPTIONS: Mapping[str, Task] = MappingProxyType({task.name: task for task in _ALL if ":" in task.name})
"""The same with other corrupt prompts, which ask something else: by names such as ioi:swap."""
_USUAL = {"induction": "answer", "ioi": "abc", "docstring": "random", "multiple-choice": "choices"}
"""What the corruption of a task that has several is called where none is named."""


_ALSO = {"pronouns": "gendered-pronoun"}
"""Other names of tasks."""


def is_task(name: str) -> bool:
    """Whether a name is that of a task, or of one with a corruption or relation (which may be unknown)."""
    return _ALSO.get(name, name).partition(":")[0] in TASKS


def task(name: str) -> Task:
    """The task of that name. `facts:RELATION` (such as facts:country_capital) asks for one relation's facts, `ioi:swap` and
    others in `CORRUPTIONS` are tasks with other corrupt prompts; `multiple-choice:numbers` and the like have other labels
    (`multiple_choice.LABELS`). Raises PromptError, with all names, for another."""
    name = _ALSO.get(name, name)
    kind, _, which = name.partition(":")
    if kind == "facts" and which:
        return _relation(which)
    if kind not in TASKS:
        raise PromptError(f"no task {shown(name)}; expected one of {', '.join(TASKS)}")
    if ":" not in name or which == _USUAL.get(kind):
        return TASKS[kind]
    if kind == "multiple-choice" and which in LABELS:
        return _labelled(cast(Labels, which))
    if name not in CORRUPTIONS:
        others = [other for other in CORRUPTIONS if other.partition(":")[0] == kind]
        if not others:
            raise PromptError(f"no task {shown(name)}: {kind} has one kind of corrupt prompts")
        others += [f"{kind}:{labels}" for labels in LABELS if kind == "multiple-choice"]
        raise PromptError(f"no task {shown(name)}; expected {', '.join([f'{kind}:{_USUAL[kind]}', *others])}")
    return CORRUPTIONS[name]


def _labelled(labels: Labels) -> Task:
    usual = TASKS["multiple-choice"]
    pairs = functools.partial(multiple_choice, labels=labels)
    return dataclasses.replace(usual, name=f"multiple-choice:{labels}", pairs=pairs)


def _relation(relation: str) -> Task:
    try:
        facts = mini_facts(relation=relation)
    except KeyError:
        known = ", ".join(sorted({fact.relation for fact in mini_facts()}))
        raise PromptError(f"no relation {shown(relation)} among {known}") from None

    def pairs(model: Model, count: int, seed: int) -> PromptPairs:
        """Pairs of facts of the relation."""
        return _some_of(model, facts, count, seed)

    summary = f"the attribute of a subject: {relation.replace('_', ' ')}"
    return Task(f"facts:{relation}", summary, pairs, known=True, question=_FACTS)
