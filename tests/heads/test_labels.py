"""Head labels and the attention-only probe: loops that say the definitions, and models whose heads are known."""

import dataclasses
import math
import random
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models as tokenizer_models, pre_tokenizers

from circuits.errors import FileFormatError, MemoryBudgetError, ModelError, PromptError
from circuits.heads import AttentionProbe, HeadLabels, label_heads, probe_attention
from circuits.heads.attention.labels import _second_half
from circuits.heads.attention.words import align_sentences, stream_attention
from circuits.models import Model, load_model
from circuits.models.planted import Planted, planted_induction
from circuits.tasks import Sentence, Word
from tests.models import bundled, checkpoints


def sentence(text: str, heads: list[tuple[int | None, str]]) -> Sentence:
    """Words between spaces with their heads and relations."""
    words, at = [], 0
    for form, (head, relation) in zip(text.split(" "), heads, strict=True):
        words.append(Word(form, at, at + len(form), "X", head, relation))
        at += len(form) + 1
    return Sentence(text, tuple(words))


def random_sentences(count: int, seed: int = 0) -> list[Sentence]:
    rng, found = random.Random(seed), []
    for _ in range(count):
        size = rng.randint(2, 7)
        text = " ".join("".join(rng.choice("abcdé") for _ in range(rng.randint(1, 3))) for _ in range(size))
        root = rng.randrange(size)
        heads = [(None, "root") if n == root else (root, rng.choice(["nsubj", "obj", "obl:arg"])) for n in range(size)]
        found.append(sentence(text, heads))
    return found


