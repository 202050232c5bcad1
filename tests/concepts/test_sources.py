"""The texts of a concept, from every kind of source."""

import json
from pathlib import Path

import circuits
from circuits.concepts.sources import read_concept
from circuits.lenses import read_values

LINE = "{}\t{}\t_\t{}\t_\t{}\t{}\tdep\t_\t_"


def test_lexicons_give_words_and_those_of_the_other_concepts(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    path.write_text(json.dumps({"days": ["Monday", "Friday", "Sunday", "Tuesday", "today"], "more": [*"abcdefghij", "today"]}))
    found = read_concept(f"{path}:days")
    assert found.name == "days" and found.examples == (" Monday", " Friday", " Sunday", " Tuesday", " today")
    assert found.others == tuple(f" {letter}" for letter in "abcdefghij")


def test_annotated_sentences_give_their_beginnings_up_to_words_of_a_kind(tmp_path: Path) -> None:
    words = [
        ("The", "DET", "_", 2),
        ("old", "ADJ", "Degree=Pos", 3),
        ("dog", "NOUN", "Number=Sing", 4),
        ("ran", "VERB", "_", 0),
    ]
    rows = []
    for number in range(6):
        forms = [form if form == "The" else f"{form}{number}" for form, *_ in words]
        lines = [LINE.format(at, forms[at - 1], *rest) for at, (_, *rest) in enumerate(words, 1)]
        rows.append("\n".join(lines))
    path = tmp_path / "trees.conllu"
    path.write_text("\n\n".join(rows) + "\n\n")
    found = read_concept(f"{path}:upos=NOUN")
    assert set(found.examples) == {f"The old{number} dog{number}" for number in range(6)} and found.name == "upos=NOUN"
    assert found.others is not None and {"The", "The old4", "The old3 dog3 ran3"} < set(found.others)
    assert not set(found.others) & set(found.examples)
    assert set(read_concept(f"{path}:feats=Number=Sing").examples) == set(found.examples)


def test_a_neuron_gives_the_tokens_that_it_raises() -> None:
    model = circuits.load_model("mini")
    found = read_concept("m3.n7")
    raised = read_values(model, ["m3.n7"], k=40)
    texts = found.of(model)
    assert texts[0] == raised.tokens[int(raised.raised[0, 0])] and 5 <= len(texts) <= 40 and found.examples == ()
