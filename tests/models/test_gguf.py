"""GGUF files as models: what the file says is what runs, or the file is refused in one line."""

import functools
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType as Kind

from circuits.errors import ModelError, NonFiniteError
from circuits.models import load_model
from circuits.models.loading.convert import convert_gguf
from circuits.models.loading.gguf_header import read_header
from circuits.models.loading.origins import name_of
from tests.models import checkpoints
from tests.models.gguf_files import byte_level, word_pieces, write_gguf

IDS = torch.randint(0, checkpoints.VOCABULARY, (3, 11), generator=torch.Generator().manual_seed(7))
TEXTS = ["the cat", " in 2012,  the 1212", "The  end\n", "thé 12 12"]

FAMILIES = [
    *("llama", "llama single key", "llama rope linear", "llama rope llama3", "qwen2", "qwen3", "gemma2", "gemma3"),
    *("phi3", "gpt2", "starcoder2", "bloom"),
]
"""Recipes of the families whose GGUF files are read."""

GIVEN: dict[str, dict[str, Any]] = {
    "phi3": {"sliding_window": 4},
    "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3": {"query_pre_attn_scalar": 16, "layer_types": ["sliding_attention"] * 2},
}
"""What a GGUF file does not say has its default there: scores scaled by d_head, every sixth layer of Gemma 3 seeing all."""


def built(name: str, **config: Any) -> Any:
    """A random model of a recipe."""
    prefix, given = checkpoints.RECIPES[name]
    return checkpoints.build(prefix, {**given, **config})


