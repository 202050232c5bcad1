"""Scores of minimal pairs and facts against scoring one text at a time, and where the right answer is known."""

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from circuits.errors import CircuitsError, FileFormatError, ModelError, NonFiniteError, PromptError
from circuits.models import Model, Run, TokenBatch, load_model
from circuits.models.forward import forward
from circuits.models.planted import planted_induction
from circuits.models.weights import Norm, Weights
from circuits.tasks import BehaviourScores, Fact, MinimalPair, mini_facts, score_facts, score_minimal_pairs
from circuits.tasks.behavioural import likelihood
from circuits.tasks.behavioural.likelihood import BACKOFF, BigramModel, WordCounts, token_log_probabilities
from circuits.tasks.behavioural.scoring import _margin
from tests.models import bundled, checkpoints

PAIRS = [
    MinimalPair("The dog near the cats is old.", "The dog near the cats are old.", "number"),
    MinimalPair("The dogs are old.", "The dogs is very very old.", "number"),
    MinimalPair("She told him that the king had come.", "She told him who the king had come.", "gap"),
    MinimalPair("The same.", "The same.", "gap"),
]


@pytest.fixture(scope="module")
def mini() -> Model:
    return bundled.mini(torch.float64)


@pytest.fixture(scope="module")
def bigram_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of bytes that knows one thing: after "a" comes "b" (and after anything else, nothing in particular)."""
    directory = tmp_path_factory.mktemp("bytes")
    model = load_model(checkpoints.save(checkpoints.build(*checkpoints.RECIPES["gpt2"]), directory), dtype=torch.float64)
    weights, width = model.weights, model.d_model
    a, b = (model.to_tokens(letter, prepend_bos=False).ids[0, 0] for letter in "ab")
    W_E, W_U = torch.zeros_like(weights.W_E), torch.zeros_like(weights.W_U)
    W_E[a, 0], W_U[0, b] = 3.0, 3.0
    quiet = [
        dataclasses.replace(
            block,
            attention=dataclasses.replace(
                block.attention, W_O=0 * block.attention.W_O, b_O=torch.zeros(width, dtype=torch.float64)
            ),
            mlp=dataclasses.replace(block.mlp, W_out=0 * block.mlp.W_out, b_out=torch.zeros(width, dtype=torch.float64)),
        )
        for block in weights.blocks
    ]
    bare = dataclasses.replace(
        weights, W_E=W_E, W_U=W_U, b_U=None, W_pos=torch.zeros_like(weights.W_pos), final_norm=None, blocks=tuple(quiet)
    )
    return dataclasses.replace(model, weights=bare)


def one_at_a_time(model: Model, text: str) -> list[float]:
    ids = model.to_tokens(text).ids
    logits = model.run(ids).logits[0].log_softmax(dim=-1)
    return [float(logits[place - 1, ids[0, place]]) for place in range(1, ids.shape[1])]


def by_two(model: Model, text: str) -> float:
    """The model's log-probability of a text where it sees BOS and one token at a time."""
    ids, total, bos = model.to_tokens(text).ids[0].tolist(), 0.0, model.tokenizer.bos_token_id
    for first, second in itertools.pairwise(ids):
        context = [bos] if first == bos else [bos, first]
        total += float(model.run(torch.tensor([context])).logits[0, -1].log_softmax(dim=-1)[second])
    return total


@pytest.mark.parametrize("budget", [2**28, 2**22, 1])
def test_scores_equal_one_sentence_at_a_time(budget: int, mini: Model) -> None:
    scores = score_minimal_pairs(mini, PAIRS, budget=budget)
    for index, pair in enumerate(PAIRS):
        good, bad = one_at_a_time(mini, pair.good), one_at_a_time(mini, pair.bad)
        margin, mean = sum(good) - sum(bad), sum(good) / len(good) - sum(bad) / len(bad)
        assert float(scores.values["margin"][index]) == pytest.approx(margin, abs=1e-9)
        won = 0.5 if pair.good == pair.bad else float(margin > 0)
        assert float(scores.values["accuracy"][index]) == won
        assert float(scores.values["accuracy_per_token"][index]) == (won if won == 0.5 else float(mean > 0))
        bigram = by_two(mini, pair.good) - by_two(mini, pair.bad)
        assert float(scores.values["bigram"][index]) == (0.5 if abs(bigram) < 1e-12 else float(bigram > 0))
        lengths = [len(mini.to_tokens(text).ids[0]) for text in (pair.good, pair.bad)]
        assert float(scores.values["length"][index]) == (lengths[0] < lengths[1]) + 0.5 * (lengths[0] == lengths[1])
    assert "unigram" not in scores.values and scores.groups == ("number", "number", "gap", "gap")


