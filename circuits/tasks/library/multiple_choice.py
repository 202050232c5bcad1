"""Multiple choice (Lieberum et al. 2023): four things with a letter each, and the letter of the one that was asked for."""

import random
import string
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

from circuits.errors import PromptError, shown
from circuits.models import Model
from circuits.tasks.library.wording import Case, pairs_of, sayable, single_tokens, word_list
from circuits.tasks.prompts import PromptPairs

CHOICES = 4
Corruption = Literal["choices", "labels"]
Labels = Literal["letters", "permuted", "others", "random", "numbers"]
LABELS: Mapping[Labels, str] = MappingProxyType(
    {
        "letters": "A to D in their order",
        "permuted": "A to D in another order each time",
        "others": "four letters in a row other than these",
        "random": "any four letters",
        "numbers": "1 to 4",
    }
)
"""What stands before the choices, in words."""
_LETTERS = tuple(string.ascii_uppercase)
_NUMBERS = tuple("1234")
_LEAST = 3
"""Words of a kind that are one token each, so that it can be asked for."""


def multiple_choice(
    model: Model, count: int = 32, seed: int = 0, *, corruption: Corruption = "choices", labels: Labels = "letters"
) -> PromptPairs:
    """Pairs like `Which of these is a colour? A: dog, B: red, C: two, D: rain. The answer is`, answer ` B`; the distractor is
    the label of another choice. `corruption`: in the corrupt prompt those two "choices" have changed places, or those two
    "labels" have. Either way the distractor is right there.

    The right choice stands in each place as often. Positions: `label_1` to `label_4`, `choice_1` to `choice_4`, those of the
    right one and of the distractor (`right_label`, `right_choice`, `wrong_label`, `wrong_choice`), `end`. Raises PromptError
    for a vocabulary in which labels, or too few words, are one token, ModelError for a model without a tokenizer.

    Args:
        model: whose tokenizer cuts the prompts.
        count: how many pairs.
        seed: what is drawn by.
        corruption: what changes places in the corrupt prompt.
        labels: what stands before the choices, one of `LABELS`.
    """
    for name, given, known in (("corruption", corruption, get_args(Corruption)), ("labels", labels, tuple(LABELS))):
        if given not in known:
            raise PromptError(f"{name}={shown(given)}: expected one of {', '.join(known)}")
    tokens = _label_tokens(model, labels)
    kinds = _kinds(model)
    template, draw, cases = sayable(model, word_list("choice_templates"))[0], random.Random(seed), []
    places = [str(place) for place in range(1, CHOICES + 1)]
    for index in range(count):
        asked, *others = draw.sample(list(kinds), CHOICES)
        right = index % CHOICES
        wrong = draw.choice([place for place in range(CHOICES) if place != right])
        choices = [draw.choice(kinds[kind]) for kind in others]
        choices.insert(right, draw.choice(kinds[asked]))
        named = _drawn_labels(draw, labels, list(tokens))
        words = {"kind": asked} | {f"choice_{at}": word for at, word in zip(places, choices, strict=True)}
        words |= {f"label_{at}": word for at, word in zip(places, named, strict=True)}
        one, other = (f"{corruption.removesuffix('s')}_{places[place]}" for place in (right, wrong))
        changed = words | {one: words[other], other: words[one]}
        marks = {f"{what}_{at}": f"{what}_{at}" for what in ("label", "choice") for at in places}
        marks |= {f"right_{what}": f"{what}_{places[right]}" for what in ("label", "choice")}
        marks |= {f"wrong_{what}": f"{what}_{places[wrong]}" for what in ("label", "choice")}
        cases.append(Case(template, words, changed, tokens[named[right]], tokens[named[wrong]], marks))
    return pairs_of(model, cases)


def _label_tokens(model: Model, labels: Labels) -> dict[str, int]:
    """What may stand before a choice, each with its token. Those in a fixed order are needed one and all."""
    usual = _LETTERS[:CHOICES]
    wanted = {"others": _LETTERS[CHOICES:], "random": _LETTERS, "numbers": _NUMBERS}.get(labels, usual)
    return single_tokens(model, wanted, least=len(wanted) if labels == "others" else CHOICES, what="labels of choices")


def _drawn_labels(draw: random.Random, labels: Labels, known: list[str]) -> list[str]:
    """Four labels in the order in which they stand."""
    if labels in ("permuted", "random"):
        return draw.sample(known, CHOICES)
    start = draw.randrange(len(known) - CHOICES + 1) if labels == "others" else 0
    return known[start : start + CHOICES]


def _kinds(model: Model) -> dict[str, list[str]]:
    """Kinds of things, each with those of its words that are one token. Raises PromptError for fewer than there are choices."""
    every = single_tokens(model, [word for _, *words in word_list("kinds") for word in words], least=0, what="words")
    known = {kind: [word for word in words if word in every] for kind, *words in word_list("kinds")}
    found = {kind: words for kind, words in known.items() if len(words) >= _LEAST}
    if len(found) < CHOICES:
        raise PromptError(
            f"{model.name}: {len(found)} of {len(known)} kinds of things have {_LEAST} words or more that are one token of its "
            f"vocabulary, this task needs {CHOICES}"
        )
    return found
