"""The table of facts that `mini` was trained on: subjects, relations, objects, and the templates that ask for them."""

import importlib.resources
import json

from circuits.tasks.readers import Fact


def mini_facts(*, seen: bool = True, relation: str | None = None) -> tuple[Fact, ...]:
    """The facts that the bundled model knows, one prompt each: `attribute` is the word that follows, and " attribute" is
    one token of `mini`.

    `seen=True` asks in a template that the fact was trained in, `seen=False` in the one that was kept from it.
    `relation` (such as "country_capital") keeps one relation. Raises KeyError for a relation that the table lacks.
    """
    text = (importlib.resources.files("circuits.tasks") / "data" / "facts.json").read_text(encoding="utf-8")
    table = json.loads(text)
    if relation is not None and relation not in table["templates"]:
        raise KeyError(f"no relation {relation!r} among {', '.join(table['templates'])}")
    facts = []
    for row in table["facts"]:
        if relation in (None, row["relation"]):
            templates, held_out = table["templates"][row["relation"]], row["held_out"]
            template = templates[(held_out + 1) % len(templates) if seen else held_out]
            facts.append(Fact(template.format(row["subject"]), row["subject"], row["object"], row["relation"]))
    return tuple(facts)
