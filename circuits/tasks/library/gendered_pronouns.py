"""Gendered pronouns (Mathwin et al. 2023): a name, and later the pronoun that goes with it."""

import random

from circuits.models import Model
from circuits.tasks.library.wording import Case, pairs_of, sayable, single_tokens, word_list
from circuits.tasks.prompts import PromptPairs


def gendered_pronouns(model: Model, count: int = 32, seed: int = 0) -> PromptPairs:
    """Pairs like `My neighbour Jane is such a good cook, isn't`, answer ` she`, distractor ` he`; the corrupt prompt has a name
    that goes with the other pronoun.

    Names of women and of men take turns. Positions: `name`, `end`. Raises PromptError for a vocabulary with too few
    names, ModelError for a model without a tokenizer.
    """
    names = [list(single_tokens(model, word_list(kind), least=2, what=f"names of {kind}")) for kind in ("women", "men")]
    pronouns = list(single_tokens(model, ("she", "he"), least=2, what="pronouns").values())
    templates, draw, cases = sayable(model, word_list("pronoun_templates")), random.Random(seed), []
    for index in range(count):
        own, other = index % 2, 1 - index % 2
        clean, corrupt = ({"name": draw.choice(names[side])} for side in (own, other))
        cases.append(Case(draw.choice(templates), clean, corrupt, pronouns[own], pronouns[other], {"name": "name"}))
    return pairs_of(model, cases)
