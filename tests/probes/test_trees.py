"""Structural probes of planted trees, and their scores against slow definitions."""

import dataclasses
import random

import networkx
import pytest
import torch
from scipy.stats import spearmanr

from circuits.errors import CircuitsError, PromptError
from circuits.heads.attention.words import Aligned
from circuits.probes.reading import WordText
from circuits.probes.regression import Scale
from circuits.probes.trees.gold import gold_trees, tree_distances
from circuits.probes.trees.judging import attachment, chain_score, drop, fit_reader, judge_trees
from circuits.probes.trees.nonsense import CONTENT, in_nonsense, pseudo_words
from circuits.probes.trees.probing import probe_trees, split_trees
from circuits.probes.trees.scoring import TreeScore, by_length, score_tree, spanning_tree
from circuits.probes.trees.structural import fit_tree, squared_distances, told_depths, told_distances
from circuits.tasks import Sentence, Word, grammar_sentences
from tests.probes.spoken import before, previous_model, sentence_of


def random_trees(count: int, seed: int = 0, longest: int = 9) -> list[Sentence]:
    """Sentences whose heads are drawn."""
    rng, found = random.Random(seed), []
    for _ in range(count):
        size = rng.randint(3, longest)
        order = rng.sample(range(size), size)
        heads: dict[int, int | None] = {order[0]: None}
        heads |= {word: rng.choice(order[:place]) for place, word in enumerate(order) if place}
        plain = sentence_of([1] * size, [rng.choice(["NOUN", "VERB", "PUNCT"]) for _ in range(size)])
        words = tuple(dataclasses.replace(word, head=heads[place]) for place, word in enumerate(plain.words))
        found.append(dataclasses.replace(plain, words=words))
    return found


def text_of(sentences: list[Sentence]) -> WordText:
    """A token a word."""
    aligned = [Aligned(one, tuple(range(len(one.words))), tuple(range(len(one.words)))) for one in sentences]
    places = [(number, word) for number, one in enumerate(aligned) for word in range(len(one.ids))]
    return WordText(tuple(aligned), tuple(places), {})


