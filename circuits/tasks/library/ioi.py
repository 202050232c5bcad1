"""Indirect object identification (Wang et al. 2022): who of the two is given something?"""

import dataclasses
import random
from typing import Literal, get_args

from circuits.errors import PromptError
from circuits.models import Model
from circuits.tasks.library.wording import Case, pairs_of, sayable, single_tokens, word_list
from circuits.tasks.prompts import PromptPairs

Order = Literal["mixed", "abb", "bab"]
Corruption = Literal["abc", "swap", "third"]


def ioi(model: Model, count: int = 32, seed: int = 0, *, order: Order = "mixed", corruption: Corruption = "abc") -> PromptPairs:
    """Pairs like `When Mary and John came back from the school, John handed a book to`, answer ` Mary` (the indirect object,
    IO), distractor ` John` (the subject, S).

    `order`: "abb" names the IO first, "bab" the subject, "mixed" takes turns. `corruption`: "abc" puts three other names
    in the places of the three, "swap" makes the IO the giver (the answer flips), "third" makes somebody else the giver.
    Positions: `io`, `s1`, `s1_plus_1`, `s2`, `end`. Raises PromptError for a vocabulary with too few names, ModelError for
    a model without a tokenizer.
    """
    for name, value, allowed in (("order", order, get_args(Order)), ("corruption", corruption, get_args(Corruption))):
        if value not in allowed:
            raise PromptError(f"{name}={value!r}: expected one of {', '.join(allowed)}")
    names = single_tokens(model, (*word_list("women"), *word_list("men")), least=5, what="names")
    places = list(single_tokens(model, word_list("places"), least=1, what="places"))
    objects = list(single_tokens(model, word_list("objects"), least=1, what="objects"))
    templates, draw, cases = sayable(model, word_list("ioi_templates")), random.Random(seed), []
    for index in range(count):
        io, s, *others = draw.sample(list(names), 5)
        same = {"place": draw.choice(places), "object": draw.choice(objects)}
        io_first = order == "abb" or (order == "mixed" and index % 2 == 0)
        first, second = (io, s) if io_first else (s, io)
        corrupt = {"abc": others, "swap": [first, second, io], "third": [first, second, others[0]]}[corruption]
        marks = {"io": "first", "s1": "second"} if io_first else {"io": "second", "s1": "first"}
        cases.append(
            Case(
                draw.choice(templates),
                same | {"first": first, "second": second, "subject": s},
                same | dict(zip(("first", "second", "subject"), corrupt, strict=True)),
                names[io],
                names[s],
                marks | {"s2": "subject"},
            )
        )
    pairs = pairs_of(model, cases)
    return dataclasses.replace(pairs, positions={**pairs.positions, "s1_plus_1": pairs.positions["s1"] + 1})
