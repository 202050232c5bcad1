"""Where a concept's texts come from: a file of texts, a lexicon, the words of one kind in annotated sentences, a neuron."""

import dataclasses
import random
import re
from pathlib import Path

from circuits.concepts.texts import FEWEST, read_examples
from circuits.errors import FileFormatError, shown
from circuits.files.reading import read_json
from circuits.lenses.neurons.memories import read_values
from circuits.models import Model
from circuits.tasks.sources.conllu import Word, read_conllu

COLUMNS = ("upos", "xpos", "deprel", "lemma", "form", "feats")
"""Columns of CoNLL-U by which words are of one kind."""
DRAWN = 200
"""Texts of annotated sentences, at most."""
RAISED = 40
"""Tokens that a neuron raises most."""
_NEURON = re.compile(r"m\d+\.n\d+", re.ASCII)


@dataclasses.dataclass(frozen=True)
class ConceptTexts:
    """A concept's name and its examples; other texts of the same kind, where its source has some; or the neuron whose raised
    tokens are the examples."""

    name: str
    examples: tuple[str, ...]
    others: tuple[str, ...] | None = None
    neuron: str | None = None

    def of(self, model: Model) -> tuple[str, ...]:
        """The examples; those of a neuron are the tokens that it raises most in this model."""
        if self.neuron is None:
            return self.examples
        values = read_values(model, [self.neuron], k=RAISED)
        texts = [values.tokens[int(token)] for token in values.raised[0]]
        return tuple(dict.fromkeys(text for text in texts if text.strip()))


def read_concept(source: str, *, seed: int = 0) -> ConceptTexts:
    """The texts that a source names: `FILE` (a text a line), `FILE.json:NAME` (a lexicon: names with lists of words),
    `FILE.conllu:COLUMN=VALUE` (sentences up to each word of a kind; the others end at other words), or a neuron (`m3.n457`: the
    tokens that it raises most). Raises FileFormatError for files that cannot be read and where there are fewer than 5 texts."""
    if _NEURON.fullmatch(source):
        return ConceptTexts(f"what {source} raises", (), neuron=source)
    path, part = _parted(source)
    if path.suffix.lower() == ".json":
        return _of_lexicon(path, part)
    if path.suffix.lower() == ".conllu":
        return _of_sentences(path, part, seed)
    return ConceptTexts(path.stem, read_examples(path))


def source_path(source: str) -> Path | None:
    """The file that a source names; None for a neuron."""
    return None if _NEURON.fullmatch(source) else _parted(source)[0]


def _parted(source: str) -> tuple[Path, str]:
    """The file, and what of it."""
    found = re.fullmatch(r"(.*\.(?:json|conllu)):(.*)", source, re.IGNORECASE | re.DOTALL)
    return (Path(found[1]), found[2]) if found else (Path(source), "")


def _of_lexicon(path: Path, name: str) -> ConceptTexts:
    lexicon = read_json(path)
    if not isinstance(lexicon, dict) or not all(isinstance(words, list) for words in lexicon.values()):
        raise FileFormatError(
            f'{path}: no lexicon: expected an object of names with lists of words, {{"animals": ["dog", "cat"]}}'
        )
    if not name and len(lexicon) == 1:
        name = next(iter(lexicon))
    if name not in lexicon:
        known = ", ".join(list(lexicon)[:12])
        raise FileFormatError(
            f"{path}: {f'no concept {shown(name)}' if name else 'which concept?'}: expected {path}:NAME of {known}"
        )
    words = lexicon[name]
    if not all(isinstance(word, str) and word.strip() for word in words) or len(set(words)) < FEWEST:
        raise FileFormatError(f"{path}: {name} has {len(words)} words: expected {FEWEST} or more, each a text")
    texts = {f" {word.strip()}": None for word in words}
    others = {
        f" {word.strip()}": None for other in lexicon.values() for word in other if isinstance(word, str) and word.strip()
    }
    rest = tuple(text for text in others if text not in texts)
    return ConceptTexts(name, tuple(texts), rest if len(rest) >= 2 * FEWEST else None)


def _of_sentences(path: Path, part: str, seed: int) -> ConceptTexts:
    column, _, value = part.partition("=")
    if column not in COLUMNS or not value:
        raise FileFormatError(
            f"{path}: {f'{shown(part)} names no words' if part else 'which words?'}: expected {path}:COLUMN=VALUE such as "
            f"upos=NOUN, of the columns {', '.join(COLUMNS)}"
        )
    inside: dict[str, None] = {}
    outside: dict[str, None] = {}
    known: set[str] = set()
    for sentence in read_conllu(path):
        for word in sentence.words:
            values = _values(word, column)
            known |= values
            (inside if value in values else outside)[sentence.text[: word.end]] = None
    outside = {text: None for text in outside if text not in inside}
    if len(inside) < FEWEST or len(outside) < 2 * FEWEST:
        said = ", ".join(sorted(known)[:12])
        raise FileFormatError(
            f"{path}: {len(inside)} words with {column}={value} and {len(outside)} others: expected {FEWEST} or more, and "
            f"{2 * FEWEST} or more others (there are {said})"
        )
    draw = random.Random(seed)
    some, rest = (
        tuple(draw.sample(list(texts), min(len(texts), most))) for texts, most in ((inside, DRAWN), (outside, 4 * DRAWN))
    )
    return ConceptTexts(f"{column}={value}", some, rest)


def _values(word: Word, column: str) -> set[str]:
    if column == "feats":
        return set(word.feats.split("|"))
    names = {"upos": "tag", "deprel": "relation"}
    return {getattr(word, names.get(column, column))}
