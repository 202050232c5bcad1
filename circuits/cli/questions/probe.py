"""What `circuits probe` asks."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import circuits
from circuits.cli.prompts import names_of
from circuits.errors import PromptError

MADE = 900
"""Sentences that are made where no file is named."""


@contextlib.contextmanager
def activations_folder(keep: Path | None) -> Iterator[Path]:
    """Where activations are, as long as they are needed: the folder asked for, or one that goes."""
    if keep is not None:
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="circuits-probe-") as folder:
        yield Path(folder)


def words_of(options: Mapping[str, Any]) -> list[str]:
    """Options that were given (no None) as words of a command line."""
    return [word for name, value in options.items() if value is not None for word in (name, str(value))]


def passed_over(data: Path | None, sentences: "Sequence[circuits.tasks.Sentence]") -> list[str]:
    """What of a file is read otherwise than it stands there, a line; none where all is."""
    ranges, empty = (sum(getattr(one, name) for one in sentences) for name in ("ranges", "empty"))
    said = [f"multiword tokens are read as the words in them ({ranges:,})"] if ranges else []
    said += [f"empty nodes are passed over ({empty:,})"] if empty else []
    return [f"{data}: {', '.join(said)}"] if said else []


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeQuestion:
    """For which property, in which sentences, and where in the model."""

    data: Path | None
    column: str
    layers: str | None
    sites: str | None
    pooling: str
    words: int
    least: int
    seeds: int
    hidden: tuple[int, ...]
    ranks: tuple[int, ...]
    random_weights: bool
    use: bool
    keep: Path | None

    def check(self) -> None:
        """Raise PromptError for what can be seen to be wrong before anything is read."""
        if self.pooling not in ("last", "mean"):
            raise PromptError(f"--pooling {self.pooling}: expected last or mean")
        _ = self.places

    def read(self) -> "tuple[circuits.tasks.Sentence, ...]":
        """The sentences of the file, or those that are made. Raises PromptError for a property that cannot be probed in them,
        whatever the model."""
        from circuits.probes.question import check_property

        sentences = sentences_of(self.data)
        check_property(sentences, self.column, least=self.least, words=self.words)
        return sentences

    def again(self, column: str) -> list[str]:
        """The same question about another property, as words of a command line."""
        usual = {"--pooling": "last", "--words": 25_000, "--least": 20, "--seeds": 3, "--hidden": "256"}
        asked = {"--pooling": self.pooling, "--words": self.words, "--least": self.least}
        asked |= {"--seeds": self.seeds, "--hidden": ",".join(map(str, self.hidden))}
        named = {"--data": self.data, "--layers": self.layers, "--sites": self.sites, "--keep": self.keep}
        named["--ranks"] = ",".join(map(str, self.ranks)) or None
        changed = {name: value for name, value in asked.items() if value != usual[name]}
        flags = [name for name, off in (("--no-random", not self.random_weights), ("--no-use", not self.use)) if off]
        return ["--property", column, *words_of({**named, **changed}), *flags]

    @property
    def places(self) -> list[str] | str:
        """Names of places, or a family of them. Raises PromptError for what is no number of a layer."""
        return places_of(self.layers, self.sites)

    @property
    def options(self) -> dict[str, Any]:
        """What decides where in the model, and how."""
        return {
            "sites": self.places,
            "pooling": self.pooling,
            "random_weights": self.random_weights,
            "hidden": self.hidden,
            "ranks": self.ranks,
        }

    @property
    def others(self) -> int:
        """How many other probes are tried at the best place."""
        return sum(units > 0 for units in self.hidden) + len(self.ranks)

    def describe(self) -> str:
        """Whose sentences, in words."""
        return "made by a small grammar" if self.data is None else f"of {self.data.name}"


def sentences_of(data: Path | None) -> "tuple[circuits.tasks.Sentence, ...]":
    """The sentences of a file, or those that a small grammar makes."""
    return circuits.tasks.grammar_sentences(MADE) if data is None else circuits.tasks.read_conllu(data)


def numbers_of(option: str, given: str | None) -> tuple[int, ...]:
    """Whole numbers from 0 on, between commas. Raises PromptError for anything else."""
    numbers = [] if given is None else names_of(given)
    wrong = next((number for number in numbers if not (number.isdecimal() and len(number) < 7)), None)
    if wrong is not None:
        raise PromptError(f"{option} {given}: {wrong!r} is no whole number; expected such as 2,8,64")
    return tuple(int(number) for number in numbers)


def places_of(layers: str | None, sites: str | None) -> list[str] | str:
    """Names of places, or a family of them: of `--layers`, `--sites`, or all residual streams. Raises PromptError for both and
    for what is no number of a layer."""
    if layers is not None and sites is not None:
        raise PromptError("--layers and --sites are two ways to say where: leave out one of them")
    if sites is not None:
        return names_of(sites)
    if layers is None:
        return "residual"
    numbers = names_of(layers)
    wrong = next((number for number in numbers if not number.isdecimal()), None)
    if wrong is not None:
        raise PromptError(f"--layers {layers}: {wrong!r} is no number of a layer; expected such as 0,5,10")
    return [f"resid{int(number)}" for number in numbers]
