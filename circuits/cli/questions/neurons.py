"""What `circuits neurons` asks."""

import builtins
import dataclasses
from pathlib import Path
from typing import Any

import circuits
from circuits.cli.prompts import names_of
from circuits.cli.questions.probe import sentences_of, words_of
from circuits.errors import PromptError


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeuronsQuestion:
    """Which neurons know which property, by which rankings, and what is lost without them."""

    data: Path | None
    property: str
    by: str
    layers: str | None
    others: tuple[str, ...]
    top: int
    pooling: str
    words: int
    least: int
    knockout: bool
    count: int
    keep: Path | None

    def check(self) -> None:
        """Raise PromptError for what can be seen to be wrong before anything is read."""
        if self.pooling not in ("last", "mean"):
            raise PromptError(f"--pooling {self.pooling}: expected last or mean")
        if "agreement" in self.ways and not self.others:
            raise PromptError("--by agreement compares with other models: name them with --other MODEL")
        if self.others and "agreement" not in self.ways:
            raise PromptError("--other is what --by agreement compares with: give --by agreement or all")
        _ = self.chosen_layers

    @builtins.property
    def ways(self) -> tuple[str, ...]:
        """Rankings by name. Raises PromptError for others."""
        from circuits.probes.ranking.results import WAYS

        names = names_of(self.by)
        if names == ["all"]:
            return WAYS if self.others else tuple(way for way in WAYS if way != "agreement")
        wrong = next((name for name in names if name not in WAYS), None)
        if wrong is not None or not names:
            raise PromptError(f"--by {self.by}: {wrong!r} is no ranking; expected all, or some of {', '.join(WAYS)}")
        return tuple(names)

    @builtins.property
    def chosen_layers(self) -> tuple[int, ...] | None:
        """Layers by number. Raises PromptError for what is no number."""
        if self.layers is None:
            return None
        numbers = names_of(self.layers)
        wrong = next((number for number in numbers if not number.isdecimal()), None)
        if wrong is not None:
            raise PromptError(f"--layers {self.layers}: {wrong!r} is no number of a layer; expected such as 0,5,10")
        return tuple(int(number) for number in numbers)

    def read(self) -> "tuple[circuits.tasks.Sentence, ...]":
        """The sentences of the file, or those that are made. Raises PromptError for a property that cannot be probed in them,
        whatever the model."""
        from circuits.probes.question import check_property

        sentences = sentences_of(self.data)
        check_property(sentences, self.property, least=self.least, words=self.words)
        return sentences

    def again(self, property: str) -> list[str]:
        """The same question about another property, as words of a command line."""
        usual = {"--by": "all", "--top": 20, "--pooling": "last", "--words": 5_000, "--least": 20, "--sentences": 48}
        asked = {"--by": self.by, "--top": self.top, "--pooling": self.pooling, "--words": self.words}
        asked |= {"--least": self.least, "--sentences": self.count}
        changed = {name: value for name, value in asked.items() if value != usual[name]}
        others = [word for name in self.others for word in ("--other", name)]
        named = words_of({"--data": self.data, "--layers": self.layers, "--keep": self.keep, **changed})
        return ["--property", property, *named, *others, *([] if self.knockout else ["--no-knockout"])]

    @builtins.property
    def options(self) -> dict[str, Any]:
        """What `rank_neurons` is asked."""
        return {"by": self.ways, "layers": self.chosen_layers, "pooling": self.pooling, "least": self.least}

    def describe(self) -> str:
        """Whose sentences, in words."""
        return "made by a small grammar" if self.data is None else f"of {self.data.name}"
