"""The fact table that ships, and what the bundled model knows of it."""

import pytest
import torch

from circuits.tasks import mini_facts
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


@pytest.mark.slow
@pytest.mark.parametrize(("seen", "least"), [(True, 0.9), (False, 0.7)])
def test_mini_knows_them(seen: bool, least: float):
    model = bundled.mini()
    facts = mini_facts(seen=seen)[::3]
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
