"""Facts as prompts: the table that `mini` was trained on, and pairs of facts that differ in their subject alone."""

import dataclasses
import importlib.resources
import json
import random
from collections.abc import Sequence

import torch

from circuits.errors import PromptError
from circuits.models import Model
from circuits.models.planted import Planted, PlantedFact
from circuits.tasks.prompts import PromptPairs
from circuits.tasks.sources.readers import Fact


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


def fact_pairs(model: Model, facts: Sequence[Fact], *, count: int | None = None, seed: int = 0) -> PromptPairs:
    """Pairs of facts that differ in their subject alone (symmetric token replacement, Zhang & Nanda 2024).

    Each fact is paired with another one of its relation, asked in the same words, with as many tokens in its subject and
    another attribute; answer and distractor are the first tokens of " attribute". Facts without a partner are left out,
    and `count` of the others are drawn. Positions: `subject_first`, `subject_last`. Raises PromptError where no pair is
    left, ModelError for a model without a tokenizer.
    """
    groups: dict[tuple[str, int], list[Fact]] = {}
    for fact in facts:
        words = fact.prompt.replace(fact.subject, "{}", 1)
        groups.setdefault((words, model.to_tokens(fact.prompt).ids.shape[1]), []).append(fact)
    draw, found = random.Random(seed), []
    for group in groups.values():
        for fact in group:
            others = [other for other in group if other.attribute != fact.attribute]
            if others:
                found.append((fact, draw.choice(others)))
    if count is not None and len(found) > count:
        found = draw.sample(found, count)
    if not found:
        raise PromptError("no two facts share a relation, its words and the number of tokens: there is nothing to pair")
    answers, distractors = ([first_token(model, pair[side].attribute) for pair in found] for side in (0, 1))
    return PromptPairs.from_text(
        model,
        clean=[fact.prompt for fact, _ in found],
        corrupt=[other.prompt for _, other in found],
        answers=answers,
        distractors=distractors,
        subjects=[fact.subject for fact, _ in found],
    )


def first_token(model: Model, attribute: str) -> int:
    """The first token of " attribute", by which a fact is asked for."""
    return int(model.tokenizer.encode(f" {attribute.strip()}", add_special_tokens=False)[0])


def planted_pairs(planted: Planted, *, count: int | None = None, seed: int = 0) -> PromptPairs:
    """Pairs of a planted model's facts: each one with a fact of the same relation, another answer, and a subject that shares
    no token with its own and, where there is one, makes no third known subject with a token of it. Raises PromptError for
    a model without such facts."""
    draw, found = random.Random(seed), []
    known = {fact.subject for fact in planted.facts}
    for fact in planted.facts:
        mixed: dict[int, list[PlantedFact]] = {}
        for other in planted.facts:
            apart = not set(other.subject) & set(fact.subject)
            if other.relation == fact.relation and other.answer != fact.answer and apart:
                pairs = {(fact.subject[0], other.subject[1]), (other.subject[0], fact.subject[1])}
                mixed.setdefault(len(pairs & known), []).append(other)
        if mixed:
            found.append((fact, draw.choice(mixed[min(mixed)])))
    if not found:
        raise PromptError(f"{planted.model.name} has no two facts that can be paired")
    found = found if count is None else found[:count]
    pairs = PromptPairs.from_tokens(
        planted.model,
        clean=[fact.prompt for fact, _ in found],
        corrupt=[other.prompt for _, other in found],
        answers=[fact.answer for fact, _ in found],
        distractors=[other.answer for _, other in found],
    )
    first = torch.full((len(found),), 1, device=planted.model.device)
    return dataclasses.replace(pairs, positions={"subject_first": first, "subject_last": first + 1})
