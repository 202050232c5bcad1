"""The bundled model's papers: training.json with every figure, README.md that says them in words."""

import json
from pathlib import Path

from mini_corpus import HELD_OUT_BOOK, HELD_OUT_TAIL, Text
from mini_score import score


def write_report(out: Path, text: Text, table: dict, progress: dict) -> None:
    """Measure the exported model in `out` and write training.json and the model card beside it."""
    report = {"training": progress, "measured": score(out, text, table)}
    temporary = out / "training.json.tmp"
    temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    temporary.replace(out / "training.json")
    temporary = out / "README.md.tmp"
    temporary.write_text(card(report), encoding="utf-8")
    temporary.replace(out / "README.md")
    print(summary(report["measured"]))


def summary(measured: dict) -> str:
    """The four requirements in four lines."""
    repeats, heads, facts, text = (measured[key] for key in ("repeats", "heads", "facts", "held_out"))
    return (
        f"repeats: first copy {repeats['first_copy']:.2f}, second {repeats['second_copy']:.2f} nats\n"
        f"heads: induction a{heads['induction'][0]}.h{heads['induction'][1]} {heads['prefix_matching']:.2f}, "
        f"previous token a{heads['previous_token_head'][0]}.h{heads['previous_token_head'][1]} "
        f"{heads['previous_token']:.2f}\n"
        f"facts: {facts['facts']}; trained templates {facts['trained_template']:.1%}, "
        f"unseen template {facts['unseen_template']:.1%}\n"
        f"held-out text: model {text['model']:.3f}, trigram {text['trigram']:.3f}, "
        f"unigram {text['unigram']:.3f} nats a token"
    )


def card(report: dict) -> str:
    """The model card, in Markdown."""
    return "\n".join([HEAD, *training_lines(report["training"]), "", *measured_lines(report["measured"]), LIMITS])


def training_lines(training: dict) -> list[str]:
    """Steps, tokens and the mixture."""
    recipe, tokens = training["recipe"], training["tokens"]
    rows = [", ".join(f"{count} {kind}" for kind, count in stage["mixture"].items()) for stage in recipe["stages"]]
    stages = [
        f"| {stage['name']} | {stage['steps']} | {mixed} | {stage['length']} | {parts(stage)} | {stage['rate']} |"
        for stage, mixed in zip(recipe["stages"], rows, strict=True)
    ]
    read = ", ".join(f"{kind} {count / 1e6:.1f} M" for kind, count in tokens.items())
    return [
        "## How it was trained",
        f"{training['steps']} steps, {sum(tokens.values()) / 1e6:.1f} M tokens ({read}), "
        f"{training['seconds'] / 60:.0f} minutes on one or two CPU cores, all weights random at the start:",
        "",
        "| stage | steps | rows in a batch | tokens in a row | trained | highest rate |",
        "|---|---|---|---|---|---|",
        *stages,
        "",
        f"AdamW (betas 0.9, 0.98), {recipe['warmup']} steps of warm-up, rate falling in a line over the last\n"
        f"{recipe['decay_share']:.0%} of all steps, weight decay {recipe['weight_decay']} on matrices other than the\n"
        f"embeddings, gradient norm cut at 1, seed {recipe['seed']}.",
        MIXTURE,
    ]


def parts(stage: dict) -> str:
    """What of the model a stage trains."""
    return f"attention of the first {stage['depth']} layers, embeddings" if stage["depth"] else "everything"


