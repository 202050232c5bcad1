"""Explain, simulate, score: planted neurons are explained and scored, wrong words are not, constants are undefined."""

import dataclasses
import math
import random
from collections.abc import Sequence

import pytest
import torch

from circuits.errors import AnswerError, CircuitsError, EndpointError, GraphError, NonFiniteError, PromptError
from circuits.lenses.explaining import Explanations, NeuronExplanation, explain, explain_neurons
from circuits.lenses.explaining.excerpts import Excerpt, excerpts_of, rows_to_read, top_rows
from circuits.lenses.explaining.explanations import scored
from circuits.lenses.explaining.roles import Explainer, Simulator
from circuits.lenses.explaining.rule_search import AFFIXES, holding_at, rule_explainer
from circuits.lenses.explaining.rules import CLASSES, Clause, TokenRule, words_of
from circuits.lenses.explaining.scores import Correlation, correlation
from circuits.models import TokenBatch
from tests.lenses.lexicon import D_VOCAB, LEXICON, STRENGTHS, planted_lexicon, random_text
from tests.lenses.test_triggers import random_model
from tests.models.random_edits import random_batch
from tests.models.random_models import LENGTH

MODEL, TEXT = planted_lexicon(), random_text()
AWKWARD = ("the", 'say "so"', "a; b", "\\", "(3)", "é\n", "elsewhere (2)", "digits", " ")


def looked_up(explanation: str, tokens: Sequence[str]) -> list[float]:
    """A simulator that knows the planted neuron."""
    table = dict(zip(map(str, LEXICON), STRENGTHS, strict=True))
    return [10 * table.get(token, 0.0) for token in tokens]


def test_what_is_known_scores_one_and_a_wrong_word_scores_nothing() -> None:
    known = explain(MODEL, "m0.n2", TEXT, explainer=lambda shown, scale: "the lexicon", simulator=looked_up)
    assert all(found.value is not None and found.value >= 0.99 for found in vars(known.score).values())
    assert known.score.together.low is not None and known.score.together.low >= 0.99
    held = explain(MODEL, "m0.n2", random_text(1, rows=400, width=24), top=200).held
    tokens = [str(token) for token in range(1, D_VOCAB) if token not in LEXICON][::3]

    def score(kind: str, text: str) -> Correlation:
        """Of an explanation that says nothing true."""
        return scored(held, [TokenRule((Clause(kind, text),)).levels(one.tokens) for one in held], seed=0).together

    assert all(-0.1 < (score("word", token).value or 0) < 0 for token in tokens), "one token is never the other"
    around = [score("after", token) for token in tokens]
    assert sum(one.low <= 0 <= one.high for one in around) >= 0.8 * len(around), "what says nothing: its interval holds 0"


def test_a_constant_has_no_correlation_and_that_is_said() -> None:
    flat = explain(MODEL, "m0.n2", TEXT, simulator=lambda words, tokens: [3.0] * len(tokens))
    assert flat.score.together.value is None and "what is simulated is the same at every token" in flat.summary
    dead = MODEL.weights.blocks[0]
    assert dead.mlp is not None
    silent = dataclasses.replace(dead, mlp=dataclasses.replace(dead.mlp, W_in=torch.zeros_like(dead.mlp.W_in)))
    weights = dataclasses.replace(MODEL.weights, blocks=(silent,))
    found = explain(dataclasses.replace(MODEL, weights=weights), "m0.n2", TEXT)
    assert found.explanation == "nothing that a rule says" and "the real activations are the same" in found.summary


def test_the_rule_explainer_finds_the_planted_words() -> None:
    found = explain(MODEL, "m0.n2", TEXT)
    rule = TokenRule.parse(found.explanation)
    assert {(clause.kind, clause.text) for clause in rule.clauses} == {("word", str(token)) for token in LEXICON}
    levels = {int(clause.text): clause.level for clause in rule.clauses}
    assert levels == pytest.approx({t: 10 * s for t, s in zip(LEXICON, STRENGTHS, strict=True)}, abs=0.051)
    assert found.score.together.value is not None and found.score.together.value > 0.999


