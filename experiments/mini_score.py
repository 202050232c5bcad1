"""What the bundled model reached, measured on the exported directory: repeats, heads, facts, held-out text.

The measures follow Olsson et al. (2022): prefix matching is the attention from a token of a repeated random
sequence to all the tokens that followed its earlier copies; previous-token attention is read on ordinary text.
"""

import argparse
import json
from pathlib import Path

import numpy
import torch
from mini_corpus import Text, fact_prompts, read_facts, read_text
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer


def token_ids(tokenizer, parts: list[str]) -> numpy.ndarray:
    """The ids of all parts, end to end."""
    encoded = [tokenizer.backend_tokenizer.encode(part, add_special_tokens=False).ids for part in parts]
    return numpy.concatenate([numpy.asarray(ids, dtype=numpy.int64) for ids in encoded])


def common_tokens(ids: numpy.ndarray, vocabulary: int, share: float = 0.1) -> torch.Tensor:
    """Tokens of the training text without the most and the least common `share` of those that occur."""
    counts = numpy.bincount(ids, minlength=vocabulary)
    order = numpy.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    edge = int(len(order) * share)
    return torch.from_numpy(order[edge : len(order) - edge].copy())


def repeated(pool: torch.Tensor, rows: int, length: int, copies: int, bos: int, seed: int) -> torch.Tensor:
    """BOS, then `length` random tokens of `pool`, said `copies` times: [rows, 1 + copies * length]."""
    generator = torch.Generator().manual_seed(seed)
    once = torch.stack([pool[torch.randperm(len(pool), generator=generator)[:length]] for _ in range(rows)])
    return torch.cat([torch.full((rows, 1), bos), once.repeat(1, copies)], dim=1)


@torch.no_grad()
def repeat_losses(model, pool: torch.Tensor, bos: int, *, length: int = 50, rows: int = 100) -> dict[str, float]:
    """Mean loss, in nats, on the first and the second copy of random tokens."""
    tokens = repeated(pool, rows, length, 2, bos, seed=11)
    losses = cross_entropy(model(tokens[:, :-1]).logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    first, second = losses[:, :length].mean().item(), losses[:, length:].mean().item()
    return {"first_copy": first, "second_copy": second, "difference": first - second}


@torch.no_grad()
def prefix_matching(model, pool: torch.Tensor, bos: int, *, length: int = 25, copies: int = 4, rows: int = 10) -> torch.Tensor:
    """Mean attention to the tokens after all earlier copies, from the second copy on: [layer head]."""
    tokens = repeated(pool, rows, length, copies, bos, seed=12)
    patterns = torch.stack(model(tokens, output_attentions=True).attentions)  # layer batch head query key
    places = torch.arange(tokens.shape[1])
    query, key = places[:, None], places[None, :]
    after_copy = (query > length) & (key > 1) & (key <= query) & ((query - key + 1) % length == 0)
    mass = torch.einsum("lbhqk,qk->lbhq", patterns, after_copy.float())
    return mass[..., length + 1 :].mean(dim=(1, 3))


@torch.no_grad()
def previous_token(model, windows: torch.Tensor) -> torch.Tensor:
    """Mean attention from each token of ordinary text to the one before it: [layer head]."""
    patterns = torch.stack(model(windows, output_attentions=True).attentions)
    return patterns.diagonal(offset=-1, dim1=-2, dim2=-1).mean(dim=(1, 3))


@torch.no_grad()
def answer_facts(model, tokenizer, prompts: list[tuple[str, str]], batch: int = 128) -> list[bool]:
    """Whether the most probable token after each prompt (BOS in front) is the answer."""
    asked = [[tokenizer.bos_token_id, *tokenizer.encode(prompt, add_special_tokens=False)] for prompt, _ in prompts]
    wanted = [tokenizer.encode(answer, add_special_tokens=False)[0] for _, answer in prompts]
    right = [False] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda index: len(asked[index]))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        longest = len(asked[chosen[-1]])
        tokens = torch.tensor([asked[i] + [tokenizer.pad_token_id] * (longest - len(asked[i])) for i in chosen])
        last = torch.tensor([len(asked[i]) - 1 for i in chosen])
        best = model(tokens).logits[torch.arange(len(chosen)), last].argmax(-1).tolist()
        for i, token in zip(chosen, best, strict=True):
            right[i] = token == wanted[i]
    return right


def score_facts(model, tokenizer, table: dict) -> dict:
    """Shares of right answers: a fact counts as known if one of its trained templates finds it, and by template."""
    trained = answer_facts(model, tokenizer, fact_prompts(table, held_out=False))
    unseen = answer_facts(model, tokenizer, fact_prompts(table, held_out=True))
    known, start, relations = [], 0, {}
    for fact, unseen_right in zip(table["facts"], unseen, strict=True):
        count = len(table["templates"][fact["relation"]]) - 1
        answers = trained[start : start + count]
        start += count
        known.append(any(answers))
        row = relations.setdefault(fact["relation"], {"facts": 0, "trained": 0.0, "unseen": 0.0})
        row["facts"] += 1
        row["trained"] += sum(answers) / count
        row["unseen"] += unseen_right
    for row in relations.values():
        row["trained"], row["unseen"] = row["trained"] / row["facts"], row["unseen"] / row["facts"]
    return {
        "facts": len(known),
        "trained_template": sum(trained) / len(trained),
        "any_trained_template": sum(known) / len(known),
        "unseen_template": sum(unseen) / len(unseen),
        "by_relation": relations,
    }


