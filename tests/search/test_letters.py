"""Letter heads: a planted one is found by all three measures, its decoys are not, and what it keeps is what was planted."""

import dataclasses
import random

import pytest
import torch
from torch import Tensor

from circuits.errors import PromptError
from circuits.models import Model, TokenBatch
from circuits.models.planted.parts import Head, Space, bare_block, decoy_of, planted_model, random_matrix
from circuits.models.weights import Weights
from circuits.search import LetterHeads, find_letter_heads
from circuits.search.mechanisms.letter_dimensions import told_apart
from circuits.search.mechanisms.letters import label_columns
from circuits.tasks import PromptPairs

LABELS, KINDS, WORDS, PLACES, WIDTH, D_HEAD = 6, 5, 3, 4, 10, 12
ASKED, FIRST_WORD = 1 + LABELS, 1 + LABELS + KINDS
VOCABULARY = FIRST_WORD + KINDS * WORDS
LABEL_COLUMNS, CHOICE_COLUMNS = (1, 3, 5, 7), (2, 4, 6, 8)


def head(reads: Tensor, seen: Tensor, taken: Tensor, written: Tensor, gain: float) -> Head:
    """A head that attends where `reads` and `seen` [code d_model] agree, and writes `written` for what it takes."""

    def wide(rows: Tensor) -> Tensor:
        return torch.cat([rows.T, torch.zeros(rows.shape[1], D_HEAD - len(rows), dtype=rows.dtype)], dim=1)

    return Head(wide(reads) * gain, wide(seen), wide(taken), wide(written).T)


def planted(seed: int = 0) -> Model:
    """The kind asked for is the last token. a0.h0 looks at the word of that kind and writes its place; a1.h1 looks at the label
    at that place and says it. a1.h0 looks there too and says nothing, a1.h2 says all labels alike."""
    draw = torch.Generator().manual_seed(seed)
    space = Space.random({"token": VOCABULARY, "position": WIDTH + 1, "place": PLACES, "said": LABELS, "scratch": 16}, draw)
    token, position = space["token"], space["position"]
    kinds = torch.stack(
        [token[FIRST_WORD + kind * WORDS : FIRST_WORD + (kind + 1) * WORDS].sum(dim=0) for kind in range(KINDS)]
    )
    content = head(token[ASKED:FIRST_WORD], kinds, position[list(CHOICE_COLUMNS)], space["place"], 12.0)
    letter = head(space["place"], position[list(LABEL_COLUMNS)], token[1 : 1 + LABELS], space["said"], 12.0)
    everyone = dataclasses.replace(letter, W_Q=torch.zeros_like(letter.W_Q))
    idle = [dataclasses.replace(content, W_O=random_matrix(D_HEAD, 16, 1.0, draw) @ space["scratch"]) for _ in range(2)]
    W_U = torch.zeros(space.d_model, VOCABULARY, dtype=torch.float64)
    W_U[:, 1 : 1 + LABELS] = 4.0 * space["said"].T
    weights = Weights(
        W_E=token.clone(),
        W_U=W_U,
        b_U=None,
        blocks=(bare_block([content, *idle], None), bare_block([decoy_of(space, letter, draw), letter, everyone], None)),
        final_norm=None,
        max_positions=WIDTH + 1,
        W_pos=position,
    )
    return planted_model(f"planted-letters-{seed}", weights)


def questions(count: int, seed: int = 0) -> PromptPairs:
    """Labels in any order; in the corrupt prompt two choices have changed places."""
    draw, clean, corrupt = random.Random(seed), [], []
    right = torch.arange(count) % PLACES
    wrong = torch.tensor([draw.choice([place for place in range(PLACES) if place != own]) for own in right.tolist()])
    for own, other in zip(right.tolist(), wrong.tolist(), strict=True):
        labels, asked, *rest = draw.sample(range(1, 1 + LABELS), PLACES), *draw.sample(range(KINDS), PLACES)
        kinds = [*rest[:own], asked, *rest[own:]]
        words = [FIRST_WORD + kind * WORDS + draw.randrange(WORDS) for kind in kinds]
        rows = [words, [*words]]
        rows[1][own], rows[1][other] = words[other], words[own]
        for side, row in zip((clean, corrupt), rows, strict=True):
            side.append([0, *(token for pair in zip(labels, row, strict=True) for token in pair), ASKED + asked])
    ids, columns = torch.tensor(clean), torch.tensor(LABEL_COLUMNS)
    positions = {f"label_{place + 1}": columns[place].expand(count).clone() for place in range(PLACES)}
    end = torch.full((count,), WIDTH - 1)
    positions |= {"right_label": columns[right], "right_choice": columns[right] + 1, "end": end}
    answers, distractors = (ids.gather(1, columns[place][:, None])[:, 0] for place in (right, wrong))
    batches = (TokenBatch.unpadded(ids), TokenBatch.unpadded(torch.tensor(corrupt)))
    return PromptPairs(*batches, answers, distractors, end, positions)