@pytest.mark.parametrize("seed", range(12))
def test_excerpts_are_the_rows_of_largest_activations_and_none_is_shown_and_held_out(seed: int) -> None:
    rng, model = random.Random(seed), random_model(seed)
    batch = random_batch(rng, 13, LENGTH)
    while len({tuple(ids[mask].tolist()) for ids, mask in zip(batch.ids, batch.mask, strict=True)}) < 6:
        more = random_batch(rng, 13, LENGTH)
        rows = [ids[mask].tolist() for one in (batch, more) for ids, mask in zip(one.ids, one.mask, strict=True)]
        batch = TokenBatch.from_rows(rows)
    text = rows_to_read(model, batch)
    layer, index = model.n_layers - 1, 1
    node, best = next(iter(top_rows(model, text, {layer: [index]}, top=2).items()))
    run = model.run(text)
    values = run.neurons[layer][:, :, index]
    counted = text.mask & ~((text.ids == 0) & (text.positions == 0))
    largest = values.masked_fill(~counted, -math.inf).amax(dim=1)
    assert largest[best].tolist() == pytest.approx(largest.sort(descending=True).values[:2].tolist(), abs=1e-9)
    found = excerpts_of(model, node, best, text, seed=seed)
    shown, held = ({one.prompt for one in part} for part in (found.shown, found.held))
    assert not shown & held and [one.kind for one in found.held] == ["top", "random"] and found.shown[0].prompt == best[0]
    for one in (*found.shown, *found.held):
        assert one.activations == pytest.approx(values[one.prompt][counted[one.prompt]].tolist(), abs=1e-9)
        assert [int(token) for token in one.tokens] == text.ids[one.prompt][counted[one.prompt]].tolist()


def test_levels_are_rounded_down_and_none_below_zero() -> None:
    one = Excerpt("top", 0, ("a",) * 6, (-3.0, 0.0, 0.19, 0.2, 1.99, 5.0))
    assert one.levels(2.0) == [0, 0, 0, 1, 9, 10] and one.levels(0.0) == [0] * 6


@pytest.mark.parametrize("seed", range(20))
def test_a_rule_says_itself_and_is_read_back(seed: int) -> None:
    rng = random.Random(seed)
    kinds = ["word", "start", "end", "after", "before", "class", "after class"]
    clauses = [
        Clause(kind, rng.choice([*CLASSES]) if "class" in kind else rng.choice(AWKWARD), rng.choice([10.0, 0.5, 3.0]))
        for kind in rng.choices(kinds, k=rng.randint(0, 4))
    ]
    rule = TokenRule(tuple(clauses), rng.choice([0.0, 0.4]))
    assert TokenRule.parse(str(rule)) == rule


def test_a_rule_is_read_from_other_words_or_refused() -> None:
    found = TokenRule.parse("It fires at 'Sea' and \"the Boat\", and at digits.")
    assert [(clause.kind, clause.text) for clause in found.clauses] == [
        ("word", "sea"),
        ("word", "the"),
        ("word", "boat"),
        ("class", "digits"),
    ]
    with pytest.raises(PromptError, match="finds no rule in 'words about the sea'"):
        TokenRule.parse("words about the sea")


@pytest.mark.parametrize("seed", range(20))
def test_what_holds_at_a_token_is_what_clauses_match(seed: int) -> None:
    rng = random.Random(seed)
    words = words_of(rng.choices([" the", "The", "12", "!?", "\n", "NATO", "a", " eating", "x1"], k=9))
    there = {clause for at in range(len(words)) for clause in holding_at(words, at)}
    for clause in there:
        assert clause.matches(words) == [clause in set(holding_at(words, at)) for at in range(len(words))]
    assert {len(clause.text) for clause in there if clause.kind == "start"} <= set(AFFIXES)


def test_rules_of_every_kind_are_found() -> None:
    rng = random.Random(0)
    vocabulary = ["the", "of", "12", "7", "unhappy", "unkind", "running", "eating", "London", "cat", "dog", ",", "NATO"]
    texts = [rng.choices(vocabulary, k=12) for _ in range(40)]
    for kind, text in (("word", "cat"), ("start", "unk"), ("class", "digits"), ("after", "of"), ("before", ","), ("end", "ng")):
        clause = Clause(kind, text)
        shown = [
            Excerpt("top", row, tuple(f" {word}" for word in words), tuple(2.0 * holds for holds in clause.matches(words)))
            for row, words in enumerate(texts)
        ]
        rule = TokenRule.parse(rule_explainer(shown, 2.0))
        levels = [rule.levels(one.tokens) for one in shown]
        assert levels == [[10.0 * holds for holds in clause.matches(words)] for words in texts], kind


