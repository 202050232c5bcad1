"""Subject-verb agreement (Linzen et al. 2016): one or many, past a noun in between?"""

import random
from typing import Literal, get_args

from circuits.errors import PromptError
from circuits.models import Model
from circuits.tasks.library.wording import Case, pairs_of, sayable, single_tokens, word_list
from circuits.tasks.prompts import PromptPairs

Attractor = Literal["mixed", "same", "other"]


def agreement(model: Model, count: int = 32, seed: int = 0, *, attractor: Attractor = "mixed") -> PromptPairs:
    """Pairs like `The boy near the trees`, answer ` is`, distractor ` are` (or another verb); the corrupt prompt has the
    subject in the other number.

    Singular and plural subjects take turns. `attractor`: whether the noun in between has the "same" number as the clean
    subject, the "other" one, or either ("mixed"). Positions: `subject`, `attractor`, `end`. Raises PromptError for a
    vocabulary with too few nouns or verbs, ModelError for a model without a tokenizer.
    """
    if attractor not in get_args(Attractor):
        raise PromptError(f"attractor={attractor!r}: expected one of {', '.join(get_args(Attractor))}")
    nouns = list(_forms(model, "nouns", least=4))
    verbs = list(_forms(model, "verbs", least=1).values())
    templates, draw, cases = sayable(model, word_list("agreement_templates")), random.Random(seed), []
    for index in range(count):
        number = index % 2
        between = {"same": number, "other": 1 - number, "mixed": draw.randrange(2)}[attractor]
        subject, noun = draw.sample(nouns, 2)
        verb = draw.choice(verbs)
        clean, corrupt = ({"subject": subject[side], "attractor": noun[between]} for side in (number, 1 - number))
        marks = {"subject": "subject", "attractor": "attractor"}
        cases.append(Case(draw.choice(templates), clean, corrupt, verb[number], verb[1 - number], marks))
    return pairs_of(model, cases)


def _forms(model: Model, kind: str, *, least: int) -> dict[tuple[str, str], tuple[int, int]]:
    """The (singular, plural) pairs whose forms are both one token, with their tokens."""
    pairs = word_list(kind)
    tokens = single_tokens(model, [form for pair in pairs for form in pair], least=0, what=kind)
    found = {pair: (tokens[pair[0]], tokens[pair[1]]) for pair in pairs if pair[0] in tokens and pair[1] in tokens}
    if len(found) < least:
        raise PromptError(
            f"{model.name}: {len(found)} of {len(pairs)} {kind} are one token in singular and plural, this task needs {least}"
        )
    return found