def test_pads_and_batches_move_no_number(mini: Model) -> None:
    texts = [fact.prompt for fact in mini_facts()[::150]] + ["One.", "A much longer sentence about nothing at all, and more."]
    rows = [mini.to_tokens(text).ids[0].tolist() for text in texts]
    together, alone = token_log_probabilities(mini, rows), [token_log_probabilities(mini, [row])[0] for row in rows]
    for text, one, other in zip(texts, together, alone, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-10) and len(one) == len(mini.to_tokens(text).ids[0]) - 1
        assert other.tolist() == pytest.approx(one_at_a_time(mini, text), abs=1e-10)


def test_half_precision_is_summed_in_full() -> None:
    half = load_model("mini", dtype=torch.bfloat16)
    ids = half.to_tokens(PAIRS[0].good).ids
    expected = half.run(ids).logits[0, :-1].float().log_softmax(dim=-1).gather(1, ids[0, 1:, None])[:, 0]
    assert torch.allclose(token_log_probabilities(half, ids.tolist())[0], expected.double(), rtol=0, atol=1e-4)


def test_the_models_own_bigrams_see_bos_and_one_token(mini: Model) -> None:
    W_pos = torch.randn(128, mini.d_model, generator=torch.Generator().manual_seed(0)).double()
    placed = dataclasses.replace(mini, weights=dataclasses.replace(mini.weights, W_pos=W_pos))  # a second BOS would tell
    row = mini.to_tokens(PAIRS[0].good).ids[0].tolist()
    found = BigramModel.of(placed, None).log_probabilities([row])[0]
    assert float(found.sum()) == pytest.approx(by_two(placed, PAIRS[0].good), abs=1e-9)


def test_batches_stay_within_the_budget(mini: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, int]] = []

    def seen(weights: Weights, tokens: TokenBatch, **options) -> Run:
        shapes.append(tuple(tokens.ids.shape))
        return forward(weights, tokens, **options)

    monkeypatch.setattr(likelihood, "forward", seen)
    rows, budget = [[5] * width for width in (60, 5, 60, 5, 60, 5, 60, 60, 60)], 4 * likelihood._bytes(mini, 64)
    token_log_probabilities(mini, rows, budget=budget)
    list(likelihood.read_next_tokens(mini, rows, lambda batch, logits: None, budget=budget))
    assert shapes[0] == (3, 5) and sum(count for count, _ in shapes) == 2 * len(rows)
    assert all(count * likelihood._bytes(mini, width) <= budget for count, width in shapes)


def test_a_model_that_knows_pairs_of_letters_does_what_it_was_built_to_do(bigram_model: Model) -> None:
    pairs = [MinimalPair("xab", "xac"), MinimalPair("xac", "xab"), MinimalPair("xcb", "xcd")]
    scores = score_minimal_pairs(bigram_model, pairs)
    assert scores.values["accuracy"].tolist() == [1.0, 0.0, 0.5], "after c nothing is preferred: a tie"
    assert scores.values["margin"].tolist() == pytest.approx([9.0, -9.0, 0.0]), "the logit of b after a is 3 x 3"
    assert scores.values["bigram"].tolist() == [1.0, 0.0, 0.5], "the model is a bigram model"
    longer = score_minimal_pairs(bigram_model, [MinimalPair("xcb", "xcbb")]).values
    assert (float(longer["accuracy"]), float(longer["accuracy_per_token"])) == (1.0, 0.5), "each token is as likely"
    assert scores.mean("accuracy") == 0.5 and scores.standard_error("accuracy") == pytest.approx(0.5 / 3**0.5)