def spoken(planted: Planted) -> Model:
    """A planted model with a tokenizer of one token a word, w1 to w47, after BOS."""
    words = Tokenizer(tokenizer_models.WordLevel({"<bos>": 0, **{f"w{i}": i for i in range(1, 48)}}, unk_token="<bos>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<bos>")
    return dataclasses.replace(planted.model, tokenizer=fast, prepend_bos=True)


def repeats(count: int, seed: int = 0) -> list[Sentence]:
    """A segment of words said twice: `previous` is the word before, in the second copy `next` is what followed the word in
    the first."""
    rng, found = random.Random(seed), []
    for _ in range(count):
        size = rng.randint(4, 9)
        words = [f"w{i}" for i in rng.sample(range(1, 48), size)]
        heads: list[tuple[int | None, str]] = [(None, "root"), *((at - 1, "previous") for at in range(1, size))]
        heads += [(at + 1, "next") for at in range(size - 1)]
        found.append(sentence(" ".join(words + words[: size - 1]), heads))
    return found


@pytest.fixture(scope="module")
def planted() -> Planted:
    return planted_induction(seed=3)


def built(name: str, root: Path) -> Model:
    return load_model(checkpoints.save(checkpoints.build(*checkpoints.RECIPES[name]), root / name), dtype=torch.float64)


@pytest.fixture(scope="module", params=["gemma2", "gpt-neox"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return built(request.param, tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return built("gpt2", tmp_path_factory.mktemp("labels"))


def slow_attention(model: Model, one: Sentence) -> list[list[list[float]]]:
    """`[head][from word][to word]`: one byte is one token here."""
    run, spans, at = model.run(one.text, keep="patterns"), [], len(model.opening())
    for word in one.words:
        size = len(word.form.encode())
        spans.append(range(at, at + size))
        at += size + 1
    return [
        [[sum(float(run.pattern(layer)[0, head, q[-1], token]) for token in k) for k in spans] for q in spans]
        for layer in range(model.n_layers)
        for head in range(model.n_heads)
    ]


def test_attention_between_words_and_every_share_equal_loops(family: Model):
    sentences = random_sentences(24)
    attention = [slow_attention(family, one) for one in sentences]
    aligned, left_out = align_sentences(family, sentences)
    assert left_out == {"too long": 0, "not aligned": 0}
    for budget in (2**28, 2**17):
        for batch in stream_attention(family, aligned, budget=budget):
            for row, place in enumerate(batch.places):
                size = len(sentences[place].words)
                found, slow = (
                    batch.attention[row, :size, :size],
                    torch.tensor(attention[place], dtype=torch.float64).permute(1, 2, 0),
                )
                assert float((found - slow).abs().max()) <= 1e-10
    labels = label_heads(family, sentences, min_count=4, seed=2)
    second = _second_half(len(sentences), 2)
    assert int(second.sum()) == 12
    for row, (relation, looks_at) in enumerate(labels.rows):
        halves: list[list[tuple[int, int, int]]] = [[], []]
        for place, one in enumerate(sentences):
            for number, word in enumerate(one.words):
                if word.head is not None and word.relation.split(":")[0] == relation:
                    looks, gold = (number, word.head) if looks_at == "head" else (word.head, number)
                    if gold < looks:
                        halves[int(second[place])].append((place, looks, gold))
        offsets = [gold - looks for _, looks, gold in halves[0]]
        assert int(labels.offsets[row]) == min(offsets, key=lambda one, all=offsets: (-all.count(one), abs(one)))
        assert int(labels.counts[row]) == len(halves[1])
        hits = [gold - looks == int(labels.offsets[row]) for _, looks, gold in halves[1]]
        assert float(labels.baseline[row]) == pytest.approx(sum(hits) / len(hits), abs=1e-12)
        for head in range(family.n_layers * family.n_heads):
            right = []
            for place, looks, gold in halves[1]:
                seen = attention[place][head][looks][:looks]
                right.append(max(range(looks), key=lambda word, seen=seen: (seen[word], -word)) == gold)
            at = (row, head // family.n_heads, head % family.n_heads)
            assert float(labels.accuracy[at]) == pytest.approx(sum(right) / len(right), abs=1e-12)
            wins = sum(a and not b for a, b in zip(right, hits, strict=True))
            losses = sum(b and not a for a, b in zip(right, hits, strict=True))
            tail = sum(math.comb(wins + losses, k) for k in range(wins, wins + losses + 1)) / 2 ** (wins + losses)
            assert float(labels.p_values[at]) == pytest.approx(min(1.0, tail * labels.p_values.numel()), abs=1e-9)


def test_planted_heads_are_labelled_as_they_were_made(planted: Planted):
    labels = label_heads(spoken(planted), repeats(80), min_count=20)
    roles = {str(node): role for node, role in planted.circuit.roles.items()}
    previous = next(name for name, role in roles.items() if role == "previous token")
    induction = {name for name, role in roles.items() if role == "induction"}
    table = labels.to_dataframe().set_index(["relation", "looks_at", "head"])
    assert set(labels.rows) == {("previous", "head"), ("next", "head")}
    assert table.loc[("previous", "head", previous), "accuracy"] > 0.99
    assert table.loc[("previous", "head", previous), "baseline"] == 1.0, "its place alone tells the word before"
    assert all(table.loc[("next", "head", name), "accuracy"] > 0.99 for name in induction)
    assert table.loc[("next", "head", previous), "accuracy"] < 0.2
    beating = labels.beating()
    assert set(beating["head"]) == induction and set(beating["relation"]) == {"next"}
    assert labels.best()["head"].iloc[0] in induction


def test_the_probe_reads_planted_relations_and_beats_its_baselines(planted: Planted):
    probe = probe_attention(spoken(planted), repeats(60))
    shares = {name: row["all"][0] for name, row in probe.scores.items()}
    assert shares["probe"] > 0.97 and shares["offset"] < 0.7 and shares["uniform"] < 0.2 and probe.offset == -1
    assert set(probe.counts) == {"all", "earlier"}, "every head comes earlier"
    weights = probe.to_dataframe().set_index("head")["w"]
    made = [str(node) for node in planted.circuit.roles]
    assert set(weights.sort_values(ascending=False).index[: len(made)]) <= {*made, *weights.index[weights > 1]}


def test_the_probe_finds_later_heads_by_looking_back(planted: Planted):
    turned = []
    for one in repeats(60):
        words = [dataclasses.replace(word, head=None, relation="root") for word in one.words]
        for number, word in enumerate(one.words):
            if word.relation == "previous" and number < (len(words) + 1) // 2:
                words[number - 1] = dataclasses.replace(words[number - 1], head=number, relation="following")
        turned.append(Sentence(one.text, tuple(words)))
    probe = probe_attention(spoken(planted), turned)
    assert set(probe.counts) == {"all", "later"} and probe.scores["probe"]["later"][0] > 0.97
    previous = next(str(node) for node, role in planted.circuit.roles.items() if role == "previous token")
    assert probe.to_dataframe().set_index("head")["u"][previous] > 1
    labels = label_heads(spoken(planted), turned, min_count=20)
    assert set(labels.rows) == {("following", "dependent")}


def test_the_fitted_probe_is_at_its_minimum_and_the_same_seed_gives_it_again(tiny: Model):
    sentences = random_sentences(40, seed=4)
    probe, again = (probe_attention(tiny, sentences, ridge=1e-2, seed=5) for _ in range(2))
    assert torch.equal(probe.w, again.w) and probe.scores == again.scores

    second = _second_half(len(sentences), 5)
    chosen = [(one, slow_attention(tiny, one)) for place, one in enumerate(sentences) if not second[place]]

    def loss(weights: torch.Tensor) -> torch.Tensor:
        parts = []
        for one, attention in chosen:
            table = torch.tensor(attention, dtype=torch.float64)
            scores = torch.einsum("kij,k->ij", table, weights[0]) + torch.einsum("kji,k->ij", table, weights[1])
            for number, word in enumerate(one.words):
                if word.head is not None:
                    others = torch.tensor([at != number for at in range(len(one.words))])
                    parts.append(-scores[number].masked_fill(~others, -torch.inf).log_softmax(dim=0)[word.head])
        return torch.stack(parts).mean()

    weights = torch.stack([probe.w.flatten(), probe.u.flatten()]).requires_grad_()
    plain = loss(weights)
    assert float(plain.detach()) == pytest.approx(probe.loss, abs=1e-6)
    (gradient,) = torch.autograd.grad(plain + 1e-2 * weights.square().sum(), weights)
    assert float(gradient.abs().max()) < 1e-3


def test_tokens_of_two_words_and_sentences_that_do_not_fit(tiny: Model):
    model = bundled.mini()
    words = (Word(",", 1, 2, "X", 2, "punct"), Word('"', 2, 3, "X", 0, "punct"), Word("he", 4, 6, "X", None, "root"))
    quoted = Sentence('A," he', (Word("A", 0, 1, "X", 3, "dep"), *(dataclasses.replace(word, head=0) for word in words)))
    (aligned,), _ = align_sentences(model, [quoted])
    assert model.to_token_strings(torch.tensor(aligned.ids))[1:3] == ["A", ',"']
    assert aligned.own == [True, True, False, True]
    long = sentence(" ".join(["ab"] * 40), [(None, "root"), *[(0, "dep")] * 39])
    hidden = Sentence("a b", (Word("a", 0, 1, "X", None, "root"), Word(" ", 1, 2, "X", 0, "dep")))
    aligned, left_out = align_sentences(tiny, [long, hidden, *random_sentences(2)])
    assert len(aligned) == 2 and left_out == {"too long": 1, "not aligned": 1}


def test_what_a_user_can_get_wrong(tiny: Model, planted: Planted):
    sentences = random_sentences(12)
    with pytest.raises(PromptError, match="none of 1 sentences can be used"):
        label_heads(tiny, [sentence(" ".join(["ab"] * 40), [(None, "root"), *[(0, "dep")] * 39])])
    with pytest.raises(PromptError, match="no relation has 50 cases or more in 12 sentences"):
        label_heads(tiny, sentences)
    with pytest.raises(PromptError, match="no word has the relation"):
        label_heads(tiny, sentences, relations=["nmod"], min_count=2)
    with pytest.raises(ModelError, match="needs a fast tokenizer"):
        label_heads(planted.model, sentences)
    with pytest.raises(MemoryBudgetError, match="patterns of one sentence"):
        label_heads(tiny, sentences, min_count=2, budget=1000)
    with pytest.raises(MemoryBudgetError, match="give about"):
        probe_attention(tiny, sentences, features=5000)
    with pytest.raises(PromptError, match="too few dependencies"):
        probe_attention(tiny, [sentence("a b", [(None, "root"), (0, "dep")])])


def test_subtypes_are_counted_where_they_are_asked_for(tiny: Model):
    sentences = random_sentences(30)
    plain, named = (label_heads(tiny, sentences, min_count=2, relations=one) for one in (["obl"], ["obl:arg", "obl"]))
    assert {row[0] for row in plain.rows} == {"obl"} and {row[0] for row in named.rows} == {"obl", "obl:arg"}
    assert torch.equal(plain.accuracy, named.accuracy[: len(plain.rows)])


def test_as_many_cases_as_are_asked_for_are_enough(tiny: Model):
    sentences = random_sentences(30)
    words = [(number, word) for one in sentences for number, word in enumerate(one.words)]
    cases = sum(word.relation == "obj" and word.head is not None and word.head < number for number, word in words)
    rows = [label_heads(tiny, sentences, relations=["obj"], min_count=count).rows for count in (1, cases)]
    assert all(("obj", "head") in found for found in rows)


def test_of_equal_heads_the_earliest_is_best_and_beating_takes_a_gain():
    share = torch.tensor([[[0.5, 0.8], [0.8, 0.2]]], dtype=torch.float64)
    row = {"counts": torch.tensor([9]), "offsets": torch.tensor([-1]), "baseline": torch.tensor([0.5]).double()}
    errors = dict.fromkeys(("errors", "gain_errors", "p_values"), 0 * share)
    row |= {"baseline_errors": torch.zeros(1).double(), "sentences": 9, "left_out": {}, "seed": 0}
    labels = HeadLabels("m", "0", (("obj", "head"),), accuracy=share, **row, **errors)
    assert labels.best()["head"].tolist() == ["a0.h1"]
    assert labels.beating()["head"].tolist() == ["a0.h1", "a1.h0"]


def test_results_come_back_from_their_files_and_damage_is_refused(tiny: Model, tmp_path: Path):
    sentences = random_sentences(24)
    labels, probe = label_heads(tiny, sentences, min_count=4), probe_attention(tiny, sentences)
    for result, kind in ((labels, HeadLabels), (probe, AttentionProbe)):
        path = tmp_path / "result.json"
        result.save(path)
        back = kind.load(path)
        assert back.to_dataframe().equals(result.to_dataframe())
        text, rng = path.read_text(), random.Random(1)
        for _ in range(60):
            at = rng.randrange(len(text))
            path.write_text(text[:at] + rng.choice(["", "7", '"', "]", "null"]) + text[at + rng.randint(0, 40) :])
            try:
                kind.load(path).to_dataframe()
            except FileFormatError as error:
                assert str(path) in str(error)
