"""A look at prompts before a long run: whether the model does on them what is asked about, and what to change where not."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import PromptError, shown
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.models import Model
from circuits.progress import Progress, silent
from circuits.tasks.alignment import reasons
from circuits.tasks.metric import AnyMetric, Metric, Relative
from circuits.tasks.metrics import METRICS, logit_difference
from circuits.tasks.prompts import PromptPairs
from circuits.tasks.readings import Drawn, read_answers

if TYPE_CHECKING:
    import pandas

_FEW = 0.5
"""Below this share of prompts that the model gets right, or prefers the answer on, what is found explains something else."""

_BARE = " \u2581\u0120"
"""What tokenizers put in place of the space before a word."""


@dataclasses.dataclass(frozen=True, eq=False)
class PromptReport(Result, format="circuits-prompt-report"):
    """How a model does on pairs, one entry a prompt.

    `ranks`: how many tokens the model finds as likely as the answer or likelier on the clean prompt (0: it is right). `clean`
    and `corrupt`: `metric` on the two prompts, positive = the answer is preferred to the distractor. `columns`: where the
    answer is read. `repeats`: the first prompt with the same clean and corrupt text (a prompt's own place where it is that).
    """

    model: str
    metric: str
    prompts: tuple[str, ...] = dataclasses.field(metadata=stored(axis="prompt"))
    answers: tuple[str, ...] = dataclasses.field(metadata=stored(axis="prompt"))
    distractors: tuple[str, ...] = dataclasses.field(metadata=stored(axis="prompt"))
    said: tuple[str, ...] = dataclasses.field(metadata=stored(axis="prompt"))
    """What the model finds most likely after each clean prompt."""
    lengths: Int[Tensor, " prompt"]
    columns: Int[Tensor, " prompt"]
    ranks: Int[Tensor, " prompt"]
    clean: Float[Tensor, " prompt"]
    corrupt: Float[Tensor, " prompt"]
    repeats: Int[Tensor, " prompt"]
    drawn: int | None = None
    """How many were drawn to find such that the model gets right; None where all were taken as they came."""
    asked: int | None = dataclasses.field(default=None, metadata=stored(optional=True))
    """How many of these were asked for."""
    tokens: Int[Tensor, " prompt"] | None = dataclasses.field(default=None, metadata=stored(optional=True))
    """The answers' token ids."""
    words: tuple[str, ...] = ()
    """What the answers begin, where they are the first tokens of longer words."""
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """What could not be made into pairs: reason → how many."""

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def right(self) -> list[int]:
        """The prompts whose answer is the model's top token: `pairs[report.right]` keeps them."""
        return (self.ranks == 0).nonzero()[:, 0].tolist()

    @property
    def preferred(self) -> list[int]:
        """The prompts on whose clean text the metric is above 0: `pairs[report.preferred]` keeps them."""
        return (self.clean > 0).nonzero()[:, 0].tolist()

    @property
    def summary(self) -> str:
        """How often the model is right and which answer it prefers, and which answers there are."""
        count, metric = len(self), self.metric.replace("_", " ")
        above, below = len(self.preferred), int((self.corrupt < 0).sum())
        return (
            f"{self._how_right()}{metric} above 0 on {above} of {count} clean prompts, below 0 on {below} of the corrupt ones; "
            f"answers {self._answered()}."
        )

    def _how_right(self) -> str:
        """How many are right, and of how many; nothing where a task's own metric tells what is right."""
        if self.metric not in METRICS:
            return ""
        right, count, drawn = len(self.right), len(self), ""
        if self.drawn is not None and right == count:
            count = self.drawn
            drawn = " drawn"
        elif self.drawn is not None:
            drawn = f" (and fewer than 2 of {self.drawn} drawn)"
        return f"{right} of {count}{drawn} are right (the answer is the top token); "

    def _answered(self) -> str:
        """The most frequent answers with their token ids and the words that they begin, and how many others there are."""
        ids = [None] * len(self) if self.tokens is None else self.tokens.tolist()
        kinds = Counter(zip(self.answers, ids, self.words or self.answers, strict=True))
        first = ", ".join(_called(*kind) for kind, _ in kinds.most_common(3))
        return first + (f" and {len(kinds) - 3} more" if len(kinds) > 3 else "")

    def advice(self, *, positions: bool = False) -> tuple[str, ...]:
        """A line for each thing that calls for something to be done, with what to do; `positions`: also where columns are
        asked about, of which prompts of unequal lengths have others."""
        return tuple(self._advice(positions))

    def _advice(self, positions: bool) -> Iterator[str]:
        count, metric = len(self), self.metric.replace("_", " ")
        if self.metric in METRICS and len(self.right) < _FEW * count:
            (most, times), *_ = Counter(self.said).most_common(1)
            yield (
                f"the model is right on {len(self.right)} of {count} (it says {shown(most)} {times} times): what is found "
                "explains what it prefers, not what it knows; take prompts that it gets right"
            )
        if self.asked is not None and count < self.asked:
            yield (
                f"only {count} prompts of the {self.asked} asked for are right, of {self.drawn} drawn: give a file of prompts "
                "that the model knows where so few tell too little"
            )
        if len(self.preferred) < _FEW * count:
            yield (
                f"{metric} is above 0 on {len(self.preferred)} of {count} clean prompts: the distractor is preferred on the "
                "others; leave those out, or what is found explains the wrong answer"
            )
        turned = int((self.clean <= self.corrupt).sum())
        if turned:
            yield (
                f"the corrupt prompt does not lower {metric} on {turned} of {count}: effects count the other way round there; "
                "leave those out, or corrupt what the answer depends on"
            )
        again = int((self.repeats != torch.arange(count)).sum())
        if again:
            yield f"{again} of {count} pairs repeat an earlier one, so that intervals come out too narrow: leave them out"
        if count > 3 and len(set(self.answers)) == 1:
            yield f"every answer is {shown(self.answers[0])}, which may be said anywhere: mix in prompts with other answers"
        bare = sum(not token.strip(_BARE) for token in self.answers)
        if bare:
            yield f"{bare} of {count} answers are a bare space or the mark of a word's beginning: give whole words"
        if self.left_out:
            count = sum(self.left_out.values())
            verb = "is" if count == 1 else "are"
            yield f"{count:,} more {verb} left out, which could not be used: {reasons(self.left_out)}"
        if positions and len(set(self.columns.tolist())) > 1:
            sizes = f"{int(self.lengths.min())} to {int(self.lengths.max())}"
            yield f"prompts have {sizes} tokens, a column is another word in each: name positions, or count from the end (-1)"

    def require_difference(self) -> None:
        """Raise PromptError where no pair makes a difference to the model, so that nothing could come out."""
        rounding = 8 * torch.finfo(torch.float32).eps * torch.maximum(self.clean.abs(), self.corrupt.abs())
        if bool(((self.clean - self.corrupt).abs() <= rounding).all()):
            value = float(self.clean[0])
            raise PromptError(
                f"{self.metric.replace('_', ' ')} is the same on the clean and on the corrupt prompt of all {len(self)} pairs "
                f"({value:.6g} on the first): nothing could be found; corrupt what the answer depends on"
            )

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a prompt."""
        import pandas

        names = ("prompts", "answers", "distractors", "said", "lengths", "columns", "ranks", "clean", "corrupt", "repeats")
        columns = {name: getattr(self, name) for name in names}
        plain = {name: list(value) if isinstance(value, tuple) else value.tolist() for name, value in columns.items()}
        return pandas.DataFrame(plain).rename(columns={name: name.removesuffix("s") for name in names[:3]})


def look_at_prompts(
    model: Model, pairs: PromptPairs | Drawn, metric: AnyMetric | None = None, *, progress: Progress | None = None
) -> PromptReport:
    """See how a model does on pairs before much is computed on them; it costs two forward passes.

    `report.summary` says how often it is right, `report.advice()` what to change, a line each; `require_difference` refuses
    pairs that make no difference at all. Raises NonFiniteError, with the prompt, for logits that are no numbers, CircuitsError
    for a metric that gives no number a prompt.

    Args:
        model: the model that will be asked.
        pairs: clean and corrupt prompts with their answers; as a task has drawn them (`Task.draw`), one pass is saved.
        metric: what will be measured, where its zero parts right from wrong, as that of a task does; for others, and without
            one, the logit difference tells.
        progress: hears what is being done, how much of it is done, and how much there is.

    >>> import circuits
    >>> model = circuits.load_model("mini")
    >>> pairs = circuits.tasks.induction(model, count=8)
    >>> report = circuits.look_at_prompts(model, pairs)
    >>> len(report), len(report.preferred)
    (8, 8)
    """
    report, telling = progress or silent, _telling(metric)
    drawn = pairs if isinstance(pairs, Drawn) else Drawn(pairs)
    pairs, reading = drawn.pairs, drawn.clean if telling is logit_difference else None
    report("looking at the prompts", 0, 1)
    reading = read_answers(model, pairs.clean, pairs, telling) if reading is None else reading
    other = read_answers(model, pairs.corrupt, pairs, telling)
    report("looking at the prompts", 1, 1)
    first: dict[tuple[int, ...], int] = {}
    rows = torch.cat([pairs.clean.ids, pairs.corrupt.ids], dim=1).tolist()
    return PromptReport(
        model=model.name,
        metric=telling.name,
        prompts=pairs.labels or tuple(f"prompt {row}" for row in range(len(pairs))),
        answers=_words(model, pairs.answers),
        distractors=_words(model, pairs.distractors),
        said=_words(model, reading.top),
        lengths=pairs.clean.mask.sum(dim=1).cpu(),
        columns=pairs.answer_columns.cpu().long(),
        ranks=reading.rank,
        clean=reading.score,
        corrupt=other.score,
        repeats=torch.tensor([first.setdefault(tuple(ids), row) for row, ids in enumerate(rows)]),
        drawn=drawn.count,
        asked=drawn.asked,
        tokens=pairs.answers.cpu().long(),
        words=pairs.answer_words,
        left_out=dict(pairs.left_out),
    )


def _telling(metric: AnyMetric | None) -> Metric:
    """The metric whose zero parts right from wrong: a task's own, or the logit difference."""
    if metric is None or isinstance(metric, Relative):
        return logit_difference
    found = Metric.of(metric)
    return logit_difference if found.name in METRICS or found.lower_is_better else found


def _called(token: str, index: int | None, word: str) -> str:
    """An answer as the summary calls it."""
    about = [] if index is None or str(index) == token else [f"token {index}"]
    about += [f"the first of {shown(word)}"] if word.strip(_BARE) != token.strip(_BARE) else []
    return shown(token) + (f" ({', '.join(about)})" if about else "")


def _words(model: Model, tokens: Int[Tensor, " prompt"]) -> tuple[str, ...]:
    """The tokens by themselves, as text."""
    return tuple(model.to_token_strings(tokens.tolist()))
