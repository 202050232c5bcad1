"""Facts that are to be rewritten: other answers, other words, and neighbours, all of the fact's relation."""

from circuits.tasks import Fact, mini_facts
from circuits.tasks.answers import following
from circuits.tasks.rewrites import relation_asked, relations_of, rewrites_of
from tests.models.bundled import mini

FACTS = mini_facts(relation="country_capital")


def test_a_rewrite_has_another_answer_of_one_token_and_asks_of_its_relation() -> None:
    found, left = rewrites_of(mini(), FACTS, paraphrases=2, neighbours=4, seed=1)
    assert len(found) == len({fact.subject for fact in FACTS}) and not left
    answers, relation = {fact.subject: fact.attribute for fact in FACTS}, relations_of(FACTS)["country_capital"]
    for one in found:
        assert one.old.strip() == answers[one.subject] and one.new.strip() in answers.values() and one.new != one.old
        assert len(following(mini(), one.prompt, one.new)) == 1
        assert len(one.paraphrases) == 2 and one.prompt not in one.paraphrases
        assert all(text.replace(one.subject, "{}") in relation.templates for text in one.paraphrases)
        assert len(one.neighbours) == 4 and all(answer != one.new for _, answer in one.neighbours)
    again, _ = rewrites_of(mini(), FACTS, paraphrases=2, neighbours=4, seed=1)
    other, _ = rewrites_of(mini(), FACTS, seed=2)
    assert again == found and [one.new for one in other] != [one.new for one in found]
    # What is drawn for a fact does not hang on which others are rewritten.
    few, _ = rewrites_of(mini(), FACTS[3:5], relations=relations_of(FACTS), paraphrases=2, neighbours=4, seed=1)
    assert few == found[3:5]


def test_neighbours_with_the_same_answer_come_first() -> None:
    words = [("France", "Europe"), ("Japan", "Asia"), ("Spain", "Europe"), ("China", "Asia"), ("Chad", "Africa")]
    facts = [Fact(f"The continent of {subject} is", subject, answer, "continent") for subject, answer in words]
    france = rewrites_of(mini(), facts, neighbours=2)[0][0]
    assert france.neighbours[0] == ("The continent of Spain is", " Europe") and len(france.neighbours) == 2


def test_facts_that_cannot_be_rewritten_are_left_out_with_the_reason() -> None:
    lonely = [Fact("The capital of France is", "France", "Paris", ""), Fact("Spain is in", "Spain", "Europe", "where")]
    found, left = rewrites_of(mini(), lonely)
    assert not found and ["no relation" in left[0][1], "no other answer" in left[1][1]] == [True, True]


def test_the_relation_of_a_prompt_is_known_by_its_words_or_by_its_answer() -> None:
    model, relations = mini(), relations_of(FACTS)
    paris = following(model, "France:", " Paris")[0]
    known = relation_asked(model, relations, FACTS[0].prompt, FACTS[0].subject, 0)
    assert known is not None and known[0] == "country_capital"
    assert relation_asked(model, relations, "The chief city that France has is", "France", paris) is not None
    assert relation_asked(model, relations, "The chief city that France has is", "France", 0) is None
