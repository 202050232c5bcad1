"""Texts with something and texts without: made of pieces of a text into which a rule's words are put."""

import itertools
import random
from collections.abc import Callable, Sequence

from circuits.errors import PromptError, shown
from circuits.lenses.explaining.ngrams import Word, ids_of
from circuits.lenses.explaining.rules import TokenRule, words_of
from circuits.models import Model

Text = str | list[int]
"""A text, or its token ids."""
Author = Callable[[str, int], tuple[Sequence[Text], Sequence[Text]]]
"""From an explanation and a number to so many texts with what it says, and so many without."""
WORDS, PLACE = 8, 4
"""Words of a piece of text, and the place at which others are put in."""
_TRIES = 40
"""Draws of a piece in which nothing holds that the rule says, before one is taken as it is."""


def inserting(model: Model, rows: list[list[Word]], *, seed: int = 0) -> Author:
    """An author for explanations that are rules (`TokenRule.parse`): into pieces of eight words of the text it puts, in place
    of two in the middle, two words that stand side by side in the text and of which the rule says something; into the same
    piece, for the text without, two of which it says nothing. The two texts of a number differ in these words alone."""
    pairs = list(dict.fromkeys(itertools.chain.from_iterable(itertools.pairwise(row) for row in rows)))
    pieces = [row[start : start + WORDS] for row in rows for start in range(0, len(row) - WORDS + 1, WORDS)]

    def write(explanation: str, count: int) -> tuple[list[Text], list[Text]]:
        """Texts with what the rule says, and without. Raises PromptError where the text has no such words."""
        rule, draw = TokenRule.parse(explanation), random.Random(f"{seed} {explanation}")
        holding = [[pair for pair in pairs if _holds(model, TokenRule((clause,)), pair)] for clause in rule.clauses]
        holding = [found for found in holding if found]
        others = [pair for pair in pairs if not _holds(model, rule, pair)]
        if not holding or not others or not pieces:
            raise PromptError(f"the text has no words with and without {shown(explanation)}: give a longer one")
        having, lacking = list[Text](), list[Text]()
        for number in range(count):
            piece = next((p for p in draw.choices(pieces, k=_TRIES) if not _holds(model, rule, p)), pieces[0])
            for texts, found in ((having, holding[number % len(holding)]), (lacking, others)):
                texts.append(ids_of([*piece[:PLACE], *draw.choice(found), *piece[PLACE + 2 :]]))
        return having, lacking

    return write


def text_of(model: Model, ids: Sequence[int]) -> str:
    """Token ids as text; as numbers where there is no tokenizer."""
    return " ".join(map(str, ids)) if model.tokenizer is None else model.to_string(ids)


def _holds(model: Model, rule: TokenRule, words: Sequence[Word]) -> bool:
    """Whether a rule says something of a token of some words."""
    tokens = words_of(model.to_token_strings(ids_of([*words])))
    return any(any(clause.matches(tokens)) for clause in rule.clauses)