def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    """A Hugging Face model's logits, attention written out."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_runs_as_the_model_it_was_written_from(name: str, tmp_path: Path) -> None:
    original = built(name, **GIVEN.get(name, {}))
    model = load_model(write_gguf(original, tmp_path / "small.gguf", values={"tokenizer.ggml.padding_token_id": 0}))
    assert model.name == "small.gguf" and model.stored == "F32"
    assert float((model.run(IDS).logits - logits(original)).abs().max()) <= 2e-5
    assert model.max_positions == getattr(original.config, "max_position_embeddings", None)


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_1, Kind.Q4_0, Kind.Q5_0, Kind.Q5_1])
def test_a_directory_made_of_a_quantised_file_is_the_file_bit_by_bit(kind: Kind, tmp_path: Path) -> None:
    file = write_gguf(built("llama"), tmp_path / "small.gguf", kind=kind)
    header = convert_gguf(file, tmp_path / "made")
    assert set(header.stored.split(", ")) == {kind.name, "F32"}
    direct, made = load_model(file), load_model(tmp_path / "made")
    assert direct.stored == header.stored and made.stored is None
    assert torch.equal(direct.run(IDS).logits, made.run(IDS).logits)
    assert direct.fingerprint == made.fingerprint
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "made", local_files_only=True)
    assert plain.dtype == torch.float32 and float((logits(plain) - made.run(IDS).logits).abs().max()) <= 1e-5
    for text in TEXTS:
        ids = transformers.AutoTokenizer.from_pretrained(tmp_path / "made", local_files_only=True)(text).input_ids
        assert direct.tokenizer(text).input_ids == made.tokenizer(text).input_ids == ids
        assert direct.to_tokens(text).ids.tolist() == made.to_tokens(text).ids.tolist() == [ids]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "small.gguf"], "nothing else is left behind"
    assert "quantization_config" not in json.loads((tmp_path / "made" / "config.json").read_text())


def test_a_folder_with_one_file_is_that_file(tmp_path: Path) -> None:
    original = built("llama")
    write_gguf(original, tmp_path / "small.gguf")
    model = load_model(tmp_path)
    assert model.name == tmp_path.name and torch.equal(
        model.run(IDS).logits, load_model(tmp_path / "small.gguf").run(IDS).logits
    )
    write_gguf(original, tmp_path / "other.gguf")
    with pytest.raises(ModelError, match=r"holds 2 GGUF files: name one of other.gguf, small.gguf"):
        load_model(tmp_path)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize(
    ("rules", "twelve"), [("gpt-2", True), ("smollm", False), ("qwen2", False), ("llama-bpe", True), ("starcoder", False)]
)
def test_text_is_split_by_the_rules_that_the_file_names(rules: str, twelve: bool, bos: bool, tmp_path: Path) -> None:
    """ "12" is a token of this vocabulary, which a tokenizer that takes digits one by one never uses."""
    tokens = functools.partial(byte_level, rules=rules, bos=bos)
    tokenizer = load_model(write_gguf(built("llama"), tmp_path / "small.gguf", tokenizer=tokens)).tokenizer
    ids = tokenizer("in 12").input_ids
    assert (ids[0] == 0) is bos
    assert (tokenizer.convert_ids_to_tokens(ids)[-1] == "12") is twelve
    assert tokenizer.decode(tokenizer("the 12  the", add_special_tokens=False).input_ids) == "the 12  the"


def test_digits_are_taken_from_the_spaces_before_them(tmp_path: Path) -> None:
    """As the tokenizer that SmolLM was made with does it: two spaces before a digit are one token."""
    made = functools.partial(byte_level, rules="smollm")
    tokenizer = load_model(write_gguf(built("llama"), tmp_path / "small.gguf", tokenizer=made)).tokenizer
    assert tokenizer.convert_ids_to_tokens(tokenizer("  12").input_ids) == ["ĠĠ", "1", "2"]


@pytest.mark.parametrize("space", [True, False])
@pytest.mark.parametrize("bos", [True, False, None])
def test_a_sentencepiece_tokenizer_marks_words_and_adds_bos_as_the_file_says(
    bos: bool | None, space: bool, tmp_path: Path
) -> None:
    tokens = functools.partial(word_pieces, bos=bos, space=space)
    original = built("llama", vocab_size=320, bos_token_id=1, eos_token_id=2)
    file = write_gguf(original, tmp_path / "small.gguf", tokenizer=tokens)
    tokenizer = load_model(file).tokenizer
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("the the").input_ids)
    first = ["▁the"] if space else ["t", "h", "e"]
    assert pieces == (["<s>"] if bos is not False else []) + first + ["▁the"]
    convert_gguf(file, tmp_path / "made")
    for made in (load_model(file), load_model(tmp_path / "made")):
        assert made.to_tokens("the the").ids.tolist() == [tokenizer("the the").input_ids]


def refusal(path: Path) -> str:
    """The one line with which a file is refused, both as a model and by the converter, which leaves nothing."""
    lines = []
    for attempt in (load_model, lambda file: convert_gguf(file, path.parent / "made")):
        with pytest.raises(ModelError) as caught:
            attempt(path)
        assert "\n" not in str(caught.value)
        lines.append(str(caught.value))
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    return lines[0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type='yarn' is not represented"),
        ({"llama.rope.scaling.low_freq_factor": 4.0}, "llama.rope.scaling.low_freq_factor=4.0 is not represented"),
        ({"llama.expert_count": 8}, "llama.expert_count=8"),
        ({"llama.pooling_type": 1}, "llama.pooling_type=1"),
        ({"llama.attention.causal": False}, "llama.attention.causal=False"),
        ({"llama.residual_scale": 2.0}, "llama.residual_scale=2.0"),
        ({"llama.embedding_length": 48}, "token_embd.weight"),
        ({"llama.attention.head_count": 2**31}, "hidden size"),
        ({"llama.attention.head_count": 8}, "blk.0.attn_q.weight"),
        ({"llama.attention.sliding_window": 4}, "sliding_window=4 is not represented"),
        ({"llama.block_count": 2**31}, "block_count"),
        ({"llama.block_count": 1}, "block_count is 1, its tensors are of 2 blocks"),
        ({"llama.rope.dimension_count": 6}, "llama.rope.dimension_count=6"),
        ({"general.type": "adapter"}, "general.type is 'adapter'"),
        ({"split.count": 3}, "one of 3 parts"),
        ({"llama.rope.freq_base": float("nan")}, "rope.freq_base' is nan"),
        ({"tokenizer.ggml.bos_token_id": 10**6}, "tokenizer"),
        ({"tokenizer.ggml.pre": "unheard-of"}, "splits text by the rules 'unheard-of'"),
        ({"tokenizer.ggml.model": "rwkv"}, "tokenizer"),
    ],
)
def test_a_value_that_is_not_represented_is_named(values: dict[str, Any], words: str, tmp_path: Path) -> None:
    assert words in refusal(write_gguf(built("llama"), tmp_path / "small.gguf", values=values))


def test_a_tensor_too_many_or_too_few_is_named(tmp_path: Path) -> None:
    frequencies = {"rope_freqs.weight": np.array([2, 1, 3, 1], np.float32)}
    path = tmp_path / "small.gguf"
    assert "rope_freqs.weight scales rotary positions" in refusal(write_gguf(built("llama"), path, extra=frequencies))
    probe = {"blk.0.probe.weight": np.ones(4, np.float32)}
    assert "blk.0.probe.weight is not represented" in refusal(write_gguf(built("llama"), path, extra=probe))
    assert "blk.1.ffn_up.weight is missing" in refusal(write_gguf(built("llama"), path, leave_out=["blk.1.ffn_up.weight"]))
    whole = {"blk.0.attn_norm.weight": np.ones(32, np.int8)}
    assert "stored as I8" in refusal(write_gguf_of_integers(path, whole))


def write_gguf_of_integers(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    """A file whose one tensor holds whole numbers."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    "architecture", ["bert", "clip", "nomic-bert", "whisper", "mamba", "falcon", "unheard-of", "t5encoder"]
)
def test_another_kind_of_model_is_named(architecture: str, tmp_path: Path) -> None:
    assert architecture in refusal(write_gguf(built("llama"), tmp_path / "small.gguf", architecture=architecture)).lower()


