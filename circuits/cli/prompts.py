"""From the options that name prompts and a metric to pairs and a function."""

import dataclasses
from pathlib import Path

from circuits.errors import CircuitsError, FileFormatError, PromptError
from circuits.files.reading import read_json
from circuits.models import Model
from circuits.patching.engine.sites import Positions
from circuits.tasks import (
    PromptPairs,
    fact_pairs,
    metrics,
    minimal_pair_prompts,
    read_autocircuit_json,
    read_blimp_jsonl,
    read_eap_ig_csv,
    read_lre_json,
    read_rome_json,
    registry,
)
from circuits.tasks.metrics import Metric, answer_logits
from circuits.tasks.sources.readers import LARGEST_FILE

TASKS = tuple(registry.TASKS)
"""The first one is taken where none is named."""
METRICS = ("logit_difference", "log_probability", "probability", "rank", "accuracy", "kl")
COUNT = 32
"""Prompts of a task, unless the command line says how many."""


def require_text(prompt: str, what: str = "the prompt") -> None:
    """Raise PromptError for a prompt without a word, of which a model would see BOS alone."""
    if not prompt.strip():
        raise PromptError(f"{what} is empty: give a text that the model reads")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """What the command line says about prompts: a task, a file, or one pair of texts."""

    task: str | None = None
    prompts: Path | None = None
    clean: str | None = None
    corrupt: str | None = None
    answer: str | None = None
    distractor: str | None = None
    count: int | None = None
    seed: int = 0

    def given(self) -> list[str]:
        """The options that say which prompts to use, of those that were given."""
        names = ("task", "prompts", "clean", "corrupt", "answer", "distractor", "count")
        return [f"--{name}" for name in names if getattr(self, name) is not None]

    def check(self) -> None:
        """Raise PromptError where the options contradict each other or are not whole; needs no model."""
        pair = {name: getattr(self, name) for name in ("clean", "corrupt", "answer", "distractor")}
        missing = [f"--{name}" for name, text in pair.items() if text is None]
        if 0 < len(missing) < len(pair):
            raise PromptError(f"a pair of your own needs {', '.join(f'--{name}' for name in pair)}: {missing[0]} is missing")
        given = [name for name, there in _sources(self, pair=not missing).items() if there]
        if len(given) > 1:
            raise PromptError(f"{' and '.join(given)} both say where prompts come from: give one of them")
        if self.task is not None and not registry.is_task(self.task):
            raise PromptError(f"unknown task {self.task!r}: there are {', '.join(TASKS)}")
        if self.task is not None:
            registry.task(self.task)  # refuses a relation that does not exist
        if self.prompts is not None and not self.prompts.is_file():
            raise FileFormatError(f"{self.prompts}: {'not a file' if self.prompts.exists() else 'No such file or directory'}")

    def describe(self) -> str:
        """Where the prompts come from, in words."""
        if self.prompts is not None:
            return f"file {self.prompts.name}"
        return "given as text" if self.clean is not None else f"task {self.task or TASKS[0]}, seed {self.seed}"

    def arguments(self) -> list[str]:
        """The options again, as words of a command line."""
        words: list[str] = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and value != field.default:
                words += [f"--{field.name}", str(value)]
        return words

    def pairs(self, model: Model) -> PromptPairs:
        """The pairs. Raises PromptError and FileFormatError, with the prompt, for those that do not align."""
        self.check()
        if self.prompts is not None:
            return _read(self.prompts, model)[: self.count]
        if self.clean is not None and self.corrupt is not None:
            answers, distractors = [self.answer or ""], [self.distractor or ""]
            return PromptPairs.from_text(
                model, clean=[self.clean], corrupt=[self.corrupt], answers=answers, distractors=distractors
            )
        return registry.task(self.task or TASKS[0]).pairs(model, self.count or COUNT, self.seed)


def _sources(options: PromptOptions, *, pair: bool) -> dict[str, bool]:
    return {"--task": options.task is not None, "--prompts": options.prompts is not None, "--clean": pair}


def _read(path: Path, model: Model) -> PromptPairs:
    """Pairs from the kinds of files that there are: minimal pairs by the suffix .jsonl, else by what the file begins with;
    facts are an object with "samples" (LRE) or a list (ROME)."""
    if path.suffix.lower() == ".jsonl":
        return minimal_pair_prompts(model, read_blimp_jsonl(path))
    with path.open("rb") as file:
        start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start.startswith((b"{", b"[")):
        return read_eap_ig_csv(path, model)
    data = read_json(path, max_bytes=LARGEST_FILE)
    if isinstance(data, list):
        return fact_pairs(model, read_rome_json(path))
    if isinstance(data, dict) and "samples" in data and "prompts" not in data:
        return fact_pairs(model, read_lre_json(path))
    return read_autocircuit_json(path, model)


def check_metric(name: str) -> None:
    """Raise CircuitsError for a name that is no metric."""
    if name not in METRICS:
        raise CircuitsError(f"unknown metric {name!r}: there are {', '.join(METRICS)}")


def metric_of(name: str, model: Model, pairs: PromptPairs) -> Metric:
    """The metric of that name; `kl` is the divergence from the model's own answer on the clean prompts."""
    check_metric(name)
    if name != "kl":
        return getattr(metrics, name)
    reference = answer_logits(model.run(pairs.clean, keep="logits"), pairs).detach()
    return metrics.kl_divergence(reference)


def names_of(text: str) -> list[str]:
    """Names separated by commas, without the spaces around them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def positions_of(text: str | None) -> Positions:
    """`each`, or names and columns separated by commas; None = every position together."""
    names = [] if text is None else names_of(text)
    if not names:
        return None
    if names == ["each"]:
        return "each"
    return [int(name) if name.removeprefix("-").isdigit() else name for name in names]