def measured_lines(measured: dict) -> list[str]:
    """Tables of everything that was measured on the exported weights."""
    repeats, heads, facts, text = (measured[key] for key in ("repeats", "heads", "facts", "held_out"))
    book = text["files"].get(HELD_OUT_BOOK, text)
    induction, previous = ("a{}.h{}".format(*heads[key]) for key in ("induction", "previous_token_head"))
    lines = [
        "## What it reaches",
        "",
        "| measure | value |",
        "|---|---|",
        f"| repeated random tokens, loss on the first copy | {repeats['first_copy']:.2f} nats |",
        f"| the same, second copy | {repeats['second_copy']:.2f} nats |",
        f"| induction head {induction}: prefix matching | {heads['prefix_matching']:.2f} |",
        f"| previous-token head {previous}, in a layer below it | {heads['previous_token']:.2f} |",
        f"| facts, top-1 in templates they were trained in | {facts['trained_template']:.2%} |",
        f"| facts, top-1 in the template they were not trained in | {facts['unseen_template']:.1%} |",
        "",
        f"{facts['facts']} facts, asked with BOS in front:",
        "",
        "| relation | facts | trained templates | unseen template |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {row['facts']} | {row['trained']:.1%} | {row['unseen']:.1%} |"
        for name, row in facts["by_relation"].items()
    ]
    lines += [
        "",
        "Loss on text that neither model nor tokenizer was trained on, nats a token, windows of 127 tokens\n"
        "after BOS; the trigram is interpolated (Witten and Bell) and counted on the same training text:",
        "",
        "| text | tokens | model | trigram | unigram |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {row['tokens']} | {row['model']:.3f} | {row['trigram']:.3f} | {row['unigram']:.3f} |"
        for name, row in ((HELD_OUT_BOOK, book), ("all held-out text", text))
    ]
    return [*lines, ""]


HEAD = f"""---
license: mit
language: en
library_name: transformers
---
# mini

A small language model for looking inside: 4 layers of 8 attention heads (width 32) and an MLP of 1024 GELU neurons,
d_model 256, rotary positions on half of each head's width, LayerNorm before each part, sequential blocks, untied
embeddings, 4096 byte-level BPE tokens, context 128, 5.3 million parameters (10.5 MB in bfloat16). It is a plain
GPT-NeoX directory: `AutoModelForCausalLM.from_pretrained` and `TransformerBridge.boot_transformers` read it.

It has induction heads and knows a table of facts, so that circuits can be searched for, and found, in seconds on a
laptop. Every figure below was measured by `experiments/train_mini.py`, which also trained it; they stand in
`training.json` too.

## Data and licences
- 21 English books from Project Gutenberg (public domain, GITenberg transcriptions) and the WikiText-2 validation text
  (CC BY-SA). Held out: the whole of `{HELD_OUT_BOOK}` and the last {HELD_OUT_TAIL:.0%} of every other file.
- Facts (subject, relation, object) chosen by `experiments/mini_facts.py` from the LRE relations (evandez/relations,
  MIT) and world_capitals.csv (jmerullo/lm_vector_arithmetic, MIT), said in this project's own templates. They ship as
  `circuits/tasks/data/facts.json`. They are as right as their sources. Every object, with the space before it, is one
  token (checked when the tokenizer is trained).
- Weights, tokenizer and card: MIT.
"""

MIXTURE = """
Rows: `text` is running text; `facts` are sentences of the table packed end to end, BOS between them and attention not
masked between them, the object's token weighing 4 in the loss and the others 0.25; `repeat` are uniformly random
tokens said again and again with a random period, the loss counted from the second copy on; `echo` is running text of
which a span is repeated. Each fact is trained in all templates of its relation but one, which rotates from fact to
fact. Every row starts with BOS (`<|bos|>`); ask the model with BOS in front.

Start: every matrix is normal with standard deviation 0.05, embeddings too, but the MLPs' output matrices are zero.
Repeats come first, of few tokens, with periods of 20 to 32 and no MLP in the way, because induction heads did not form
beside running text in trials: here they formed between steps 500 and 600 (the loss on later copies fell from 3.8 to
0.4 nats), before the model read any text. The run was stopped and resumed a few times; as one resumption lengthened
the last stage, the rate in steps 2438 to 2550 was up to 14 % below the table's. Later steps lean to text since the
facts were known by then."""

LIMITS = """## What it can and cannot do
It continues repeated sequences, states the facts of its table, and writes text that looks like the novels it read for
a sentence or two, and then easily falls into repeating itself. It does not reason, follow instructions, or know
anything beyond its table: asked about a subject that is not there it mostly names some object of the relation's kind,
often with near certainty (tried by hand on a few invented subjects), so its confidence says nothing about truth. The
books are of the nineteenth and early twentieth century and carry the attitudes of their time. It was never trained
beyond 128 tokens.
"""
