"""Answers as the token that would follow: the prompt and its answer are tokenized together."""

from collections.abc import Sequence

from circuits.errors import ModelError, PromptError, shown
from circuits.models import Model
from circuits.tasks.scripts import is_spaceless

_OPENS = "([{<“‘«/_@#$¿¡"
"""What stands right before a word, whatever comes before it."""
_QUOTES = "\"'"
"""What does so behind a space or what opens a word; elsewhere they close one."""
_DASHES = "-–—&"
"""What does so behind a word; a dash between spaces parts words."""


def following(model: Model, prompt: str, answer: str, *, where: str = "", what: str = "answer") -> list[int]:
    """The tokens that go on after a prompt where the text goes on with `answer`, spelled as it is (with its space, or without).

    Prompt and answer are tokenized together, as some tokenizers spell a word otherwise at the beginning of a text than inside
    one. Raises PromptError, with the tokens, where the two do not part at the prompt's end (`where` opens the message, `what`
    is what the answer is called); ModelError for a model without a tokenizer.

    >>> import circuits
    >>> model = circuits.load_model("mini")
    >>> model.to_token_strings(circuits.tasks.answers.following(model, "The capital of France is", " Paris"))
    [' Paris']
    """
    own, whole = encode(model, prompt), encode(model, prompt + answer)
    if whole[: len(own)] == own:
        return whole[len(own) :]
    part = next(at for at in range(len(own)) if whole[at : at + 1] != own[at : at + 1])
    apart, together = (_pieces(model, ids[part : part + 4]) for ids in (own, whole))
    spaced = prompt[-1:].isspace()
    hint = "leave out the space at the prompt's end" if spaced else "end the prompt where a token of the whole text ends"
    raise PromptError(
        f"{where or f'the prompt {shown(prompt)}'}: the {what} {shown(answer)} shares a token with the prompt: together they "
        f"end in {together} where the prompt alone has {apart}; {hint}"
    )


def spelled(prompt: str, word: str) -> str:
    """A word as a text would go on with it after a prompt: behind a space, unless the prompt ends in a space or in what opens
    a word (a bracket, an opening quotation mark), or either is of a script without spaces."""
    word = word.strip()
    return word if not word or not prompt or _opens_a_word(prompt) or _spaceless(prompt, word) else f" {word}"


def first_of(model: Model, prompt: str, word: str, *, where: str = "") -> int:
    """The first token of a word after a prompt (`spelled`), by which a fact is asked for. Raises PromptError for a word without
    tokens, and as `following`."""
    ids = following(model, prompt, spelled(prompt, word), where=where)
    if not ids:
        raise PromptError(f"{where or f'the prompt {shown(prompt)}'}: the answer {shown(word)} has no tokens")
    return ids[0]


def one_token(model: Model, where: str, prompt: str, answer: str | int, *, what: str, joined: bool | None) -> int:
    """The token id of an answer or distractor after its prompt. Raises PromptError, with what was probably meant, for a text of
    several tokens and, unless `joined`, for one that lacks its leading space (None: the caller has no such option to name)."""
    if isinstance(answer, int):
        return answer
    check_text(where, f"the {what}", answer)
    meant = "" if joined else _lacking_space(model, prompt, answer)
    try:
        ids = following(model, prompt, answer, where=where, what=what)
    except PromptError:
        if not meant:
            raise
        ids = []
    if meant and len(ids) <= 1:
        option = " (joined=True takes it as it is)" if joined is False else ""
        raise PromptError(f"{where}: the {what} {shown(answer)} lacks its leading space; did you mean {shown(meant)}?{option}")
    if len(ids) != 1:
        near = (f" {answer}", answer.strip(), f" {answer.strip()}")
        fits = [text for text in near if text != answer and text.strip() and _is_one(model, prompt, text)]
        hint = f"; did you mean {shown(fits[0])}?" if fits else ""
        raise PromptError(
            f"{where}: the {what} {shown(answer)} is {len(ids)} tokens ({_pieces(model, ids)}), expected one{hint}"
        )
    return ids[0]


def answer_ids(
    model: Model, answers: Sequence[str | int], prompts: Sequence[str | Sequence[int]], *, what: str = "answer"
) -> list[int]:
    """A token id for each answer: its own, or that of a text as it follows its prompt, which is a text or its row of token ids.
    Raises PromptError, with the prompt's number, as `one_token`, and for texts where there is no tokenizer to read them."""
    found = []
    for index, (answer, prompt) in enumerate(zip(answers, prompts, strict=True)):
        if isinstance(answer, str) and model.tokenizer is None:
            raise PromptError(f"{model.name} has no tokenizer to read {shown(answer)} with: give token ids")
        if isinstance(answer, str):
            text = prompt if isinstance(prompt, str) else text_of(model, prompt)
            answer = one_token(model, f"prompt {index} ({shown(text)})", text, answer, what=what, joined=None)
        found.append(int(answer))
    return found


def text_of(model: Model, row: Sequence[int]) -> str:
    """The text of a prompt's tokens, without those that opened it (BOS). Raises PromptError for ids outside the vocabulary."""
    bad = next((token for token in row if not 0 <= token < model.d_vocab), None)
    if bad is not None:
        raise PromptError(f"the prompt has token id {shown(bad)}, outside the vocabulary of {model.d_vocab} of {model.name}")
    special = set(model.tokenizer.all_special_ids)
    start = next((place for place, token in enumerate(row) if token not in special), len(row))
    return model.to_string(row[start:])


def check_text(where: str, what: str, text: object) -> None:
    """Raise PromptError for what is no text."""
    if not isinstance(text, str):
        raise PromptError(f"{where}: {what} is {shown(text)}; expected text")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise PromptError(f"{where}: {what} holds half of a surrogate pair, which is no text")


def encode(model: Model, text: str) -> list[int]:
    """Token ids of a text by itself, without BOS. Raises ModelError for a model without a tokenizer."""
    if model.tokenizer is None:
        raise ModelError(f"{model.name} has no tokenizer: give token ids")
    return [int(token) for token in model.tokenizer.encode(text, add_special_tokens=False)]


def _lacking_space(model: Model, prompt: str, answer: str) -> str:
    """The answer with the space that it lacks, where it begins a word right behind another one and is one token with it."""
    last, first = prompt[-1:], answer[:1]
    may_join = not last or last.isspace() or last in _OPENS + _QUOTES + _DASHES or (last.isdigit() and first.isdigit())
    if not first.isalnum() or may_join or _spaceless(prompt, answer):
        return ""
    return f" {answer}" if _is_one(model, prompt, f" {answer}") else ""


def _is_one(model: Model, prompt: str, answer: str) -> bool:
    try:
        return len(following(model, prompt, answer)) == 1
    except PromptError:
        return False


def _opens_a_word(prompt: str) -> bool:
    """Whether a prompt ends in what a word stands right behind."""
    last, before = prompt[-1], prompt[-2:-1]
    if last in _QUOTES:
        return not before or before.isspace() or before in _OPENS + _DASHES
    return last.isspace() or last in _OPENS or (last in _DASHES and bool(before) and not before.isspace())


def _spaceless(prompt: str, word: str) -> bool:
    return is_spaceless(prompt[-1]) or is_spaceless(word[0])


def _pieces(model: Model, ids: Sequence[int]) -> str:
    return shown(" | ".join(model.to_token_strings(ids)))
