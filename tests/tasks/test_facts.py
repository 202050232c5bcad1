"""The fact table that ships, what the bundled model knows of it, and how facts become pairs."""

import random
from collections import Counter

import pytest
import torch

from circuits.tasks import fact_pairs, mini_facts
from circuits.tasks.sharing import groups_of
from tests.models import bundled


def test_every_fact_can_be_asked_in_a_seen_and_in_an_unseen_template():
    seen, unseen = mini_facts(), mini_facts(seen=False)
    assert len(seen) == len(unseen) >= 2000
    for one, other in zip(seen, unseen, strict=True):
        assert one.subject in one.prompt
        assert one.subject in other.prompt
        assert one.prompt != other.prompt
        assert (one.subject, one.attribute, one.relation) == (other.subject, other.attribute, other.relation)


def test_no_subject_has_two_objects_in_a_relation():
    asked = [(fact.subject, fact.relation) for fact in mini_facts()]
    assert len(set(asked)) == len(asked)


def test_one_relation_can_be_asked_for():
    capitals = mini_facts(relation="country_capital")
    assert {fact.relation for fact in capitals} == {"country_capital"}
    with pytest.raises(KeyError, match="no relation 'nonsense'"):
        mini_facts(relation="nonsense")


@pytest.mark.parametrize("seed", range(3))
def test_as_many_facts_as_can_go_two_and_two_and_a_draw_takes_one_of_every_two_first(seed: int) -> None:
    """Of facts that are asked alike nobody stays alone but for one, or those of an answer that more than half of them have."""
    draw, model = random.Random(seed), bundled.mini()
    some = [mini_facts(relation=name) for name in ("person_native_language", "landmark_on_continent")]
    facts = [fact for part in some for fact in draw.sample(part, draw.randint(20, 60))]
    pairs = fact_pairs(model, facts, seed=seed)
    others = [tuple(ids[mask].tolist()) for ids, mask in zip(pairs.corrupt.ids, pairs.corrupt.mask, strict=True)]
    own = [tuple(ids[mask].tolist()) for ids, mask in zip(pairs.clean.ids, pairs.clean.mask, strict=True)]
    partners, answers = dict(zip(own, others, strict=True)), dict(zip(own, pairs.answers.tolist(), strict=True))
    words = {prompt: (model.to_string(list(prompt[-2:])), len(prompt)) for prompt in partners}
    couples = 0
    for kind in set(words.values()):
        group = [prompt for prompt in partners if words[prompt] == kind]
        most = max(Counter(answers[prompt] for prompt in group).values())
        mutual = sum(partners[partners[prompt]] == prompt for prompt in group) // 2
        assert mutual == min(len(group) // 2, len(group) - most)
        couples += mutual
    apart = fact_pairs(model, facts, count=couples, seed=seed)
    assert len(groups_of(apart).unique()) == len(apart) == couples > 0, "no two of these share a prompt"


@pytest.mark.slow
@pytest.mark.parametrize(("seen", "least"), [(True, 0.9), (False, 0.7)])
def test_mini_knows_them(seen: bool, least: float):
    model = bundled.mini()
    facts = mini_facts(seen=seen)[::8]
    right = 0
    with torch.no_grad():
        for start in range(0, len(facts), 200):
            batch = facts[start : start + 200]
            tokens = model.to_tokens([fact.prompt for fact in batch])
            run = model.run(tokens, keep="logits")
            said = run.logits[torch.arange(len(batch)), tokens.last].argmax(dim=-1)
            answers = torch.tensor([model.single_token(f" {fact.attribute}") for fact in batch])
            right += int((said == answers).sum())
    assert right / len(facts) >= least
