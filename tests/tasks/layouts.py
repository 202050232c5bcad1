"""Small files of every layout of prompts that is read, each made here as its tool writes it; texts that `mini` reads."""

import csv
import io
import itertools
import json
from collections.abc import Callable, Sequence

from circuits.models import Model

CAPITALS = (("France", "Paris"), ("Japan", "Tokyo"), ("Italy", "Rome"), ("Spain", "Madrid"))
OPPOSITES = (
    ("man", "woman"),
    ("boy", "girl"),
    ("king", "queen"),
    ("father", "mother"),
    ("brother", "sister"),
    ("son", "daughter"),
    ("husband", "wife"),
    ("uncle", "aunt"),
    ("prince", "princess"),
    ("lord", "lady"),
)
Rows = list[dict[str, object]]


def table(rows: Rows) -> bytes:
    """CSV as pandas writes it."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def lines(rows: Rows) -> bytes:
    """One JSON object a line."""
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def listed(rows: object) -> bytes:
    """Indented JSON."""
    return json.dumps(rows, indent=1).encode()


def swapped() -> Sequence[tuple[str, str, str, str]]:
    """Clean and corrupt prompts with answer and distractor: a capital against the next one's."""
    pairs = [*itertools.pairwise(CAPITALS), (CAPITALS[-1], CAPITALS[0])]
    return [(f"The capital of {a} is", f"The capital of {b} is", f" {x}", f" {y}") for (a, x), (b, y) in pairs]


def ids(model: Model) -> bytes:
    """Two token ids behind an index without a name."""
    rows: Rows = []
    for place, (clean, corrupt, answer, distractor) in enumerate(swapped()):
        token, other = model.single_token(answer), model.single_token(distractor)
        row: dict[str, object] = {"": 40 + place, "clean": clean, "corrupted": corrupt}
        rows.append(row | {"correct_idx": token, "incorrect_idx": other})
    return table(rows)


def ioi(model: Model) -> bytes:
    """EAP-IG's IOI: the corruption that swaps the names, and ids of another tokenizer."""
    rows: Rows = []
    for one, other in (("Mary", "John"), ("John", "Mary")):
        start = f"When {one} and {other} went to the house,"
        said = [f"{start} {name} gave a book to" for name in (other, "Tom", one)]
        row: dict[str, object] = {"": 7, "clean": said[0], "corrupted": said[1], "corrupted_hard": said[2]}
        rows.append(row | {"correct_idx": 5, "incorrect_idx": 6})
    return table(rows)


def labels(model: Model) -> bytes:
    """Pairs whose corrupt prompts are the clean ones of other rows."""
    return table([{"clean": clean, "corrupted": corrupt, "label": answer} for clean, corrupt, answer, _ in swapped()])


def years(column: str) -> Callable[[Model], bytes]:
    """EAP-IG's greater-than."""

    def made(model: Model) -> bytes:
        rows: Rows = []
        for noun, year in (("war", 43), ("voyage", 27), ("trial", 65)):
            said = [f"The {noun} lasted from the year 17{one:02d} to the year 17" for one in (year, 1)]
            rows.append({"clean": said[0], "corrupted": said[1], column: year})
        return table(rows)

    return made


def gender(model: Model) -> bytes:
    """EAP-IG's gender bias."""
    rows: Rows = []
    for clean, corrupt, label in (
        ("The girl slept because", "The man slept because", 0),
        ("The boy ran and", "The girl ran and", 1),
    ):
        tokens = [model.single_token(word) for word in (" she", " he")]
        row: dict[str, object] = {"clean": clean, "corrupted": corrupt, "clean_answer_idx": tokens[label]}
        rows.append(row | {"corrupted_answer_idx": tokens[1 - label], "label": label})
    return table(rows)


def hypernyms(model: Model) -> bytes:
    """EAP-IG's hypernymy: words, and ids of another tokenizer beside them."""
    said = (
        ("flowers", ["plants", "flower"], "horses", ["animals", "horse", "things"]),
        ("ships", ["boats"], "houses", ["places"]),
    )
    rows: Rows = []
    for clean, right, corrupt, wrong in said:
        row: dict[str, object] = {
            "clean": f"The {clean} and other",
            "answers": str(right),
            "answers_idx": str([*range(len(right))]),
        }
        row |= {"corrupted": f"The {corrupt} and other", "corrupted_answers": str(wrong)}
        rows.append(row | {"corrupted_answers_idx": str([*range(len(wrong))]), "prob_diff": 0.25})
    return table(rows)


