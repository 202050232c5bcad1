"""Facts as prompts: the table that `mini` was trained on, and pairs of facts that differ in their subject alone."""

import dataclasses
import importlib.resources
import json
import random
from collections import Counter
from collections.abc import Sequence

import torch

from circuits.errors import PromptError
from circuits.models import Model
from circuits.models.planted import Planted, PlantedFact
from circuits.tasks.alignment import reasons
from circuits.tasks.answers import first_of
from circuits.tasks.prompts import PromptPairs
from circuits.tasks.sources.facts import Fact
from circuits.tasks.subjects import subject_columns, with_subject


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

    Each fact is paired with another one, asked in the same words, with as many tokens in its subject and an answer that
    begins with another token; answer and distractor are the tokens that follow the prompt where the text goes on with the
    attribute, the first one each. Facts go two and two, each the other's corrupt prompt, so that pairs share prompts with no
    third one; only a fact that is left over takes one that has a partner. Facts that cannot be paired are left out (`left_out`
    of the result says how many, by reason), and `count` of the others are drawn, of every two one before the other. Positions:
    `subject_first`, `subject_last`. Raises PromptError, with the reasons, where no pair is left, ModelError for a model without
    a tokenizer.
    """
    asked, left_out = _asked(model, facts)
    groups: dict[tuple[str, int], list[_Asked]] = {}
    for one in asked:
        groups.setdefault((one.words, one.length), []).append(one)
    draw, couples, odd = random.Random(seed), list[_Pair](), list[_Pair]()
    for group in groups.values():
        two, over = _couples(group, draw)
        couples += two
        for one in over:
            others = [other for other in group if _differ(one, other)]
            if others:
                odd.append((one, draw.choice(others)))
            else:
                same = any(other.fact.attribute != one.fact.attribute and other.prompt != one.prompt for other in group)
                left_out["every partner's answer begins with the same token" if same else _ALONE] += 1
    found = _chosen(couples, odd, count, draw)
    if len(found) == 2 * len(couples) + len(odd):
        place = {id(one): index for index, one in enumerate(asked)}
        found.sort(key=lambda pair: place[id(pair[0])])
    if not found:
        raise PromptError(f"there is nothing to pair among {len(facts)} facts: {reasons(left_out)}")
    pairs = PromptPairs.from_text(
        model,
        clean=[one.prompt for one, _ in found],
        corrupt=[other.prompt for _, other in found],
        answers=[one.answer for one, _ in found],
        distractors=[other.answer for _, other in found],
        subjects=[one.fact.subject for one, _ in found],
    )
    return dataclasses.replace(
        pairs, answer_words=tuple(one.fact.attribute.strip() for one, _ in found), left_out=dict(left_out)
    )


_ALONE = "no other fact is asked in the same words, with as many tokens, and has another answer"


@dataclasses.dataclass(frozen=True)
class _Asked:
    """A fact, its prompt without spaces at the end, the words around its subject, how many tokens the prompt has, and the
    answer's first token."""

    fact: Fact
    prompt: str
    words: str
    length: int
    answer: int


_Pair = tuple[_Asked, _Asked]
"""The fact that is asked, and the one whose subject the corrupt prompt has."""


def _differ(one: _Asked, other: _Asked) -> bool:
    """Whether two facts that are asked alike make a pair."""
    return one.answer != other.answer and one.prompt != other.prompt


def _couples(group: Sequence[_Asked], draw: random.Random) -> tuple[list[_Pair], list[_Asked]]:
    """Facts that are asked alike, two and two at random, and those that are left over."""
    left, found, over = draw.sample(group, len(group)), list[_Pair](), list[_Asked]()
    while left:
        often = Counter(one.answer for one in left)
        # The commonest answer first: at the end its facts would have nobody but each other.
        one, *rest = sorted(left, key=lambda one: -often[one.answer])
        partner = next((other for other in rest if _differ(one, other)), None)
        if partner is None:
            over.append(one)
        else:
            found.append((one, partner))
        left = [other for other in rest if other is not partner]
    return found, over


def _chosen(couples: Sequence[_Pair], odd: Sequence[_Pair], count: int | None, draw: random.Random) -> list[_Pair]:
    """So many pairs at random (None: all): of every two facts one before the other, since the two share their prompts."""
    first = [(one, other) if draw.random() < 0.5 else (other, one) for one, other in couples]
    draw.shuffle(first)
    rest = [*((other, one) for one, other in first), *odd]
    draw.shuffle(rest)
    return [*first, *rest][:count]


def _asked(model: Model, facts: Sequence[Fact]) -> tuple[list[_Asked], Counter[str]]:
    """Every fact that can be asked of a model, and how many cannot, by reason."""
    asked, left_out = list[_Asked](), Counter[str]()
    for fact in facts:
        prompt = fact.prompt.rstrip()
        try:
            words = with_subject(prompt, fact.subject, "{}")
            tokens = model.to_tokens(prompt)
            subject_columns(model, prompt, fact.subject, tokens)
        except PromptError:
            left_out["the subject does not stand in the prompt as words, and tokens, of its own"] += 1
            continue
        length = tokens.ids.shape[1]
        if model.max_positions is not None and length > model.max_positions:
            left_out[f"the prompt is longer than the {model.max_positions} tokens that {model.name} takes"] += 1
            continue
        try:
            asked.append(_Asked(fact, prompt, words, length, first_token(model, fact)))
        except PromptError:
            left_out["the answer shares a token with the prompt"] += 1
    return asked, left_out


def first_token(model: Model, fact: Fact) -> int:
    """The token that follows a fact's prompt where the text goes on with its attribute, the first one of several, by which the
    fact is asked for. Raises PromptError where the two share a token."""
    return first_of(model, fact.prompt.rstrip(), fact.attribute)


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
