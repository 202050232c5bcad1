"""The tokenizer of a checkpoint as it was saved."""

from typing import Any


def saved_tokenizer(held: Any) -> Any:
    """The tokenizer that a bridge holds, as it lies in its directory or in the hub's cache; None where there is none.

    TransformerLens (4.3) opens every tokenizer with `add_bos_token=True`, also one that adds no BOS, so the one it holds no
    longer says what the model was made for. Where nothing is saved, or something else is, the one that is held is kept.
    """
    if held is None or held.vocab_size == 0:  # the libraries make up an empty one where its files are missing
        return None
    source = str(getattr(held, "name_or_path", "") or "")
    if not source:
        return held
    from transformers import AutoTokenizer

    try:
        saved = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except Exception:  # whatever the libraries raise where nothing can be read
        return held
    return saved if len(saved) == len(held) else held