def planted(text: WordText, *, edges: int = 9, width: int = 14, seed: int = 0) -> torch.Tensor:
    """h = the sum of orthonormal vectors, one an edge on the way from the root, in a rotation that all sentences share."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(width, width, generator=generator))[0][:edges]
    rows = []
    for number, word in text.places:
        sentence, at, found = text.aligned[number].sentence, word, torch.zeros(width)
        while sentence.words[at].head is not None:
            found = found + basis[at]  # the edge above a word has the word's number
            at = sentence.words[at].head  # type: ignore[assignment]
        rows.append(found)
    return torch.stack(rows)


def test_planted_trees_are_read_off_whole() -> None:
    text = text_of(random_trees(120))
    train, judge = split_trees(text)
    scaled = planted(text) / Scale.of(planted(text)).deviation
    apart, deep = (scaled @ fit_tree(scaled, train, kind, rank=14, epochs=n) for kind, n in (("distance", 90), ("depth", 60)))
    scores, depths = [], []
    for tree in judge:
        distance, depth = squared_distances(apart[tree.words]), deep[tree.words].square().sum(dim=1)
        scores.append(score_tree(tree, distance, depth))
        # Relations are whole numbers: rounded, what is read off is the tree itself.
        rounded = score_tree(tree, distance.round(), depth.round())
        depths.append(rounded.depth)
        assert rounded.distance > 0.99
        assert scores[-1].root == 1.0 or not bool(tree.scored[tree.depth == 0].all()), "punctuation is no root"
    assert attachment(scores)[0] == 1.0 and sum(depths) / len(depths) > 0.95
    chain, noise = [chain_score(tree) for tree in judge], torch.randn(len(text.places), 14)
    assert attachment(chain)[0] < 0.6
    assert attachment(judge_trees(noise, train, judge, rank=14, epochs=3, seed=0))[0] < 0.6


@pytest.mark.parametrize("seed", range(6))
def test_distances_spanning_trees_and_correlations_are_the_slow_ones(seed: int) -> None:
    (sentence,) = random_trees(1, seed)
    graph = networkx.Graph([(word.head, place) for place, word in enumerate(sentence.words) if word.head is not None])
    lengths = dict(networkx.all_pairs_shortest_path_length(graph))
    size = len(sentence.words)
    gold = torch.tensor([[float(lengths[one][other]) for other in range(size)] for one in range(size)])
    assert torch.equal(tree_distances(sentence), gold)
    drawn = torch.rand(size, size, generator=torch.Generator().manual_seed(seed))
    drawn = drawn + drawn.T
    drawn.fill_diagonal_(0)
    whole = networkx.Graph()
    whole.add_weighted_edges_from((one, other, float(drawn[one, other])) for one in range(size) for other in range(one))
    inside, told = {0}, set()
    while len(inside) < size:  # the nearest word outside joins, time and again (Prim 1957)
        near = min((float(drawn[one, other]), one, other) for one in inside for other in set(range(size)) - inside)
        told.add(frozenset(near[1:]))
        inside.add(near[2])
    assert {frozenset(edge) for edge in spanning_tree(drawn)} == told
    tree = gold_trees(text_of([sentence]), least=1)
    if not tree:
        return
    score = score_tree(tree[0], drawn, drawn[0])
    rows = [float(spearmanr(drawn[word], gold[word]).statistic) for word in range(size)]
    assert score.distance == pytest.approx(sum(rows) / size)
    kept = [place for place, word in enumerate(sentence.words) if word.tag != "PUNCT"]
    among = networkx.minimum_spanning_tree(whole.subgraph(kept))
    right = {frozenset(edge) for edge in among.edges} & {frozenset(edge) for edge in graph.edges}
    assert (score.attached, score.edges) == (len(right), graph.subgraph(kept).number_of_edges())
    assert score.root == float(sentence.words[min(kept, key=lambda word: float(drawn[0, word]))].head is None)


def test_squared_distances_and_the_chain_by_hand() -> None:
    x = torch.randn(2, 4, 3).double()
    slow = (x[:, :, None] - x[:, None, :]).square().sum(dim=-1)
    assert torch.allclose(squared_distances(x), slow)
    right = sentence_of([1, 2, 3, 4], ["NOUN", "PUNCT", "NOUN", "NOUN"])
    words = [dataclasses.replace(word, head=head) for word, head in zip(right.words, (None, 0, 0, 2), strict=True)]
    (tree,) = gold_trees(text_of([dataclasses.replace(right, words=tuple(words))]))
    assert (chain_score(tree).attached, chain_score(tree).edges) == (2, 2), "the comma stands between and does not count"


def test_a_planted_tree_is_read_off_the_poincare_ball() -> None:
    text = text_of(random_trees(60, longest=7))
    train, judge = split_trees(text)
    x = planted(text)
    assert attachment(fit_reader(x, train, rank=10, epochs=40, seed=0, space="poincare").scores(x, judge))[0] == 1.0
    ball = x @ fit_tree(x, train, "distance", rank=10, epochs=120, space="poincare")
    told = [score_tree(tree, told_distances(ball[tree.words], "poincare")) for tree in judge]
    assert attachment(told)[0] == 1.0 and by_length(told, "distance") > 0.94


def test_distances_in_the_ball_are_those_of_the_exponential_map_and_the_moebius_product() -> None:
    generator = torch.Generator().manual_seed(0)
    h, P, Q = (torch.randn(*shape, generator=generator).double() for shape in ((5, 6), (6, 4), (4, 3)))

    def exp(v: torch.Tensor) -> torch.Tensor:
        return v.norm(dim=-1, keepdim=True).tanh() * v / v.norm(dim=-1, keepdim=True)

    p = exp(h @ P / 9)
    moved, length = p @ Q, p.norm(dim=-1, keepdim=True)
    q = (moved.norm(dim=-1, keepdim=True) / length * length.atanh()).tanh() * moved / moved.norm(dim=-1, keepdim=True)
    v = h @ P @ Q / 9
    assert torch.allclose(q, exp(v)), "one matrix stands for both"
    squares = (1 - q.square().sum(dim=-1))[:, None] * (1 - q.square().sum(dim=-1))
    slow = torch.acosh(1 + 2 * (q[:, None] - q).square().sum(dim=-1) / squares).square()
    assert torch.allclose(told_distances(v, "poincare"), slow, rtol=1e-6, atol=1e-6)
    assert torch.allclose(told_depths(v, "poincare"), (2 * q.norm(dim=-1).atanh()).square())


def test_nonsense_keeps_trees_endings_and_function_words() -> None:
    sentences = grammar_sentences(40)
    words = pseudo_words(sentences, seed=1)
    assert words == pseudo_words(sentences, seed=1) != pseudo_words(sentences, seed=2)
    assert not set(words.values()) & {word.form.lower() for one in sentences for word in one.words}
    assert len(set(words.values())) == len(words) and words["teachers", "NOUN"].endswith("s")
    for one in sentences:
        made = in_nonsense(one, words)
        for old, new in zip(one.words, made.words, strict=True):
            assert made.text[new.start : new.end] == new.form and new.form[0].isupper() == old.form[0].isupper()
            assert (new.form == old.form) == (old.tag not in CONTENT) and (new.head, new.tag) == (old.head, old.tag)
    places = ((0, 2, "ADP"), (0, 2, "NOUN"), (3, 7, "NOUN"))
    forms = zip(("de", "le", "pain"), places, strict=True)
    joined = Sentence("du pain", tuple(Word(form, *place, None, "dep") for form, place in forms))
    made = in_nonsense(joined, pseudo_words([joined]))
    assert made.text.startswith("du ") and made.words[1].form == "le" and made.words[2].form == made.text[3:] != "pain"


def test_the_drop_is_paired_by_sentence() -> None:
    plain = [TreeScore(number, 5, 3 + number % 2, 4, 1.0, 1.0, 1.0) for number in range(6)]
    one_less = [dataclasses.replace(one, attached=one.attached - 1) for one in plain]
    assert drop(plain, one_less) == pytest.approx((0.25, 0.0)), "the same in each sentence: nothing is uncertain"
    less = [dataclasses.replace(one, attached=0) if not one.sentence else one for one in plain]
    assert drop(plain, less) == pytest.approx((3 / 24, 3 / 24 * (30 / 36) ** 0.5))


def test_a_model_s_trees_beside_its_baselines() -> None:
    found = probe_trees(previous_model(), before(40), rank=8, epochs=2, ranks=(1, 8), jabberwocky=True)
    assert found.details is not None and found.details.by_rank[1][:2] == (8, pytest.approx(float(found.uuas.max())))
    assert len(found.drops) == 4 and "With pseudo-words UUAS is" in found.summary
    assert all(tree.gold == tuple((0, word) for word in range(1, len(tree.words))) for tree in found.shown)
    assert found.shown[0].right and len(found.shown[0].told) == len(found.shown[0].gold)
    assert found.sites == ("resid0", "resid1", "resid2", "resid3") == tuple(found.to_dataframe()["site"])
    assert len(found.random) == 4 and found.judged == 8 and found.chain["uuas"] < 1
    assert found.sites[found.best] in found.summary and "next word" in found.summary


def test_what_cannot_be_probed_is_refused() -> None:
    model = previous_model()
    with pytest.raises(PromptError, match="rank=0"):
        probe_trees(model, before(20), rank=0)
    with pytest.raises(PromptError, match="a probe needs 10 or more"):
        probe_trees(model, before(4))
    with pytest.raises(CircuitsError, match="0 sentences"):
        fit_tree(torch.randn(3, 2), [], "depth")
    assert len(gold_trees(text_of(list(grammar_sentences(5))))) == 5
