"""A prompt's ids are its tokenizer's, whoever reads it, with one BOS at most."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import transformers
from tokenizers import processors

import circuits
from circuits.cli.loading import bos_hint, opening_said
from circuits.errors import ModelError, PromptError
from circuits.heads import score_heads
from circuits.models import Model, load_model
from circuits.models.planted import planted_induction
from circuits.tasks import PromptPairs
from circuits.tasks.library.induction import induction
from circuits.tasks.metrics import logit_difference
from circuits.tasks.repeats import repeated_tokens
from circuits.tasks.sources.corpus import text_rows, text_tokens
from tests import tokenizers
from tests.models import bundled
from tests.models.native import native_bridge

TEXTS = ("The capital of France is", " The year 1987", "été à Paris (", "a", "  two spaces", "line\nbreak")
kinds = pytest.mark.parametrize("kind", tokenizers.KINDS)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory):
    """A checkpoint with a tokenizer of some kind; made once."""
    made: dict[str, Path] = {}

    def of(kind: str) -> Path:
        if kind not in made:
            made[kind] = tokenizers.saved(kind, tmp_path_factory.mktemp("checkpoint"))
        return made[kind]

    return of


@kinds
def test_ids_are_those_of_the_tokenizer_as_saved(kind: str, directory) -> None:
    model, own = load_model(directory(kind)), transformers.AutoTokenizer.from_pretrained(directory(kind))
    batch = model.to_tokens(list(TEXTS))
    assert [row[mask].tolist() for row, mask in zip(batch.ids, batch.mask, strict=True)] == [
        own(text).input_ids for text in TEXTS
    ]
    assert model.opening() == ([own.bos_token_id] if kind in tokenizers.ADDED else [])
    assert model.run("The year").tokens.ids.tolist() == [own("The year").input_ids]


@kinds
def test_a_bridge_gives_the_same_ids(kind: str, directory) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(str(directory(kind)), device="cpu")
    model, own = Model.from_bridge(bridge), transformers.AutoTokenizer.from_pretrained(directory(kind))
    assert [model.to_tokens(text).ids[0].tolist() for text in TEXTS] == [own(text).input_ids for text in TEXTS]


@kinds
def test_bos_is_put_once_or_left_out_as_asked(kind: str, directory) -> None:
    model = load_model(directory(kind))
    plain = model.tokenizer("The year", add_special_tokens=False).input_ids
    assert (
        model.to_tokens("The year", prepend_bos=False).ids.tolist()
        == [plain]
        == model.with_bos(False).to_tokens("The year").ids.tolist()
    )
    if model.bos_id is None:
        for asked in (lambda: model.with_bos(True), lambda: model.to_tokens("The year", prepend_bos=True)):
            with pytest.raises(ModelError, match="no BOS token"):
                asked()
        return
    opened = [model.bos_id, *plain]
    assert (
        model.to_tokens("The year", prepend_bos=True).ids.tolist()
        == [opened]
        == model.with_bos(True).to_tokens("The year").ids.tolist()
    )
    assert model.with_bos(True).opening() == [model.bos_id] and model.with_bos(False).opening() == []
    assert model.with_bos(True).with_bos(None).opening() == model.opening()


@kinds
def test_a_text_that_brings_its_own_bos_gets_no_second(kind: str, directory) -> None:
    model = load_model(directory(kind))
    if model.bos_id is None:
        pytest.skip("this kind has no BOS")
    text = f"{tokenizers.BOS}The year"
    for asked in (None, True, False):
        ids = model.to_tokens(text, prepend_bos=asked).ids[0].tolist()
        assert ids.count(model.bos_id) == 1 and ids[0] == model.bos_id
    pairs = PromptPairs.from_text(
        model, clean=[f"{tokenizers.BOS}1"], corrupt=[f"{tokenizers.BOS}2"], answers=[5], distractors=[6]
    )
    assert pairs.clean.ids[0].tolist().count(model.bos_id) == 1


@kinds
def test_stimuli_and_texts_open_alike(kind: str, directory) -> None:
    model = load_model(directory(kind))
    size = len(model.opening())
    assert size == (kind in tokenizers.ADDED)
    for one in (model, *([] if model.bos_id is None else [model.with_bos(True)]), model.with_bos(False)):
        repeats, length = repeated_tokens(one, count=2, length=5)
        rows = text_rows(one, "The year of the name and the place of it all", width=8)
        for ids in (repeats.ids, induction(one, 2, length=5).clean.ids, rows.ids):
            assert ids[:, : len(one.opening())].tolist() == [one.opening()] * len(ids)
            assert model.bos_id is None or int((ids == model.bos_id).sum()) == len(one.opening()) * len(ids)
        assert repeats.ids.shape[1] == len(one.opening()) + 2 * length
    assert text_tokens(model, "The year") == model.tokenizer("The year", add_special_tokens=False).input_ids


def test_a_flag_beside_the_tokenizer_changes_nothing(tmp_path: Path) -> None:
    """`add_bos_token` in tokenizer_config.json is what transformers makes of it: ids follow `tokenizer(text)`."""
    for flag in (True, False):
        folder = tokenizers.saved("byte pairs", tmp_path / str(flag))
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "add_bos_token": flag}))
        own = transformers.AutoTokenizer.from_pretrained(folder)
        assert load_model(folder).to_tokens("The year").ids.tolist() == [own("The year").input_ids]


def test_no_answer_is_asked_for_behind_an_end_that_the_tokenizer_puts(directory) -> None:
    model = load_model(directory("byte pairs"))
    tokenizer = copy.deepcopy(model.tokenizer)
    end = [(tokenizers.END, tokenizer.convert_tokens_to_ids(tokenizers.END))]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {tokenizers.END}", special_tokens=end
    )
    model = dataclasses.replace(model, tokenizer=tokenizer)
    assert model.to_tokens("The year").ids[0].tolist() == tokenizer("The year").input_ids and model.opening() == []
    pair: dict[str, list] = {"clean": ["1"], "corrupt": ["2"], "answers": [5], "distractors": [6]}
    with pytest.raises(ModelError, match=r"ends every text with '<\|end\|>'.*--no-bos"):
        PromptPairs.from_text(model, **pair)
    for asked in (True, False):
        pairs = PromptPairs.from_text(model.with_bos(asked), **pair)
        assert end[0][1] not in pairs.clean.ids and pairs.clean.ids.shape[1] == 1 + asked


def test_mini_opens_with_bos_as_it_was_trained() -> None:
    mini = bundled.mini()
    assert mini.opening() == [0] == mini.tokenizer("").input_ids
    assert mini.with_bos(True) is not mini and mini.with_bos(None) is mini


def test_without_a_tokenizer_there_is_no_bos_unless_one_is_named() -> None:
    model = Model.from_bridge(native_bridge(0, d_vocab=26, n_ctx=8))
    assert model.bos_id is None and model.opening() == []
    repeats, length = repeated_tokens(model, count=3, length=4)
    assert (repeats.ids.shape, length) == ((3, 8), 4)
    assert score_heads(model, sequences=2, length=4).scores["prefix_matching"].shape == (model.n_layers, model.n_heads)
    with pytest.raises(ModelError, match="no BOS token"):
        model.with_bos(True)
    named = dataclasses.replace(model, bos=25)
    assert named.opening() == [25] and named.opening(prepend_bos=False) == []
    with pytest.raises(PromptError, match="no room"):
        repeated_tokens(named, count=3, length=4)
    assert planted_induction(seed=0).model.opening() == [0]


def test_what_differs_from_the_tokenizer_is_said(directory) -> None:
    added, bare = load_model(directory("byte pairs, BOS added")), load_model(directory("byte pairs"))
    assert [opening_said(one) for one in (added, added.with_bos(True), bare, bare.with_bos(False))] == [""] * 4
    assert "does not put there" in opening_said(bare.with_bos(True)) and tokenizers.BOS in opening_said(bare.with_bos(True))
    assert opening_said(added.with_bos(False)).startswith(f"prompts get no {tokenizers.BOS!r} in front")
    assert "--bos" in bos_hint(bare) and bos_hint(added) == bos_hint(bare.with_bos(False)) == ""


def test_results_of_a_search_say_that_prompts_opened_otherwise(directory) -> None:
    model = bundled.mini()
    for asked in (None, False):
        one = model.with_bos(asked)
        found = circuits.discover(one, induction(one, 4), logit_difference, method="eap", edges=60, random_circuits=0)
        assert found.circuit.metadata.get("prepend_bos") is asked
