"""The tokenizer that a GGUF file describes, through transformers' own reader, with what that reader leaves out.

A GGUF file names the rules by which text is split before merging (`tokenizer.ggml.pre`) and llama.cpp knows them by name;
transformers takes GPT-2's for those that it does not know.
"""

import json
from typing import Any

from circuits.errors import ModelError, shown
from circuits.models.loading.gguf_header import GGUFHeader

_WHOLE_WORDS = {
    *("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano", "tekken"),
}
"""Where a word that is a token stays whole whatever its merges, and BOS is put in front unless the file says otherwise."""

_AS_TRANSFORMERS_SPLITS = {
    *_WHOLE_WORDS,
    *("dbrx", "smaug-bpe", "qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "qwen35"),
    *("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"),
}
_AS_GPT2_SPLITS = {"default", "gpt-2", "mpt", "olmo", "jais", "phi-2", "trillion", "granite-docling", "mellum", "exaone4"}
_DIGIT_BY_DIGIT = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
_BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"


def gguf_tokenizer(header: GGUFHeader, rows: int) -> Any:
    """The tokenizer of a GGUF file, None where it has none; `rows` are those of the embedding. Raises ModelError for one whose
    rules are not known, or that is damaged."""
    kind = header.values.get("tokenizer.ggml.model", "none")
    if kind in ("none", "no_vocab"):
        return None
    rules = header.values.get("tokenizer.ggml.pre", "default")
    if kind == "gpt2" and rules not in _AS_TRANSFORMERS_SPLITS | _AS_GPT2_SPLITS | _DIGIT_BY_DIGIT | {"bloom"}:
        raise ModelError(
            f"{header.path}: its tokenizer splits text by the rules {shown(rules)}, which are not known here: give the model's "
            "own tokenizer (load_model(..., tokenizer=...))"
        )
    try:
        tokenizer = _read(header, kind, rules)
        tokenizer("a 1")
    except Exception as error:  # whatever the libraries raise for a damaged vocabulary
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise ModelError(f"{header.path}: its tokenizer cannot be read: {reason}") from None
    if len(tokenizer) > rows:
        raise ModelError(f"{header.path}: its tokenizer has {len(tokenizer)} tokens, its embedding {rows}")
    return tokenizer


def _read(header: GGUFHeader, kind: str, rules: str) -> Any:
    """The tokenizer as transformers reads it, without the special tokens that its classes add to every vocabulary, and split
    as the file says."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    held = PreTrainedTokenizerFast(gguf_file=header.path.name, name_or_path=str(header.path.parent))
    state = json.loads(held.backend_tokenizer.to_str())
    size = header.values["tokenizer.ggml.tokens"].length
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < size]
    if kind == "gpt2" and rules in _WHOLE_WORDS:
        state["model"]["ignore_merges"] = True
    backend = Tokenizer.from_str(json.dumps(state))
    if (split := _split(header, kind, rules)) is not None:
        backend.pre_tokenizer = split
    said = "tokenizer.ggml.add_bos_token" in header.values
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=held.bos_token,
        eos_token=held.eos_token,
        unk_token=held.unk_token,
        pad_token=held.pad_token,
        add_bos_token=held.bos_token is not None and (held.add_bos_token if said or kind == "llama" else rules in _WHOLE_WORDS),
        add_eos_token=held.eos_token is not None and held.add_eos_token,
        chat_template=held.chat_template,
    )


def _split(header: GGUFHeader, kind: str, rules: str) -> Any:
    """How text is cut up before merging, where transformers has it otherwise; None where it has it right."""
    from tokenizers import Regex, pre_tokenizers

    if kind == "gpt2" and rules in _DIGIT_BY_DIGIT:
        words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    if kind == "gpt2" and rules == "bloom":
        split = pre_tokenizers.Split(Regex(_BLOOM), behavior="isolated")
        return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    if kind == "llama" and header.values.get("tokenizer.ggml.add_space_prefix") is False:
        return pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=False)
    return None
