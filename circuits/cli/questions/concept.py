"""What `circuits concept` asks."""

import dataclasses
from pathlib import Path
from typing import Any

import circuits
from circuits.cli.progress import ProgressBars
from circuits.errors import FileFormatError, PromptError, shown

POOL = 4
"""So many times as many random texts are drawn from as there are examples, at least."""
LEAST_POOL = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConceptQuestion:
    """Which texts are examples of a concept, which are random, and where in the model."""

    positive: Path | None
    negative: str | None
    answer: str | None
    distractor: str | None
    places: list[str] | str
    sets: int
    at: str
    curves: int
    seed: int

    def check(self) -> None:
        """Raise PromptError and FileFormatError for what can be seen to be wrong before anything is read."""
        if (self.answer is None) != (self.distractor is None):
            raise PromptError("--answer and --distractor go together: give both, or neither")
        if self.at not in ("all", "answer"):
            raise PromptError(f"--at {self.at}: expected all or answer")
        for path in (self.positive, None if self.negative in (None, "random") else Path(self.negative)):
            if path is not None and not path.is_file():
                raise FileFormatError(f"{path}: {'not a file' if path.exists() else 'No such file or directory'}")

    def read(self) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
        """The examples, and the other texts."""
        from circuits.concepts.texts import FEWEST, friends, read_examples

        texts = friends("women") if self.positive is None else read_examples(self.positive)
        if self.negative is None:
            return texts, friends("men") if self.positive is None else None
        others = None if self.negative == "random" else read_examples(Path(self.negative), least=2 * FEWEST)
        both = sorted(set(texts) & set(others or ()))
        if both:
            raise PromptError(f"{self.negative}: {len(both)} texts are examples of the concept too, such as {shown(both[0])}")
        return texts, others

    @property
    def name(self) -> str:
        """The concept's."""
        return "women" if self.positive is None else self.positive.stem

    def test(
        self,
        model: "circuits.Model",
        pairs: "circuits.PromptPairs",
        metric: Any,
        texts: tuple[str, ...],
        others: tuple[str, ...] | None,
        target: str,
        budget: int,
        progress: ProgressBars,
    ) -> "circuits.concepts.ConceptTest":
        """The answer."""
        from circuits.concepts import as_examples, random_examples, tcav

        examples, asked = as_examples(model, texts), self.asked(model, pairs)
        if others is None:
            count = max(LEAST_POOL, POOL * len(examples))
            pool = random_examples(model, examples, count=count, seed=self.seed, progress=progress)
        else:
            pool = as_examples(model, others)
        about: dict[str, Any] = {"name": self.name, "sites": self.places, "sets": self.sets, "everywhere": self.at == "all"}
        about |= {"target": f"{self.number(metric)} of {target}", "curves": self.curves, "seed": self.seed}
        return tcav(model, examples, pool, asked, metric, budget=budget, progress=progress, **about)

    def asked(self, model: "circuits.Model", pairs: "circuits.PromptPairs") -> "circuits.PromptPairs":
        """The prompts, each asked for one and the same token where one is named."""
        if self.answer is None or self.distractor is None:
            return pairs
        tokens = [pairs.answers.new_full((len(pairs),), model.single_token(text)) for text in (self.answer, self.distractor)]
        return dataclasses.replace(
            pairs, answers=tokens[0], distractors=tokens[1], answer_sets=None, distractor_sets=None, answer_words=()
        )

    def number(self, metric: Any) -> str:
        """What is measured, in words."""
        from circuits.tasks.metric import named

        of = "" if self.answer is None or self.distractor is None else f" ({self.answer.strip()}, {self.distractor.strip()})"
        return f"{named(metric)}{of}"