def countries(model: Model) -> bytes:
    """EAP-IG's fact retrieval: a country by the capital, ids of another tokenizer beside it."""
    rows: Rows = []
    for (country, capital), (other, another) in itertools.pairwise(CAPITALS):
        row: dict[str, object] = {
            "clean": f" {capital}, the capital of",
            "capital": capital,
            "country": country,
            "country_idx": 7,
        }
        row |= {"corrupted": f" {another}, the capital of", "corrupted_capital": another, "corrupted_country": other}
        rows.append(row | {"corrupted_country_idx": 9})
    return table(rows)


def agreement(model: Model) -> bytes:
    """EAP-IG's subject-verb agreement."""
    said = [
        ("The boys near the house", "The boy near the house", 1),
        ("The girl near the house", "The girls near the house", 0),
    ]
    return table(
        [{"clean": clean, "corrupted": other, "group": "prep_inanim", "plural": plural} for clean, other, plural in said]
    )


def autocircuit(model: Model) -> bytes:
    """AutoCircuit's, in text, with several answers."""
    rows = [
        {"clean": clean, "corrupt": corrupt, "answers": [answer, " London"], "wrong_answers": [distractor]}
        for clean, corrupt, answer, distractor in swapped()
    ]
    return listed({"seq_labels": ["a", "b"], "word_idxs": {"place": 3}, "prompts": rows})


def autocircuit_ids(model: Model) -> bytes:
    """AutoCircuit's, in token ids."""
    rows = []
    for clean, corrupt, answer, distractor in swapped():
        row = {"clean": model.to_tokens(clean).ids[0].tolist(), "corrupt": model.to_tokens(corrupt).ids[0].tolist()}
        rows.append(row | {"answers": [model.single_token(answer)], "wrong_answers": [model.single_token(distractor), 5]})
    return listed({"prompts": rows})


def relation(model: Model) -> bytes:
    """LRE's."""
    samples = [{"subject": country, "object": capital} for country, capital in CAPITALS]
    document = {
        "name": "capital",
        "prompt_templates": ["The capital of {} is"],
        "prompt_templates_zs": ["{}:"],
        "properties": {},
    }
    return listed(document | {"samples": samples})


def known(model: Model) -> bytes:
    """ROME's."""
    return listed(
        [
            {
                "known_id": place,
                "subject": country,
                "attribute": capital,
                "template": "The capital of {} is",
                "prediction": f" {capital}, and",
                "prompt": f"The capital of {country} is",
                "relation_id": "P36",
            }
            for place, (country, capital) in enumerate(CAPITALS)
        ]
    )


def counterfact(model: Model) -> bytes:
    """CounterFact."""
    rows = []
    for place, (country, capital) in enumerate(CAPITALS):
        new, true = {"str": "London", "id": "Q84"}, {"str": capital, "id": f"Q{place}"}
        rewrite = {
            "prompt": "The capital of {} is",
            "relation_id": "P36",
            "target_new": new,
            "target_true": true,
            "subject": country,
        }
        row = {
            "case_id": place,
            "pararel_idx": 9 + place,
            "requested_rewrite": rewrite,
            "paraphrase_prompts": [f"{country}, ruled from"],
        }
        rows.append(row | {"neighborhood_prompts": [], "attribute_prompts": [], "generation_prompts": []})
    return listed(rows)


def word_pairs(model: Model) -> bytes:
    """Those of function vectors."""
    return listed([{"input": given, "output": output} for given, output in OPPOSITES])


def prefixes(model: Model) -> bytes:
    """Those of sparse feature circuits."""
    said = (("The boys", "The boy", " are", " is", "plural"), ("The girl", "The girls", " has", " have", "singular"))
    keys = ("clean_prefix", "patch_prefix", "clean_answer", "patch_answer", "case")
    return lines([dict(zip(keys, row, strict=True)) for row in said])