class Ngrams:
    """Unigram, bigram and trigram probabilities, interpolated by Witten and Bell's rule."""

    def __init__(self, ids: numpy.ndarray, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self.counts = (numpy.bincount(ids, minlength=vocabulary) + 1) / (len(ids) + vocabulary)  # add one
        self.orders = {order: self.tally(ids, order) for order in (2, 3)}

    def keys(self, ids: numpy.ndarray, order: int) -> numpy.ndarray:
        keys = numpy.zeros(len(ids) - order + 1, dtype=numpy.int64)
        for place in range(order):
            keys = keys * self.vocabulary + ids[place : len(ids) - order + 1 + place]
        return keys

    def tally(self, ids: numpy.ndarray, order: int):
        grams, counts = numpy.unique(self.keys(ids, order), return_counts=True)
        contexts, starts, kinds = numpy.unique(grams // self.vocabulary, return_index=True, return_counts=True)
        totals = numpy.add.reduceat(counts, starts)
        return grams, counts, contexts, totals, kinds

    def losses(self, ids: numpy.ndarray) -> dict[str, numpy.ndarray]:
        """Nats a token from the third on, under the unigram and the interpolated trigram."""
        lower = self.counts[ids[2:]]
        result = {"unigram": -numpy.log(lower)}
        for order in (2, 3):
            grams, counts, contexts, totals, kinds = self.orders[order]
            keys = self.keys(ids, order)[3 - order :]
            seen = look_up(grams, counts, keys)
            total = look_up(contexts, totals, keys // self.vocabulary)
            kind = look_up(contexts, kinds, keys // self.vocabulary)
            weight = numpy.where(total > 0, kind / numpy.maximum(total + kind, 1), 1.0)
            lower = numpy.where(total > 0, seen / numpy.maximum(total + kind, 1), 0.0) + weight * lower
        return {**result, "trigram": -numpy.log(lower)}


def look_up(keys: numpy.ndarray, values: numpy.ndarray, wanted: numpy.ndarray) -> numpy.ndarray:
    """The value of each wanted key in the sorted `keys`, 0 where it is missing."""
    place = numpy.minimum(numpy.searchsorted(keys, wanted), len(keys) - 1)
    return numpy.where(keys[place] == wanted, values[place], 0)


@torch.no_grad()
def text_losses(model, ids: numpy.ndarray, bos: int, length: int = 127) -> numpy.ndarray:
    """Nats a token, from the third on, in windows of `length` tokens that each start anew after BOS."""
    padded = torch.nn.functional.pad(torch.from_numpy(ids), (0, -len(ids) % length), value=-100).reshape(-1, length)
    losses = []
    for rows in padded.split(64):
        inputs = torch.cat([torch.full((len(rows), 1), bos), rows[:, :-1].clamp(min=0)], dim=1)
        logits = model(inputs).logits
        losses.append(cross_entropy(logits.transpose(1, 2), rows, reduction="none").flatten())
    return torch.cat(losses).numpy()[2 : len(ids)]


def score_text(model, tokenizer, text: Text, training: numpy.ndarray) -> dict:
    """Mean loss on held-out text beside the two baselines, on the same tokens: one row a file and the mean."""
    ngrams = Ngrams(training, model.config.vocab_size)
    files, sums, tokens = {}, numpy.zeros(3), 0
    for name, held_out in text.held_out.items():
        ids = token_ids(tokenizer, [held_out])
        base = ngrams.losses(ids)
        row = numpy.array([text_losses(model, ids, tokenizer.bos_token_id).sum(), base["unigram"].sum(), base["trigram"].sum()])
        files[name] = {"tokens": len(ids) - 2, **dict(zip(("model", "unigram", "trigram"), row / (len(ids) - 2), strict=True))}
        sums, tokens = sums + row, tokens + len(ids) - 2
    return {"tokens": tokens, **dict(zip(("model", "unigram", "trigram"), sums / tokens, strict=True)), "files": files}


def score(directory: Path, text: Text, table: dict) -> dict:
    """Every figure of the model card, from the exported bfloat16 weights run in float32."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    training = token_ids(tokenizer, text.train)
    pool, bos = common_tokens(training, model.config.vocab_size), tokenizer.bos_token_id
    ordinary = torch.from_numpy(token_ids(tokenizer, [max(text.held_out.values(), key=len)])[: 40 * 100])
    windows = torch.cat([torch.full((40, 1), bos), ordinary.reshape(40, 100)], dim=1)
    prefix, previous = prefix_matching(model, pool, bos), previous_token(model, windows)
    layer, head = divmod(int(prefix.argmax()), prefix.shape[1])
    feeds = previous[:layer] if layer else previous[:1]
    before = divmod(int(feeds.argmax()), prefix.shape[1])
    scores = {
        "repeats": repeat_losses(model, pool, bos),
        "heads": {
            "induction": [layer, head],
            "prefix_matching": prefix[layer, head].item(),
            "previous_token_head": list(before),
            "previous_token": feeds.max().item(),
            "prefix_matching_all": prefix.tolist(),
            "previous_token_all": previous.tolist(),
        },
        "facts": score_facts(model, tokenizer, table),
        "held_out": score_text(model, tokenizer, text, training),
    }
    return {key: rounded(value) for key, value in scores.items()}


def rounded(value):
    """The same structure with every float to four decimals."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(float(value), 4) if isinstance(value, float | numpy.floating) else value


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the bundled model reached, as JSON.")
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face directory of the model")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of *.txt files that it was trained on")
    parser.add_argument("--facts", type=Path, required=True, help="table of facts")
    options = parser.parse_args()
    try:
        print(json.dumps(score(options.model, read_text(options.corpus), read_facts(options.facts)), indent=1))
    except (OSError, ValueError) as error:
        raise SystemExit(f"mini_score: {error}") from None


if __name__ == "__main__":
    main()
