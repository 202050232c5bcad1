"""Facts of other tools' files: ROME's known facts, CounterFact, LRE's relations, and the word pairs of function vectors."""

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.errors import FileFormatError, PromptError, shown
from circuits.tasks.sources.contents import Contents, Row, read_contents
from circuits.tasks.sources.rows import Kept, fields_of, inner, parse_rows, sound, text

SHOTS = 5
"""Examples before the one that is asked about, in a prompt of word pairs."""


@dataclasses.dataclass(frozen=True)
class Fact:
    """A prompt about `subject` (a part of it) that `attribute` completes, and the relation's name or id ("" if none)."""

    prompt: str
    subject: str
    attribute: str
    relation: str


def read_rome_json(path: str | Path) -> tuple[Fact, ...]:
    """Facts from a file like ROME's known_1000.json; the relation is its `relation_id`.

    Raises FileFormatError, with the row, for anything else, and for a subject that is not in its prompt.
    """
    return known_facts(read_contents(path)).values


def read_counterfact_json(path: str | Path) -> tuple[Fact, ...]:
    """Facts from CounterFact (Meng et al. 2022): the prompt, subject and true target of each `requested_rewrite`, and its
    `relation_id`; the target that the fact was to be rewritten to, and all other prompts, are left unread.

    Raises FileFormatError, with the row, for anything else.
    """
    return rewrite_facts(read_contents(path)).values


def read_function_vectors_json(path: str | Path, *, shots: int = SHOTS, seed: int = 0) -> tuple[Fact, ...]:
    """Facts from a file of word pairs, a list of `{"input", "output"}` as function vectors have them (Todd et al. 2024).

    Each is asked behind the same `shots` examples, drawn by `seed` and left out of the facts, in that paper's form: `Q: hot`,
    `A: cold` and an empty line, and at last `Q: up` and `A:`. The input is the fact's subject, the relation the file's name.
    Inputs that stand in an example are left out too. Raises FileFormatError, with the row, for anything else.
    """
    return word_pair_facts(read_contents(path), shots=shots, seed=seed).values


def read_lre_json(path: str | Path, *, zero_shot: bool = False) -> tuple[Fact, ...]:
    """Facts from an LRE relation file: every sample in every one of its `prompt_templates` (with `zero_shot=True`,
    `prompt_templates_zs`), samples outermost. Raises FileFormatError, with the row, for anything else."""
    return relation_facts(read_contents(path), zero_shot=zero_shot).values


def known_facts(contents: Contents, *, skip_bad: bool | None = None) -> Kept[Fact]:
    """The facts of a file like ROME's."""

    def parse(row: Row) -> Fact:
        """A row as a fact."""
        fields = fields_of(row)
        prompt, subject, attribute = (text(fields, name) for name in ("prompt", "subject", "attribute"))
        if subject.strip() not in prompt:  # inside a longer word it cannot be traced, yet the fact can be asked for
            raise PromptError(f"the prompt {shown(prompt)}: the subject {shown(subject)} is not in it")
        return Fact(prompt, subject, attribute, text(fields, "relation_id") if "relation_id" in fields else "")

    return parse_rows(contents.path, _rows(contents, "facts"), parse, skip_bad=skip_bad)


def rewrite_facts(contents: Contents, *, skip_bad: bool | None = None) -> Kept[Fact]:
    """The facts of a CounterFact file."""

    def parse(row: Row) -> Fact:
        """A row as a fact."""
        rewrite = inner(fields_of(row), "requested_rewrite")
        template, subject = text(rewrite, "prompt"), text(rewrite, "subject")
        if template.count("{}") != 1:
            raise PromptError(f'"prompt" is {shown(template)}; expected text with one {{}}')
        relation = text(rewrite, "relation_id") if rewrite.get("relation_id") is not None else ""
        return Fact(template.replace("{}", subject), subject, text(inner(rewrite, "target_true"), "str"), relation)

    return parse_rows(contents.path, _rows(contents, "facts"), parse, skip_bad=skip_bad)