@pytest.mark.parametrize("seed", range(20))
def test_a_correlation_is_that_of_all_tokens_and_its_interval_that_of_resampled_excerpts(seed: int) -> None:
    noise = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 7, (6,), generator=noise).tolist()
    real = [(100 + torch.randn(n, generator=noise).double()).tolist() for n in lengths]
    simulated = [(torch.tensor(one).double() + torch.randn(len(one), generator=noise)).tolist() for one in real]

    def slow(places: list[int]) -> float:
        sides = [[v for place in places for v in side[place]] for side in (real, simulated)]
        return float(torch.corrcoef(torch.tensor(sides, dtype=torch.float64))[0, 1])

    found = correlation(real, simulated, seed=seed, resamples=30)
    assert found.value == pytest.approx(slow([*range(6)]), abs=1e-6) and found.tokens == sum(lengths)
    drawn = torch.randint(6, (30, 6), generator=torch.Generator().manual_seed(seed)).tolist()
    ends = torch.tensor([slow(places) for places in drawn]).double().quantile(torch.tensor([0.025, 0.975]).double())
    assert [found.low, found.high] == pytest.approx(ends.tolist(), abs=1e-6)
    assert correlation(real[:4], simulated[:4]).low is None, "too few excerpts for an interval"


def test_many_neurons_are_as_each_by_itself_and_known_ones_are_not_done_again() -> None:
    tables = list[Explanations]()
    whole = explain_neurons(MODEL, "m0", TEXT, found=tables.append)
    assert [len(table.neurons) for table in tables] == [*range(1, 7)] and {table.asked for table in tables} == {6}
    for row in whole.neurons:
        single = explain(MODEL, row.neuron, TEXT)
        assert (row.explanation, row.score) == (single.explanation, single.score)
    counted = list[str]()

    def counting(shown: object, scale: float) -> str:
        counted.append("one")
        return 'the token "7" (10)'

    part = explain_neurons(MODEL, ["m0.n1", "m0.n2"], TEXT, explainer=counting)
    again = explain_neurons(MODEL, "m0", TEXT, explainer=counting, known=part)
    assert len(counted) == 6 and len(again.neurons) == 6
    explain_neurons(MODEL, ["m0.n1"], TEXT, explainer=counting, known=part, seed=1)
    assert len(counted) == 7, "another seed is another table"


def failing_never(asked: list[int]) -> Simulator:
    """Who knows the planted neuron, and counts the questions."""

    def failing(words: str, tokens: Sequence[str]) -> list[float]:
        asked.append(1)
        return looked_up(words, tokens)

    return failing


def test_answers_that_cannot_be_used_are_counted_and_left_out() -> None:
    asked = list[int]()

    def now_and_then(words: str, tokens: Sequence[str]) -> list[float]:
        asked.append(1)
        if len(asked) % 3 == 0:
            raise AnswerError(f"half an answer to {len(asked)}")
        return looked_up(words, tokens)

    found = explain(MODEL, "m0.n2", TEXT, simulator=now_and_then)
    assert len(found.held) == 14 and found.unanswered[:2] == ("half an answer to 3", "half an answer to 6")
    assert "Without an answer for 6 further excerpts" in found.summary and (found.score.together.value or 0) > 0.99
    assert NeuronExplanation.from_json(found.as_json()).unanswered == found.unanswered
    table = explain_neurons(MODEL, ["m0.n2"], TEXT, simulator=now_and_then)
    assert table.neurons[0].unanswered == 7

    def never(words: str, tokens: Sequence[str]) -> list[float]:
        raise AnswerError("nonsense")

    with pytest.raises(AnswerError, match="no answer of 20 can be used; the last one: nonsense"):
        explain(MODEL, "m0.n2", TEXT, simulator=never)


