"""What the bundled model reads: text, facts, repeats; the tokenizer and the batches made of them."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BOS, PAD = "<|bos|>", "<|pad|>"
SPECIAL = 2  # their ids come first
VOCABULARY = 4096
HELD_OUT_BOOK = "the-wind-in-the-willows.txt"
HELD_OUT_TAIL = 0.05  # and this last share of every other file
OBJECT_REPEATS = 3000  # how often each answer stands in the tokenizer's own training stream


@dataclass(frozen=True)
class Text:
    """The corpus, split once: `held_out` is never trained on, by the tokenizer neither."""

    train: list[str]
    held_out: dict[str, str]


@dataclass(frozen=True)
class Rows:
    """Everything a batch is drawn from, as token ids."""

    text: torch.Tensor  # [tokens]
    facts: list[list[int]]  # BOS + a whole sentence, one for each fact and trained template
    answer_at: list[int]  # where each sentence's object stands
    vocabulary: int
    bos: int


def read_text(corpus: Path) -> Text:
    """Every *.txt below `corpus`, in the order of their names; raises FileNotFoundError where there is none."""
    files = sorted(corpus.rglob("*.txt"))
    if not files:
        raise FileNotFoundError(f"no *.txt file in {corpus}: --corpus names a folder of plain text")
    train, held_out = [], {}
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace")
        cut = 0 if file.name == HELD_OUT_BOOK else int(len(text) * (1 - HELD_OUT_TAIL))
        train.append(text[:cut])
        held_out[file.name] = text[cut:]
    return Text([text for text in train if text], held_out)


def read_facts(table: Path) -> dict:
    """The table of facts: {"templates": {relation: [...]}, "facts": [{subject, relation, object, held_out}]}."""
    if not table.is_file():
        raise FileNotFoundError(f"no fact table at {table}: --facts names the JSON file that mini_facts.py writes")
    found = json.loads(table.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or not {"templates", "facts"} <= found.keys():
        raise ValueError(f"{table} is no fact table: it needs the keys templates and facts")
    return found


def fact_prompts(table: dict, held_out: bool) -> list[tuple[str, str]]:
    """(prompt, " object") of every fact in its trained templates, or in the one template it is not trained in."""
    return [
        (template.format(fact["subject"]), " " + fact["object"])
        for fact in table["facts"]
        for index, template in enumerate(table["templates"][fact["relation"]])
        if (index == fact["held_out"]) == held_out
    ]


def train_tokenizer(text: Text, table: dict) -> PreTrainedTokenizerFast:
    """Byte-level BPE on the training text; each object is repeated until it merges into one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, PAD],
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    objects = sorted({fact["object"] for fact in table["facts"]})
    subjects = sorted({fact["subject"] for fact in table["facts"]})
    stream = text.train + [" " + word for word in objects] * OBJECT_REPEATS + [" " + name for name in subjects] * 20
    tokenizer.train_from_iterator(stream, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=BOS,
        pad_token=PAD,
        model_max_length=128,
        add_bos_token=True,
        clean_up_tokenization_spaces=False,
    )


def split_answers(tokenizer: PreTrainedTokenizerFast, table: dict) -> list[str]:
    """The objects that are not one token with the space before them; empty when all is well."""
    objects = sorted({" " + fact["object"] for fact in table["facts"]})
    return [word for word in objects if len(tokenizer.encode(word, add_special_tokens=False)) != 1]


def build_rows(text: Text, table: dict, tokenizer: PreTrainedTokenizerFast) -> Rows:
    """Token ids of the training text, end to end, and of every sentence that states a fact."""
    ids = numpy.concatenate(
        [numpy.asarray(tokenizer.backend_tokenizer.encode(part, add_special_tokens=False).ids) for part in text.train]
    )
    bos, facts, answer_at = tokenizer.get_vocab()[BOS], [], []
    for prompt, answer in fact_prompts(table, held_out=False):
        before = tokenizer.encode(prompt, add_special_tokens=False)
        facts.append([bos, *before, *tokenizer.encode(answer + ".", add_special_tokens=False)])
        answer_at.append(1 + len(before))
    return Rows(torch.from_numpy(ids).long(), facts, answer_at, VOCABULARY, bos)


def repeat_rows(count: int, length: int, pool: int, periods: tuple[int, int], generator: torch.Generator):
    """Random tokens below `pool` said again and again, the period random by row; no loss before the second copy.

    Returns tokens and weights, both [count length].
    """
    period = torch.randint(periods[0], periods[1] + 1, (count, 1), generator=generator)
    tokens = torch.randint(SPECIAL, pool, (count, length), generator=generator)
    place = torch.arange(length)[None]
    return torch.gather(tokens, 1, place % period), (place > period).float()


def text_rows(rows: Rows, count: int, length: int, generator: torch.Generator):
    """Windows of running text, every token counted."""
    start = torch.randint(len(rows.text) - length, (count, 1), generator=generator)
    return rows.text[start + torch.arange(length)[None]], torch.ones(count, length)


def echo_rows(rows: Rows, count: int, length: int, generator: torch.Generator):
    """Running text of which a span is said again and again, the period random by row."""
    tokens, weights = text_rows(rows, count, length, generator)
    period = torch.randint(12, length // 2 + 1, (count, 1), generator=generator)
    return torch.gather(tokens, 1, torch.arange(length)[None] % period), weights


def fact_rows(rows: Rows, count: int, length: int, generator: torch.Generator, answer: float, rest: float):
    """Sentences drawn at random and packed end to end, BOS between them; objects weigh `answer`, the rest `rest`."""
    tokens, weights = torch.zeros(count, length, dtype=torch.long), torch.full((count, length), rest)
    for row in range(count):
        filled = 1  # the first BOS is the row's own
        packed, marks = [rows.bos], []
        while filled <= length:
            index = int(torch.randint(len(rows.facts), (1,), generator=generator))
            start = len(packed) - (1 if len(packed) == 1 else 0)
            packed[start:] = rows.facts[index]
            marks.append(start + rows.answer_at[index])
            filled = len(packed)
        tokens[row] = torch.tensor(packed[1 : length + 1])
        weights[row, [mark - 1 for mark in marks if mark <= length]] = answer
    return tokens, weights


def draw_batch(
    rows: Rows,
    mixture: dict[str, int],
    length: int,
    pool: int,
    periods: tuple[int, int],
    generator: torch.Generator,
    answer: float = 4.0,
    rest: float = 0.25,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of each kind in `mixture` (kind -> how many), BOS first: tokens [batch 1+length], weights [batch length]."""
    parts = []
    for kind, count in mixture.items():
        if count == 0:
            continue
        if kind == "repeat":
            parts.append(repeat_rows(count, length, pool, periods, generator))
        elif kind == "text":
            parts.append(text_rows(rows, count, length, generator))
        elif kind == "echo":
            parts.append(echo_rows(rows, count, length, generator))
        elif kind == "facts":
            parts.append(fact_rows(rows, count, length, generator, answer, rest))
        else:
            raise ValueError(f"no rows of kind {kind!r}: one of repeat, text, echo, facts")
    tokens = torch.cat([part[0] for part in parts])
    first = torch.full((len(tokens), 1), rows.bos)
    return torch.cat([first, tokens], dim=1), torch.cat([part[1] for part in parts])
