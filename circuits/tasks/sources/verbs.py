"""Verbs of English in both numbers of the third person, to ask for agreement by all of them at once."""

import csv
import io
from pathlib import Path

from circuits.errors import FileFormatError, PromptError, shown
from circuits.files.reading import read_text
from circuits.models import Model
from circuits.tasks.answers import following

BESIDE = "combined_verb_list.csv"
"""A list of one's own beside a file of prompts, as EAP-IG has it: columns `sing` and `plur`."""
_IRREGULAR = (("is", "are"), ("was", "were"), ("has", "have"), ("does", "do"), ("goes", "go"))
_REGULAR = """
accept add admire agree allow answer appear apply arrive ask attack attend bake become begin believe belong break
bring build buy call care carry catch cause change choose claim clean climb close come consider contain continue cook
cost cover create cross cry cut dance deal decide deliver deny depend describe destroy die discuss draw dream drink
drive eat enjoy enter exist expect explain fall fear feel fight fill find finish fix fly follow forget form get give
grow happen hate hear help hide hit hold hope hurt imagine improve include increase indicate involve join jump keep
kill know laugh lead learn leave like listen live look lose love make matter mean meet miss move need offer open own
pay play prefer produce provide pull push put raise reach read receive remain remember represent require run say see
seem sell send serve show sing sit sleep smile speak spend stand start stay stop study suggest support take talk teach
tell think touch travel try turn understand use visit wait walk want watch wear win wish work worry write
""".split()  # noqa: SIM905 - a list of words is read as words


def third_person(verb: str) -> str:
    """The form of a regular verb that goes with he, she or it.

    >>> [third_person(verb) for verb in ("walk", "watch", "try", "enjoy")]
    ['walks', 'watches', 'tries', 'enjoys']
    """
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return f"{verb[:-1]}ies"
    return f"{verb}es" if verb.endswith(("s", "x", "z", "ch", "sh")) else f"{verb}s"


def verb_forms(path: Path) -> tuple[tuple[str, str], ...]:
    """Verbs as (singular, plural): those of the list beside a file of prompts, else about 200 common ones. Raises
    FileFormatError for a list that lacks its columns."""
    beside = path.parent / BESIDE
    if not beside.is_file():
        return (*_IRREGULAR, *((third_person(verb), verb) for verb in _REGULAR))
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(beside, max_bytes=2**20), newline="")))
        return tuple((row["sing"].strip(), row["plur"].strip()) for row in rows if row["sing"] and row["plur"])
    except (AttributeError, csv.Error, KeyError) as error:
        said = f"lacks the column {shown(error.args[0])}" if isinstance(error, KeyError) else "cannot be read as CSV"
        raise FileFormatError(f"{beside}: {said}; expected the columns sing and plur") from None


def verb_tokens(model: Model, forms: tuple[tuple[str, str], ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens of singular and of plural verbs inside a sentence, of those that are one token in both numbers. Raises
    PromptError where there are none."""
    found: dict[int, int] = {}
    for pair in forms:
        ids = [following(model, "They", f" {form}") for form in pair]
        if [len(one) for one in ids] == [1, 1] and ids[0] != ids[1]:
            found.setdefault(ids[0][0], ids[1][0])
    both = set(found) & set(found.values())
    kept = {singular: plural for singular, plural in found.items() if singular not in both and plural not in both}
    if not kept:
        raise PromptError(f"no verb of the list is one token of {model.name} in both numbers")
    return tuple(kept), tuple(dict.fromkeys(kept.values()))
