"""The tasks by the names that the command line gives them, each with its pairs and its own metric."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

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
from circuits.tasks.metrics import Metric, logit_difference
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

    def draw(self, model: Model, count: int, seed: int = 0, *, progress: Progress | None = None) -> Drawn:
        """`count` pairs; of a task that asks for what a model knows, such as the model gets right, and how many were drawn for
        them (`Drawn.count`). Raises PromptError as `pairs` does."""
        if not self.known:
            return Drawn(self.pairs(model, count, seed))
        return draw_right(model, self.pairs, count, seed, progress=progress)


_ALL = (
    Task("induction", "what followed this token the last time (Olsson et al. 2022)", induction),
    Task("ioi", "which of two people is given something (Wang et al. 2022)", ioi, known=True),
    Task("greater-than", "a span ends in a later year (Hanna et al. 2023)", greater_than, greater_than_metric),
    Task("docstring", "the argument to document next (Heimersheim and Janiak 2023)", docstring, docstring_metric),
    Task("facts", "the attribute of a subject, from the table that mini knows", _facts, known=True),
    Task("gendered-pronoun", "the pronoun that goes with a name (Mathwin et al. 2023)", gendered_pronouns),
    Task("agreement", "the verb that goes with a subject's number (Linzen et al. 2016)", agreement),
)

TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in _ALL})
"""Every task by its name."""


def is_task(name: str) -> bool:
    """Whether a name is that of a task, or of facts of one relation (which may be unknown)."""
    return name in TASKS or name.startswith("facts:")


def task(name: str) -> Task:
    """The task of that name; `facts:RELATION` (such as facts:country_capital) asks for one relation's facts. Raises
    PromptError, with all names, for another."""
    kind, _, relation = name.partition(":")
    if kind == "facts" and relation:
        return _relation(relation)
    if name not in TASKS:
        raise PromptError(f"no task {shown(name)}; expected one of {', '.join(TASKS)}")
    return TASKS[name]


def _relation(relation: str) -> Task:
    try:
        facts = mini_facts(relation=relation)
    except KeyError:
        known = ", ".join(sorted({fact.relation for fact in mini_facts()}))
        raise PromptError(f"no relation {shown(relation)} among {known}") from None

    def pairs(model: Model, count: int, seed: int) -> PromptPairs:
        """Pairs of facts of the relation."""
        return _some_of(model, facts, count, seed)

    return Task(f"facts:{relation}", f"the attribute of a subject: {relation.replace('_', ' ')}", pairs, known=True)
