"""Tokenizers of the kinds that pretrained models bring, trained in a moment on the sentences of the fact table, and random
models around them."""

import functools
import itertools
import json
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from circuits.tasks import mini_facts
from tests.models import checkpoints

BOS, END = "<|bos|>", "<|end|>"
_SIZE = 2000


def _bytes() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _marked(scheme: Any) -> Any:
    return pre_tokenizers.Metaspace(prepend_scheme=scheme)


_SPLITS = {
    "byte pairs": _bytes,
    "byte pairs, BOS added": _bytes,
    "byte pairs, no BOS": _bytes,
    "digits": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _bytes()]),
    "prefix space": lambda: pre_tokenizers.Sequence([_marked("always"), pre_tokenizers.Digits(individual_digits=True)]),
    "prefix space, first alone": lambda: _marked("first"),
    "prefix space, BOS not added": lambda: _marked("always"),
}
"""Kind → how a text is cut before pairs are merged. "byte pairs" have a BOS that nobody adds (GPT-2), one that the
post-processor adds (Llama 3), or none (Qwen 2); "digits" are byte pairs with every digit by itself (SmolLM2); "prefix space"
puts a mark in front of every text and BOS before it, with bytes for what it does not know (Llama 2)."""
KINDS = tuple(_SPLITS)
ADDED = ("byte pairs, BOS added", "prefix space")
"""Kinds that put BOS in front by themselves."""
MARKED = tuple(kind for kind in KINDS if kind.startswith("prefix"))
"""Kinds that mark the beginning of words, the text's first one too."""


@functools.cache
def tokenizer(kind: str) -> transformers.PreTrainedTokenizerFast:
    """The tokenizer of a kind; the same one at every call."""
    made = _trained(kind)
    if kind == "prefix space":
        made = _as_llama(made)
    if kind in ADDED:
        ids = [(BOS, made.token_to_id(BOS))]
        made.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=ids)
    special = {} if kind == "byte pairs, no BOS" else {"bos_token": BOS}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, **special)


def saved(kind: str, directory: Path, *, seed: int = 0, family: str = "Llama", **options: Any) -> Path:
    """A Hugging Face directory of a random model of two layers with that tokenizer, `load_model` reads it."""
    own = tokenizer(kind)
    ids = {"vocab_size": len(own), "bos_token_id": own.bos_token_id, "eos_token_id": own.eos_token_id, "pad_token_id": None}
    shape = checkpoints.RECIPES[family.lower()][1] | ids | {"max_position_embeddings": 128} | options
    checkpoints.build(family, shape, seed).save_pretrained(directory)
    own.save_pretrained(directory)
    return directory


def sentences() -> list[str]:
    """What they are trained on: facts, years, and words in brackets."""
    facts = [*mini_facts(), *mini_facts(seen=False)]
    said = [f"{fact.prompt} {fact.attribute}." for fact in facts]
    return [*said, *(f"({fact.attribute})" for fact in facts), *(f"from the year {year}" for year in range(1100, 1800))]


def _trained(kind: str) -> Tokenizer:
    made = Tokenizer(models.BPE(unk_token="<unk>" if kind in MARKED else None))
    made.pre_tokenizer = _SPLITS[kind]()
    made.decoder = decoders.Metaspace() if kind in MARKED else decoders.ByteLevel()
    bos = [] if kind == "byte pairs, no BOS" else [BOS]
    special = [*bos, END, *(["<unk>"] if kind in MARKED else [])]
    alphabet = [] if kind in MARKED else sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=_SIZE, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(sentences(), trainer)
    return made


def _as_llama(trained: Tokenizer) -> Tokenizer:
    """The same vocabulary as Llama 2 has it: marks by a normaliser, the whole text one piece, 256 tokens for bytes."""
    learnt = json.loads(trained.to_str())["model"]
    spelt = dict(learnt["vocab"])
    for byte, place in zip(range(256), itertools.count(len(spelt)), strict=False):
        spelt[f"<0x{byte:02X}>"] = place
    merges = [tuple(merge) for merge in learnt["merges"]]
    made = Tokenizer(models.BPE(spelt, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.add_special_tokens([BOS, END, "<unk>"])
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    return made
