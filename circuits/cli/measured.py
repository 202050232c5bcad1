"""What `circuits patch` and `circuits ablate` share: a model with its prompts, files, and the parts of a report."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.figure import Figure

from circuits.cli.loading import load
from circuits.cli.output import default_directory
from circuits.cli.progress import ProgressBars
from circuits.cli.prompts import PromptOptions, check_metric, metric_of
from circuits.cli.text import one_line
from circuits.models import Model
from circuits.patching import Ablation, Effects
from circuits.tasks import PromptPairs
from circuits.tasks.metrics import Metric

DOTS_PER_INCH = 150
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
        words += [] if self.positions is None or "--positions" in arguments else ["--positions", self.positions]
        words += [] if self.metric == "logit_difference" else ["--metric", self.metric]
        return one_line(shlex.join(["circuits", job, *arguments, *words, *self.prompts.arguments()]))

    def noted(self, result: _Result, model: Model, pairs: PromptPairs) -> _Result:
        """The same result with what its pictures and its report need to know: the shape of the graph, where the prompts come
        from, and the tokens where there is one prompt."""
        graph = model.graph()
        shape = {name: getattr(graph, name) for name in ("n_layers", "n_heads", "n_key_value_heads", "d_mlp", "parallel")}
        more: dict[str, Any] = {"graph": shape, "source": self.prompts.describe()}
        if len(pairs) == 1:
            more["tokens"] = model.to_token_strings(pairs.clean.ids[0])
        return dataclasses.replace(result, metadata={**result.metadata, **more})


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture."""
    figure.savefig(path, dpi=DOTS_PER_INCH)


def prompts_of(result: Effects | Ablation) -> str:
    """How many prompts there were, and where they come from."""
    count = len(result.clean if isinstance(result, Effects) else result.whole)
    source = result.metadata.get("source")
    return f"{count:,} prompt{'s' if count > 1 else ''}" + (f" ({one_line(source)})" if isinstance(source, str) else "")


def interval(effect: Any, digits: int = 3) -> str:
    """An effect with its interval."""
    return f"{effect.effect:+.{digits}f} [{effect.low:.{digits}f}, {effect.high:.{digits}f}]"


def paired(heading: str, rows: Sequence[tuple[str, str]]) -> str:
    """A heading, and below it two columns."""
    width = max((len(first) for first, _ in rows), default=0)
    return "\n".join([heading, *(f"  {first.ljust(width)}   {second}".rstrip() for first, second in rows)])

