"""What `circuits patch` and `circuits ablate` share: a model with its prompts, files, and the parts of a report."""

import contextlib
import dataclasses
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.figure import Figure

from circuits.cli.loading import load
from circuits.cli.output import default_directory
from circuits.cli.progress import ProgressBars
from circuits.cli.prompts import PromptOptions, check_metric, metric_of
from circuits.cli.text import one_line
from circuits.errors import MemoryBudgetError
from circuits.models import Model
from circuits.patching import Ablation, Effects
from circuits.statistics import Effect
from circuits.tasks import PromptPairs
from circuits.tasks.metrics import Metric

DOTS_PER_INCH = 150
_WIDEST = 72
"""Characters of a first column."""
_Result = TypeVar("_Result", Effects, Ablation)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """The model, the prompts and the metric that something is measured with, as the command line names them."""

    model: str
    device: str
    dtype: str
    prompts: PromptOptions
    metric: str
    positions: str | None
    memory: int
    out: Path | None

    @property
    def budget(self) -> int:
        """Bytes that a pass may take."""
        return self.memory * 2**20

    def folder(self, job: str) -> Path:
        """Where the files go."""
        last = default_directory(self.model).name.removeprefix("induction-")
        return Path("out") / f"{job}-{last}" if self.out is None else self.out

    def prepare(self, progress: ProgressBars) -> tuple[Model, PromptPairs, Metric]:
        """Load the model and make the pairs and the metric. What is wrong without a model is refused before it is loaded."""
        self.prompts.check()
        check_metric(self.metric)
        progress("loading the model", 0, 1)
        model = load(self.model, device=self.device, dtype=self.dtype)
        progress("loading the model", 1, 1)
        pairs = self.prompts.pairs(model)
        return model, pairs, metric_of(self.metric, model, pairs)

    def command(self, job: str, *arguments: str) -> str:
        """A command line about the same model and prompts."""
        words = [] if self.model == "mini" else ["--model", self.model]
        one_place = self.positions is not None and self.positions != "each" and "," not in self.positions
        words += ["--positions", str(self.positions)] if one_place and "--positions" not in arguments else []
        words += [] if self.metric == "logit_difference" else ["--metric", self.metric]
        return one_line(shlex.join(["circuits", job, *arguments, *words, *self.prompts.arguments()]))

    def opening(self, job: str, file: str) -> tuple[str, str]:
        """How to see a saved result again."""
        return one_line(shlex.join(["circuits", job, "--open", str(self.folder(job) / file)])), "this result again"

    def noted(self, result: _Result, model: Model, pairs: PromptPairs) -> _Result:
        """The same result with what its pictures and its report need to know: the shape of the graph, where the prompts come
        from, and the tokens where there is one prompt."""
        graph = model.graph()
        shape = {name: getattr(graph, name) for name in ("n_layers", "n_heads", "n_key_value_heads", "d_mlp", "parallel")}
        more: dict[str, Any] = {"graph": shape, "source": self.prompts.describe()}
        if len(pairs) == 1:
            more["tokens"] = model.to_token_strings(pairs.clean.ids[0])
        return dataclasses.replace(result, metadata={**result.metadata, **more})


@contextlib.contextmanager
def naming_options() -> Iterator[None]:
    """Where memory does not suffice, say by which options less is needed or more is given."""
    try:
        yield
    except MemoryBudgetError as error:
        raise MemoryBudgetError(f"{error} (--count, --memory)") from None
    except MemoryError:
        raise MemoryBudgetError("not enough memory: try a smaller --count or a smaller --memory") from None


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture."""
    figure.savefig(path, dpi=DOTS_PER_INCH)


def prompts_of(result: Effects | Ablation) -> str:
    """How many prompts there were, and where they come from."""
    count = len(result.clean if isinstance(result, Effects) else result.whole)
    source = result.metadata.get("source")
    return f"{count:,} prompt{'s' if count > 1 else ''}" + (f" ({one_line(source)})" if isinstance(source, str) else "")


def interval(effect: Effect, prompts: int) -> str:
    """An effect with its interval; alone where one prompt says nothing of how sure it is."""
    if prompts == 1:
        return f"{effect.effect:+.3f}"
    return f"{effect.effect:+.3f} [{effect.low:.3f}, {effect.high:.3f}]"


def paired(heading: str, rows: Sequence[tuple[str, str]]) -> str:
    """A heading, and below it two columns; what would stand too far to the right goes below."""
    width = max((len(first) for first, _ in rows if len(first) <= _WIDEST), default=0)
    lines = [
        f"  {first.ljust(width)}   {second}" if len(first) <= _WIDEST else f"  {first}\n      {second}"
        for first, second in rows
    ]
    return "\n".join([heading, *lines])
