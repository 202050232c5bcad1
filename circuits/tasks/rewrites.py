"""Facts that are to be rewritten: each with another answer, the same asked in other words, and neighbours that are to stay."""

import dataclasses
import random
from collections.abc import Mapping, Sequence

from circuits.errors import PromptError, shown
from circuits.models import Model
from circuits.tasks.answers import first_of, following, spelled
from circuits.tasks.sources.facts import Fact
from circuits.tasks.subjects import subject_columns, with_subject

PARAPHRASES, NEIGHBOURS = 2, 10
"""As many as CounterFact has of each fact (Meng et al. 2022)."""


@dataclasses.dataclass(frozen=True)
class Rewrite:
    """A fact with the answer that it is to have, and what is asked besides. Answers are spelled as they follow prompts."""

    prompt: str
    subject: str
    old: str
    new: str
    """One token."""
    relation: str = ""
    paraphrases: tuple[str, ...] = ()
    """The same asked in other words."""
    neighbours: tuple[tuple[str, str], ...] = ()
    """The same asked of other subjects, each with its own answer."""


@dataclasses.dataclass(frozen=True)
class FactRelation:
    """What facts of one relation share: in which words they are asked, and who has which answer."""

    templates: tuple[str, ...]
    """Prompts with {} for the subject."""
    answers: dict[str, str]
    """Subject → its attribute."""

    def of(
        self, template: str, subject: str, old: str, new: str, *, paraphrases: int, neighbours: int, draw: random.Random
    ) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
        """Both of the following: the same asked in other words, and of others."""
        prompt = template.replace("{}", subject)
        return (
            self.paraphrases(prompt, subject, count=paraphrases, draw=draw),
            self.neighbours(template, subject, old, new, count=neighbours, draw=draw),
        )

    def paraphrases(self, prompt: str, subject: str, *, count: int, draw: random.Random) -> tuple[str, ...]:
        """Other prompts about a subject, at random."""
        others = [text for one in self.templates if (text := one.replace("{}", subject)) != prompt]
        return tuple(draw.sample(others, min(count, len(others))))

    def neighbours(
        self, template: str, subject: str, old: str, new: str, *, count: int, draw: random.Random
    ) -> tuple[tuple[str, str], ...]:
        """The same asked of other subjects, with their answers: at random, those with the same first, none with the new."""
        others = [(one, answer) for one, answer in self.answers.items() if one != subject and answer != new]
        draw.shuffle(others)
        others.sort(key=lambda one: one[1] != old)
        found = [(template.replace("{}", one), answer) for one, answer in others[:count]]
        return tuple((prompt, spelled(prompt, answer)) for prompt, answer in found)


def relations_of(facts: Sequence[Fact]) -> dict[str, FactRelation]:
    """The relations of facts by name; facts without one have none."""
    templates, answers = dict[str, dict[str, None]](), dict[str, dict[str, str]]()
    for fact in facts:
        if not fact.relation:
            continue
        answers.setdefault(fact.relation, {}).setdefault(fact.subject.strip(), fact.attribute.strip())
        try:
            words = with_subject(fact.prompt.rstrip(), fact.subject, "{}")
        except PromptError:
            continue
        if words.count("{}") == 1:
            templates.setdefault(fact.relation, {})[words] = None
    return {name: FactRelation(tuple(templates.get(name, ())), there) for name, there in answers.items()}


def rewrites_of(
    model: Model,
    facts: Sequence[Fact],
    *,
    relations: Mapping[str, FactRelation] | None = None,
    paraphrases: int = PARAPHRASES,
    neighbours: int = NEIGHBOURS,
    seed: int = 0,
) -> tuple[tuple[Rewrite, ...], tuple[tuple[str, str], ...]]:
    """Facts with other answers of their relation, drawn, and those that cannot be rewritten, each prompt with the reason.

    The new answer is one token, and begins otherwise than the old one. A fact that is asked in several prompts is rewritten in
    the first of them. Raises ModelError for a model without a tokenizer.

    Args:
        model: whose tokens answers are.
        facts: the facts.
        relations: where other answers, prompts in other words, and neighbours come from (default: the facts themselves).
        paraphrases: how many prompts in other words, at most.
        neighbours: how many neighbours, at most: those with the same answer first, as in CounterFact.
        seed: of what is drawn, for each fact by itself.
    """
    relations = relations_of(facts) if relations is None else relations
    found, left, seen = list[Rewrite](), list[tuple[str, str]](), set[tuple[str, str]]()
    for fact in facts:
        if (fact.subject, fact.relation) in seen:
            continue
        seen.add((fact.subject, fact.relation))
        draw = random.Random(f"{seed} {fact.subject} {fact.relation}")
        try:
            found.append(_rewritten(model, fact, relations.get(fact.relation), paraphrases, neighbours, draw))
        except PromptError as error:
            left.append((fact.prompt, str(error)))
    return tuple(found), tuple(left)


def _rewritten(
    model: Model, fact: Fact, relation: FactRelation | None, paraphrases: int, neighbours: int, draw: random.Random
) -> Rewrite:
    prompt, subject, old = fact.prompt.rstrip(), fact.subject.strip(), fact.attribute.strip()
    subject_columns(model, prompt, subject, model.to_tokens(prompt))
    words = with_subject(prompt, subject, "{}")
    if relation is None:
        raise PromptError(f"the fact {shown(prompt)} has no relation, from which another answer could be taken")
    new = another_answer(model, prompt, old, sorted({*relation.answers.values()}), draw)
    return Rewrite(
        prompt,
        subject,
        spelled(prompt, old),
        spelled(prompt, new),
        fact.relation,
        *relation.of(words, subject, old, new, paraphrases=paraphrases, neighbours=neighbours, draw=draw),
    )


def relation_asked(
    model: Model, relations: Mapping[str, FactRelation], prompt: str, subject: str, answer: int
) -> tuple[str, FactRelation] | None:
    """The relation that a prompt asks for: one that is asked in these words, or that knows the subject with an answer that
    begins with this token; None where there is none."""
    words = with_subject(prompt, subject, "{}")
    for name, relation in relations.items():
        if words in relation.templates:
            return name, relation
    for name, relation in relations.items():
        known = next((one for one in relation.answers if one.lower() == _bare(subject)), None)
        if known is not None and following(model, prompt, spelled(prompt, relation.answers[known]))[:1] == [answer]:
            return name, relation
    return None


def _bare(subject: str) -> str:
    """A subject without its article, in small letters."""
    return subject.strip().lower().removeprefix("the ")


def another_answer(model: Model, prompt: str, old: str, answers: Sequence[str], draw: random.Random) -> str:
    """One of some answers, drawn, that is one token after the prompt and begins otherwise than the old one. Raises PromptError
    where there is none."""
    begins = first_of(model, prompt, old)
    for answer in draw.sample(answers, len(answers)):
        ids = following(model, prompt, spelled(prompt, answer))
        if answer != old and len(ids) == 1 and ids[0] != begins:
            return answer
    raise PromptError(f"the fact {shown(prompt)}: no other answer of its relation is one token of {model.name}")