def test_a_file_that_is_cut_or_no_gguf_is_one_line(tmp_path: Path) -> None:
    path = write_gguf(built("llama"), tmp_path / "small.gguf")
    whole = path.read_bytes()
    for size in [0, 3, 4, 10, 23, 24, 30, 100, 1000, 5000, 9000, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:size])
        assert "small.gguf" in refusal(path)
    path.write_bytes(b"GGUX" + whole[4:])
    assert "no GGUF file" in refusal(path)
    path.write_bytes(whole[:4] + bytes([1]) + whole[5:])
    assert "version 1" in refusal(path)


def test_without_the_package_that_reads_it_a_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(built("llama"), tmp_path / "small.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "pip install gguf" in refusal(path)


def test_a_tokenizer_of_rules_that_are_not_known_can_be_given(tmp_path: Path) -> None:
    tokens = functools.partial(byte_level, rules="unheard-of")
    path = write_gguf(built("llama"), tmp_path / "small.gguf", tokenizer=tokens)
    assert "give the model's own tokenizer" in refusal(path)
    model = load_model(path, tokenizer=checkpoints.byte_tokenizer())
    assert model.to_tokens("ab").ids.tolist() == [checkpoints.byte_tokenizer()("ab").input_ids]


def test_a_path_is_called_by_its_last_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    for name in (".", "../below", str(tmp_path / "below"), f"{tmp_path}/below/"):
        assert name_of(name, str(Path(name))) == "below"
    assert name_of("EleutherAI/pythia-70m", "EleutherAI/pythia-70m") == "EleutherAI/pythia-70m"
    assert load_model("mini").name == "mini"


def test_a_name_that_is_no_line_is_shown_as_one(tmp_path: Path) -> None:
    path = write_gguf(built("llama"), tmp_path / "small.gguf")
    whole = path.read_bytes()
    for name in (b"llama.block_count", b"blk.0.attn_q.weight", b"llama"):
        path.write_bytes(whole.replace(name, name.replace(b"l", b"\n", 1), 1))
        assert "\\n" in refusal(path)


def test_the_converter_never_writes_over_anything(tmp_path: Path) -> None:
    file = write_gguf(built("llama"), tmp_path / "small.gguf")
    made = tmp_path / "made"
    made.mkdir()
    convert_gguf(file, made)
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    with pytest.raises(ModelError, match="is there already and is not empty"):
        convert_gguf(file, made)
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before
    with pytest.raises(ModelError, match="cannot be written"):
        convert_gguf(file, file / "below")
    with pytest.raises(ModelError, match="no file"):
        convert_gguf(tmp_path / "nowhere.gguf", tmp_path / "more")
    assert not (tmp_path / "more").exists()


def mutated(whole: bytes, header: int, rng: random.Random) -> bytes:
    """A file with a few bytes changed, most of them in its header, or cut, or with bytes left out."""
    data = bytearray(whole)
    kind = rng.random()
    if kind < 0.7:
        for _ in range(rng.choice([1, 1, 2, 8])):
            place = rng.randrange(header if rng.random() < 0.9 else len(data))
            data[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256), data[place] ^ (1 << rng.randrange(8))])
    elif kind < 0.85:
        del data[rng.randrange(len(data)) :]
    else:
        place, length = rng.randrange(header), rng.choice([1, 4, 8, 100])
        data[place : place + length] = b"" if rng.random() < 0.5 else rng.randbytes(length)
    return bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [byte_level, word_pieces])
def test_damaged_files_end_in_a_model_or_in_one_line(tokens: Any, tmp_path: Path) -> None:
    path, rng = tmp_path / "small.gguf", random.Random(11)
    original = built("llama", vocab_size=320, bos_token_id=1, eos_token_id=2)
    whole = write_gguf(original, path, kind=Kind.Q8_0, tokenizer=tokens).read_bytes()
    header, loaded = len(whole) - sum(tensor.nbytes for tensor in read_header(path).tensors.values()), 0
    for _ in range(40):
        path.write_bytes(mutated(whole, header, rng))
        started = time.monotonic()
        try:
            load_model(path)
            loaded += 1
        except (ModelError, NonFiniteError) as error:
            assert "\n" not in str(error)
        assert time.monotonic() - started < 60
    assert 0 < loaded < 30
