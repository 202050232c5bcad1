"""From tokens to words: which tokens spell which word of a sentence, and attention between words, streamed."""

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import MemoryBudgetError, ModelError, NonFiniteError, PromptError
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.memory import BUDGET, beside_budget
from circuits.progress import Progress, silent
from circuits.tasks.sources.conllu import Sentence

TOO_LONG, NOT_ALIGNED = "too long", "not aligned"


@dataclasses.dataclass(frozen=True, eq=False)
class Aligned:
    """A sentence as tokens (after BOS where the model has one), and the word that each token belongs to (-1: none).

    A token belongs to the word that it shares most characters with, of equal ones the earlier; spaces do not count. Where
    one token spells two words, the other one has no token of its own.
    """

    sentence: Sentence
    ids: tuple[int, ...]
    owners: tuple[int, ...]

    @property
    def own(self) -> list[bool]:
        """Which words have a token of their own."""
        owners = set(self.owners)
        return [word in owners for word in range(len(self.sentence.words))]


@dataclasses.dataclass(frozen=True, eq=False)
class WordAttention:
    """Attention between words in some sentences. From a word is from its last token, which has seen all of it; to a word is
    the sum over its tokens. Shares do not sum to 1: what goes to BOS is left out."""

    places: tuple[int, ...]
    """Which sentences, as they were given."""
    attention: Float[Tensor, "sentence query key head"]
    """Heads of all layers, one layer after the other."""
    own: Bool[Tensor, "sentence word"]
    """Words with a token of their own; False past a sentence's end."""


def align_sentences(model: Model, sentences: Sequence[Sentence]) -> tuple[list[Aligned], dict[str, int]]:
    """The sentences that the model can take, as tokens, and how many are left out: longer than its context (`too long`), or
    with a word of which no token knows the characters (`not aligned`).

    Raises ModelError for a tokenizer that does not know the characters of its tokens, PromptError where nothing is left.
    """
    if model.tokenizer is None or not model.tokenizer.is_fast:
        raise ModelError(f"{model.name}: aligning words needs a fast tokenizer, which knows the characters of each token")
    opening = model.opening()
    aligned: list[Aligned] = []
    left_out = {TOO_LONG: 0, NOT_ALIGNED: 0}
    for sentence in sentences:
        spelt = model.tokenizer(sentence.text, add_special_tokens=False, return_offsets_mapping=True)
        ids = [*opening, *map(int, spelt["input_ids"])]
        owners = _owners(sentence, spelt["offset_mapping"])
        if model.max_positions is not None and len(ids) > model.max_positions:
            left_out[TOO_LONG] += 1
        elif owners is None:
            left_out[NOT_ALIGNED] += 1
        else:
            aligned.append(Aligned(sentence, tuple(ids), (*[-1] * len(opening), *owners)))
    if not aligned:
        raise PromptError(
            f"none of {len(sentences)} sentences can be used: {left_out[TOO_LONG]} are too long{_most(model)}, "
            f"{left_out[NOT_ALIGNED]} not aligned"
        )
    return aligned, left_out


def _most(model: Model) -> str:
    return "" if model.max_positions is None else f" ({model.name} takes {model.max_positions:,} tokens)"


def _owners(sentence: Sentence, spans: Sequence[tuple[int, int]]) -> list[int] | None:
    """The word of each token; None where the tokens leave out a word."""
    at: list[list[int]] = [[] for _ in sentence.text]
    for number, word in enumerate(sentence.words):
        for place in range(word.start, word.end):
            at[place].append(number)
    owners, touched = [], set()
    for start, end in spans:
        shared: dict[int, int] = {}
        for place in range(start, end):
            for word in at[place] if not sentence.text[place].isspace() else ():
                shared[word] = shared.get(word, 0) + 1
        touched |= shared.keys()
        owners.append(min(shared, key=lambda word, shared=shared: (-shared[word], word)) if shared else -1)
    return owners if len(touched) == len(sentence.words) else None


@torch.no_grad()
def stream_attention(
    model: Model,
    aligned: Sequence[Aligned],
    *,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Iterator[WordAttention]:
    """Attention between words, some sentences at a time, of similar length; patterns are dropped after each. On the model's
    device, in float32 or wider. Raises NonFiniteError for weights and patterns that hold NaN or infinity, MemoryBudgetError
    where one sentence alone does not fit."""
    model.require_finite()
    order = sorted(range(len(aligned)), key=lambda place: (len(aligned[place].ids), place))
    heads, done, report = model.n_layers * model.n_heads, 0, progress or silent
    while done < len(order):
        size = 1
        for count in range(1, len(order) - done + 1):
            needed = count * 8 * heads * len(aligned[order[done + count - 1]].ids) ** 2
            if needed > budget or count > 256:
                break
            size = count
        if 8 * heads * len(aligned[order[done]].ids) ** 2 > budget:
            longest = len(aligned[order[done]].ids)
            raise MemoryBudgetError(
                f"the patterns of one sentence of {longest} tokens need about "
                f"{beside_budget(8 * heads * longest**2, budget)}: leave out long sentences or give a larger budget"
            )
        places = order[done : done + size]
        yield _attention(model, [aligned[place] for place in places], tuple(places))
        done += size
        report("reading sentences", done, len(order))


def _attention(model: Model, batch: Sequence[Aligned], places: tuple[int, ...]) -> WordAttention:
    tokens = TokenBatch.from_rows([list(one.ids) for one in batch]).to(model.device)
    width = max(len(one.sentence.words) for one in batch)
    last, belongs = _membership(batch, tokens, width)
    run = forward(model.weights, tokens, keep="patterns", logits=False)
    layers = []
    for layer, pattern in enumerate(run.patterns):
        wide = pattern.to(torch.promote_types(pattern.dtype, torch.float32))
        rows = wide.gather(2, last[:, None, :, None].expand(-1, wide.shape[1], -1, wide.shape[3]))
        words = torch.einsum("bhqt,btk->bqkh", rows, belongs.to(wide.dtype))
        if not bool(words.isfinite().all()):
            head = int((~words.isfinite()).nonzero()[0, 3])
            raise NonFiniteError(f"the attention pattern of a{layer}.h{head} holds NaN or infinity")
        layers.append(words)
    return WordAttention(places, torch.cat(layers, dim=-1), belongs.any(dim=1))


def _membership(
    batch: Sequence[Aligned], tokens: TokenBatch, width: int
) -> tuple[Int[Tensor, "sentence word"], Bool[Tensor, "sentence token word"]]:
    """The column of each word's last token (0 where it has none), and which tokens belong to which word."""
    last = torch.zeros(len(batch), width, dtype=torch.long)
    belongs = torch.zeros(*tokens.ids.shape, width, dtype=torch.bool)
    for row, one in enumerate(batch):
        for column, word in enumerate(one.owners):
            if word >= 0:
                last[row, word] = column
                belongs[row, column, word] = True
    return last.to(tokens.ids.device), belongs.to(tokens.ids.device)