@pytest.fixture(scope="module")
def found() -> LetterHeads:
    return find_letter_heads(planted(), questions(96), tolerance=0.01)


def test_a_planted_letter_head_is_found_and_its_decoys_are_not(found: LetterHeads) -> None:
    assert [one.head for one in found.letter_heads] == ["a1.h1"] and found.right.effect == found.among.effect == 1.0
    heads = {one.head: one for one in found.heads}
    letter, decoy, everyone, content = (heads[name] for name in ("a1.h1", "a1.h0", "a1.h2", "a0.h0"))
    assert letter.direct.effect == pytest.approx(found.difference.effect, rel=1e-6) and letter.patched.effect > 0.99
    assert letter.item.effect > 0.99 and letter.others.effect < 0.01 and letter.more.low > 0.98
    assert letter.label.effect > 0.99 and letter.at == 0 and content.at == 1
    assert decoy.more.effect > 0.98 and abs(decoy.direct.effect) < 1e-9 and abs(decoy.patched.effect) < 1e-9
    assert abs(everyone.direct.effect) < 1e-9 and everyone.item.effect == pytest.approx(1 / WIDTH)
    assert content.patched.effect > 0.99 and content.choice.effect > 0.99 and abs(content.direct.effect) < 1e-9
    assert "a1.h1" in found.summary and "100%" in found.summary


def test_what_it_keeps_is_what_was_planted(found: LetterHeads) -> None:
    """Four places span three dimensions around their mean, six labels five."""
    kept = {one.part: one for one in found.kept}
    assert (kept["queries"].dimensions, kept["keys"].dimensions, kept["values"].dimensions) == (3, 3, 5)
    assert kept["queries"].place > 0.999 and kept["keys"].place > 0.999 and kept["values"].letter > 0.999
    assert kept["queries"].letter < 0.2 and abs(kept["keys"].letter) < 0.05 and abs(kept["values"].place) < 0.05
    assert abs(kept["keys"].right) < 0.05 and abs(kept["values"].right) < 0.05, "which label is right, its place cannot say"
    assert all(one.change <= found.tolerance and one.variance > 0.99 for one in found.kept) and found.held_out == 48
    assert found.joint_loss - found.loss < 3 * found.tolerance
    assert (
        found.compression is not None
        and found.compression.tokens == 96
        and {p.head for p in found.compression.parts} == {"a1.h1"}
    )
    ranks = {part.part: part.rank for part in found.compression.parts}
    assert 3 <= ranks["qk"] <= PLACES and 5 <= ranks["ov"] <= LABELS


def test_a_model_whose_letter_head_is_out_has_none() -> None:
    model = planted()
    block = model.weights.blocks[1]
    W_O = block.attention.W_O.clone()
    W_O[D_HEAD : 2 * D_HEAD] = 0
    out = dataclasses.replace(block, attention=dataclasses.replace(block.attention, W_O=W_O))
    blind = dataclasses.replace(model, weights=dataclasses.replace(model.weights, blocks=(model.weights.blocks[0], out)))
    found = find_letter_heads(blind, questions(24))
    assert not found.letter_heads and not found.kept and "No head" in found.summary
    assert {one.head: one.more.effect > 0.98 for one in found.heads}["a1.h1"], "it still looks there"


def test_pairs_that_are_no_multiple_choice_are_refused() -> None:
    pairs = questions(8)
    for name in ("label_1", "right_label"):
        kept = {key: value for key, value in pairs.positions.items() if not key.startswith(name[:5])}
        with pytest.raises(PromptError, match="have no position"):
            label_columns(dataclasses.replace(pairs, positions=kept))
    assert label_columns(pairs)[0].tolist() == list(LABEL_COLUMNS)


def test_variance_between_groups_is_corrected_for_chance() -> None:
    draw = torch.Generator().manual_seed(0)
    groups = torch.randint(10, (40,), generator=draw)
    noise = [told_apart(torch.randn(40, 3, generator=draw, dtype=torch.float64), groups) for _ in range(200)]
    assert abs(sum(noise) / 200) < 0.02, "ten random groups of forty rows hold a quarter of the variance by chance"
    codes = torch.randn(10, 3, generator=draw, dtype=torch.float64)[groups]
    assert told_apart(codes, groups) == pytest.approx(1.0)
    assert told_apart(codes[:, :0], groups) != told_apart(codes[:, :0], groups), "nothing is kept"
