"""A look at the prompts: counts against a plain run, a line for each thing that is wrong, refused only where nothing could
come out; and tasks that keep what the model gets right."""

import dataclasses
from typing import Any

import pytest
import torch

import circuits
from circuits.errors import NonFiniteError, PromptError
from circuits.models import Model, Run, TokenBatch
from circuits.models.forward import forward
from circuits.models.weights import Weights
from circuits.tasks import (
    Fact,
    PromptPairs,
    PromptReport,
    fact_pairs,
    induction,
    ioi,
    look_at_prompts,
    mini_facts,
    readings,
    task,
)
from circuits.tasks.metric import Metric, answer_logits
from circuits.tasks.metrics import logit_difference
from circuits.tasks.readings import draw_right, read_answers
from tests.models import bundled
from tests.models.native import native_bridge


@pytest.fixture(scope="module")
def mini() -> Model:
    return bundled.mini()


def wordless(seed: int = 0) -> Model:
    """A random model without a tokenizer."""
    return Model.from_bridge(native_bridge(seed, d_vocab=40, n_ctx=32))


def pairs_of(rows: list[tuple[list[int], list[int], int, int]]) -> PromptPairs:
    clean, corrupt, answers, distractors = (list(column) for column in zip(*rows, strict=True))
    return PromptPairs.from_tokens(40, clean=clean, corrupt=corrupt, answers=answers, distractors=distractors)


def test_counts_equal_a_loop(mini: Model) -> None:
    pairs = ioi(mini, 40, 1)
    report = look_at_prompts(mini, pairs)
    with torch.no_grad():
        sides = [answer_logits(mini.run(side), pairs) for side in (pairs.clean, pairs.corrupt)]
    differences = [logit_difference(logits, pairs) for logits in sides]
    top = sides[0].argmax(dim=1)
    assert report.right == [row for row in range(40) if top[row] == pairs.answers[row]]
    assert report.preferred == [row for row in range(40) if differences[0][row] > 0]
    assert torch.allclose(report.clean, differences[0].double(), atol=1e-4)
    assert torch.allclose(report.corrupt, differences[1].double(), atol=1e-4)
    assert report.said == tuple(mini.to_token_strings(top)) and report.prompts == pairs.labels
    assert report.lengths.tolist() == pairs.clean.mask.sum(dim=1).tolist()
    assert torch.equal(report.columns, pairs.answer_columns)
    said = f"{len(report.right)} of 40 are right (the answer is the top token); logit difference above 0 on "
    assert report.summary.startswith(f"{said}{len(report.preferred)} of 40 clean prompts, below 0 on ")
    assert len(report.to_dataframe()) == len(report) == 40


