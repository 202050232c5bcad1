"""Time and memory of finding every neuron's triggers in a text, against the model's own forward over that text.

    python experiments/benchmarks/triggers.py [--json] [--text book.txt ...] [--tokens 1000000] [--model mini]

Without `--text` the text is random tokens. Piece by piece the same prompts go through the forward with logits (`forward`),
the forward without unembedding (`no_logits`) and `circuits.find_triggers`, in one run, so that drift of a shared machine
cancels; all that `find_triggers` does besides, from setting up to the result, counts as its time. Memory is the growth of
the process's resident set while `find_triggers` alone reads the first pieces (its peak), and over the whole run (at the end
of each piece).
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import circuits
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.tasks.sources.corpus import read_text, text_rows
from experiments.benchmarks.measure import seconds_of

PIECE = 128
"""Prompts of a piece."""


def resident(kind: str = "VmRSS") -> int:
    """Bytes of the process in memory now (VmRSS), or at most since the mark was last reset (VmHWM)."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(kind)), 0)


def read_rows(model: Model, files: list[Path], tokens: int) -> TokenBatch:
    """Prompts of at least so many tokens of text, from files one after another, or of random tokens."""
    width = min(128, model.max_positions or 128)
    if not files:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(model.d_vocab, (-(-tokens // (width - 1)), width), generator=generator)
        bos = model.bos_id
        ids[:, 0] = ids[:, 0] if bos is None else bos
        return TokenBatch.unpadded(ids)
    text = "\n".join(read_text(path) for path in files)
    return text_rows(model, text, width=width, limit=tokens + width)


def measure(model: Model, rows: TokenBatch, batch: int, top: int) -> dict[str, float]:
    """Seconds of all three, ratios, and bytes."""
    pieces = [rows[start : start + PIECE] for start in range(0, len(rows), PIECE)]

    def plain(piece: TokenBatch, logits: bool) -> None:
        for start in range(0, len(piece), batch):
            forward(model.weights, model.prepare(piece[start : start + batch]), keep="logits", logits=logits)

    peak = peak_of(lambda: circuits.find_triggers(model, pieces[:8], top=top, batch=batch))
    found: dict[str, list[float]] = {"forward": [], "no_logits": [], "find_triggers": [], "resident": []}

    def in_turns() -> Iterator[TokenBatch]:
        for piece in pieces:
            found["forward"].append(seconds_of(lambda piece=piece: plain(piece, True), model.device))
            found["no_logits"].append(seconds_of(lambda piece=piece: plain(piece, False), model.device))
            start = time.perf_counter()
            yield piece
            found["find_triggers"].append(time.perf_counter() - start)
            found["resident"].append(resident())

    with torch.no_grad():
        start = time.perf_counter()
        triggers = circuits.find_triggers(model, in_turns(), top=top, batch=batch)
        whole = time.perf_counter() - start
    forward_seconds, light_seconds = sum(found["forward"]), sum(found["no_logits"])
    ours = whole - forward_seconds - light_seconds
    by_piece = [ours / plain for ours, plain in zip(found["find_triggers"], found["forward"], strict=True)]
    return {
        "tokens": triggers.count,
        "neurons": len(triggers.layers),
        "forward_seconds": forward_seconds,
        "no_logits_seconds": light_seconds,
        "find_triggers_seconds": ours,
        "ratio": ours / forward_seconds,
        "ratio_median_piece": statistics.median(by_piece),
        "ratio_to_no_logits": ours / light_seconds,
        "peak_growth_bytes": peak,
        "run_growth_bytes": max(found["resident"]) - found["resident"][0],
        "result_bytes": sum(t.nbytes for t in vars(triggers.highest).values()),
    }


def peak_of(function) -> int:
    """By how many bytes the resident set grows at most while a function runs; 0 where the system does not tell."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return 0
    reset.write_text("5", encoding="ascii")
    before = resident()
    function()
    return resident("VmHWM") - before


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--text", type=Path, nargs="*", default=[], help="text files, read one after another")
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--top", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    model = circuits.load_model(options.model, device=options.device)
    numbers = measure(model, read_rows(model, options.text, options.tokens), options.batch, options.top)
    if options.json:
        print(json.dumps({name: float(f"{value:.5g}") for name, value in numbers.items()}))
        return
    print(f"{model.name}: {numbers['tokens']:,} tokens, {numbers['neurons']:,} neurons, {torch.get_num_threads()} threads")
    for name in ("forward", "no_logits", "find_triggers"):
        print(f"  {name:<16}{numbers[f'{name}_seconds']:>9.1f} s")
    print(f"  find_triggers / forward       {numbers['ratio']:.2f}× (median piece {numbers['ratio_median_piece']:.2f}×)")
    print(f"  find_triggers / no_logits     {numbers['ratio_to_no_logits']:.2f}×")
    print(f"  resident growth: peak {numbers['peak_growth_bytes'] / 2**20:.0f} MiB, ", end="")
    print(f"from first to last piece {numbers['run_growth_bytes'] / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