def relation_facts(contents: Contents, *, zero_shot: bool = False, skip_bad: bool | None = None) -> Kept[Fact]:
    """The facts of an LRE relation, each with the row of its sample."""
    path, document = contents.path, contents.document
    if document is None:
        raise FileFormatError(f"{path}: expected a JSON object")
    key, name = "prompt_templates_zs" if zero_shot else "prompt_templates", document.get("name")
    if not isinstance(name, str) or not sound(name):
        raise FileFormatError(f'{path}: "name" is {shown(name)}; expected text')
    templates = document.get(key)
    if not isinstance(templates, list) or not templates:
        raise FileFormatError(f'{path}: "{key}" must be a list that is not empty')
    for index, template in enumerate(templates):
        if not isinstance(template, str) or template.count("{}") != 1 or not sound(template):
            raise FileFormatError(f'{path}: "{key}", row {index}: {shown(template)} must be text with one {{}}')

    def parse(row: Row) -> list[Fact]:
        """A row as a fact."""
        fields = fields_of(row)
        subject, answer = text(fields, "subject"), text(fields, "object")
        return [Fact(template.replace("{}", subject), subject, answer, name) for template in templates]

    samples = parse_rows(path, contents.entries("samples"), parse, skip_bad=skip_bad)
    facts = [(fact, row) for some, row in zip(samples.values, samples.rows, strict=True) for fact in some]
    return Kept(tuple(fact for fact, _ in facts), tuple(row for _, row in facts), samples.skipped, samples.first)


def word_pair_facts(contents: Contents, *, shots: int = SHOTS, seed: int = 0, skip_bad: bool | None = None) -> Kept[Fact]:
    """The facts of a file of word pairs, each behind the same examples."""

    def parse(row: Row) -> tuple[str, str]:
        """A row as a fact."""
        fields = fields_of(row)
        return text(fields, "input"), _output(fields)

    path = contents.path
    pairs = parse_rows(path, _rows(contents, "word pairs"), parse, skip_bad=skip_bad)
    if len(pairs.values) < shots + 2:
        raise FileFormatError(f"{path}: holds {len(pairs.values)} word pairs; with {shots} examples {shots + 2} are needed")
    shown_first = set(random.Random(seed).sample(range(len(pairs.values)), shots))
    opening = "".join(f"Q: {pairs.values[place][0]}\nA: {pairs.values[place][1]}\n\n" for place in sorted(shown_first))
    asked = [
        (Fact(f"{opening}Q: {given}\nA:", given, output, path.stem), row)
        for place, ((given, output), row) in enumerate(zip(pairs.values, pairs.rows, strict=True))
        if place not in shown_first and given not in opening
    ]
    if not asked:
        raise FileFormatError(f"{path}: every input stands in the {shots} examples already")
    return Kept(tuple(fact for fact, _ in asked), tuple(row for _, row in asked), pairs.skipped, pairs.first)


def _output(fields: Mapping[str, Any]) -> str:
    """The output, or the first of several."""
    value = fields.get("output")
    return text({"output": value[0]} if isinstance(value, list) and value else fields, "output")


def _rows(contents: Contents, what: str) -> Sequence[Row]:
    """The rows of a list, or of JSON Lines. Raises FileFormatError for anything else."""
    if contents.kind == "CSV" or contents.document is not None or not contents.rows:
        raise FileFormatError(f"{contents.path}: expected a list of {what} that is not empty")
    return contents.rows


FACTS: Mapping[str, tuple[Callable[[Contents], bool], Callable[..., Kept[Fact]]]] = {
    "LRE relation": (lambda contents: "samples" in contents.top and "prompts" not in contents.top, relation_facts),
    "CounterFact": (lambda contents: "requested_rewrite" in contents.keys, rewrite_facts),
    "function-vector word pairs": (lambda contents: {"input", "output"} <= contents.keys, word_pair_facts),
    "ROME facts": (lambda contents: {"prompt", "subject", "attribute"} <= contents.keys, known_facts),
}
"""The layouts of facts by name: what a file of each is known by, and what reads it."""


def read_facts(path: str | Path, *, skip_bad: bool = False) -> tuple[Fact, ...]:
    """Facts of any file that holds some: ROME's, CounterFact's, LRE's or word pairs, as its content tells.

    Raises FileFormatError, with the row, for anything else; with `skip_bad` rows that do not fit are left out, and it is raised
    only where none is left.
    """
    return fitting_facts(path, skip_bad=skip_bad).values


def fitting_facts(path: str | Path, *, skip_bad: bool = False) -> Kept[Fact]:
    """The same, with how many rows were left out, by reason."""
    contents = read_contents(path)
    if contents.document is not None and not {"prompt_templates", "samples"} & contents.top:
        raise FileFormatError(f"{path}: no file of facts; expected one of {', '.join(FACTS)}")
    read = next(
        (read for fits, read in FACTS.values() if fits(contents)), known_facts if contents.document is None else relation_facts
    )
    return read(contents, skip_bad=skip_bad)