def test_facts_of_that_model_and_their_baselines(bigram_model: Model) -> None:
    model = dataclasses.replace(bigram_model, tokenizer=_Spaceless(bigram_model.tokenizer))
    facts = [Fact("x a", "x", "b", "r"), Fact("y a", "y", "c", "r"), Fact("z a ", "z", "c", "r"), Fact("x", "x", "d", "s")]
    scores = score_facts(model, facts)
    assert scores.values["top1"].tolist() == [1.0, 0.0, 0.0, 0.0], "ties count against the answer"
    size = model.weights.W_U.shape[1]
    assert scores.values["reciprocal_rank"].tolist() == pytest.approx([1.0, 1 / size, 1 / size, 1 / size])
    total = math.log(math.exp(9) + size - 1)
    assert scores.values["log_probability"].tolist() == pytest.approx([9 - total, -total, -total, -math.log(size)])
    for measure in ("top1", "reciprocal_rank", "log_probability"):
        assert torch.allclose(scores.values[f"bigram_{measure}"], scores.values[measure], atol=1e-12)
    assert scores.values["majority_top1"].tolist() == [0.0, 1.0, 1.0, 1.0]
    assert scores.values["majority_reciprocal_rank"].tolist() == [0.5, 1.0, 1.0, 1.0]
    assert scores.values["majority_log_probability"].tolist() == pytest.approx([math.log(1 / 3), *[math.log(2 / 3)] * 2, 0])


def test_sums_that_differ_by_rounding_are_a_tie_and_counts_are_not() -> None:
    good, bad = torch.tensor([-100.0, -100.0]).double(), torch.tensor([-100.00001, -100.001]).double()
    assert (_margin(good, bad, exact=False) > 0).tolist() == [False, True]
    assert (_margin(good, bad, exact=True) > 0).tolist() == [True, True]


class _Spaceless:
    """The tokenizer of bytes, but spaces are dropped: " b" is one token, that of b."""

    def __init__(self, tokenizer) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str):
        return getattr(self._tokenizer, name)

    def encode(self, text: str, **options) -> list[int]:
        return self._tokenizer.encode(text.replace(" ", ""), **options)

    def __call__(self, text: str, **options):
        return self._tokenizer(text.replace(" ", ""), **options)


def test_facts_equal_one_at_a_time(mini: Model) -> None:
    facts = [*mini_facts()[::200], *mini_facts(seen=False)[::400]]
    scores = score_facts(mini, facts, budget=2**21)
    for index, fact in enumerate(facts):
        logits = mini.run(fact.prompt).logits[0, -1]
        answer = mini.tokenizer.encode(f" {fact.attribute}", add_special_tokens=False)[0]
        rank = int((logits > logits[answer]).sum()) + 1
        assert float(scores.values["reciprocal_rank"][index]) == pytest.approx(1 / rank)
        assert float(scores.values["top1"][index]) == float(rank == 1)
        expected = float(logits.log_softmax(dim=-1)[answer])
        assert float(scores.values["log_probability"][index]) == pytest.approx(expected, abs=1e-9)
    assert scores.mean("top1", facts[0].relation) == pytest.approx(
        float(scores.values["top1"][[index for index, fact in enumerate(facts) if fact.relation == facts[0].relation]].mean())
    )


def test_counts_of_a_text_are_those_of_a_loop(mini: Model) -> None:
    text = "The king is here. The king was there. The dogs are here, and the king is old."
    ids, size = mini.to_tokens(text, prepend_bos=False).ids[0].tolist(), mini.d_vocab
    pairs = [MinimalPair("The king is here.", "The king are here.", "x"), MinimalPair("The dogs is", "The dogs are", "x")]
    scores, bigram = score_minimal_pairs(mini, pairs, text=text), BigramModel.of(mini, text)
    share = [(ids.count(token) + 1) / (len(ids) + size) for token in range(size)]

    def probability(first: int, second: int) -> float:
        together = sum(pair == (first, second) for pair in itertools.pairwise(ids))
        return (together + BACKOFF * share[second]) / (ids[:-1].count(first) + BACKOFF)

    def sentence(text: str, kind: str) -> float:
        row = mini.to_tokens(text).ids[0].tolist()
        if kind == "unigram":
            return sum(math.log(share[token]) for token in row[1:])
        return sum(math.log(probability(*pair)) for pair in itertools.pairwise(row))

    for kind in ("bigram", "unigram"):
        expected = [float(sentence(pair.good, kind) > sentence(pair.bad, kind)) for pair in pairs]
        assert scores.values[kind].tolist() == expected
    assert scores.values["bigram"].tolist() == [1.0, 0.0], "the text says so"
    row = mini.to_tokens("The king is").ids[0].tolist()
    expected = [math.log(probability(*pair)) for pair in itertools.pairwise(row)]
    assert bigram.log_probabilities([row])[0].tolist() == pytest.approx(expected)
    (_, table), *_ = bigram.read_tables([row[1], row[0], ids[-1]], lambda batch, table: table)
    assert table.exp().sum(dim=1).tolist() == pytest.approx([1.0, 1.0, 1.0]), "nothing follows the last token of the text"
    with pytest.raises(PromptError, match="no neighbours"):
        WordCounts.of(mini, "the")


