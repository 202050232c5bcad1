"""Facts in the weights of MLPs, changed one by one or together, and what else that changes."""

from circuits.uses.editing.editing import EditedFact, Factored, edit_fact, edit_facts
from circuits.uses.editing.locating import Localisation, localisation
from circuits.uses.editing.lookups import Lookup, look_up, sampled_prefixes
from circuits.uses.editing.moments import KeyMoments, KeyText, key_moments
from circuits.uses.editing.results import EditOutcome, EditScores, EditsTogether, Odds, Written
from circuits.uses.editing.scoring import WritingTest
from circuits.uses.editing.testing import Editing, default_layer, edit_one, score_edits, score_together
from circuits.uses.editing.values import NewValue, ValueSearch, search_value

__all__ = [
    "EditOutcome",
    "EditScores",
    "EditedFact",
    "Editing",
    "EditsTogether",
    "Factored",
    "KeyMoments",
    "KeyText",
    "Localisation",
    "Lookup",
    "NewValue",
    "Odds",
    "ValueSearch",
    "WritingTest",
    "Written",
    "default_layer",
    "edit_fact",
    "edit_facts",
    "edit_one",
    "key_moments",
    "localisation",
    "look_up",
    "sampled_prefixes",
    "score_edits",
    "score_together",
    "search_value",
]
