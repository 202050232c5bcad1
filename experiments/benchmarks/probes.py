"""Time and memory of probing every residual stream of a model, against its own plain forward over the same words.

    python experiments/benchmarks/probes.py --model DIRECTORY --data FILE.conllu [--words 25000] [--property upos] [--json]

In one run, so that drift of a shared machine cancels as far as it can: piece by piece the same sentences go through Hugging
Face's forward with all logits (`forward`), without unembedding (`no_logits`) and through `circuits.probes.storing`, which
writes the vectors of all words at all residual streams to disk (`extraction`); then the probes of all places are fitted to
what lies there, the penalty chosen among five (`fitting`; with a control task and codelength: `with_controls`). Seconds of
the clock and of the processor; memory is the growth of the resident set at most while everything is extracted once more
(`--peak`).
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import circuits
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.probes import activations
from circuits.probes.fitting import judge_place
from circuits.probes.question import Question
from circuits.probes.reading import WordBatch, WordText
from circuits.tasks import read_conllu
from experiments.benchmarks.triggers import peak_of

PIECES, TOKENS = 6, 1024
"""Into how many pieces the text is cut, and how many tokens a batch of Hugging Face's has."""


class Clock:
    """Seconds by name, of the clock and of the processor."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, name: str, function: Callable[[], Any]) -> Any:
        """Call a function, and add what it takes."""
        wall, cpu = time.perf_counter(), time.process_time()
        found = function()
        for kind, taken in (("", time.perf_counter() - wall), ("_cpu", time.process_time() - cpu)):
            self.seconds[f"{name}{kind}"] = self.seconds.get(f"{name}{kind}", 0.0) + taken
        return found


def measure(model: Model, plain: Any, text: WordText, name: str, *, peak: bool, fits: int | None) -> dict[str, float]:
    """All figures. `fits`: probe so many places alone, evenly chosen."""
    clock, _ = Clock(), model.fingerprint  # which is made once a model, not once a text
    numbers = {"words": len(text.places), "tokens": text.tokens}
    with tempfile.TemporaryDirectory(prefix="circuits-") as folder:
        for piece in range(PIECES):
            part = text.only(list(range(piece, len(text.aligned), PIECES)))
            clock.time("forward", lambda part=part: _plain(plain, part, model.device))
            clock.time("no_logits", lambda part=part: _plain(plain.base_model, part, model.device))
            clock.time("extraction", lambda part=part: _extract(model, part))
        with activations(model, text, folder=folder) as read:
            numbers["bytes_on_disk"] = read.nbytes
            question = Question.of(text, name)
            names = list(read.names)
            names = names[:: max(1, len(names) // fits)] if fits else names
            for site in names:
                x = clock.time("fitting", lambda site=site: read.of(site))
                clock.time("fitting", lambda x=x: judge_place(x, question.asked, controls=False, codelength=False))
                clock.time("with_controls", lambda x=x: judge_place(x, question.asked))
    numbers["places"] = len(names)
    return {**numbers, **clock.seconds, **({"peak_growth_bytes": peak_of(lambda: _extract(model, text))} if peak else {})}


@torch.no_grad()
def _plain(plain: Any, text: WordText, device: torch.device) -> None:
    """Hugging Face's forward over a text, sentences of similar length side by side."""
    for numbers in text.batches(TOKENS):
        tokens = WordBatch.of(text, numbers, device).tokens
        plain(tokens.ids, attention_mask=tokens.mask.long(), use_cache=False)


def _extract(model: Model, text: WordText) -> None:
    with activations(model, text):
        pass


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a Hugging Face directory")
    parser.add_argument("--data", required=True, type=Path, help="annotated sentences, CoNLL-U")
    parser.add_argument("--words", type=int, default=25_000)
    parser.add_argument("--property", default="upos")
    parser.add_argument("--fits", type=int, help="probe so many places alone")
    parser.add_argument("--peak", action="store_true", help="extract once more, and look at memory")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(options.threads)
    model = circuits.load_model(options.model)
    plain = AutoModelForCausalLM.from_pretrained(options.model)
    text = WordText.of(model, read_conllu(options.data), words=options.words)
    found = measure(model, plain, text, options.property, peak=options.peak, fits=options.fits)
    if options.json:
        print(json.dumps({name: float(f"{value:.5g}") for name, value in found.items()}))
        return
    print(f"{model.name}: {found['words']:,} words, {found['tokens']:,} tokens, {torch.get_num_threads()} threads")
    for name in ("forward", "no_logits", "extraction", "fitting", "with_controls"):
        print(f"  {name:<14}{found[name]:>8.1f} s   processor {found[f'{name}_cpu']:>8.1f} s")
    for kind in ("", "_cpu"):
        ratios = [found[f"extraction{kind}"] / found[f"{other}{kind}"] for other in ("forward", "no_logits")]
        said = "processor" if kind else "clock"
        share = len(model.weights.blocks) + 1
        fitted = found[f"fitting{kind}"] / found[f"extraction{kind}"] * share / found["places"]
        print(f"  {said}: extraction / forward {ratios[0]:.2f}, / no_logits {ratios[1]:.2f}; fitting / extraction {fitted:.2f}")
    print(f"  on disk {found['bytes_on_disk'] / 2**20:,.0f} MiB", end="")
    grown = found.get("peak_growth_bytes")
    print("" if grown is None else f"; resident growth {grown / 2**20:,.0f} MiB, budget {BUDGET / 2**20:,.0f} MiB")


if __name__ == "__main__":
    main()