def test_what_cannot_be_scored_is_refused(mini: Model) -> None:
    with pytest.raises(PromptError, match="no minimal pairs"):
        score_minimal_pairs(mini, [])
    with pytest.raises(ModelError, match="no tokenizer"):
        score_facts(planted_induction().model, mini_facts()[:1])
    with pytest.raises(PromptError, match="takes 128: leave it out"):
        score_minimal_pairs(mini, [MinimalPair("word " * 200, "short")])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_logit_that_overflows_is_named_whichever_way_it_went(mini: Model, sign: int) -> None:
    """The unembedding reads ones: all terms of the logit are of one sign, too large in whatever order they are added."""
    zeros = torch.zeros(mini.d_model, dtype=mini.dtype)
    W_U = mini.weights.W_U.clone()
    W_U[:, 9] = sign * torch.finfo(W_U.dtype).max
    weights = dataclasses.replace(mini.weights, W_U=W_U, final_norm=Norm("layer", zeros, zeros + 1, eps=1e-5))
    broken = dataclasses.replace(mini, weights=weights)
    assert not bool((mini.to_tokens(PAIRS[0].good).ids == 9).any()), "nothing asks for the token itself"
    with pytest.raises(NonFiniteError, match="The dog"):
        score_minimal_pairs(broken, PAIRS[:1])
    with pytest.raises(NonFiniteError, match="capital of"):
        score_facts(broken, mini_facts(relation="country_capital")[:1])


def test_progress_runs_to_its_end(mini: Model) -> None:
    seen: list[tuple[str, int, int]] = []
    score_minimal_pairs(mini, PAIRS, progress=lambda *step: seen.append(step))
    assert {what for what, *_ in seen} == {"scoring text", "scoring baselines"}
    assert all(seen[-1 - index][1] <= seen[-1 - index][2] for index in range(len(seen))) and ("scoring text", 7, 7) in seen


def made(columns: Sequence[str] = ("accuracy", "bigram")) -> BehaviourScores:
    values = {name: torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64) for name in columns}
    return BehaviourScores("m", "minimal pairs", ("a", "b", "c"), ("x", "y", "x"), values, dict.fromkeys(columns, "note"))


def test_tables_and_files(tmp_path: Path) -> None:
    scores = made()
    table = scores.to_dataframe().set_index("group")
    assert table.loc["x", "accuracy"] == 0.75 and table.loc["all", "items"] == 3 and table.loc["all", "bigram"] == 0.5
    assert table.loc["x", "accuracy_se"] == pytest.approx(0.25) and math.isnan(table.loc["y", "accuracy_se"])
    assert scores.items_dataframe()["group"].tolist() == ["x", "y", "x"]
    scores.save(tmp_path / "scores.json")
    again = BehaviourScores.load(tmp_path / "scores.json")
    assert again.items == scores.items and again.notes == scores.notes
    assert again.items_dataframe().equals(scores.items_dataframe())
    whole = json.loads((tmp_path / "scores.json").read_text())
    for change in ({"items": ["a"]}, {"values": {}}, {"kind": "x"}, {"values": {"accuracy": [1, 2, "x"]}}, {"notes": 3}):
        (tmp_path / "broken.json").write_text(json.dumps(whole | change))
        with pytest.raises(FileFormatError, match="not fit together"):
            BehaviourScores.load(tmp_path / "broken.json")
    with pytest.raises(CircuitsError, match="no column 'x'"):
        scores.mean("x")
    with pytest.raises(CircuitsError, match="no group 'z'"):
        scores.mean("accuracy", "z")
