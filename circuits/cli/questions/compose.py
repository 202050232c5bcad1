"""What `circuits compose` asks."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import circuits
from circuits.cli.progress import ProgressBars
from circuits.cli.prompts import names_of
from circuits.cli.text import one_line
from circuits.errors import FileFormatError, GraphError, PromptError

if TYPE_CHECKING:
    from circuits.concepts.forms import Activity, ConceptMasks, Units


@dataclasses.dataclass(frozen=True)
class GivenText:
    """What was read before the model is loaded."""

    sentences: "tuple[circuits.tasks.Sentence, ...] | None"
    text: str | None
    lexicon: dict[str, tuple[str, ...]] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComposeQuestion:
    """Which neurons, in which text, over which concepts, and how forms are searched."""

    names: tuple[str, ...]
    concepts: tuple[Path, ...]
    text: Path | None
    kinds: str | None
    words: int
    least: int
    share: float | None
    above: float | None
    length: int
    beam: int
    penalty: float
    moves: int | None
    use: int
    seed: int

    def check(self) -> None:
        """Raise for what can be seen to be wrong before anything is read."""
        for name in self.names:
            node = circuits.Node.parse(name)
            if node.kind not in ("mlp", "neuron"):
                raise GraphError(f"{node} is no neuron and no MLP: expected a name such as m3.n7 or m3")
        if self.share is not None and self.above is not None:
            raise PromptError("--share and --above are two ways to say where a neuron is active: leave out one of them")
        if self.share is not None and not 0 < self.share < 1:
            raise PromptError(f"--share {self.share:g}: expected a share between 0 and 1")
        if not 0 < self.penalty <= 1:
            raise PromptError(f"--penalty {self.penalty:g}: expected a number above 0, at most 1")
        if len(self.lexicons) > 1 or len(self.annotated) > 1:
            raise PromptError("--concepts takes one annotated text and one lexicon (.json), not several of a kind")
        if self.annotated and self.text is not None:
            raise PromptError(f"--text: the text is that of {self.annotated[0]}: leave out one of them")
        for path in self.concepts:
            if not path.is_file():
                raise FileFormatError(f"{path}: {'not a file' if path.exists() else 'No such file or directory'}")
        self.chosen_kinds()

    @property
    def lexicons(self) -> list[Path]:
        """Files of concepts and their words."""
        return [path for path in self.concepts if path.suffix.lower() == ".json"]

    @property
    def annotated(self) -> list[Path]:
        """Files of annotated sentences."""
        return [path for path in self.concepts if path.suffix.lower() != ".json"]

    def chosen_kinds(self) -> tuple[str, ...]:
        """Kinds of concepts that are made of the text. Raises PromptError for others."""
        from circuits.concepts.forms.masks import KINDS, WRITTEN, checked

        if self.kinds is not None:
            return tuple(checked(names_of(self.kinds), annotated=bool(self.annotated)))
        if self.annotated:
            return tuple(kind for kind in KINDS if kind not in ("start", "end"))
        return () if self.lexicons else WRITTEN

    def read(self) -> GivenText:
        """The files. Raises what is wrong with them, and PromptError where the text has no two of the concepts, whatever the
        model."""
        from circuits.concepts.forms.masks import read_lexicon, require_in_sentences, require_in_text
        from circuits.probes.reading import first_sentences
        from circuits.tasks.sources.corpus import read_text

        lexicon = read_lexicon(self.lexicons[0]) if self.lexicons else None
        sentences = circuits.tasks.read_conllu(self.annotated[0]) if self.annotated else None
        text = None if self.text is None else read_text(self.text)
        if sentences is not None:
            require_in_sentences(first_sentences(sentences, self.words), self.chosen_kinds(), lexicon, self.least)
        elif text is not None and lexicon is not None and not self.chosen_kinds():
            require_in_text(text, lexicon, self.least)
        return GivenText(sentences, text, lexicon)

    def check_with(self, model: "circuits.Model") -> None:
        """Raise for neurons that the model lacks, before anything takes time."""
        from circuits.models.choosing import chosen_neurons

        chosen_neurons(model, self.names)

    def units(self, model: "circuits.Model", given: GivenText, progress: ProgressBars) -> "Units":
        """The words or tokens that neurons are read at."""
        from circuits.concepts import Units
        from circuits.lenses.explaining.explaining import rows_to_write
        from circuits.lenses.neurons.report import default_corpus
        from circuits.probes.reading import WordText
        from circuits.tasks.sources.corpus import text_rows

        if given.sentences is not None:
            return Units.of_sentences(WordText.of(model, given.sentences, words=self.words))
        if given.text is not None:
            rows = text_rows(model, given.text, limit=self.words)
        else:
            rows = default_corpus(model, count=rows_to_write(model), seed=self.seed, progress=progress)
            rows = rows[: max(1, int((rows.mask.sum(dim=1).cumsum(dim=0) <= self.words).sum()))]
        return Units.of_rows(model, rows, words=given.lexicon is not None)

    def masks(self, units: "Units", given: GivenText) -> "ConceptMasks":
        """The concepts."""
        from circuits.concepts.forms import concept_masks

        return concept_masks(units, kinds=self.chosen_kinds(), lexicon=given.lexicon, least=self.least)

    def source(self) -> str:
        """Where the concepts come from, in words."""
        return " and ".join(path.name for path in self.concepts) or "how tokens are written"

    def opening(self, model: "circuits.Model", units: "Units", masks: "ConceptMasks") -> str:
        """What is searched, in one line."""
        unit = "words, each read at its last token" if units.kind == "words" else "tokens"
        named = ", ".join(self.names[:4]) + (" …" if len(self.names) > 4 else "")
        said = f"{len(masks.names):,} concepts ({one_line(self.source())}) at {len(units):,} {unit}"
        return f"{one_line(model.name)}: {one_line(named)} over {said}"

    def activity(self, model: "circuits.Model", units: "Units", budget: int, progress: ProgressBars) -> "Activity":
        """Where the neurons are active."""
        from circuits.concepts.forms.activity import SHARE, read_activity
        from circuits.models.choosing import chosen_neurons

        rule: dict[str, Any] = {"share": SHARE if self.share is None else self.share, "above": self.above}
        return read_activity(model, units, chosen_neurons(model, self.names), **rule, budget=budget, progress=progress)

    def compose(
        self,
        model: "circuits.Model",
        units: "Units",
        masks: "ConceptMasks",
        activity: "Activity",
        budget: int,
        progress: ProgressBars,
    ) -> "circuits.concepts.NeuronForms":
        """The answer."""
        search: dict[str, Any] = {"length": self.length, "beam": self.beam, "penalty": self.penalty, "moves": self.moves}
        about: dict[str, Any] = {"source": self.source(), "seed": self.seed, "budget": budget, "progress": progress}
        return circuits.concepts.compose(model, units, activity, concepts=masks, use=self.use, **search, **about)
