"""Files of minimal pairs, and minimal pairs as clean and corrupt prompts."""

import dataclasses
import json
import random
import time
from pathlib import Path

import pytest

from circuits.errors import FileFormatError, ModelError, PromptError
from circuits.models import Model
from circuits.models.planted import planted_induction
from circuits.tasks import MinimalPair, minimal_pair_prompts, read_blimp_jsonl
from tests.models import bundled

SENTENCES = [
    ("The boy near the trees is old.", "The boy near the trees are old."),
    ("The boys near the trees are old.", "The boys near the trees is old."),
    ("The house by the men is old.", "The house by the men are old."),
    ("She told that story to the king.", "She told who story to the king."),
    ("Good morning.", "Bad morning."),
]


@pytest.fixture(scope="module")
def mini() -> Model:
    return bundled.mini()


def rows() -> list[dict]:
    return [
        {"sentence_good": good, "sentence_bad": bad, "UID": "agreement", "linguistics_term": "subject_verb", "pairID": str(i)}
        for i, (good, bad) in enumerate(SENTENCES)
    ]


def write(path: Path, items: list[dict]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = write(tmp_path / "agreement.jsonl", rows())
    assert read_blimp_jsonl(path) == tuple(MinimalPair(*pair, "agreement", "subject_verb") for pair in SENTENCES)
    bare = [{"sentence_good": "Yes, it is.", "sentence_bad": "Yes, it are."}]
    path = write(tmp_path / "own.jsonl", bare)
    path.write_bytes(b"\xef\xbb\xbf\r\n" + path.read_bytes().replace(b"\n", b"\r\n") + b"\n")
    assert read_blimp_jsonl(path) == (MinimalPair("Yes, it is.", "Yes, it are.", "own", ""),)


BROKEN = [
    (b"", "no rows"),
    (b"\xff\n", "not UTF-8 text: byte 0"),
    (b"[1]\n", "row 0: a list; expected an object"),
    (b'{"sentence_good": "a"}\n', 'row 0: "sentence_bad" is None'),
    (b'{"sentence_good": "a", "sentence_bad": "b"}\n{"sentence_good": "a",\n', "row 1: not JSON"),
    (b'{"sentence_good": "a", "sentence_good": "c", "sentence_bad": "b"}', "appears twice"),
    (b'{"sentence_good": "a", "sentence_bad": 3}', '"sentence_bad" is 3; expected text'),
    (b'{"sentence_good": " ", "sentence_bad": "b"}', "not empty"),
    (b'{"sentence_good": "\\ud800", "sentence_bad": "b"}', "expected text"),
    (b'{"sentence_good": "a", "sentence_bad": "b", "UID": 4}', '"UID" is 4'),
    (b'{"sentence_good": "a", "sentence_bad": "b", "x": NaN}', "NaN"),
    (b'{"sentence_good": "a", "sentence_bad": "' + b"b" * 20_000 + b'"}', "characters"),
    (b"[" * 100_000, "nested too deeply"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN)
def test_what_is_broken_is_refused_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as refusal:
        read_blimp_jsonl(path)
    text = str(refusal.value)
    assert text.startswith(str(path)) and message in text and "\n" not in text and len(text) < 400


def test_missing_and_huge_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileFormatError, match=r"missing\.jsonl: No such file"):
        read_blimp_jsonl(tmp_path / "missing.jsonl")
    monkeypatch.setattr("circuits.tasks.behavioural.minimal_pairs.LARGEST_FILE", 100)
    with pytest.raises(FileFormatError, match="larger than 100 bytes"):
        read_blimp_jsonl(write(tmp_path / "large.jsonl", rows()))


def test_mutated_files_are_refused_or_read(tmp_path: Path) -> None:
    content, rng, path = write(tmp_path / "pairs.jsonl", rows()).read_bytes(), random.Random(0), tmp_path / "mutated.jsonl"
    read = 0
    for _ in range(200):
        mutated = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(mutated))
            mutated[at : at + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
        path.write_bytes(bytes(mutated))
        start = time.process_time()
        try:
            read += all(isinstance(pair, MinimalPair) for pair in read_blimp_jsonl(path))
        except FileFormatError as error:
            assert str(error).startswith(str(path))
        assert time.process_time() - start < 1, "seconds of computing: a busy machine is no fault of the reader"
    assert 0 < read < 200


def test_prompts_are_what_the_sentences_share_and_partners_call_for_the_opposite(mini: Model) -> None:
    pairs = [MinimalPair(*pair, "agreement") for pair in SENTENCES]
    prompts = minimal_pair_prompts(mini, pairs)
    texts = [
        (mini.to_string(clean[mask][1:]), mini.to_string(corrupt[mask][1:]), mini.to_string([a]), mini.to_string([d]))
        for clean, corrupt, mask, a, d in zip(
            prompts.clean.ids,
            prompts.corrupt.ids,
            prompts.clean.mask,
            prompts.answers.tolist(),
            prompts.distractors.tolist(),
            strict=True,
        )
    ]
    assert texts[:2] == [
        ("The boy near the trees", "The boys near the trees", " is", " are"),
        ("The boys near the trees", "The boy near the trees", " are", " is"),
    ], "the nearest partner, though the house would do as well"
    assert len(prompts) == 3 and texts[2][1] == "The boys near the trees"
    assert all(text[0] != "Good" for text in texts), "a pair that parts at once has no prompt"
    assert len(minimal_pair_prompts(mini, pairs, count=1)) == 1


def test_paradigms_do_not_mix_and_none_left_is_refused(mini: Model) -> None:
    apart = [MinimalPair(*pair, f"paradigm {index}") for index, pair in enumerate(SENTENCES)]
    with pytest.raises(PromptError, match="none of 5 minimal pairs has a partner"):
        minimal_pair_prompts(mini, apart)
    same = [MinimalPair(*SENTENCES[0], "x"), MinimalPair(SENTENCES[0][1], SENTENCES[0][0], "x")]
    with pytest.raises(PromptError, match="partner"):
        minimal_pair_prompts(mini, same)
    half = [MinimalPair("The boy is", "The boy are", "x"), MinimalPair("The boys are", "The boys was", "x")]
    with pytest.raises(PromptError, match="partner"):
        minimal_pair_prompts(mini, half)
    with pytest.raises(ModelError, match="no tokenizer"):
        minimal_pair_prompts(planted_induction().model, apart)


def test_the_same_seed_draws_the_same_prompts(mini: Model) -> None:
    subjects = ("man", "woman", "tree", "boy")
    pairs = [MinimalPair(f"The {s} is here.", f"The {s} are here.", "x") for s in subjects]
    pairs += [MinimalPair(f"The {s}s are here.", f"The {s}s is here.", "x") for s in ("boy", "tree", "girl")]
    once, again = (minimal_pair_prompts(mini, pairs, count=3, seed=4) for _ in range(2))
    assert once.clean.ids.tolist() == again.clean.ids.tolist() and once.corrupt.ids.tolist() == again.corrupt.ids.tolist()
    drawn = [minimal_pair_prompts(mini, pairs, count=3, seed=seed) for seed in range(4)]
    assert len({str(prompts.clean.ids.tolist()) for prompts in drawn}) > 1


def test_a_prompt_may_fill_the_context(mini: Model) -> None:
    pairs = [MinimalPair("The boy is", "The boy are", "x"), MinimalPair("The boys are", "The boys is", "x")]
    width = minimal_pair_prompts(mini, pairs).clean.ids.shape[1]
    for room, fits in ((width, True), (width - 1, False)):
        model = dataclasses.replace(mini, weights=dataclasses.replace(mini.weights, max_positions=room))
        if fits:
            assert len(minimal_pair_prompts(model, pairs)) == 2
        else:
            with pytest.raises(PromptError, match="partner"):
                minimal_pair_prompts(model, pairs)
