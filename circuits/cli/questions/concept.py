"""What `circuits concept` asks."""

import dataclasses
from typing import TYPE_CHECKING, Any

import circuits
from circuits.cli.progress import ProgressBars
from circuits.cli.prompts import names_of
from circuits.cli.questions.probe import places_of
from circuits.errors import FileFormatError, PromptError, shown

if TYPE_CHECKING:
    from circuits.concepts.sources import ConceptTexts

POOL = 4
"""So many times as many random texts are drawn from as there are examples, at least."""
LEAST_POOL = 200


def concept_places(layers: str | None, nodes: str | None) -> list[str] | str:
    """The places that a command line names: residual streams before layers, and others by name; all residual streams where it
    names none. Raises PromptError for layers that are no numbers."""
    named = [] if nodes is None else names_of(nodes)
    if layers is None:
        return named or "residual"
    streams = places_of(layers, None)
    return [*([streams] if isinstance(streams, str) else streams), *named]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConceptQuestion:
    """Which texts are examples of a concept, which are random, and where in the model."""

    positive: str | None
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
        from circuits.concepts.sources import source_path

        for source in (self.positive, None if self.negative == "random" else self.negative):
            path = None if source is None else source_path(source)
            if path is not None and not path.is_file():
                raise FileFormatError(f"{path}: {'not a file' if path.exists() else 'No such file or directory'}")

    def read(self) -> "ConceptTexts":
        """The examples and the other texts, those of `--negative` where it names some."""
        from circuits.concepts.sources import ConceptTexts, read_concept
        from circuits.concepts.texts import FEWEST, friends

        women = ConceptTexts("women", friends("women"), friends("men"))
        texts = women if self.positive is None else read_concept(self.positive, seed=self.seed)
        if self.negative is None:
            return texts
        if self.negative == "random":
            return dataclasses.replace(texts, others=None)
        other = read_concept(self.negative, seed=self.seed)
        if other.neuron is not None:
            raise PromptError(f"--negative {self.negative}: expected texts that do not depend on the model, or random")
        both = sorted(set(texts.examples) & set(other.examples))
        if both:
            raise PromptError(f"{self.negative}: {len(both)} texts are examples of the concept too, such as {shown(both[0])}")
        if len(other.examples) < 2 * FEWEST:
            raise PromptError(f"{self.negative}: {len(other.examples)} texts: expected {2 * FEWEST} or more, one a line")
        return dataclasses.replace(texts, others=other.examples, name=f"{texts.name} rather than {other.name}")

    def test(
        self,
        model: "circuits.Model",
        pairs: "circuits.PromptPairs",
        metric: Any,
        texts: "ConceptTexts",
        target: str,
        budget: int,
        progress: ProgressBars,
    ) -> "circuits.concepts.ConceptTest":
        """The answer."""
        from circuits.concepts import as_examples, random_examples, tcav

        examples, asked = as_examples(model, texts.of(model)), self.asked(model, pairs)
        if texts.others is None:
            count = max(LEAST_POOL, POOL * len(examples))
            pool = random_examples(model, examples, count=count, seed=self.seed, progress=progress)
        else:
            pool = as_examples(model, texts.others)
        about: dict[str, Any] = {"name": texts.name, "sites": self.places, "sets": self.sets, "everywhere": self.at == "all"}
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
