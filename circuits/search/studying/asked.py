"""What a study asks of a model: tasks by name, or pairs of one's own."""

import dataclasses
from collections.abc import Callable, Sequence

from circuits.errors import PromptError
from circuits.models import Model
from circuits.progress import Progress
from circuits.tasks import PromptPairs
from circuits.tasks.metric import Metric
from circuits.tasks.metrics import logit_difference
from circuits.tasks.readings import Drawn
from circuits.tasks.registry import task

TASKS = ("induction", "ioi", "greater-than", "facts", "gendered-pronoun", "agreement")
"""What is asked where nothing is named."""
_ALSO = {"pronouns": "gendered-pronoun"}
"""Other names of tasks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyTask:
    """A behaviour to study: prompts as they come, prompts to search on, and the metric."""

    name: str
    about: str
    pairs: Callable[[Model, int, int], PromptPairs]
    """`pairs(model, count, seed)`: prompts as they come."""
    draw: Callable[[Model, int, int, Progress | None], Drawn]
    """`draw(model, count, seed, progress)`: prompts to search on, those that the model gets right where a task asks for what it
    knows."""
    metric: Callable[[Model, PromptPairs], Metric]
    known: bool = False
    """Whether it asks for what a model may not know."""
    prompts_sha256: str = ""
    """What tells its prompts from others of this name, where they are not the package's own."""
    mechanism: bool = False
    """Whether the heads that do it are also searched for by what they do (`find_induction_circuit`)."""

    @classmethod
    def named(cls, name: str) -> "StudyTask":
        """A task of the package. Raises PromptError for a name that none has."""
        found = task(_ALSO.get(name, name))

        def draw(model: Model, count: int, seed: int, progress: Progress | None) -> Drawn:
            """The task's own."""
            return found.draw(model, count, seed, progress=progress)

        made = {"pairs": found.pairs, "draw": draw, "metric": found.metric}
        mechanism = found.name == "induction"
        return cls(name=found.name, about=found.summary, known=found.known, mechanism=mechanism, **made)

    @classmethod
    def of_pairs(cls, name: str, read: Callable[[Model], PromptPairs], *, about: str, sha256: str = "") -> "StudyTask":
        """Pairs of one's own, made when a model is there to read them, and measured by the logit difference; the first so many
        are taken."""

        def first(model: Model, count: int, seed: int) -> PromptPairs:
            """The first so many."""
            return read(model)[:count]

        def draw(model: Model, count: int, seed: int, progress: Progress | None) -> Drawn:
            """The same."""
            return Drawn(first(model, count, seed))

        metric = _difference
        return cls(name=name, about=about, pairs=first, draw=draw, metric=metric, prompts_sha256=sha256)


def _difference(model: Model, pairs: PromptPairs) -> Metric:
    return logit_difference


def studied(tasks: Sequence["str | StudyTask"]) -> list[StudyTask]:
    """Tasks by name or as they are. Raises PromptError for a name that none has, and for one that is given twice."""
    found = [StudyTask.named(one) if isinstance(one, str) else one for one in tasks]
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise PromptError(f"the task {twice} is named twice")
    return found
