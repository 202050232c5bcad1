"""Feedback as it stands in a file: words that should matter or should not, in one text or everywhere."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuits.errors import FileFormatError, ModelError, PromptError, shown
from circuits.files.reading import read_json
from circuits.files.writing import write_whole
from circuits.uses.classifying.classifier import Classifier
from circuits.uses.classifying.examples import Examples
from circuits.uses.shortcuts.label_words import form_of

_FORMAT = "circuits-feedback"
_VERSION = 1
"""Files from before it was written have none."""
_KEYS = {"word", "matters", "text"}


@dataclasses.dataclass(frozen=True)
class FeedbackItem:
    """A word that should matter or should not."""

    word: str
    matters: bool
    text: str | None = None
    """The text of which this is said; None: everywhere."""


@dataclasses.dataclass(frozen=True)
class Feedback:
    """What people say of one classifier: of another one its explanations are others."""

    classifier: str
    """The fingerprint of the classifier, `Classifier.model.fingerprint`."""
    items: tuple[FeedbackItem, ...]

    def save(self, path: str | Path) -> None:
        """Write as JSON: `{"format", "version", "classifier", "items": [{"word", "matters", "text"}]}`."""
        items = [{name: value for name, value in vars(item).items() if value is not None} for item in self.items]
        plain = {"format": _FORMAT, "version": _VERSION, "classifier": self.classifier, "items": items}
        write_whole(Path(path), (json.dumps(plain, indent=1, ensure_ascii=False) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path, classifier: Classifier) -> "Feedback":
        """The feedback of a file. Raises FileFormatError for what is none, ModelError for feedback for another classifier."""
        path = Path(path)
        plain = read_json(path)
        if not isinstance(plain, dict) or plain.get("format") != _FORMAT or not isinstance(plain.get("items"), list):
            raise FileFormatError(f'{path}: no feedback: expected {{"format": "{_FORMAT}", "classifier": …, "items": […]}}')
        if plain.get("version", _VERSION) != _VERSION:
            raise FileFormatError(f"{path}: feedback of version {shown(plain['version'])}; expected {_VERSION}")
        items = tuple(_item(path, number, item) for number, item in enumerate(plain["items"]))
        if not items:
            raise FileFormatError(f"{path}: no feedback in it: expected at least one item")
        found = cls(str(plain.get("classifier", "")), items)
        found.check(classifier, where=f"{path}: ")
        return found

    def check(self, classifier: Classifier, *, where: str = "") -> None:
        """Raise ModelError where this is feedback for another classifier."""
        own = classifier.model.fingerprint
        if self.classifier != own:
            raise ModelError(
                f"{where}is feedback for another classifier ({self.classifier[:12]}…, this is {own[:12]}…): look at the "
                "explanations of this one first"
            )

    def wishes(self, examples: Examples) -> tuple[list[dict[int, bool]], tuple[FeedbackItem, ...]]:
        """Of each text the places of words of which something is said, and the items whose words are nowhere. What is said of
        one text counts before what is said everywhere, later items before earlier ones. Raises PromptError where no item's
        word is anywhere, or none of them is in its text."""
        wishes: list[dict[int, bool]] = [{} for _ in examples.texts]
        forms = [[form_of(word) for word in text.split()] for text in examples.texts]
        rows: dict[str, list[int]] = {}
        for row, text in enumerate(examples.texts):
            rows.setdefault(" ".join(text.split()), []).append(row)
        unused = []
        for item in sorted(self.items, key=lambda item: item.text is not None):
            form, used = form_of(item.word), False
            for row in range(len(forms)) if item.text is None else rows.get(" ".join(item.text.split()), ()):
                places = [place for place, word in enumerate(forms[row]) if word == form]
                wishes[row] |= dict.fromkeys(places, item.matters)
                used |= bool(places)
            unused += [] if used else [item]
        if len(unused) == len(self.items):
            named = ", ".join(shown(item.word) for item in unused[:5])
            raise PromptError(
                f"none of {len(examples)} texts holds what the feedback is about ({named}): there is nothing to learn"
            )
        return wishes, tuple(unused)


def _item(path: Path, number: int, plain: Any) -> FeedbackItem:
    fits = isinstance(plain, Mapping) and {"word", "matters"} <= set(plain) <= _KEYS
    texts = [plain.get(name) for name in ("word", "text") if plain.get(name) is not None] if fits else []
    if not fits or not isinstance(plain["matters"], bool) or not texts or not all(isinstance(one, str) for one in texts):
        raise FileFormatError(
            f'{path}: item {number} is {shown(plain)}; expected {{"word": "friday", "matters": false}}, and "text" where it is '
            "about one text"
        )
    if len(str(plain["word"]).split()) != 1:
        raise FileFormatError(f"{path}: item {number}: the word is {shown(plain['word'])}; expected one word")
    return FeedbackItem(plain["word"], plain["matters"], plain.get("text"))