def test_a_look_costs_two_forward_passes(mini: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counted(weights: Weights, tokens: TokenBatch, *, columns: torch.Tensor, **options: Any) -> Run:
        assert options == {"keep": "logits"} and columns.shape == (len(tokens),), "one column of each prompt is unembedded"
        seen.append(len(tokens))
        return forward(weights, tokens, columns=columns, **options)

    monkeypatch.setattr(readings, "forward", counted)
    drawn = task("facts").draw(mini, 8, 0)
    asked = sum(seen)
    report = look_at_prompts(mini, drawn)
    assert sum(seen) == asked + 8 == asked + len(report), "what was read while drawing is not read again"
    look_at_prompts(mini, drawn.pairs)
    assert sum(seen) == asked + 24


def test_each_fault_is_one_line_with_what_to_do() -> None:
    model = wordless()
    ids = torch.randint(2, 40, (6, 5), generator=torch.Generator().manual_seed(1)).tolist()
    changed = [[*row[:2], (row[2] - 1) % 38 + 2, *row[3:]] for row in ids]
    with torch.no_grad():
        logits = [model.run(torch.tensor(rows)).logits[:, -1] for rows in (ids, changed)]
    order = logits[0].argsort(dim=1, descending=True).tolist()
    fall = (logits[0] - logits[1]).argsort(dim=1, descending=True).tolist()

    def advice(answers: list[int], distractors: list[int], rows: list[int] | None = None, **options: bool) -> list[str]:
        rows = rows or list(range(6))
        cases = [(ids[row], changed[row], answers[row], distractors[row]) for row in rows]
        return list(look_at_prompts(model, pairs_of(cases)).advice(**options))

    best, second = ([row[place] for row in order] for place in (0, 1))
    wrong = advice(second, best)
    assert wrong[0].startswith("the model is right on 0 of 6 (it says '") and "take prompts that it gets right" in wrong[0]
    assert "logit difference is above 0 on 0 of 6 clean prompts" in wrong[1]
    least = [[token for token in row if token != answer][-1] for row, answer in zip(fall, best, strict=True)]
    lowered = advice(best, least)
    assert not any("right on" in line or "above 0" in line for line in lowered)
    backwards = advice([row[-1] for row in fall], [row[0] for row in fall])
    assert any("does not lower logit difference on 6 of 6" in line for line in backwards)
    assert any(line.startswith("2 of 6 pairs repeat an earlier one") for line in advice(best, least, [0, 1, 2, 3, 0, 1]))
    assert any("every answer is '" in line for line in advice([best[0]] * 6, [second[0]] * 6))


def test_answers_are_named_by_their_tokens_and_the_words_that_they_begin(mini: Model) -> None:
    names = {"France": "Paris", "Japan": "Tokyo Bay", "Italy": "Rome", "Spain": "Madrid"}
    facts = [Fact(f"The capital of {name} is", name, city, "x") for name, city in names.items()]
    pairs = fact_pairs(mini, [*facts, Fact("A Japanophile is fond of", "Japan", "Tokyo", "y")])
    report = look_at_prompts(mini, pairs)
    paris, tokyo, rome = (mini.single_token(f" {city}") for city in ("Paris", "Tokyo", "Rome"))
    first = f"answers ' Paris' (token {paris}), ' Tokyo' (token {tokyo}, the first of 'Tokyo Bay'), ' Rome' (token {rome})"
    assert report.summary.endswith(f"{first} and 1 more.")
    reason = "the subject does not stand in the prompt as words, and tokens, of its own"
    assert report.advice()[-1] == f"1 more is left out, which could not be used: 1: {reason}"
    assert report.left_out == {reason: 1} and report.tokens is not None and torch.equal(report.tokens, pairs.answers)
    assert look_at_prompts(wordless(), pairs_of([([3, 4, 5], [3, 6, 5], 7, 8)])).summary.endswith("answers '7'.")


def test_columns_matter_only_where_they_are_asked_about() -> None:
    model = wordless()
    pairs = pairs_of([([3, 4, 5], [3, 6, 5], 7, 8), ([3, 4, 5, 9], [3, 6, 5, 9], 9, 8)])
    report = look_at_prompts(model, pairs)
    assert any("prompts have 3 to 4 tokens" in line and "-1" in line for line in report.advice(positions=True))
    assert not any("tokens, a column" in line for line in report.advice())


def test_pairs_that_make_no_difference_are_refused_and_others_are_not() -> None:
    model = wordless()
    weights = dataclasses.replace(model.weights, W_E=model.weights.W_E[:1].expand(40, -1).contiguous())
    deaf = dataclasses.replace(model, weights=weights)
    pairs = pairs_of([([3, 4, 5], [3, 6, 5], 7, 8), ([3, 4, 9], [3, 6, 9], 9, 8)])
    with pytest.raises(PromptError, match=r"logit difference is the same .* of all 2 pairs"):
        look_at_prompts(deaf, pairs).require_difference()
    look_at_prompts(model, pairs).require_difference()


def test_the_metric_of_a_task_tells_where_it_has_a_zero(mini: Model) -> None:
    pairs = induction(mini, 6)
    own = Metric("twice", lambda logits, pairs: 2 * logit_difference(logits, pairs))
    usual = look_at_prompts(mini, pairs)
    assert look_at_prompts(mini, pairs, own).summary.startswith("twice above 0 on 6 of 6 clean prompts")
    assert torch.allclose(look_at_prompts(mini, pairs, own).clean, 2 * usual.clean)
    for metric in (circuits.metrics.probability, circuits.metrics.rank, circuits.metrics.kl_divergence):
        assert torch.equal(look_at_prompts(mini, pairs, metric).clean, usual.clean)


def test_a_logit_that_is_no_number_is_refused_by_name() -> None:
    model = wordless()
    W_E = model.weights.W_E.clone()
    W_E[4] = 1e300  # overflows on the way
    pairs = pairs_of([([3, 9, 5], [3, 6, 5], 7, 8), ([3, 4, 5], [3, 6, 5], 7, 8)])
    with pytest.raises(NonFiniteError, match="prompt 1"):
        look_at_prompts(dataclasses.replace(model, weights=dataclasses.replace(model.weights, W_E=W_E)), pairs)


@pytest.mark.parametrize("name", ["facts", "facts:country_capital"])
def test_a_task_keeps_prompts_that_the_model_gets_right(mini: Model, name: str) -> None:
    chosen, count = task(name), 12
    drawn = chosen.draw(mini, count, 3)
    report = look_at_prompts(mini, drawn)
    assert chosen.known and drawn.count is not None and drawn.count >= len(drawn.pairs)
    assert len(report.right) == len(report) and report.drawn == drawn.count
    assert f"{len(report)} of {drawn.count} drawn are right" in report.summary
    assert len(set(drawn.pairs.labels)) == len(drawn.pairs)
    again = chosen.draw(mini, count, 3)
    assert again.pairs.labels == drawn.pairs.labels and again.count == drawn.count


def test_what_was_drawn_first_stays_where_all_of_it_is_right(mini: Model) -> None:
    facts = [fact for fact in mini_facts() if fact.relation == "country_capital"]
    whole = fact_pairs(mini, facts)
    right = look_at_prompts(mini, whole).right
    known = whole[right[:5]]
    drawn = draw_right(mini, lambda model, count, seed: known, 5, 0)
    assert drawn.pairs is known and drawn.count == 5


def test_draws_go_on_until_enough_are_right() -> None:
    """The reference: one pair after the other, in the order of a task whose smaller draws begin its larger ones."""
    model = wordless()
    ids = torch.randint(2, 40, (200, 4), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        top = model.run(ids).logits[:, -1].argmax(dim=1).tolist()
    cases = []
    for row, (prompt, best) in enumerate(zip(ids.tolist(), top, strict=True)):
        answer = best if row % 3 == 1 else (best + 1) % 40
        cases.append((prompt, [*prompt[:2], (prompt[2] - 1) % 38 + 2, prompt[3]], answer, (answer + 5) % 40))
    everything = pairs_of(cases)
    drawn = draw_right(model, lambda model, count, seed: everything[:count], 6, 0)
    assert len(drawn.pairs) == 6 and drawn.clean is not None and drawn.count is not None
    keys = [(*clean, int(answer)) for clean, answer in zip(drawn.pairs.clean.ids.tolist(), drawn.pairs.answers, strict=True)]
    rows = [next(row for row, case in enumerate(cases) if (*case[0], case[2]) == key) for key in keys]
    assert rows[:2] == [1, 4] and all(row % 3 == 1 for row in rows) and len(set(rows)) == 6
    assert 6 < drawn.count <= 100
    assert not any("asked for" in line for line in look_at_prompts(model, drawn).advice())
    few = draw_right(model, lambda model, count, seed: everything[:count][:9], 6, 0)
    assert (len(few.pairs), few.count, few.asked) == (3, 9, 6)
    assert "only 3 prompts of the 6 asked for are right, of 9 drawn" in look_at_prompts(model, few).advice()[0]
    read = read_answers(model, drawn.pairs.clean, drawn.pairs)
    assert torch.allclose(read.score, drawn.clean.score) and torch.equal(read.rank, drawn.clean.rank)


def test_a_model_that_is_never_right_is_asked_all_the_same() -> None:
    model = wordless()
    ids = torch.randint(2, 40, (100, 4), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        worst = model.run(ids).logits[:, -1].argmin(dim=1).tolist()
    cases = [
        (prompt, [*prompt[:2], (prompt[2] - 1) % 38 + 2, prompt[3]], answer, (answer + 5) % 40)
        for prompt, answer in zip(ids.tolist(), worst, strict=True)
    ]
    everything = pairs_of(cases)
    drawn = draw_right(model, lambda model, count, seed: everything[:count], 6, 0)
    assert drawn.count == 100 and torch.equal(drawn.pairs.clean.ids, everything[:6].clean.ids)
    assert look_at_prompts(model, drawn).summary.startswith("0 of 6 (and fewer than 2 of 100 drawn) are right")
    assert look_at_prompts(model, drawn.pairs).summary.startswith("0 of 6 are right")


def test_the_report_is_a_public_name() -> None:
    assert circuits.PromptReport is PromptReport and circuits.look_at_prompts is look_at_prompts
