"""Rules that say how active a neuron is at a token: read from words, written as words, and applied."""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence

from circuits.errors import PromptError, shown
from circuits.lenses.explaining.excerpts import LEVELS

CLASSES: Mapping[str, Callable[[str], bool]] = {
    "digits": lambda word: word.isdigit(),
    "words in capitals": lambda word: len(word) > 1 and word.isalpha() and word.isupper(),
    "capitalised words": lambda word: word[:1].isupper() and not (len(word) > 1 and word.isupper()),
    "punctuation": lambda word: bool(word) and not any(char.isalnum() or char.isspace() for char in word),
    "white space": lambda word: not word,
}
"""Kinds of words, and which words (without the space around them) are of each."""
_TEXTS = {
    "word": "the token {}",
    "start": "tokens that begin with {}",
    "end": "tokens that end in {}",
    "after": "what follows {}",
    "before": "what stands before {}",
}
"""How a clause with a text of its own is written."""
_CLASSES = {"class": "{}", "after class": "what follows {}"}
_LEVEL = r" \((\d+(?:\.\d)?)\)"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_NOTHING = "nothing that a rule says"


@dataclasses.dataclass(frozen=True)
class Clause:
    """Tokens of one kind, and how active the neuron is there, from 0 to 10."""

    kind: str
    """`word`, `start`, `end`, `after` or `before` a text; `class` or `after class` of `CLASSES`."""
    text: str
    level: float = float(LEVELS)

    def __str__(self) -> str:
        if self.kind in _CLASSES:
            return f"{_CLASSES[self.kind].format(self.text)} ({self.level:g})"
        return f"{_TEXTS[self.kind].format(json.dumps(self.text, ensure_ascii=False))} ({self.level:g})"

    def matches(self, words: Sequence[str]) -> list[bool]:
        """At which words of an excerpt (as `words_of` gives them) it holds."""
        around = {"after": ["", *(word.lower() for word in words[:-1])], "before": [*(w.lower() for w in words[1:]), ""]}
        if self.kind in around:
            return [other == self.text for other in around[self.kind]]
        if self.kind == "class":
            return [CLASSES[self.text](word) for word in words]
        if self.kind == "after class":
            return [False, *(CLASSES[self.text](word) for word in words[:-1])]
        if self.kind == "word":
            return [word.lower() == self.text for word in words]
        ends = str.startswith if self.kind == "start" else str.endswith
        return [ends(word.lower(), self.text) for word in words]


@dataclasses.dataclass(frozen=True)
class TokenRule:
    """Clauses, of which the first that holds at a token says how active the neuron is; `elsewhere` where none does."""

    clauses: tuple[Clause, ...]
    elsewhere: float = 0.0

    def __str__(self) -> str:
        said = [str(clause) for clause in self.clauses] or [_NOTHING]
        return "; ".join([*said, *([f"elsewhere ({self.elsewhere:g})"] if self.elsewhere else [])])

    def levels(self, tokens: Sequence[str]) -> list[float]:
        """The expected activation at each token, from 0 to 10."""
        words, found = words_of(tokens), [self.elsewhere] * len(tokens)
        for clause in reversed(self.clauses):
            for place, holds in enumerate(clause.matches(words)):
                if holds:
                    found[place] = clause.level
        return found

    @classmethod
    def parse(cls, text: str) -> "TokenRule":
        """The rule that a text says. Of a text in other words: the words that it puts in quotes and the kinds of words that it
        names, each at level 10. Raises PromptError where it has neither."""
        if text == _NOTHING:
            return cls(())
        parts = [part.strip() for part in re.findall(rf'(?:{_QUOTED}|[^;"])+', text)]
        read = [_clause(part) for part in parts]
        elsewhere = re.fullmatch(f"elsewhere{_LEVEL}", parts[-1]) if parts else None
        known = [clause for clause in read if clause is not None]
        if len(known) + bool(elsewhere) + (_NOTHING in parts) == len(parts) and parts:
            return cls(tuple(known), float(elsewhere[1]) if elsewhere else 0.0)
        return _in_other_words(text)


def words_of(tokens: Sequence[str]) -> list[str]:
    """Tokens without the white space around them."""
    return [token.strip() for token in tokens]


def _clause(part: str) -> Clause | None:
    """A clause as `str` writes it."""
    for kind, form in _TEXTS.items():
        match = re.fullmatch(form.replace("{}", f"({_QUOTED})") + _LEVEL, part, re.DOTALL)
        if match:
            try:
                return Clause(kind, json.loads(match[1]), float(match[2]))
            except json.JSONDecodeError:
                return None
    for kind, form in _CLASSES.items():
        match = re.fullmatch(form.replace("{}", f"({'|'.join(CLASSES)})") + _LEVEL, part)
        if match:
            return Clause(kind, match[1], float(match[2]))
    return None


def _in_other_words(text: str) -> TokenRule:
    quoted = [found for pair in re.findall(r'"([^"]+)"|(?<!\w)\'([^\']+)\'(?!\w)', text) for found in pair if found]
    words = dict.fromkeys(word.lower() for one in quoted for word in one.split())
    classes = [name for name in CLASSES if name in text.lower()]
    if not words and not classes:
        raise PromptError(
            f"the rule simulator finds no rule in {shown(text)}: it reads words in quotes and {', '.join(CLASSES)}; "
            "simulate what is said in other words by a model: or an endpoint:"
        )
    return TokenRule((*(Clause("word", word) for word in words), *(Clause("class", name) for name in classes)))


def rule_simulator(explanation: str, tokens: Sequence[str]) -> list[float]:
    """The activations, from 0 to 10, that the rule in an explanation expects at each token (`TokenRule.parse`)."""
    return TokenRule.parse(explanation).levels(tokens)