def test_a_neuron_that_nobody_explains_does_not_stop_the_others() -> None:
    asked = list[int]()

    def silent_at(neurons: set[int]) -> Explainer:
        def says(shown: Sequence[Excerpt], scale: float) -> str:
            asked.append(1)
            if len(asked) in neurons:
                raise AnswerError("wrote nothing")
            return 'the token "7" (10)'

        return says

    heard = list[Explanations]()
    found = explain_neurons(MODEL, "m0", TEXT, explainer=silent_at({1, 3}), found=heard.append)
    assert [one.neuron for one in found.neurons] == ["m0.n1", "m0.n3", "m0.n4", "m0.n5"] and found.asked == 6
    assert found.unexplained == {"m0.n0": "wrote nothing", "m0.n2": "wrote nothing"} and len(heard) == 4
    again = explain_neurons(MODEL, "m0", TEXT, explainer=silent_at(set()), known=Explanations.from_json(found.as_json()))
    assert len(asked) == 8 and len(again.neurons) == 6 and not again.unexplained, "they are asked for again"
    with pytest.raises(AnswerError, match="wrote nothing"):
        explain_neurons(MODEL, "m0", TEXT, explainer=silent_at({9, 10, 11}))
    assert len(asked) == 11, "three without an answer are enough"


def test_a_neuron_of_a_layer_goes_on_where_it_was_stopped() -> None:
    heard, asked = list[Explanations](), list[int]()

    def stopping(words: str, tokens: Sequence[str]) -> list[float]:
        asked.append(1)
        if len(asked) == 28:
            raise KeyboardInterrupt
        return looked_up(words, tokens)

    with pytest.raises(KeyboardInterrupt):
        explain_neurons(MODEL, "m0", TEXT, simulator=stopping, found=heard.append)
    part = Explanations.from_json(heard[-1].as_json())
    assert len(part.neurons) == 1 and part.begun is not None and part.begun.neuron == "m0.n1" and len(part.begun.held) == 7
    again = explain_neurons(MODEL, "m0", TEXT, simulator=stopping, known=part)
    assert len(asked) == 28 + 6 * 20 - 27 and again.begun is None
    assert again.neurons == explain_neurons(MODEL, "m0", TEXT, simulator=failing_never([])).neurons


def test_what_was_scored_before_an_endpoint_failed_is_heard() -> None:
    asked = list[int]()

    def failing(words: str, tokens: tuple[str, ...]) -> list[float]:
        asked.append(1)
        if len(asked) > 7:
            raise EndpointError("no answer")
        return looked_up(words, tokens)

    heard = []
    with pytest.raises(EndpointError, match="no answer"):
        explain(MODEL, "m0.n2", TEXT, simulator=failing, found=heard.append)
    begun, part = heard
    assert not begun.held and begun.explanation == part.explanation, "what is said is heard before it is tested"
    assert part.stopped == "no answer" and len(part.held) == 7 and part.score.together.value > 0.99
    assert "Stopped early: no answer" in part.summary
    asked[:] = []
    again = explain(MODEL, "m0.n2", TEXT, simulator=failing_never(asked), known=part)
    whole = explain(MODEL, "m0.n2", TEXT, simulator=looked_up)
    assert len(asked) == len(whole.held) - 7 and again.simulated == whole.simulated and again.score == whole.score
    explain(MODEL, "m0.n2", TEXT, simulator=failing_never(asked), known=again)
    assert len(asked) == 2 * len(whole.held) - 7, "what was finished is asked anew"
    explain(MODEL, "m0.n2", TEXT, simulator=failing_never(asked), known=part, seed=1)
    assert len(asked) == 3 * len(whole.held) - 7, "other excerpts are other questions"


def test_what_a_user_can_get_wrong_is_said() -> None:
    with pytest.raises(GraphError, match="is no neuron"):
        explain(MODEL, "a0.h0", TEXT)
    with pytest.raises(PromptError, match="1 different pieces: expected 4 or more"):
        explain(MODEL, "m0.n2", TokenBatch.unpadded(torch.tensor([[0, 5, 6]] * 9)))
    with pytest.raises(PromptError, match="top=1: expected at least 2"):
        explain(MODEL, "m0.n2", TEXT, top=1)
    with pytest.raises(PromptError, match="'psychic' neither explains nor simulates"):
        explain(MODEL, "m0.n2", TEXT, explainer="psychic")
    with pytest.raises(CircuitsError, match="1 numbers for 11 tokens"):
        explain(MODEL, "m0.n2", TEXT, simulator=lambda words, tokens: [1.0])
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        explain(MODEL, "m0.n2", TEXT, simulator=lambda words, tokens: [math.nan] * len(tokens))
    assert max(LEXICON) < D_VOCAB
