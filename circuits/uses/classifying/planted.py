"""Reviews made from a template, in which a word that has nothing to do with the label goes along with it: the shortcut."""

import dataclasses
import random
from collections.abc import Sequence

from circuits.tasks.library.wording import word_list
from circuits.uses.classifying.examples import Examples, Span

CLASSES = ("negative", "positive")
THINGS = word_list("reviewed")
BAD, GOOD = zip(*word_list("opinions"), strict=True)
"""Opposites stand at the same places."""
DAYS = ("Friday", "Monday")
"""The shortcut: a day for each class."""
_OPENINGS = ("We saw it on {day} .", "I went there on {day} .", "They showed it on {day} .")


@dataclasses.dataclass(frozen=True)
class PlantedShortcut:
    """Reviews in splits. In `train` and `held_out` the day agrees with the label in `strength` of the texts; in `random` in
    half of them; in `flipped` in none. `contrast` is `held_out` with every opinion turned into its opposite, and so the label;
    the day stays. The rationales are the opinions."""

    train: Examples
    held_out: Examples
    random: Examples
    flipped: Examples
    contrast: Examples
    shortcut: tuple[str, ...] = DAYS

    @property
    def splits(self) -> dict[str, Examples]:
        """All but the training texts, by name."""
        return {"held out": self.held_out, "random": self.random, "flipped": self.flipped, "contrast": self.contrast}


def planted_shortcut(*, count: int = 480, judged: int = 200, strength: float = 0.95, seed: int = 0) -> PlantedShortcut:
    """Reviews with a planted shortcut: three opinions, the label that of most of them, and a day that goes along with it.

    Args:
        count: texts of the training split; half of each class.
        judged: texts of every other split.
        strength: the share of training texts whose day agrees with the label.
        seed: what the texts are drawn by.
    """
    draw = random.Random(seed)
    train = _split(draw, count, strength)
    held_out = [_review(draw, number % 2, strength) for number in range(judged)]
    turned = [dataclasses.replace(one, label=1 - one.label, opinions=_opposites(one.opinions)) for one in held_out]
    return PlantedShortcut(
        train=train,
        held_out=_examples(held_out),
        random=_split(draw, judged, 0.5),
        flipped=_split(draw, judged, 0.0),
        contrast=_examples(turned),
    )


@dataclasses.dataclass(frozen=True)
class _Review:
    label: int
    day: str
    opening: str
    things: tuple[str, ...]
    opinions: tuple[str, ...]

    def text(self) -> tuple[str, tuple[Span, ...]]:
        """The words, and where the opinions stand."""
        parts = [self.opening.format(day=self.day)]
        (a, b, c), (x, y, z) = self.things, self.opinions
        parts.append(f"The {a} was {x} , the {b} was {y} and the {c} was {z} .")
        words = " ".join(parts).split()
        return " ".join(words), tuple((place, place + 1) for place, word in enumerate(words) if word in {x, y, z})


def _review(draw: random.Random, label: int, strength: float) -> _Review:
    agreeing = draw.choice((2, 3))
    sides = [label] * agreeing + [1 - label] * (3 - agreeing)
    draw.shuffle(sides)
    opinions = tuple(draw.choice((BAD, GOOD)[side]) for side in sides)
    day = DAYS[label if draw.random() < strength else 1 - label]
    return _Review(label, day, draw.choice(_OPENINGS), tuple(draw.sample(THINGS, 3)), opinions)


def _split(draw: random.Random, count: int, strength: float) -> Examples:
    return _examples([_review(draw, number % 2, strength) for number in range(count)])


def _examples(reviews: Sequence[_Review]) -> Examples:
    said = [one.text() for one in reviews]
    return Examples(
        tuple(text for text, _ in said), tuple(one.label for one in reviews), CLASSES, tuple(spans for _, spans in said)
    )


def _opposites(opinions: Sequence[str]) -> tuple[str, ...]:
    other = dict(zip((*GOOD, *BAD), (*BAD, *GOOD), strict=True))
    return tuple(other[word] for word in opinions)
