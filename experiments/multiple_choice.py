"""Train a small model to answer multiple choice by letter: python experiments/multiple_choice.py --out FOLDER

Small pretrained models cannot do it (Lieberum et al. 2023 took one of 70 billion parameters), so this one learns nothing
else: three layers of four heads and an MLP, and a vocabulary of the words of `circuits.tasks.multiple_choice` alone. Its
questions are that task's, with labels of every kind (A to D in order and out of order, any letters, 1 to 4), the right choice
in each place as often; only the answer counts in the loss. Words of a kind are known from training, their combinations are
drawn anew. The folder is an ordinary Hugging Face directory: `circuits heads letters --model FOLDER`.
"""

import argparse
import json
import random
import string
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from circuits.models import load_model
from circuits.tasks import task
from circuits.tasks.library.multiple_choice import CHOICES, LABELS
from circuits.tasks.library.wording import word_list
from circuits.tasks.readings import read_answers

KINDS = tuple(LABELS)
MIXTURE = {"letters": 3, "permuted": 3, "random": 3, "others": 1, "numbers": 1}
"""How often labels of each kind are drawn."""
SPREAD = 0.08
"""Standard deviation of the matrices to begin with: four times the usual one, with which little happens for long."""


def tokenizer_of() -> PreTrainedTokenizerFast:
    """One token a word or mark, spaces dropped; `<bos>` opens every prompt."""
    template, words = word_list("choice_templates")[0], [word for row in word_list("kinds") for word in row]
    split = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation("isolated")])
    text = template.format_map({**dict.fromkeys(_fields(template), " ")})
    pieces = {piece for one in (text, *words, "the") for piece, _ in split.pre_tokenize_str(one)}
    known = ["<bos>", "<unk>", *string.ascii_uppercase, *"1234"]
    vocabulary = {piece: index for index, piece in enumerate([*known, *sorted(pieces - set(known))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    names = {"bos_token": "<bos>", "eos_token": "<bos>", "pad_token": "<bos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _fields(template: str) -> list[str]:
    return [field for _, field, _, _ in string.Formatter().parse(template) if field]


def build_model(size: int, seed: int, *, layers: int, width: int, heads: int) -> GPTNeoXForCausalLM:
    """A fresh model, rotary, with its MLP behind the attention."""
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        max_position_embeddings=64,
        use_parallel_residual=False,
        hidden_act="gelu",
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 1.0},
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPTNeoXForCausalLM(config)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, SPREAD)
    return model


def questions(
    tokenizer: PreTrainedTokenizerFast, draw: random.Random, mixture: Mapping[str, int]
) -> Iterator[tuple[list[int], int]]:
    """Questions without end, as token ids and the answer's token, with labels of each kind so often."""
    kinds = {row[0]: tuple(row[1:]) for row in word_list("kinds")}
    template = word_list("choice_templates")[0]
    ways = [name for name, times in mixture.items() for _ in range(times)]
    ids: dict[str, list[int]] = {}

    def of(text: str) -> list[int]:
        """Token ids of a piece of the template, remembered."""
        if text not in ids:
            ids[text] = tokenizer.encode(text, add_special_tokens=False)
        return ids[text]

    parts = list(string.Formatter().parse(template))
    while True:
        named = drawn_labels(draw, draw.choice(ways))
        asked, *others = draw.sample(list(kinds), CHOICES)
        right = draw.randrange(CHOICES)
        choices = [draw.choice(kinds[kind]) for kind in others]
        choices.insert(right, draw.choice(kinds[asked]))
        words = {"kind": asked}
        for place in range(CHOICES):
            words |= {f"label_{place + 1}": named[place], f"choice_{place + 1}": choices[place]}
        row = [0]
        for literal, field, _, _ in parts:
            row += of(literal.strip()) + ([] if field is None else of(words[field]))
        yield row, of(named[right])[0]


def drawn_labels(draw: random.Random, way: str) -> list[str]:
    """Four labels."""
    letters = string.ascii_uppercase
    if way == "letters":
        return list(letters[:CHOICES])
    if way == "numbers":
        return list("1234")
    if way == "others":
        start = draw.randrange(CHOICES, len(letters) - CHOICES + 1)
        return list(letters[start : start + CHOICES])
    return draw.sample(letters[:CHOICES] if way == "permuted" else letters, CHOICES)


def train(model: GPTNeoXForCausalLM, tokenizer: PreTrainedTokenizerFast, options: argparse.Namespace) -> float:
    """Steps of AdamW on the answers; gives the share of the last questions that were answered right."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.rate, betas=(0.9, 0.98), weight_decay=0.01)
    draw, right, began = random.Random(options.seed), 0.0, time.monotonic()
    source = questions(tokenizer, draw, {"letters": 1})
    for step in range(options.steps):
        if step == options.first:
            source = questions(tokenizer, draw, MIXTURE)
        rate = options.rate * min(1.0, (step + 1) / 100, max(0.05, (options.steps - step) / (0.4 * options.steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows, answers = zip(*(next(source) for _ in range(options.batch)), strict=True)
        ends = torch.tensor([len(row) - 1 for row in rows])
        width = int(ends.max()) + 1
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        wanted = torch.tensor(answers)
        states = model.gpt_neox(ids).last_hidden_state[torch.arange(len(rows)), ends]
        logits = model.get_output_embeddings()(states)
        loss = torch.nn.functional.cross_entropy(logits, wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        right = 0.98 * right + 0.02 * float((logits.argmax(dim=1) == wanted).float().mean())
        if (step + 1) % options.told == 0:
            print(
                f"step {step + 1}: loss {float(loss.detach()):.3f}, right {right:.3f}, {time.monotonic() - began:.0f} s",
                flush=True,
            )
    return right


def main() -> None:
    """Train, save, and say how often the model is right, by kind of labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder for the model")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--first", type=int, default=1000, help="steps with the labels A to D alone, in their order")
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--told", type=int, default=200, help="steps between lines")
    parser.add_argument("--asked", type=int, default=256, help="questions of each kind that it is tried on")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer, began = tokenizer_of(), time.monotonic()
    shape = {"layers": options.layers, "width": options.width, "heads": options.heads}
    model = build_model(len(tokenizer), options.seed, **shape)
    train(model, tokenizer, options)
    out = Path(options.out)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    loaded, scores = load_model(str(out)), {}
    for labels in LABELS:
        pairs = task(f"multiple-choice:{labels}").pairs(loaded, options.asked, 1000)
        scores[labels] = float((read_answers(loaded, pairs.clean, pairs).rank == 0).double().mean())
    said = {"parameters": sum(one.numel() for one in model.parameters()), "seconds": round(time.monotonic() - began), **scores}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
