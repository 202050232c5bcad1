"""Attention maps told by their pattern, on planted heads and on maps drawn by hand; what is lost without heads, against the
slow way."""

import pytest
import torch

from circuits.errors import CircuitsError, PromptError
from circuits.heads.text_loss import next_token_losses
from circuits.models import Edit, TokenBatch
from circuits.models.planted import planted_patterns, planted_previous
from circuits.models.planted.patterns import DELIMITERS
from circuits.probes import probe_heads, prune_heads
from circuits.probes.patterns.made import made_maps
from circuits.probes.patterns.marks import CLASSES, MapMarks


def text(count: int = 10, width: int = 24, seed: int = 0) -> TokenBatch:
    """Rows of few different tokens behind BOS, with delimiters."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 12, (count, width), generator=generator)
    ends = torch.rand(count, width, generator=generator) < 0.15
    ids = torch.where(ends, torch.randint(1, 3, ids.shape, generator=generator), ids)
    ids[:, 0] = 0
    return TokenBatch.unpadded(ids)


def test_planted_heads_are_told_by_their_pattern() -> None:
    planted = planted_patterns(seed=1)
    found = probe_heads(planted.model, text(), delimiters=DELIMITERS, made=1600)
    told = {row["head"]: row["pattern"] for row in found.to_dataframe().to_dict("records")}
    assert told == {str(node): role for node, role in planted.circuit.roles.items()}
    assert found.accuracy.low > 0.8 and int(found.confusion.sum()) == pytest.approx(800, abs=20)
    assert found.classes == CLASSES and torch.allclose(found.shares.sum(dim=2), torch.ones(2, 6).double())
    assert found.heads("after same") == ["a1.h0"] and "after same 1" in found.summary
    with pytest.raises(CircuitsError, match="no pattern 'sink'"):
        found.heads("sink")
    bare = probe_heads(planted.model, text(), delimiters=(), made=400)
    assert "block" not in bare.classes and bare.shares.shape == (2, 6, len(CLASSES) - 2)


def test_marks_and_features_of_a_map_by_hand() -> None:
    ids = torch.tensor([[0, 5, 6, 1, 5, 6, 6, 7]])
    marks = MapMarks.of(ids, (1,))
    where = {name: marks.keys[0, place].nonzero().tolist() for place, name in enumerate(CLASSES[:-1])}
    assert where["self"] == [[place, place] for place in range(8)] and where["previous"][0] == [1, 0]
    assert where["first"] == [[place, 0] for place in range(8)] and where["delimiter"] == [[at, 3] for at in range(3, 8)]
    assert where["same"] == [[4, 1], [5, 2], [6, 2], [6, 5]]
    assert where["after same"] == [[4, 2], [5, 3], [6, 3], [6, 6]]
    assert [key for query, key in where["block"] if query == 6] == [4, 5, 6], "what follows the delimiter"
    maps = torch.rand(1, 1, 8, 8).tril()
    maps = maps / maps.sum(dim=3, keepdim=True)
    values = marks.features(maps)[0, 0]
    same = [float(maps[0, 0, 4, 1]), float(maps[0, 0, 5, 2]), float(maps[0, 0, 6, 2] + maps[0, 0, 6, 5])]
    assert float(values[CLASSES.index("same")]) == pytest.approx(sum(same) / 3)
    alike = (1 / 5 + 1 / 6 + 2 / 7) / 3
    assert float(values[len(CLASSES) + CLASSES.index("same")]) == pytest.approx(alike)
    assert float(values[-1]) == pytest.approx(float(maps[0, 0, 1:].amax(dim=1).mean()))


def test_made_maps_are_maps_of_their_class() -> None:
    marks = MapMarks.of(text(4).ids, DELIMITERS)
    maps, classes = made_maps(marks, count=200, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(maps.sum(dim=3), torch.ones(4, 200, 24), atol=1e-5)
    assert float((maps * ~marks.allowed).abs().max()) == 0, "nothing is seen before it is there"
    assert set(classes.unique().tolist()) == set(range(len(CLASSES)))
    for place in range(len(CLASSES) - 1):
        keys = marks.keys[:, None, place].expand_as(maps)
        weight = (maps * keys).sum(dim=3)
        there = keys.any(dim=3) & (classes == place)[:, :, None]
        assert float(weight[there].min()) >= 0.5 - 1e-5, CLASSES[place]


def alternating(count: int = 16) -> TokenBatch:
    """Two tokens in turn behind BOS: what comes next is what stood before."""
    generator = torch.Generator().manual_seed(0)
    both = torch.stack([torch.randperm(24, generator=generator)[:2] + 1 for _ in range(count)])
    return TokenBatch.unpadded(torch.cat([torch.zeros(count, 1, dtype=torch.long), both.repeat(1, 5)], dim=1))


def test_the_heads_that_a_model_needs_are_missed_and_others_may_go() -> None:
    model, tokens = planted_previous(seed=3).model, alternating()
    patterns = probe_heads(model, tokens, made=400)
    assert patterns.heads("previous") == ["a1.h0"] and len(patterns.heads("self")) == 5
    lost = prune_heads(model, tokens, patterns, draws=3, nats=0.1)
    by_name = {(one.pattern, one.kind): one for one in lost.classes}
    assert set(by_name) == {(name, kind) for name in ("previous", "self") for kind in ("zero", "mean")}
    for kind in ("zero", "mean"):
        needed, others = by_name["previous", kind], by_name["self", kind]
        assert needed.beyond and needed.rise.effect > 20 * needed.random.effect, "one head, more than five others"
        assert not others.beyond and others.rise.effect < needed.rise.effect / 4
    assert lost.free is not None and lost.free.heads and "a1.h0" not in lost.free.heads
    assert lost.free.chosen <= 0.1 and lost.free.rise.effect < 0.2
    assert f"{len(lost.free.heads)} of 6 heads may go" in lost.summary and len(lost.to_dataframe()) == 5
    # The slow way: each prompt by itself, the head's output set by an edit.
    half = tokens[len(tokens) // 2 :]
    edit = [Edit("a1.h0", 0.0)]
    rises = []
    for row in range(len(half)):
        runs = [model.run(half[row : row + 1], edits=edits) for edits in ([], edit)]
        whole, without = (next_token_losses(model.weights, run.residuals[-1], run.tokens).mean() for run in runs)
        rises.append(float(without - whole))
    assert by_name["previous", "zero"].rise.effect == pytest.approx(sum(rises) / len(rises), abs=1e-9)


def test_what_cannot_be_told_is_refused() -> None:
    model = planted_previous(seed=1).model
    patterns = probe_heads(model, text(4, 8), made=160)
    with pytest.raises(PromptError, match="two prompts or more of one length"):
        probe_heads(model, text(1))
    with pytest.raises(PromptError, match="made=10"):
        probe_heads(model, text(), made=10)
    with pytest.raises(CircuitsError, match="these patterns are of planted-previous-1"):
        prune_heads(planted_previous(seed=2).model, text(4, 8), patterns)
    with pytest.raises(CircuitsError, match="expected zero or mean"):
        prune_heads(model, text(4, 8), patterns, kinds=["noise"])
    with pytest.raises(PromptError, match="expected 4 or more"):
        prune_heads(model, text(3, 8), patterns)