def mib_ioi(model: Model) -> bytes:
    """MIB's IOI, as JSON Lines."""
    rows: Rows = []
    for one, other in (("Mary", "John"), ("John", "Mary")):
        start = f"When {one} and {other} went to the house,"
        row: dict[str, object] = {"prompt": f"{start} {other} gave a book to", "choices": [one, other], "answerKey": 0}
        row |= {"metadata": {"subject": other, "indirect_object": one, "random_c": "Tom", "place": "house"}}
        row |= {"abc_counterfactual": {"prompt": f"{start} Tom gave a book to", "choices": [one, other], "answerKey": -1}}
        row |= {
            "s2_io_flip_counterfactual": {"prompt": f"{start} {one} gave a book to", "choices": [one, other], "answerKey": 1}
        }
        rows.append(row)
    return lines(rows)


def mib_choices(model: Model) -> bytes:
    """MIB's multiple choice, as a list."""

    def asked(symbols: str, key: int, noun: str) -> dict[str, object]:
        colours = ["red", "blue"]
        said = "\n".join(f"{symbol}. {colour}" for symbol, colour in zip(symbols, colours, strict=True))
        prompt = f"The {noun} is {colours[key]}. What is it?\n{said}\nAnswer:"
        return {"prompt": prompt, "choices": {"label": list(symbols), "text": colours}, "answerKey": key}

    return listed(
        [
            {**asked("AB", key, noun), "enumeratedLabel": 0, "symbol_counterfactual": asked("CD", key, noun)}
            for key, noun in ((0, "house"), (1, "book"))
        ]
    )


def mib_sums(model: Model) -> bytes:
    """MIB's arithmetic."""
    return lines(
        [
            {
                "prompt": f"The sum of {a} and {b} is",
                "operator": "+",
                "label": a + b,
                "random_counterfactual": {"prompt": f"The sum of {b} and {b} is", "label": str(2 * b)},
            }
            for a, b in ((1, 2), (5, 3))
        ]
    )


def blimp(model: Model) -> bytes:
    """BLiMP's."""
    said = (
        ("The boy near the house is old.", "The boy near the house are old."),
        ("The boys near the house are old.", "The boys near the house is old."),
    )
    return lines(
        [
            {"sentence_good": good, "sentence_bad": bad, "UID": "agreement", "linguistics_term": "agreement", "pairID": place}
            for place, (good, bad) in enumerate(said)
        ]
    )


LAYOUTS: dict[str, tuple[str, int, Callable[[Model], bytes]]] = {
    "eap-ig ids": ("EAP-IG CSV, two token ids", 4, ids),
    "eap-ig ioi": ("EAP-IG CSV, IOI", 2, ioi),
    "eap-ig labels": ("EAP-IG CSV, labels", 4, labels),
    "eap-ig greater-than": ("EAP-IG CSV, greater-than", 3, years("correct_idx")),
    "eap-ig greater-than label": ("EAP-IG CSV, greater-than", 3, years("label")),
    "eap-ig gender bias": ("EAP-IG CSV, gender bias", 2, gender),
    "eap-ig hypernymy": ("EAP-IG CSV, hypernymy", 2, hypernyms),
    "eap-ig facts": ("EAP-IG CSV, fact retrieval", 3, countries),
    "eap-ig agreement": ("EAP-IG CSV, subject-verb agreement", 2, agreement),
    "autocircuit": ("AutoCircuit JSON", 4, autocircuit),
    "autocircuit ids": ("AutoCircuit JSON", 4, autocircuit_ids),
    "lre": ("LRE relation", 4, relation),
    "rome": ("ROME facts", 4, known),
    "counterfact": ("CounterFact", 4, counterfact),
    "function vectors": ("function-vector word pairs", 5, word_pairs),
    "feature circuits": ("sparse feature circuits", 2, prefixes),
    "mib ioi": ("MIB task", 2, mib_ioi),
    "mib multiple choice": ("MIB task", 2, mib_choices),
    "mib arithmetic": ("MIB task", 2, mib_sums),
    "blimp": ("BLiMP minimal pairs", 2, blimp),
}
"""Name → what the layout is called, how many pairs the file holds, what makes it for a model."""
