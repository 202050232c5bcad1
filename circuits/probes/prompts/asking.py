"""Facts as a model is asked for them: a prompt that is typed, a subject by itself, and one of the relation's objects."""

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from circuits.errors import ModelError, PromptError
from circuits.models import Model
from circuits.models.planted import PlantedFact
from circuits.tasks.library.facts import first_token
from circuits.tasks.sources.facts import Fact

FEWEST = 8
"""Facts of a relation that it takes to train on some, stop by others and judge on the rest."""

Part = Literal["train", "stop", "judge"]


@dataclasses.dataclass(frozen=True)
class Cloze:
    """One fact."""

    relation: str
    subject: str
    object: str
    typed: tuple[int, ...]
    """Tokens of the typed prompt, which the object follows."""
    alone: tuple[int, ...]
    """Tokens of the subject by itself, behind which the trained vectors stand."""
    answer: int
    """The object's first token."""


@dataclasses.dataclass(frozen=True)
class Relation:
    """The facts of one relation, and what may be answered to each."""

    name: str
    facts: tuple[Cloze, ...]
    objects: tuple[int, ...]
    """First tokens, the most frequent first."""

    @property
    def answers(self) -> list[int]:
        """Which of the objects is right, fact by fact."""
        place = {token: at for at, token in enumerate(self.objects)}
        return [place[fact.answer] for fact in self.facts]

    def split(self, seed: int) -> dict[Part, list[int]]:
        """Which facts are trained on (half), which say when to stop (a fifth), and which are judged; drawn by the seed."""
        order = random.Random(seed).sample(range(len(self.facts)), len(self.facts))
        train, stop = len(order) // 2, len(order) // 2 + max(1, len(order) // 5)
        return {"train": order[:train], "stop": order[train:stop], "judge": order[stop:]}


def asked_relations(
    model: Model, facts: Sequence[Fact] | Sequence[PlantedFact], *, count: int | None, seed: int, longest: int
) -> tuple[list[Relation], dict[str, int]]:
    """Relations with the facts that can be asked, at most `count` of each, and how many facts are left out, by reason;
    `longest` is how many tokens stand behind a subject. Raises PromptError, with the reasons, where no relation is left, and
    ModelError for texts where there is no tokenizer."""
    model.require_open_end()
    left_out, rows = Counter[str](), dict[str, list[Cloze]]()
    for fact in facts:
        try:
            one = _cloze(model, fact)
        except PromptError:
            left_out["the object shares a token with the prompt"] += 1
            continue
        if model.max_positions is not None and max(len(one.typed), len(one.alone) + longest) > model.max_positions:
            left_out[f"longer than the {model.max_positions} tokens that {model.name} takes"] += 1
            continue
        rows.setdefault(one.relation, []).append(one)
    found = [relation for name, own in rows.items() if (relation := _relation(name, own, count, seed, left_out))]
    if not found:
        why = ", ".join(f"{number:,} {reason}" for reason, number in left_out.items() if number)
        raise PromptError(f"no relation is left of {len(facts):,} facts: {why or 'there are none'}")
    return found, dict(left_out)


def _cloze(model: Model, fact: Fact | PlantedFact) -> Cloze:
    if isinstance(fact, PlantedFact):
        words = " ".join(map(str, fact.subject))
        return Cloze(f"{fact.relation}", words, f"{fact.answer}", tuple(fact.prompt), tuple(fact.prompt[:-1]), fact.answer)
    if model.tokenizer is None:
        raise ModelError(f"{model.name} has no tokenizer: it can be asked for planted facts alone")
    typed, alone = (model.to_tokens(text).ids[0].tolist() for text in (fact.prompt.rstrip(), fact.subject.strip()))
    answer = first_token(model, fact)
    return Cloze(fact.relation, fact.subject.strip(), fact.attribute.strip(), tuple(typed), tuple(alone), answer)


def _relation(name: str, facts: Sequence[Cloze], count: int | None, seed: int, left_out: Counter[str]) -> Relation | None:
    """A relation, or None where too little is left of it."""
    once = list({fact.alone: fact for fact in reversed(facts)}.values())[::-1]
    left_out["another fact of the same subject"] += len(facts) - len(once)
    words: dict[int, set[str]] = {}
    for fact in once:
        words.setdefault(fact.answer, set()).add(fact.object)
    clear = [fact for fact in once if len(words[fact.answer]) == 1]
    left_out["two objects of the relation begin with the same token"] += len(once) - len(clear)
    if count is not None and count < len(clear):
        chosen = sorted(random.Random(seed).sample(range(len(clear)), count))
        left_out["more than were asked for"] += len(clear) - count
        clear = [clear[place] for place in chosen]
    objects = tuple(token for token, _ in Counter(fact.answer for fact in clear).most_common())
    if len(clear) < FEWEST or len(objects) < 2:
        left_out[f"of relations of fewer than {FEWEST} facts or of one object"] += len(clear)
        return None
    return Relation(name, tuple(clear), objects)
