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
from circuits.probes.trees.probing import attachment, chain_score, judge_trees, probe_trees, split_trees
from circuits.probes.trees.scoring import score_tree, spanning_tree
from circuits.probes.trees.structural import fit_tree, squared_distances
from circuits.tasks import Sentence, grammar_sentences
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
    slow = networkx.minimum_spanning_tree(whole)
    assert {frozenset(edge) for edge in spanning_tree(drawn)} == {frozenset(edge) for edge in slow.edges}
    tree = gold_trees(text_of([sentence]), least=1)
    if not tree:
        return
    score = score_tree(tree[0], drawn, drawn[0])
    rows = [float(spearmanr(drawn[word], gold[word]).statistic) for word in range(size)]
    assert score.distance == pytest.approx(sum(rows) / size)
    kept = [place for place, word in enumerate(sentence.words) if word.tag != "PUNCT"]
    inside = networkx.minimum_spanning_tree(whole.subgraph(kept))
    right = {frozenset(edge) for edge in inside.edges} & {frozenset(edge) for edge in graph.edges}
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


def test_a_model_s_trees_beside_its_baselines() -> None:
    found = probe_trees(previous_model(), before(40), rank=8, epochs=2)
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
