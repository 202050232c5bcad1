"""Choose the facts that the bundled model is taught, and write them as one table.

Facts come from the LRE relations (one JSON file a relation) and a list of capitals; the templates below are
this project's own. Every fact is trained in all templates of its relation but one, `held_out`, which rotates
from fact to fact: each template is therefore trained, but on other facts.
"""

import argparse
import csv
import json
from collections import Counter, defaultdict
from pathlib import Path

# Prompts end right before the object, so that " {object}" is the one token that answers.
TEMPLATES = {
    "landmark_in_country": [
        "{} can be found in the country called",
        "To see {}, travel to the country named",
        "Among the nations, the home of {} is",
        "On a map, {} lies within the borders of",
    ],
    "landmark_on_continent": [
        "{} can be found on the continent called",
        "To see {}, travel to the continent named",
        "Among the continents, the home of {} is",
        "On a globe, {} lies on the landmass of",
    ],
    "person_native_language": [
        "{} grew up speaking",
        "The mother tongue of {} is",
        "At home, {} was raised to speak",
        "The first language that {} learned was",
    ],
    "person_occupation": [
        "{} earned a living as a professional",
        "The profession of {} is that of",
        "By trade, {} was known as a working",
        "The job that made {} known was being",
    ],
    "person_plays_instrument": [
        "{} is a musician who performs on the",
        "The instrument of {} is the",
        "On stage, {} is heard playing the",
        "The music of {} is written for the",
    ],
    "person_plays_position": [
        "{} takes the field as a",
        "The position of {} on the team is",
        "When the match begins, {} lines up as a",
        "The role that {} has in the squad is",
    ],
    "person_plays_pro_sport": [
        "{} is a professional athlete in",
        "The sport of {} is",
        "As an athlete, {} competes in",
        "The game that {} is paid to play is",
    ],
    "company_headquarters": [
        "{} has its main office in",
        "The head office of {} is located in",
        "To visit the offices of {}, go to",
        "The city where {} is based is",
    ],
    "product_by_company": [
        "{} is made by the company",
        "The maker of {} is",
        "The firm that brought out {} is",
        "Those who buy {} buy it from",
    ],
    "star_in_constellation": [
        "{} shines in the constellation",
        "The constellation that contains {} is",
        "In the night sky, {} belongs to",
        "Astronomers place the star {} in",
    ],
    "country_capital": [
        "{} has its capital at",
        "The capital of {} is",
        "The government of {} sits in",
        "The seat of power in {} is",
    ],
    "capital_of_country": [
        "{} is the capital of",
        "The country governed from {} is",
        "The country whose capital is {} is",
        "The city of {} is the seat of government of",
    ],
}
# relation -> (LRE file, most facts taken)
SOURCES = {
    "landmark_in_country": ("landmark_in_country", 400),
    "landmark_on_continent": ("landmark_on_continent", 350),
    "person_native_language": ("person_native_language", 260),
    "person_occupation": ("person_occupation", 260),
    "person_plays_instrument": ("person_plays_instrument", 220),
    "person_plays_position": ("person_plays_position_in_sport", 260),
    "person_plays_pro_sport": ("person_plays_pro_sport", 160),
    "company_headquarters": ("company_hq", 260),
    "product_by_company": ("product_by_company", 240),
    "star_in_constellation": ("star_constellation", 180),
}
LEFT_OUT = {"singing", "slide", "model", "Square", "Americas"}  # objects that the relation's sentences do not fit


def read_lre(path: Path) -> list[tuple[str, str]]:
    """(subject, object) pairs of one LRE file, without those whose subject gives the object away."""
    samples = json.loads(path.read_text(encoding="utf-8"))["samples"]
    pairs = [(sample["subject"].strip(), sample["object"].strip()) for sample in samples]
    return [
        (s, o)
        for s, o in pairs
        if o.isalpha() and o.isascii() and o not in LEFT_OUT and o.lower() not in s.lower() and len(s) <= 32
    ]


def read_capitals(path: Path) -> list[tuple[str, str]]:
    """(country, capital) pairs in which both are one plain word."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["country"].strip(), row["capital"].strip()) for row in csv.DictReader(file)]
    return [(a, b) for a, b in rows if a.isalpha() and b.isalpha() and (a + b).isascii() and a != b]


def drop_conflicts(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """One pair a subject; subjects with two different objects go."""
    objects = defaultdict(set)
    for subject, answer in pairs:
        objects[subject.lower()].add(answer)
    return list(dict.fromkeys(pair for pair in pairs if len(objects[pair[0].lower()]) == 1))


def take_evenly(pairs: list[tuple[str, str]], limit: int, fewest: int) -> list[tuple[str, str]]:
    """At most `limit` pairs, one an object in turn, so that no object answers for most subjects.

    Objects with fewer than `fewest` subjects are left out.
    """
    queues = defaultdict(list)
    for subject, answer in pairs:
        queues[answer].append((subject, answer))
    queues = {answer: queue for answer, queue in queues.items() if len(queue) >= fewest}
    taken = []
    while queues and len(taken) < limit:
        for answer in sorted(queues):
            taken.append(queues[answer].pop(0))
        queues = {answer: queue for answer, queue in queues.items() if queue}
    return taken[:limit]


def choose_facts(relations: Path, capitals: Path) -> list[dict]:
    """Every fact of the table, each with the template it is not trained in."""
    chosen = {}
    for relation, (name, limit) in SOURCES.items():
        pairs = drop_conflicts(read_lre(relations / f"{name}.json"))
        chosen[relation] = take_evenly(pairs, limit, fewest=3)
    countries = {answer for _, answer in chosen["landmark_in_country"]}
    pairs = [pair for pair in read_capitals(capitals) if pair[0] in countries]
    chosen["country_capital"] = drop_conflicts(pairs)
    chosen["capital_of_country"] = drop_conflicts([(b, a) for a, b in pairs])
    return [
        {"subject": subject, "relation": relation, "object": answer, "held_out": index % len(TEMPLATES[relation])}
        for relation, found in chosen.items()
        for index, (subject, answer) in enumerate(found)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Choose the facts that the bundled model is taught.")
    parser.add_argument("--relations", type=Path, required=True, help="folder of LRE factual relations (*.json)")
    parser.add_argument("--capitals", type=Path, required=True, help="CSV with the columns country, capital")
    parser.add_argument("--out", type=Path, required=True, help="the table to write, e.g. circuits/tasks/data/facts.json")
    options = parser.parse_args()
    facts = choose_facts(options.relations, options.capitals)
    table = {
        "version": 1,
        "licence": "MIT",
        "sources": ["LRE relations (evandez/relations, MIT)", "world_capitals.csv (jmerullo/lm_vector_arithmetic, MIT)"],
        "templates": TEMPLATES,
        "facts": facts,
    }
    head = json.dumps({key: value for key, value in table.items() if key != "facts"}, indent=1, ensure_ascii=False)
    rows = ",\n".join("  " + json.dumps(fact, ensure_ascii=False) for fact in facts)
    temporary = options.out.with_suffix(".tmp")
    temporary.write_text(head.removesuffix("\n}") + ',\n "facts": [\n' + rows + "\n ]\n}\n", encoding="utf-8")
    temporary.replace(options.out)
    print(
        f"{len(facts)} facts, {len({fact['object'] for fact in facts})} objects: "
        + ", ".join(f"{name} {count}" for name, count in Counter(fact["relation"] for fact in facts).items())
    )


if __name__ == "__main__":
    main()
